//! In which order the controller looks at the details of a field after its overviews.

use super::LoopSettings;
use super::strategies::{WANTED, raster};
use crate::frame::grid_centre;
use crate::simulate::Microscope;
use ferrostem_proto::{Candidate, CandidateKind, PixelPosition, ResultMessage};

/// What is looked at lies at least so far inside its detail, nm: the specimen drifts on between overview and detail.
const MARGIN_NM: f64 = 0.6;

/// The details of the raster, each with what overviews say of it. Hardly a place is looked at twice, and what no overview shows is
/// found at the latest when all of them have been taken, unless a detail was moved off it.
pub(super) struct Plan {
    details: Vec<Detail>,
}

/// Where to take a detail, and the candidate that led there.
pub(super) struct Stop {
    pub center_nm: [f64; 2],
    pub candidate: Option<Lead>,
}

/// What a candidate of an overview says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lead {
    pub id: u64,
    pub kind: CandidateKind,
    score: f64,
    at_nm: [f64; 2],
}

/// One square of the raster.
struct Detail {
    center_nm: [f64; 2],
    side_nm: f64,
    /// The best candidate of each kind of [`WANTED`].
    leads: [Option<Lead>; WANTED.len()],
    /// The smallest p-value of a window in it, in negative decades.
    decades: f64,
}

impl Plan {
    pub fn new(settings: &LoopSettings) -> Self {
        let side_nm = settings.inner_nm(settings.detail_pm);
        let detail = |center_nm| Detail { center_nm, side_nm, leads: [None; WANTED.len()], decades: 0.0 };
        Self { details: raster(settings, settings.detail_pm).into_iter().map(detail).collect() }
    }

    /// Takes in what an overview says.
    pub fn learn(&mut self, scan: &Microscope, result: &ResultMessage) {
        for candidate in &result.candidates {
            let Some(kind) = WANTED.iter().position(|kind| *kind == candidate.kind) else { continue };
            let lead = Lead::of(candidate, scan);
            let detail = self.details.iter_mut().find(|detail| detail.shows(lead.at_nm));
            if let Some(best) = detail.and_then(|detail| detail.leads.get_mut(kind))
                && best.is_none_or(|best| lead.score > best.score)
            {
                *best = Some(lead);
            }
        }
        let grid = &result.grid;
        for (index, &p_value) in result.ood.p_value.values().iter().enumerate() {
            let (i, j) = (index / grid.cols as usize, index % grid.cols as usize);
            let PixelPosition { row, col } = grid_centre(grid, i, j);
            let at_nm = scan.pixel_to_specimen_nm(row, col);
            let decades = -f64::from(p_value).log10();
            let detail = self.details.iter_mut().find(|detail| detail.shows(at_nm));
            if let Some(detail) = detail.filter(|_| p_value > 0.0) {
                detail.decades = detail.decades.max(decades);
            }
        }
    }

    /// The best detail of each kind in turn, so that what scores high by its kind does not keep the others waiting; those
    /// without a candidate by their smallest p-value, among those that are out of distribution.
    pub fn into_stops(self) -> Vec<Stop> {
        let mut stops = Vec::new();
        for (kind, _) in WANTED.iter().enumerate() {
            let mut ranked: Vec<(f64, &Detail)> =
                self.details.iter().filter_map(|detail| Some((detail.promise(kind)?, detail))).collect();
            ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
            stops.extend(ranked.into_iter().enumerate().map(|(rank, (_, detail))| (rank, detail, kind)));
        }
        stops.sort_by_key(|(rank, _, kind)| (*rank, *kind));
        let mut taken: Vec<[f64; 2]> = Vec::new();
        let mut first = |detail: &Detail| {
            let new = !taken.contains(&detail.center_nm);
            taken.push(detail.center_nm);
            new
        };
        stops.retain(|(_, detail, _)| first(detail));
        stops.into_iter().map(|(_, detail, kind)| detail.stop(kind)).collect()
    }
}

impl Lead {
    fn of(candidate: &Candidate, scan: &Microscope) -> Self {
        let at_nm = scan.pixel_to_specimen_nm(candidate.px.row, candidate.px.col);
        Self { id: candidate.id, kind: candidate.kind, score: candidate.score, at_nm }
    }
}

impl Detail {
    fn shows(&self, at_nm: [f64; 2]) -> bool {
        (0..2).all(|axis| (at_nm[axis] - self.center_nm[axis]).abs() <= 0.5 * self.side_nm)
    }

    /// What speaks for a look at it because of a kind of candidates. Of what is out of distribution every detail may hold some.
    fn promise(&self, kind: usize) -> Option<f64> {
        let lead = self.leads.get(kind).copied().flatten().map(|lead| lead.score);
        if WANTED.get(kind) == Some(&CandidateKind::Ood) {
            return Some(lead.unwrap_or(0.0).max(self.decades));
        }
        lead
    }

    /// The detail, moved by as much as its candidate needs to lie inside it; without one it is not, so that nothing is left out.
    fn stop(&self, kind: usize) -> Stop {
        let candidate = self.leads.get(kind).copied().flatten();
        let reach = 0.5 * self.side_nm - MARGIN_NM.min(0.5 * self.side_nm);
        let center_nm = [0, 1].map(|axis| {
            let center = self.center_nm[axis];
            candidate.map_or(center, |lead| center.clamp(lead.at_nm[axis] - reach, lead.at_nm[axis] + reach))
        });
        Stop { center_nm, candidate }
    }
}
