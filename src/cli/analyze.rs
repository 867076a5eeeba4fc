//! `ferrostem analyze`: all stages on files, without sockets.

use super::{progress, say};
use crate::config::Config;
use crate::figure;
use crate::ingest::SourceSettings;
use crate::pipeline::{Analyzer, now_ns};
use crate::session::{RecordSettings, Recorder, SessionHeader};
use anyhow::Context as _;
use clap::Args;
use ferrostem_proto::ResultMessage;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Debug, Args)]
pub(super) struct AnalyzeArgs {
    #[command(flatten)]
    input: super::FileArgs,
    /// Pixel size; overrides the file's. Without either it is estimated from the lattice.
    #[arg(long, value_name = "PM")]
    pixel_size_pm: Option<f64>,
    /// Material: its lattice parameter calibrates, its symmetry judges mistilt.
    #[arg(long)]
    material: Option<String>,
    /// Session file to write.
    #[arg(long, value_name = "FILE.h5")]
    out: Option<PathBuf>,
    /// Folder for pictures of each frame.
    #[arg(long, value_name = "DIR")]
    png: Option<PathBuf>,
    #[command(flatten)]
    models: super::ModelArgs,
    /// Feed the networks the file's own pixels.
    #[arg(long)]
    native_scale: bool,
    /// Run the DCNN window by window.
    #[arg(long)]
    exact_windows: bool,
    /// One JSON line a frame.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: super::ConfigArgs,
}

impl AnalyzeArgs {
    fn config(&self) -> anyhow::Result<Config> {
        let mut config = self.config.load()?;
        if let Some(material) = &self.material {
            config.material.clone_from(material);
        }
        self.models.override_in(&mut config);
        config.models.exact_windows |= self.exact_windows;
        config.preprocess.native_scale |= self.native_scale;
        config.validate()?;
        Ok(config)
    }
}

pub(super) fn analyze(args: &AnalyzeArgs) -> anyhow::Result<()> {
    let config = args.config()?;
    let mut reader = args.input.open()?;
    let source = config.sources.first().cloned().unwrap_or_default();
    let mut analyzer = Analyzer::new(&config)?;
    let mut recorder = match &args.out {
        None => None,
        Some(path) => {
            let header = SessionHeader {
                config_toml: config.to_toml()?,
                models: analyzer.engine().model_ids(),
                created_ns: now_ns(),
            };
            Some(Recorder::create(path, &RecordSettings::default(), &header)?)
        }
    };
    let stem = args.input.stem();
    let source = SourceSettings { acquisition: stem.clone(), ..source };
    let frames = reader.len();
    let bar = progress(frames as u64, args.json || frames < 2);
    for index in 0..frames {
        let frame = reader
            .frame(index)?
            .into_frame(&source, args.pixel_size_pm, now_ns())
            .with_context(|| format!("{}, frame {index}", args.input.file.display()))?;
        let frame = Arc::new(frame);
        let mut result = analyzer
            .analyze(Arc::clone(&frame))
            .with_context(|| format!("{}, frame {index}", args.input.file.display()))?;
        result.timing.t_published_ns = now_ns();
        if let Some(recorder) = &mut recorder {
            recorder.frame(&frame)?;
            recorder.result(&result)?;
        }
        if let Some(folder) = &args.png {
            let name = if frames == 1 { stem.clone() } else { format!("{stem}_{index:04}") };
            figure::write_all(folder, &name, &frame.pixels, &result)?;
        }
        let summary = summary(&result);
        bar.suspend(|| if args.json { say(&summary) } else { say(sentence(&result, &summary)) })?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    if let Some(recorder) = recorder {
        recorder.finish()?;
    }
    Ok(())
}

/// Mean and standard deviation of what was measured.
fn moments(values: &[f32]) -> (f64, f64, usize) {
    let finite: Vec<f64> = values.iter().filter(|v| v.is_finite()).map(|&v| f64::from(v)).collect();
    let n = finite.len().max(1) as f64;
    let mean = finite.iter().sum::<f64>() / n;
    let variance = finite.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    (mean, variance.sqrt(), finite.len())
}

fn summary(result: &ResultMessage) -> Value {
    let of = |values: &[f32]| {
        let (mean, std, measured) = moments(values);
        if measured == 0 { Value::Null } else { json!({ "mean": mean, "std": std }) }
    };
    let (.., measured) = moments(result.p_x.values());
    let flagged = result.ood.flag.values().iter().filter(|&&flag| flag != 0).count();
    json!({
        "acquisition": result.acquisition,
        "seq": result.seq,
        "calibration": result.calibration,
        "windows": result.p_x.values().len(),
        "measured": measured,
        "p_x": of(result.p_x.values()),
        "p_y": of(result.p_y.values()),
        "p_sigma": of(result.p_sigma.values()),
        "cell_a": of(result.cell_a.values()),
        "cell_b": of(result.cell_b.values()),
        "ood_flagged": flagged,
        "columns": result.columns.row.len(),
        "mistilt_states": result.mistilt.state.values(),
        "candidates": result.candidates,
        "stages_us": result.timing.stages_us.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
    })
}

fn sentence(result: &ResultMessage, summary: &Value) -> String {
    let (p_x, p_x_std, measured) = moments(result.p_x.values());
    let (p_y, p_y_std, _) = moments(result.p_y.values());
    let (a, ..) = moments(result.cell_a.values());
    let (b, ..) = moments(result.cell_b.values());
    let [row_pm, col_pm] = result.calibration.pixel_size_pm;
    let field = if measured == 0 {
        "no window measured".to_owned()
    } else {
        format!(
            "P = ({p_x:.1} ± {p_x_std:.1}, {p_y:.1} ± {p_y_std:.1}) pm, cell {a:.1} x {b:.1} pm over {measured} windows, \
             {} flagged",
            summary["ood_flagged"]
        )
    };
    format!(
        "{} frame {}: pixel {row_pm:.3} x {col_pm:.3} pm ({:?}), {field}, {} columns, {} candidates",
        result.acquisition,
        result.seq,
        result.calibration.source,
        result.columns.row.len(),
        result.candidates.len(),
    )
}
