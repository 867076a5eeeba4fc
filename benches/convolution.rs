//! A network on the CPU by its own convolutions, by burn's layers, and window by window, on one image in the same run.
//!
//!     cargo bench --bench convolution -- --model configs/models/dcnn-perovskite-100
//!
//! Prints one JSON line: of each way the fewest seconds of the clock and of the processors, and how far its answer is from
//! the first way's. `tools/python/peer_bench.py` runs it beside its peers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench that cannot go on says so"
)]
#![allow(clippy::print_stdout, reason = "what it measured is printed")]

use clap::{Parser, ValueEnum};
use ferrostem::networks::{Architecture, DcnnMaps, DeviceChoice, Engine, EngineSettings, Manifest};
use ndarray::{Array1, Array2, s};
use std::path::PathBuf;
use std::time::Instant;

#[derive(Parser)]
struct Arguments {
    /// Folder of a DCNN or an FCNN.
    #[arg(long)]
    model: PathBuf,
    /// Side of the image.
    #[arg(long, default_value_t = 512)]
    side: usize,
    /// An image as .npy, f32, in place of the bench's own.
    #[arg(long)]
    frame: Option<PathBuf>,
    /// Distance of the windows, px.
    #[arg(long, default_value_t = 8)]
    stride: usize,
    /// Each way so often, after once to warm up; the ways take turns. Windows are run once and not warmed up.
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    #[arg(long, value_delimiter = ',', default_value = "own,burn")]
    ways: Vec<Way>,
    /// Where to write the first way's answer, as .npy.
    #[arg(long)]
    answer: Option<PathBuf>,
    /// What cargo bench adds.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Way {
    /// The CPU's own convolutions, one pass over the image.
    Own,
    /// burn's layers, one pass over the image.
    Burn,
    /// The CPU's own convolutions, each window by itself.
    OwnWindows,
    /// burn's layers, each window by itself, 32 at once.
    BurnWindows,
}

struct Measured {
    way: Way,
    engine: Engine,
    wall_s: f64,
    cpu_s: f64,
    answer: Array1<f32>,
}

fn main() {
    let arguments = Arguments::parse();
    let side = arguments.side;
    let image: Array2<f32> = match &arguments.frame {
        Some(path) => ndarray_npy::read_npy(path).unwrap(),
        None => Array2::from_shape_fn((side, side), |(row, col)| {
            let (row, col) = (row as f32, col as f32);
            let noise = ((row * 12.9898 + col * 78.233).sin() * 43758.547).fract();
            (row * 0.23).sin() * (col * 0.23).sin() + noise * 0.3
        }),
    };
    let mut ways: Vec<Measured> = arguments.ways.iter().map(|&way| load(&arguments, way)).collect();
    for repeat in 0..=arguments.repeats {
        for measured in &mut ways {
            let windows = matches!(measured.way, Way::OwnWindows | Way::BurnWindows);
            if windows && repeat != 1 {
                continue;
            }
            let (start, cpu) = (Instant::now(), cpu_seconds());
            measured.answer = run(measured, &image, arguments.stride);
            let (wall_s, cpu_s) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
            if repeat > 0 {
                measured.wall_s = measured.wall_s.min(wall_s);
                measured.cpu_s = measured.cpu_s.min(cpu_s);
            }
        }
    }
    let first = &ways[0].answer;
    let report: serde_json::Map<_, _> = ways
        .iter()
        .map(|measured| {
            let name = measured.way.to_possible_value().unwrap().get_name().to_owned();
            let difference = difference(first, &measured.answer);
            let (wall_s, cpu_s) = (measured.wall_s, measured.cpu_s);
            (name, serde_json::json!({ "wall_s": wall_s, "cpu_s": cpu_s, "difference": difference }))
        })
        .collect();
    println!("{}", serde_json::Value::from(report));
    if let Some(path) = &arguments.answer {
        ndarray_npy::write_npy(path, first).unwrap();
    }
}

fn load(arguments: &Arguments, way: Way) -> Measured {
    let folder = Some(arguments.model.clone());
    let (dcnn, fcnn) = match Manifest::read(&arguments.model).unwrap().architecture {
        Architecture::Dcnn(_) => (folder, None),
        Architecture::Fcnn(_) => (None, folder),
    };
    let engine = Engine::load(&EngineSettings {
        device: DeviceChoice::Cpu,
        dcnn,
        fcnn,
        exact_windows: way == Way::BurnWindows,
        burn_layers: matches!(way, Way::Burn | Way::BurnWindows),
    });
    let (wall_s, cpu_s) = (f64::INFINITY, f64::INFINITY);
    Measured { way, engine: engine.unwrap(), wall_s, cpu_s, answer: Array1::default(0) }
}

/// P_x and behind it P_y, pm, or the probabilities of an FCNN.
fn run(measured: &Measured, image: &Array2<f32>, stride: usize) -> Array1<f32> {
    let engine = &measured.engine;
    let Some(window) = engine.window_px() else {
        return Array1::from_iter(engine.fcnn(image).unwrap().unwrap());
    };
    let values = |maps: DcnnMaps| Array1::from_iter(maps.p_x.into_iter().chain(maps.p_y));
    if measured.way != Way::OwnWindows {
        return values(engine.dcnn(image, stride).unwrap().unwrap());
    }
    let [rows, cols] = [image.nrows(), image.ncols()].map(|size| (size - window) / stride + 1);
    let mut answer = Array1::zeros(2 * rows * cols);
    for index in 0..rows * cols {
        let (row, col) = (index / cols * stride, index % cols * stride);
        let window = image.slice(s![row..row + window, col..col + window]).to_owned();
        let one = values(engine.dcnn(&window, stride).unwrap().unwrap());
        (answer[index], answer[rows * cols + index]) = (one[0], one[1]);
    }
    answer
}

/// Largest difference relative to the largest value.
fn difference(first: &Array1<f32>, other: &Array1<f32>) -> f32 {
    let largest = first.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    assert_eq!(first.len(), other.len());
    assert!(first.iter().chain(other).all(|value| value.is_finite()));
    first.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
}

/// What all threads of this process have spent on processors, as Linux counts it; NaN elsewhere.
fn cpu_seconds() -> f64 {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return f64::NAN };
    let nanoseconds = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    nanoseconds.sum::<f64>() * 1e-9
}
