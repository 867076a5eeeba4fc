//! What the live view shows, as plain values.

use ferrostem_proto::{Candidate, Counters, Grid, GridSpec, ModelIds, ResultMessage, StatusMessage};

/// Bins of the |P| histogram; the last one holds everything beyond.
pub const HISTOGRAM_BINS: usize = 12;
pub const HISTOGRAM_BIN_PM: f32 = 5.0;

/// Everything that the live view shows. Empty strings and `None` are shown as "not known".
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ViewState {
    pub acquisition: String,
    /// Of the newest result.
    pub seq: Option<u64>,
    pub frame_rate_hz: f64,
    /// From frame received to result published.
    pub latency_p50_ms: f64,
    pub latency_p99_ms: f64,
    pub counters: Counters,
    /// Microseconds by stage, in the order of the flow.
    pub stages_us: Vec<(String, u64)>,
    pub polarization: Option<PolarizationSummary>,
    pub map: DirectionMap,
    /// Flagged share of the windows evaluated, 0..1.
    pub ood_fraction: Option<f64>,
    /// Mistilt tiles by state as on the wire: not evaluated, consistent, suspect, undetermined.
    pub tiles: [usize; 4],
    /// Best first.
    pub candidates: Vec<Candidate>,
    pub device: String,
    pub models: String,
    /// Path of the session being recorded.
    pub recording: Option<String>,
    /// What the controller does, such as where it steers.
    pub controller: String,
    /// The newest log line.
    pub log: String,
}

/// The field P on its windows, for the map of directions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DirectionMap {
    /// Window centres in frame pixels.
    pub grid: GridSpec,
    /// pm, NaN = not measured; both of the same shape.
    pub p_x: Grid<f32>,
    pub p_y: Grid<f32>,
}

/// P over the windows where it was measured, pm.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PolarizationSummary {
    pub measured: usize,
    pub windows: usize,
    pub mean_x: f32,
    pub mean_y: f32,
    /// Standard deviations over the windows.
    pub std_x: f32,
    pub std_y: f32,
    pub mean_length: f32,
    /// Windows by |P| in bins of [`HISTOGRAM_BIN_PM`].
    pub histogram: [u64; HISTOGRAM_BINS],
}

impl ViewState {
    /// Takes over what a result says; frame rate and latency come from [`Self::observe_status`] or the caller.
    pub fn observe(&mut self, result: &ResultMessage) {
        self.acquisition.clone_from(&result.acquisition);
        self.seq = Some(result.seq);
        self.counters = result.counters;
        self.stages_us.clone_from(&result.timing.stages_us);
        self.polarization = PolarizationSummary::of(result.p_x.values(), result.p_y.values());
        self.map = DirectionMap { grid: result.grid, p_x: result.p_x.clone(), p_y: result.p_y.clone() };
        self.ood_fraction = ood_fraction(result);
        self.tiles = [0; 4];
        for state in result.mistilt.state.values() {
            // A state that this version does not know counts as not evaluated.
            let known = if *state < 4 { usize::from(*state) } else { 0 };
            self.tiles[known] += 1;
        }
        self.candidates.clone_from(&result.candidates);
        self.models = model_names(&result.model);
    }

    /// Takes over what a heartbeat says.
    pub fn observe_status(&mut self, status: &StatusMessage) {
        self.frame_rate_hz = status.frame_rate_hz;
        self.latency_p50_ms = status.latency_p50_us as f64 / 1000.0;
        self.latency_p99_ms = status.latency_p99_us as f64 / 1000.0;
        self.counters = status.counters;
        self.device.clone_from(&status.device);
        self.models = model_names(&status.model);
        self.recording.clone_from(&status.recording);
    }
}

impl PolarizationSummary {
    /// `None` where nothing was measured.
    pub fn of(p_x: &[f32], p_y: &[f32]) -> Option<Self> {
        let vectors: Vec<(f32, f32)> = p_x
            .iter()
            .zip(p_y)
            .map(|(x, y)| (*x, *y))
            .filter(|(x, y)| x.is_finite() && y.is_finite())
            .collect();
        let measured = vectors.len();
        if measured == 0 {
            return None;
        }
        let mean = |of: &dyn Fn(&(f32, f32)) -> f64| vectors.iter().map(of).sum::<f64>() / measured as f64;
        let (mean_x, mean_y) = (mean(&|v| f64::from(v.0)), mean(&|v| f64::from(v.1)));
        let mut histogram = [0; HISTOGRAM_BINS];
        for (x, y) in &vectors {
            let bin = (x.hypot(*y) / HISTOGRAM_BIN_PM) as usize;
            histogram[bin.min(HISTOGRAM_BINS - 1)] += 1;
        }
        Some(Self {
            measured,
            windows: p_x.len(),
            mean_x: mean_x as f32,
            mean_y: mean_y as f32,
            std_x: mean(&|v| (f64::from(v.0) - mean_x).powi(2)).sqrt() as f32,
            std_y: mean(&|v| (f64::from(v.1) - mean_y).powi(2)).sqrt() as f32,
            mean_length: mean(&|v| f64::from(v.0.hypot(v.1))) as f32,
            histogram,
        })
    }
}

/// Over the windows that have a p-value.
fn ood_fraction(result: &ResultMessage) -> Option<f64> {
    let windows = result.ood.p_value.values().iter().zip(result.ood.flag.values());
    let (evaluated, flagged) = windows
        .filter(|(p_value, _)| !p_value.is_nan())
        .fold((0usize, 0usize), |(n, flagged), (_, flag)| (n + 1, flagged + usize::from(*flag != 0)));
    (evaluated > 0).then(|| flagged as f64 / evaluated as f64)
}

fn model_names(models: &ModelIds) -> String {
    let names = [&models.dcnn, &models.fcnn].into_iter().flatten().map(|model| model.name.as_str());
    names.collect::<Vec<_>>().join(" + ")
}
