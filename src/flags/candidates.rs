//! From flags to a short ranked list of sites for the controller.

use super::Evidence;
use super::geometry::{grid_centre, locate};
use super::mistilt::{MistiltMap, TileState};
use super::ood::OodEvidence;
use super::walls::WallPoint;
use crate::config::InvalidSetting;
use crate::frame::Sublattice;
use crate::networks::DCNN_OUTPUTS;
use ferrostem_proto::{CandidateKind, FractionalPosition, PixelPosition, StagePosition};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

/// How many sites, and how far apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CandidateSettings {
    /// At most this many sites a frame.
    pub max_sites: usize,
    /// At most this many of one kind, so that ten candidates are not one wall.
    pub max_per_kind: usize,
    /// Sites nearer to each other than this are one, nm.
    pub separation_nm: f64,
    /// An out-of-distribution region needs this many neighbouring windows.
    pub min_ood_windows: usize,
}

impl Default for CandidateSettings {
    fn default() -> Self {
        Self { max_sites: 10, max_per_kind: 4, separation_nm: 1.0, min_ood_windows: 2 }
    }
}

impl CandidateSettings {
    pub(super) fn validate(&self, prefix: &str) -> Result<(), InvalidSetting> {
        for (key, value) in [("max_sites", self.max_sites), ("max_per_kind", self.max_per_kind)] {
            if !(1..=1000).contains(&value) {
                return Err(InvalidSetting::new(format!("{prefix}.{key}"), value, "1 to 1000"));
            }
        }
        if !(0.0..=1e4).contains(&self.separation_nm) {
            return Err(InvalidSetting::new(
                format!("{prefix}.separation_nm"),
                self.separation_nm,
                "0 to 10000",
            ));
        }
        if self.min_ood_windows == 0 {
            return Err(InvalidSetting::new(format!("{prefix}.min_ood_windows"), 0, "at least 1"));
        }
        Ok(())
    }
}

/// A candidate before it has an identity.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    pub kind: CandidateKind,
    pub px: PixelPosition,
    pub frac: FractionalPosition,
    pub nm: StagePosition,
    /// Decades of surprise: the negative decimal logarithm of the p-value, or what stands for it.
    pub score: f64,
    /// NaN where the kind has no test behind it.
    pub p_value: f64,
    pub reason: String,
}

/// Score of a wall that turns P by half a turn; smaller turns score less.
const WALL_SCORE: f64 = 2.0;
/// Score of an A or B column without its neighbours.
const COLUMN_SCORE: f64 = 1.5;

pub(super) fn rank(
    evidence: &Evidence<'_>,
    ood: &OodEvidence,
    mistilt: &MistiltMap,
    walls: &[WallPoint],
    settings: &CandidateSettings,
) -> Vec<Site> {
    let mut sites = ood_sites(evidence, ood, settings);
    sites.extend(mistilt_sites(evidence, mistilt));
    sites.extend(wall_sites(evidence, walls));
    sites.extend(column_sites(evidence));
    sites.sort_by(|a, b| b.score.total_cmp(&a.score));
    suppress(sites, evidence, settings)
}

/// What makes a place a site, before it is located.
struct Finding {
    kind: CandidateKind,
    px: PixelPosition,
    score: f64,
    p_value: f64,
    reason: String,
}

impl Finding {
    fn located(self, evidence: &Evidence<'_>) -> Site {
        let Self { kind, px, score, p_value, reason } = self;
        let (frac, nm) = locate(px, evidence.frame, evidence.calibration);
        Site { kind, px, frac, nm, score, p_value, reason }
    }
}

/// Keeps the best site of every neighbourhood, and not too many of a kind.
fn suppress(sites: Vec<Site>, evidence: &Evidence<'_>, settings: &CandidateSettings) -> Vec<Site> {
    let [row_pm, col_pm] = evidence.calibration.pixel_size_pm;
    let mut kept: Vec<Site> = Vec::new();
    for site in sites {
        if kept.len() == settings.max_sites {
            break;
        }
        let near = |other: &Site| {
            let down = (other.px.row - site.px.row) * row_pm;
            let right = (other.px.col - site.px.col) * col_pm;
            down.hypot(right) < settings.separation_nm * 1000.0
        };
        let of_kind = kept.iter().filter(|other| other.kind == site.kind).count();
        if of_kind < settings.max_per_kind && !kept.iter().any(near) {
            kept.push(site);
        }
    }
    kept
}

/// One site per region of flagged windows, at its strangest window.
fn ood_sites(evidence: &Evidence<'_>, ood: &OodEvidence, settings: &CandidateSettings) -> Vec<Site> {
    regions(&ood.flag)
        .into_iter()
        .filter(|region| region.len() >= settings.min_ood_windows)
        .filter_map(|region| {
            let strangeness = |at: &[usize; 2]| f64::from(ood.excess.get(*at).copied().unwrap_or(f32::NAN));
            let peak = *region.iter().max_by(|a, b| strangeness(a).total_cmp(&strangeness(b)))?;
            let p_value = f64::from(*ood.p_value.get(peak)?);
            let excess = strangeness(&peak);
            let outside = ood.out_of_range.get(peak).copied().flatten();
            let decades = if p_value > 0.0 { -p_value.log10() } else { 0.0 };
            // The p-value cannot fall below one over the calibration's size; beyond it the distance itself ranks.
            let score = decades + excess.max(1.0).log10() + if outside.is_some() { 1.0 } else { 0.0 };
            let mut reason = format!(
                "{} windows; features {excess:.1} times the 99.9 % distance (p = {p_value:.1e})",
                region.len()
            );
            if let Some(name) = outside.and_then(|index| DCNN_OUTPUTS.get(usize::from(index))) {
                reason.push_str(&format!("; {name} outside the trained range"));
            }
            let px = grid_centre(&evidence.fields.grid, peak[0], peak[1]);
            Some(Finding { kind: CandidateKind::Ood, px, score, p_value, reason }.located(evidence))
        })
        .collect()
}

/// 8-connected regions of set flags.
fn regions(flags: &Array2<u8>) -> Vec<Vec<[usize; 2]>> {
    let (rows, cols) = flags.dim();
    let mut seen = Array2::from_elem((rows, cols), false);
    let mut found = Vec::new();
    for start in flags.indexed_iter().filter(|(_, flag)| **flag != 0).map(|((i, j), _)| [i, j]) {
        if seen[start] {
            continue;
        }
        seen[start] = true;
        let (mut region, mut open) = (Vec::new(), vec![start]);
        while let Some([i, j]) = open.pop() {
            region.push([i, j]);
            for row in i.saturating_sub(1)..(i + 2).min(rows) {
                for col in j.saturating_sub(1)..(j + 2).min(cols) {
                    if flags[[row, col]] != 0 && !seen[[row, col]] {
                        seen[[row, col]] = true;
                        open.push([row, col]);
                    }
                }
            }
        }
        found.push(region);
    }
    found
}

fn mistilt_sites(evidence: &Evidence<'_>, mistilt: &MistiltMap) -> Vec<Site> {
    mistilt
        .verdicts
        .indexed_iter()
        .filter(|(_, verdict)| verdict.state == TileState::Suspect)
        .map(|((i, j), verdict)| {
            let reason = format!(
                "offset of ({:.1}, {:.1}) pm common to all domains (p = {:.1e})",
                verdict.offset_x, verdict.offset_y, verdict.p_value
            );
            // Tiny p-values of large tiles would drown everything else.
            let score = (-verdict.p_value.max(1e-4).log10()).max(0.0);
            let px = grid_centre(&mistilt.tiles, i, j);
            Finding { kind: CandidateKind::Mistilt, px, score, p_value: verdict.p_value, reason }
                .located(evidence)
        })
        .collect()
}

fn wall_sites(evidence: &Evidence<'_>, walls: &[WallPoint]) -> Vec<Site> {
    walls
        .iter()
        .map(|wall| {
            let degrees = wall.turn_rad.to_degrees();
            let reason = format!(
                "P turns by {degrees:.0}° across {:.0} pm ({:.1} sigma)",
                wall.jump_pm, wall.significance
            );
            let certainty = 1.0 - (-wall.significance / 4.0).exp();
            let score = WALL_SCORE * wall.turn_rad / std::f64::consts::PI * certainty;
            Finding { kind: CandidateKind::DomainWall, px: wall.px, score, p_value: f64::NAN, reason }
                .located(evidence)
        })
        .collect()
}

/// B columns away from the border that lack their four A neighbours.
fn column_sites(evidence: &Evidence<'_>) -> Vec<Site> {
    let Some(columns) = &evidence.fields.columns else { return Vec::new() };
    let (rows, cols) = evidence.frame.pixels.dim();
    evidence
        .fields
        .incomplete
        .iter()
        .filter_map(|&index| columns.get(index))
        .filter(|column| column.sublattice == Sublattice::B)
        .filter(|column| {
            // A cell and a half from the border, in pixels, so that missing neighbours are missing in the specimen.
            let [row_px, col_px] = evidence.calibration.pixel_size_pm.map(|pm| 600.0 / pm);
            (row_px..rows as f64 - row_px).contains(&column.row)
                && (col_px..cols as f64 - col_px).contains(&column.col)
        })
        .map(|column| {
            let px = PixelPosition { row: column.row, col: column.col };
            let reason = "B column without four A neighbours around it".to_owned();
            let score = COLUMN_SCORE * f64::from(column.confidence);
            Finding { kind: CandidateKind::Column, px, score, p_value: f64::NAN, reason }.located(evidence)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_eight_connected() {
        let flags =
            Array2::from_shape_vec((3, 5), vec![1, 0, 0, 0, 1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0]).unwrap();
        let mut sizes: Vec<usize> = regions(&flags).iter().map(Vec::len).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [2, 2]);
    }
}
