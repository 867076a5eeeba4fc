//! The DCNN on the CPU: its own convolutions, burn's layers, and window by window, on one image in the same run.
//!
//!     cargo bench --bench convolution -- MODEL_FOLDER SIDE REPEATS [windows]
//!
//! Prints one JSON line: the fewest seconds of each. `tools/python/peer_bench.py` runs it beside its peers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench that cannot go on says so"
)]
#![allow(clippy::print_stdout, reason = "what it measured is printed")]

use ferrostem::networks::{DcnnMaps, DeviceChoice, Engine, EngineSettings};
use ndarray::Array2;
use std::time::Instant;

const STRIDE_PX: usize = 8;

fn main() {
    // cargo bench adds its own flag.
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let Some(folder) = arguments.next() else { return };
    let side: usize = arguments.next().map_or(512, |side| side.parse().unwrap());
    let repeats: usize = arguments.next().map_or(5, |repeats| repeats.parse().unwrap());
    let windows = arguments.next().is_some();
    let load = |burn_layers, exact_windows| {
        let dcnn = Some(folder.clone().into());
        let settings =
            EngineSettings { device: DeviceChoice::Cpu, dcnn, fcnn: None, exact_windows, burn_layers };
        Engine::load(&settings).unwrap()
    };
    let (own, burn) = (load(false, false), load(true, false));
    let image = Array2::from_shape_fn((side, side), |(row, col)| {
        let (row, col) = (row as f32, col as f32);
        (row * 0.23).sin() * (col * 0.23).sin()
            + ((row * 12.9898 + col * 78.233).sin() * 43758.547).fract() * 0.3
    });
    let time = |engine: &Engine| {
        let start = Instant::now();
        let maps = engine.dcnn(&image, STRIDE_PX).unwrap().unwrap();
        (start.elapsed().as_secs_f64(), maps)
    };
    let (mut best, mut maps) = ([f64::INFINITY; 2], Vec::new());
    for _ in 0..repeats {
        maps.clear();
        for (best, engine) in best.iter_mut().zip([&own, &burn]) {
            let (seconds, result) = time(engine);
            *best = best.min(seconds);
            maps.push(result);
        }
    }
    let mut report = serde_json::json!({
        "side_px": side, "stride_px": STRIDE_PX, "threads": std::thread::available_parallelism().map_or(1, usize::from),
        "own_s": best[0], "burn_s": best[1], "difference_burn": difference(&maps[0], &maps[1]),
    });
    if windows {
        let (seconds, result) = time(&load(true, true));
        report["windows_s"] = seconds.into();
        report["difference_windows"] = difference(&maps[0], &result).into();
    }
    println!("{report}");
}

/// Largest difference of P relative to its largest value.
fn difference(a: &DcnnMaps, b: &DcnnMaps) -> f32 {
    let largest = a.p_x.iter().chain(&a.p_y).fold(0f32, |largest, value| largest.max(value.abs()));
    let pairs = a.p_x.iter().zip(&b.p_x).chain(a.p_y.iter().zip(&b.p_y));
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
}
