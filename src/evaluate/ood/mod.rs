//! Out-of-distribution windows: how well scores tell simulated anomalies from what the network was trained on, and whether the
//! p-values keep their promise at every dose, pixel size and rotation.
//!
//! Strange are the windows whose centre lies on the anomaly: within half a cell edge of a changed column or of a boundary, within a
//! region, within 200 pm of a damaged row. Usual are all windows of frames without anomaly at the same dose, and those of the same
//! frame with nothing but the undisturbed host within 1.2 nm. What is neither counts for nothing.
//!
//! Strange windows that hold pixels that were not measured, or pass for it, have no p-value (NaN on the wire, and no flag): the tables say
//! what part of them, and rank the others.

mod anomalies;
mod curves;
mod promise;
mod scores;
#[cfg(test)]
mod tests;

pub use anomalies::{Anomaly, Mark, MarkedFrame, marked_frame};
pub use curves::{Ranking, ranking};
pub use promise::{ALPHAS, promise};
pub use scores::{SCORES, Scores, UsualWindows};

use super::EvaluateError;
use super::table::{Entry, Table};
use super::windows::at_dose;
use crate::config::InvalidSetting;
use crate::frame::grid_centre;
use crate::pipeline::{Analyzer, Observed};
use crate::simulate::TrainingRanges;
use ferrostem_proto::PixelPosition;
use serde::{Deserialize, Serialize};

/// What is judged, and on how much.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OodStudySettings {
    pub seed: u64,
    /// What usual frames show; without, what the model was trained on.
    pub scenes: Option<TrainingRanges>,
    /// Side of a frame, px at 15 pm.
    pub side_px: usize,
    /// Frames of each anomaly.
    pub frames: usize,
    /// Usual frames at each dose.
    pub usual_frames: usize,
    /// Usual frames, at any dose, that neighbours and heads are fitted to.
    pub fitted_frames: usize,
    /// Counts at the peak of an A column; vacancies are looked for at the lower dose too.
    pub counts: f64,
    pub low_counts: f64,
    /// Frames of each row of the promise, and its rows.
    pub promise_frames: usize,
    pub promise_counts: Vec<f64>,
    pub pixel_sizes_pm: Vec<f64>,
    pub rotations: usize,
}

impl Default for OodStudySettings {
    fn default() -> Self {
        Self {
            seed: 20_261_127,
            scenes: None,
            side_px: 256,
            frames: 24,
            usual_frames: 60,
            fitted_frames: 60,
            counts: 100.0,
            low_counts: 30.0,
            promise_frames: 40,
            promise_counts: vec![10.0, 30.0, 100.0, 300.0, 1000.0, 2000.0],
            pixel_sizes_pm: vec![7.0, 10.0, 15.0, 20.0, 30.0, 36.0],
            rotations: 6,
        }
    }
}

impl OodStudySettings {
    /// A few frames of everything.
    pub fn quick(self) -> Self {
        Self {
            frames: 3,
            usual_frames: 6,
            fitted_frames: 8,
            promise_frames: 4,
            promise_counts: vec![30.0, 300.0],
            pixel_sizes_pm: vec![10.0, 20.0],
            rotations: 1,
            ..self
        }
    }

    /// With so many frames of each anomaly, and as many more of the others.
    pub fn with_frames(self, frames: usize) -> Self {
        Self {
            frames,
            usual_frames: 5 * frames / 2,
            fitted_frames: (5 * frames / 2).max(8),
            promise_frames: (5 * frames / 3).max(2),
            ..self
        }
    }

    /// # Errors
    /// For the first value out of range; the error names it after `key_prefix`.
    pub fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let key = |name: &str| format!("{key_prefix}{name}");
        if !(200..=2048).contains(&self.side_px) {
            return Err(InvalidSetting::new(key("side_px"), self.side_px, "200 to 2048 px"));
        }
        let counts = [
            ("frames", self.frames),
            ("usual_frames", self.usual_frames),
            ("fitted_frames", self.fitted_frames),
            ("promise_frames", self.promise_frames),
        ];
        for (name, count) in counts {
            if !(1..=10_000).contains(&count) {
                return Err(InvalidSetting::new(key(name), count, "1 to 10000"));
            }
        }
        let doses = self.promise_counts.iter().chain([&self.counts, &self.low_counts]);
        if let Some(counts) = doses.into_iter().find(|counts| !(**counts >= 1.0 && **counts <= 1e6)) {
            return Err(InvalidSetting::new(key("counts"), counts, "1 to 1000000"));
        }
        if let Some(pixel) = self.pixel_sizes_pm.iter().find(|pixel| !(**pixel >= 3.0 && **pixel <= 60.0)) {
            return Err(InvalidSetting::new(key("pixel_sizes_pm"), pixel, "3 to 60 pm"));
        }
        self.scenes.as_ref().map_or(Ok(()), |scenes| scenes.validate(&key("scenes")))
    }

    /// Frames that [`study`] processes.
    pub fn processed(&self) -> usize {
        let rows = self.promise_counts.len() + self.pixel_sizes_pm.len() + self.rotations;
        self.fitted_frames
            + 2 * self.usual_frames
            + (Anomaly::ALL.len() + LOW_DOSE.len()) * self.frames
            + rows * self.promise_frames
    }
}

/// Anomalies that are looked for at the lower dose too.
const LOW_DOSE: [Anomaly; 2] = [Anomaly::VacancyA, Anomaly::VacancyB];
/// Where series of frames begin.
const USUAL_FRAMES: usize = 1_000_000;
const ANOMALOUS_FRAMES: usize = 100_000;

/// Scores of windows, one list a score.
type Columns = [Vec<f64>; SCORES.len()];

/// Tables by name: areas under ROC and precision–recall curves and false positives at 95 % recall of every score on every anomaly,
/// and the promise of the p-values. `each` is called after every frame.
///
/// # Errors
/// When no DCNN with feature statistics is loaded, or a frame cannot be simulated or processed.
pub fn study(
    analyzer: &Analyzer,
    settings: &OodStudySettings,
    mut each: impl FnMut(),
) -> Result<Vec<(&'static str, Table)>, EvaluateError> {
    let statistics = analyzer.engine().feature_statistics().ok_or(EvaluateError::NoStatistics)?;
    let scenes = scenes(analyzer, settings)?;
    let mut usual = UsualWindows::default();
    for index in 0..settings.fitted_frames {
        let marked = marked_frame(None, &scenes, settings.side_px, settings.seed, index)?;
        let observed = analyzer.observe(marked.frame.clone())?;
        usual.add(&observed, &marked.truth, marked.pixel_sizes_pm);
        each();
    }
    let bench = Bench { analyzer, settings, scores: Scores::fit(statistics, &usual, settings.seed)? };
    let mut tables = Summaries::new(settings);
    let high = Anomaly::ALL.map(|anomaly| (anomaly, settings.counts));
    let low = LOW_DOSE.map(|anomaly| (anomaly, settings.low_counts));
    let doses: [(f64, &[(Anomaly, f64)]); 2] = [(settings.counts, &high), (settings.low_counts, &low)];
    for (counts, anomalies) in doses {
        let ranges = at_dose(&scenes, counts)?;
        let [_, usual] = bench.windows(None, &ranges, settings.usual_frames, &mut each)?;
        for &(anomaly, counts) in anomalies {
            let [strange, own] = bench.windows(Some(anomaly), &ranges, settings.frames, &mut each)?;
            tables.add(anomaly.name(), counts, &strange, [&usual, &own]);
        }
    }
    let promise = promise(analyzer, statistics, (settings, &scenes), each)?;
    let [auroc, aupr, fpr] = tables.tables;
    Ok(vec![("ood", auroc), ("ood_aupr", aupr), ("ood_fpr", fpr), ("ood_promise", promise)])
}

/// What usual frames show.
fn scenes(analyzer: &Analyzer, settings: &OodStudySettings) -> Result<TrainingRanges, EvaluateError> {
    let manifest = analyzer.engine().dcnn_manifest().ok_or(EvaluateError::NoDcnn)?;
    let trained = manifest.training.config.get("scenes").cloned();
    let trained = trained.and_then(|scenes| scenes.try_into::<TrainingRanges>().ok());
    Ok(settings.scenes.clone().or(trained).unwrap_or_default())
}

struct Bench<'a> {
    analyzer: &'a Analyzer,
    settings: &'a OodStudySettings,
    scores: Scores<'a>,
}

impl Bench<'_> {
    /// Scores of the strange and the usual windows of frames with an anomaly, or without.
    fn windows(
        &self,
        anomaly: Option<Anomaly>,
        ranges: &TrainingRanges,
        frames: usize,
        each: &mut impl FnMut(),
    ) -> Result<[Columns; 2], EvaluateError> {
        let OodStudySettings { side_px, seed, .. } = *self.settings;
        let first = anomaly.map_or(USUAL_FRAMES, |anomaly| (anomaly as usize + 1) * ANOMALOUS_FRAMES / 10);
        let mut columns: [Columns; 2] = Default::default();
        for index in 0..frames {
            let marked = marked_frame(anomaly, ranges, side_px, seed, first + index)?;
            let observed = self.analyzer.observe(marked.frame.clone())?;
            sort(&marked, &observed, &self.scores.of(&observed), &mut columns);
            each();
        }
        Ok(columns)
    }
}

/// Appends the scores of strange windows to the first columns, those of usual ones to the second.
fn sort(marked: &MarkedFrame, observed: &Observed, scores: &[ndarray::Array2<f32>], to: &mut [Columns; 2]) {
    let grid = &observed.grid;
    for (i, j) in (0..grid.rows as usize).flat_map(|i| (0..grid.cols as usize).map(move |j| (i, j))) {
        let PixelPosition { row, col } = grid_centre(grid, i, j);
        let [strange, usual] = &mut *to;
        let columns = match marked.mark(row, col) {
            Mark::Strange => strange,
            Mark::Usual => usual,
            Mark::Neither => continue,
        };
        for (column, score) in columns.iter_mut().zip(scores) {
            column.extend(score.get((i, j)).map(|&score| f64::from(score)));
        }
    }
}

/// The three tables while they grow.
struct Summaries {
    tables: [Table; 3],
}

impl Summaries {
    fn new(settings: &OodStudySettings) -> Self {
        let titles = [
            "Area under the ROC curve of each score: the probability that a window which sees the anomaly scores higher than a usual one.",
            "Area under the precision–recall curve of each score; chance is the share of strange windows among all.",
            "Usual windows (%) that score as high as the upper 95 % of the strange ones, of each score.",
        ];
        let titles = titles.map(|title| {
            format!("{title} {} frames of {} px an anomaly.", settings.frames, settings.side_px)
        });
        let mut headings =
            vec![("anomaly", 0), ("counts", 0), ("strange", 0), ("not evaluated (%)", 0), ("usual", 0)];
        headings.extend(SCORES.map(|score| (score, 3)));
        let tables = titles.map(|title| Table::new(title, &headings));
        Self { tables }
    }

    fn add(&mut self, name: &str, counts: f64, strange: &Columns, usual: [&Columns; 2]) {
        let finite = |column: &[f64]| column.iter().filter(|score| score.is_finite()).count();
        let [elsewhere, own] = usual;
        let known = [finite(&strange[0]), finite(&elsewhere[0]) + finite(&own[0])];
        // Windows that see the anomaly and of which nothing is said: those with pixels that pass for not measured.
        let left_out = 100.0 * (strange[0].len() - known[0]) as f64 / strange[0].len() as f64;
        let rankings: Vec<Ranking> = strange
            .iter()
            .zip(elsewhere.iter().zip(own))
            .map(|(strange, (elsewhere, own))| ranking(strange, &[elsewhere.as_slice(), own].concat()))
            .collect();
        let pick: [fn(&Ranking) -> f64; 3] = [|r| r.auroc, |r| r.aupr, |r| 100.0 * r.fpr_at_95];
        for (table, pick) in self.tables.iter_mut().zip(pick) {
            let mut row: Vec<Entry> =
                vec![name.into(), counts.into(), known[0].into(), left_out.into(), known[1].into()];
            row.extend(rankings.iter().map(|ranking| Entry::from(pick(ranking))));
            table.push(row);
        }
    }
}
