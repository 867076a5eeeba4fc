//! What is computed from a frame, stage by stage and without threads.

use super::result::{self, Finished};
use crate::columns::{ColumnError, ColumnSettings, find_columns, refine_columns};
use crate::config::{Config, InvalidSetting};
use crate::flags::tracker::{Sighting, Tracker};
use crate::flags::{self, Evidence, FlagSettings, Reference};
use crate::frame::{Fields, Frame, PolarizationMaps};
use crate::ingest::PixelSize;
use crate::material::Material;
use crate::networks::{Engine, Manifest, NetworkError, Sampling};
use crate::polarization::{ClassicalField, ClassicalSettings, measure_cells};
use crate::preprocess::{
    CalibrationHints, ModelInput, PixelMap, PreparedFrame, PreprocessError, PreprocessSettings, Windows,
    estimate_lattice, prepare,
};
use ferrostem_proto::control::Verdict;
use ferrostem_proto::{Calibration, CalibrationSource, GridSpec, ModelIds, ResultMessage};
use ndarray::{Array3, Axis, Zip};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// A frame that could not be processed, or settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Preprocess(#[from] PreprocessError),
    #[error(transparent)]
    Columns(#[from] ColumnError),
}

/// Settings of the stages, as of one moment.
#[derive(Debug, Clone)]
pub struct Stages {
    pub preprocess: PreprocessSettings,
    pub columns: ColumnSettings,
    pub polarization: ClassicalSettings,
    pub flags: FlagSettings,
    material: Material,
    /// The config's pixel size by source.
    pixel_sizes_pm: HashMap<String, [f64; 2]>,
}

impl Stages {
    /// # Errors
    /// When the material cannot be loaded.
    pub fn new(config: &Config) -> Result<Self, InvalidSetting> {
        let pixel_sizes_pm = config
            .sources
            .iter()
            .filter_map(|source| Some((source.name.clone(), source.pixel_size_pm.map(PixelSize::row_col)?)))
            .collect();
        Ok(Self {
            preprocess: config.preprocess.clone(),
            columns: config.columns.clone(),
            polarization: config.polarization.clone(),
            flags: config.flags.clone(),
            material: config.material()?,
            pixel_sizes_pm,
        })
    }

    /// What the flags compare a frame with, given the loaded networks.
    pub fn reference(&self, engine: &Engine) -> Reference {
        Reference {
            material: self.material.clone(),
            features: engine.feature_statistics().cloned(),
            outputs: engine.dcnn_manifest().map(|manifest| manifest.outputs.clone()).unwrap_or_default(),
        }
    }
}

/// What the loaded networks want to be fed: at most one input each.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Inputs {
    dcnn: Option<ModelInput>,
    fcnn: Option<ModelInput>,
}

impl Inputs {
    pub fn of(engine: &Engine) -> Self {
        let input = |manifest: &Manifest, window_px| ModelInput {
            pixel_size_pm: manifest.input.pixel_size_pm,
            normalisation: manifest.input.normalisation,
            multiple_of: 1,
            window_px,
        };
        Self {
            dcnn: engine.dcnn_manifest().map(|manifest| input(manifest, engine.window_px())),
            fcnn: engine.fcnn_manifest().map(|manifest| input(manifest, None)),
        }
    }
}

/// A frame ready for the networks.
#[derive(Debug)]
pub struct Prepared {
    frame: Arc<Frame>,
    dcnn: Option<PreparedFrame>,
    fcnn: Option<PreparedFrame>,
    calibration: Calibration,
    lattice_angle_rad: Option<f64>,
    watch: StopWatch,
}

/// What the networks said.
#[derive(Debug)]
pub struct Measured {
    prepared: Prepared,
    maps: Option<PolarizationMaps>,
    probability: Option<Array3<f32>>,
    models: ModelIds,
    /// Of the DCNN, where its manifest says it, pm.
    bias_pm: Option<f64>,
}

/// Microseconds by stage, in the order in which they were taken.
#[derive(Debug)]
pub(super) struct StopWatch {
    last: Instant,
    stages_us: Vec<(String, u64)>,
}

impl StopWatch {
    fn start() -> Self {
        Self { last: Instant::now(), stages_us: Vec::new() }
    }

    /// Takes the time since the last lap as that of `stage`, or of the queue that the frame waited in.
    pub(super) fn lap(&mut self, stage: &str) {
        let now = Instant::now();
        let us = u64::try_from((now - self.last).as_micros()).unwrap_or(u64::MAX);
        self.stages_us.push((stage.to_owned(), us));
        self.last = now;
    }

    pub(super) fn into_laps(self) -> Vec<(String, u64)> {
        self.stages_us
    }
}

/// Calibrates, resamples and normalises a frame for the loaded networks.
///
/// # Errors
/// When the pixel size is not known and cannot be measured, or the frame is too small or too large.
pub fn prepare_frame(frame: Arc<Frame>, inputs: &Inputs, stages: &Stages) -> Result<Prepared, StageError> {
    let mut watch = StopWatch::start();
    let hints = CalibrationHints {
        config_pixel_size_pm: stages.pixel_sizes_pm.get(&frame.source).copied(),
        lattice_a_pm: Some(stages.material.lattice_a_pm),
    };
    let wanted: Vec<ModelInput> = inputs.dcnn.into_iter().chain(inputs.fcnn).collect();
    let mut prepared = prepare(&frame, &wanted, &hints, &stages.preprocess)?.into_iter();
    let dcnn = inputs.dcnn.and_then(|_| prepared.next());
    let fcnn = inputs.fcnn.and_then(|_| prepared.next());
    let mut calibration =
        dcnn.as_ref().or(fcnn.as_ref()).map(|prepared| prepared.calibration.clone()).unwrap_or_default();
    if calibration.source == CalibrationSource::None {
        // Frame pixels were taken as the model's; lengths that follow are then the model's too.
        let model_pm = wanted.first().map_or(f64::NAN, |input| input.pixel_size_pm);
        calibration.pixel_size_pm = [model_pm; 2];
    }
    watch.lap("prepare");
    let lattice_angle_rad = match (&dcnn, stages.material.polar) {
        (Some(prepared), true) => lattice_angle(prepared),
        _ => None,
    };
    watch.lap("lattice");
    Ok(Prepared { frame, dcnn, fcnn, calibration, lattice_angle_rad, watch })
}

/// Direction of the lattice's a edge, counter-clockwise as displayed, from the model's image.
fn lattice_angle(prepared: &PreparedFrame) -> Option<f64> {
    let lattice = estimate_lattice(&prepared.image, &prepared.valid).ok()?;
    let [row, col] = lattice.a_px;
    Some((-row).atan2(col))
}

/// Runs the networks.
///
/// # Errors
/// When the device fails.
pub fn measure(mut prepared: Prepared, engine: &Engine, stages: &Stages) -> Result<Measured, StageError> {
    prepared.watch.lap("wait_compute");
    let maps = match &prepared.dcnn {
        Some(input) => engine.dcnn(&input.image, stages.preprocess.stride_px)?,
        None => None,
    };
    prepared.watch.lap("dcnn");
    let probability = match &prepared.fcnn {
        Some(input) => engine.fcnn(&input.image)?,
        None => None,
    };
    prepared.watch.lap("fcnn");
    let bias_pm = engine.dcnn_manifest().and_then(Manifest::bias_pm);
    Ok(Measured { prepared, maps, probability, models: engine.model_ids(), bias_pm })
}

/// Columns, the classical field, flags and candidates: everything behind the networks.
///
/// # Errors
/// When the FCNN's probabilities do not fit the image.
pub fn finish(
    measured: Measured,
    reference: &Reference,
    stages: &Stages,
    tracker: &mut Tracker,
) -> Result<ResultMessage, StageError> {
    let Measured { prepared, maps, probability, models, bias_pm } = measured;
    let Prepared { frame, dcnn, fcnn, calibration, lattice_angle_rad, mut watch } = prepared;
    watch.lap("wait_finish");
    let windows = dcnn.as_ref().and_then(|input| input.windows.as_ref());
    let maps = maps.zip(windows).map(|(maps, windows)| masked(maps, windows));
    let columns = match (probability, &fcnn) {
        (Some(probability), Some(input)) => {
            let mut columns = find_columns(&probability, &input.valid, &input.map, &stages.columns)?;
            refine_columns(&frame.pixels, &mut columns, &stages.columns);
            Some(columns)
        }
        _ => None,
    };
    watch.lap("columns");
    let classical = columns.as_ref().map_or_else(ClassicalField::default, |columns| {
        measure_cells(columns, calibration.pixel_size_pm, &stages.polarization)
    });
    let fields = Fields {
        grid: windows.map_or_else(GridSpec::default, |windows| windows.plan.grid),
        polarization: maps,
        columns,
        cells: classical.cells,
        incomplete: classical.incomplete,
    };
    watch.lap("polarization");
    let evidence = Evidence { frame: &frame, fields: &fields, calibration: &calibration, lattice_angle_rad };
    let mut settings = stages.flags.clone();
    settings.mistilt.bias_pm =
        settings.mistilt.bias_pm.or(bias_pm.map(|bias| bias.max(flags::mistilt::LEAST_MANIFEST_BIAS_PM)));
    let mut flagged = flags::evaluate(&evidence, reference, &settings);
    let model = models.dcnn.as_ref().or(models.fcnn.as_ref()).map_or("", |model| model.name.as_str());
    let sighting = Sighting { frame: &frame, calibration: &calibration, model, now_ns: super::now_ns() };
    let candidates = tracker.track(std::mem::take(&mut flagged.sites), &sighting);
    watch.lap("flags");
    Ok(result::assemble(
        Finished { frame: &frame, fields: &fields, flagged, candidates, calibration, models },
        watch,
    ))
}

/// Windows that touch too many masked pixels were not measured.
fn masked(mut maps: PolarizationMaps, windows: &Windows) -> PolarizationMaps {
    let quantities = [
        &mut maps.p_x,
        &mut maps.p_y,
        &mut maps.p_sigma,
        &mut maps.cell_a,
        &mut maps.cell_b,
        &mut maps.cell_angle,
        &mut maps.cell_area,
        &mut maps.smoothness,
    ];
    for map in quantities {
        Zip::from(map).and(&windows.valid).for_each(|value, &valid| {
            if !valid {
                *value = f32::NAN;
            }
        });
    }
    Zip::from(maps.features.lanes_mut(Axis(2))).and(&windows.valid).for_each(|mut window, &valid| {
        if !valid {
            window.fill(f32::NAN);
        }
    });
    maps
}

/// What the networks say of a frame, for studies of them.
#[derive(Debug)]
pub struct Observed {
    pub grid: GridSpec,
    pub sampling: Sampling,
    /// NaN where a window was not measured; `None` without a DCNN.
    pub maps: Option<PolarizationMaps>,
    /// The FCNN's probabilities, `[class, row, col]`, and where its pixels are; `None` without an FCNN.
    pub probability: Option<(Array3<f32>, PixelMap)>,
}

/// All stages in one place, one frame at a time: what `analyze` runs.
#[derive(Debug)]
pub struct Analyzer {
    engine: Engine,
    inputs: Inputs,
    stages: Stages,
    reference: Reference,
    tracker: Tracker,
}

impl Analyzer {
    /// Opens the device and loads the networks.
    ///
    /// # Errors
    /// When a model, the device or the material cannot be had.
    pub fn new(config: &Config) -> Result<Self, StageError> {
        let engine = Engine::load(&config.engine()?)?;
        let stages = Stages::new(config)?;
        let inputs = Inputs::of(&engine);
        let reference = stages.reference(&engine);
        let tracker = Tracker::new(stages.flags.tracker);
        Ok(Self { engine, inputs, stages, reference, tracker })
    }

    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What a controller made of a candidate, as on the control lane; whether the candidate is known.
    pub fn acknowledge(&mut self, candidate_id: u64, verdict: Verdict) -> bool {
        self.tracker.acknowledge(candidate_id, verdict)
    }

    /// The networks alone.
    ///
    /// # Errors
    /// When the frame cannot be processed.
    pub fn observe(&self, frame: Arc<Frame>) -> Result<Observed, StageError> {
        let prepared = prepare_frame(frame, &self.inputs, &self.stages)?;
        let Measured { prepared, maps, probability, .. } = measure(prepared, &self.engine, &self.stages)?;
        let windows = prepared.dcnn.as_ref().and_then(|input| input.windows.as_ref());
        let grid = windows.map_or_else(GridSpec::default, |windows| windows.plan.grid);
        Ok(Observed {
            grid,
            sampling: Sampling::of(&grid, prepared.calibration.pixel_size_pm),
            maps: maps.zip(windows).map(|(maps, windows)| masked(maps, windows)),
            probability: probability.zip(prepared.fcnn.as_ref().map(|input| input.map)),
        })
    }

    /// # Errors
    /// When the frame cannot be processed.
    pub fn analyze(&mut self, frame: Arc<Frame>) -> Result<ResultMessage, StageError> {
        let prepared = prepare_frame(frame, &self.inputs, &self.stages)?;
        let measured = measure(prepared, &self.engine, &self.stages)?;
        finish(measured, &self.reference, &self.stages, &mut self.tracker)
    }
}
