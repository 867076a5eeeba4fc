//! The three ways to search, over the same simulated microscope and the same pipeline.

use super::field::Field;
use super::plan::{Plan, Stop};
use super::{BORDER_NM, Curve, LoopSettings, REPORTED_NM};
use crate::evaluate::EvaluateError;
use crate::ingest::SourceSettings;
use crate::ingest::validate::validate;
use crate::pipeline::Analyzer;
use crate::simulate::{Beam, Microscope};
use ferrostem_proto::control::Verdict;
use ferrostem_proto::{Candidate, CandidateKind, FrameMessage, ResultMessage};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

/// Who chooses the next frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Overviews in turn, then details, those that their candidates point at first.
    Candidates,
    /// Details in turn.
    Raster,
    /// Details anywhere.
    Random,
}

impl Strategy {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Candidates => "candidates",
            Self::Raster => "raster",
            Self::Random => "random",
        }
    }
}

/// Kinds of candidates that the controller goes to: walls are everywhere, and are not what it looks for.
pub(super) const WANTED: [CandidateKind; 3] =
    [CandidateKind::Ood, CandidateKind::Column, CandidateKind::Vortex];

/// One search of the field.
pub(super) struct Search<'a> {
    field: &'a Field,
    settings: &'a LoopSettings,
    analyzer: Analyzer,
    beam: Beam,
    frames: usize,
    scanned_s: f64,
    found_in: Vec<Option<usize>>,
    reported_in: Vec<Option<usize>>,
    pub seen_in_overview: Vec<bool>,
    details: usize,
    hits: usize,
}

impl<'a> Search<'a> {
    pub fn new(field: &'a Field, settings: &'a LoopSettings, analyzer: Analyzer) -> Self {
        let count = field.planted.len();
        Self {
            field,
            settings,
            analyzer,
            beam: Beam::new(&field.scene),
            frames: 0,
            scanned_s: 0.0,
            found_in: vec![None; count],
            reported_in: vec![None; count],
            seen_in_overview: vec![false; count],
            details: 0,
            hits: 0,
        }
    }

    /// Searches until the frames are used up or everything is found: details in turn, or where the pipeline's candidates lead.
    pub fn run(&mut self, strategy: Strategy, each: &mut impl FnMut()) -> Result<(), EvaluateError> {
        if strategy == Strategy::Candidates {
            return self.follow(each);
        }
        for center_nm in raster(self.settings, self.settings.detail_pm) {
            if self.is_over() {
                break;
            }
            self.detail(center_nm)?;
            each();
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.frames >= self.settings.budget() || self.found_in.iter().all(Option::is_some)
    }

    /// The controller: overviews of the whole field, then its details in the order of what the overviews promise, see [`Plan`].
    fn follow(&mut self, each: &mut impl FnMut()) -> Result<(), EvaluateError> {
        let mut plan = Plan::new(self.settings);
        for center_nm in raster(self.settings, self.settings.overview_pm) {
            if self.is_over() {
                return Ok(());
            }
            let scan = self.field.scan(center_nm, self.settings.overview_pm);
            plan.learn(&scan, &self.overview(&scan)?);
            each();
        }
        for Stop { center_nm, candidate } in plan.into_stops() {
            if self.is_over() {
                break;
            }
            let result = self.detail(center_nm)?;
            if let Some(candidate) = candidate {
                // It is there if the detail says so too.
                let confirmed = result.candidates.iter().any(|found| found.kind == candidate.kind);
                let verdict = if confirmed { Verdict::Done } else { Verdict::Rejected };
                self.analyzer.acknowledge(candidate.id, verdict);
            }
            each();
        }
        Ok(())
    }

    fn overview(&mut self, scan: &Microscope) -> Result<ResultMessage, EvaluateError> {
        let (seen, result) = self.acquire(scan)?;
        for (planted, found) in self.field.planted.iter().zip(&mut self.seen_in_overview) {
            *found |= reports(&result.candidates, &seen, planted.at_nm);
        }
        Ok(result)
    }

    fn detail(&mut self, center_nm: [f64; 2]) -> Result<ResultMessage, EvaluateError> {
        let (seen, result) = self.acquire(&self.field.scan(center_nm, self.settings.detail_pm))?;
        let mut hit = false;
        let records = self.found_in.iter_mut().zip(&mut self.reported_in);
        for (planted, (found, reported)) in self.field.planted.iter().zip(records) {
            if shows(&seen, planted.at_nm) {
                hit = true;
                found.get_or_insert(self.frames);
                if reports(&result.candidates, &seen, planted.at_nm) {
                    reported.get_or_insert(self.frames);
                }
            }
        }
        self.details += 1;
        self.hits += usize::from(hit);
        Ok(result)
    }

    /// Scans a frame and sends it through the pipeline; returns the scan as it lay on the drifting specimen.
    fn acquire(&mut self, scan: &Microscope) -> Result<(Microscope, ResultMessage), EvaluateError> {
        let refused = |error: String| EvaluateError::Frame(error);
        let scanned = self.beam.scan(scan).map_err(|error| refused(error.to_string()))?;
        self.scanned_s += scanned.duration_s;
        let message = FrameMessage {
            seq: self.frames as u64,
            acquisition: Some("loop".to_owned()),
            // From some time on, as a clock would say.
            t_end_ns: Some(1_000_000_000 + (self.scanned_s * 1e9) as u64),
            ..scanned.message
        };
        self.frames += 1;
        let source = SourceSettings { name: "simulator".to_owned(), ..SourceSettings::default() };
        let frame = validate(message, &source, "simulator", 0).map_err(|error| refused(error.to_string()))?;
        Ok((scanned.seen, self.analyzer.analyze(Arc::new(frame))?))
    }

    pub fn into_curve(self, strategy: Strategy) -> Curve {
        let counted = |frames_of: &[Option<usize>]| -> Vec<f64> {
            (1..=self.settings.budget())
                .map(|frame| frames_of.iter().flatten().filter(|&&found| found <= frame).count() as f64)
                .collect()
        };
        Curve {
            strategy,
            found: counted(&self.found_in),
            reported: counted(&self.reported_in),
            found_in: self.found_in,
            reported_in: self.reported_in,
            details: self.details,
            hits: self.hits,
        }
    }
}

/// Whether a frame shows a place of the specimen where it can be measured.
fn shows(seen: &Microscope, at_nm: [f64; 2]) -> bool {
    let px = seen.specimen_nm_to_pixel(at_nm);
    let sizes_pm = seen.pixel_sizes_pm();
    (0..2).all(|axis| {
        let border_px = 1000.0 * BORDER_NM / sizes_pm[axis];
        (border_px - 0.5..=seen.shape[axis] as f64 - 0.5 - border_px).contains(&px[axis])
    })
}

/// Whether a candidate lies near enough.
fn reports(candidates: &[Candidate], seen: &Microscope, at_nm: [f64; 2]) -> bool {
    let [row, col] = seen.specimen_nm_to_pixel(at_nm);
    let [row_pm, col_pm] = seen.pixel_sizes_pm();
    candidates.iter().filter(|candidate| WANTED.contains(&candidate.kind)).any(|candidate| {
        let down = (candidate.px.row - row) * row_pm;
        let right = (candidate.px.col - col) * col_pm;
        down.hypot(right) <= 1000.0 * REPORTED_NM
    })
}

/// Centres `[y, x]` of the frames that show the whole field, line by line, there and back.
pub(super) fn raster(settings: &LoopSettings, pixel_pm: f64) -> Vec<[f64; 2]> {
    let side = settings.raster_side(pixel_pm);
    // Spread evenly: they overlap a little where the field is no multiple of a frame.
    let at = |index: usize| ((index as f64 + 0.5) / side as f64 - 0.5) * settings.field_nm;
    (0..side)
        .flat_map(|line| (0..side).map(move |n| [at(line), at(if line % 2 == 0 { n } else { side - 1 - n })]))
        .collect()
}

/// Centres of random frames, each wholly of use; `run` tells searches apart.
fn random_places(settings: &LoopSettings, run: u64) -> Vec<[f64; 2]> {
    let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
    rng.set_stream(1 + run);
    let reach = (0.5 * (settings.field_nm - settings.inner_nm(settings.detail_pm))).max(1e-9);
    (0..settings.budget()).map(|_| [0, 1].map(|_| rng.random_range(-reach..reach))).collect()
}

/// Defects that random searches find after each frame: their mean, and the fewest and the most. The specimen rests.
pub(super) fn random_average(field: &Field, settings: &LoopSettings) -> (Curve, Vec<[f64; 2]>) {
    let (budget, runs) = (settings.budget(), settings.random_runs.max(1));
    let (mut mean, mut spread) = (vec![0.0; budget], vec![[f64::INFINITY, 0.0]; budget]);
    let mut hits = 0;
    for run in 0..runs {
        let mut found = vec![false; field.planted.len()];
        let records = mean.iter_mut().zip(&mut spread);
        for (center_nm, (mean, spread)) in random_places(settings, run as u64).into_iter().zip(records) {
            let seen = field.scan(center_nm, settings.detail_pm);
            let mut hit = false;
            for (planted, found) in field.planted.iter().zip(&mut found) {
                let shown = shows(&seen, planted.at_nm);
                hit |= shown;
                *found |= shown;
            }
            hits += usize::from(hit);
            let count = found.iter().filter(|found| **found).count() as f64;
            *mean += count / runs as f64;
            *spread = [spread[0].min(count), spread[1].max(count)];
        }
    }
    let curve = Curve {
        strategy: Strategy::Random,
        found: mean,
        reported: Vec::new(),
        found_in: Vec::new(),
        reported_in: Vec::new(),
        details: budget * runs,
        hits,
    };
    (curve, spread)
}
