//! Each stage by itself, on simulated frames of 256², 512² and 1024² pixels.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test or a bench that cannot go on says so"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ferrostem::columns::{ColumnSettings, find_columns, refine_columns};
use ferrostem::config::Config;
use ferrostem::ingest::SourceSettings;
use ferrostem::ingest::validate::validate;
use ferrostem::networks::{DeviceChoice, Engine, EngineSettings};
use ferrostem::polarization::{ClassicalSettings, measure_cells};
use ferrostem::preprocess::{
    CalibrationHints, ModelInput, Normalisation, PreprocessSettings, estimate_lattice, prepare,
};
use ferrostem::simulate::{Scene, render};
use ferrostem_proto::{FrameMessage, FramesMessage, Limits, cbor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::hint::black_box;
use std::time::Duration;
use support::crystal;

fn stages(criterion: &mut Criterion) {
    let settings = EngineSettings { device: DeviceChoice::Cpu, ..Config::default().engine().unwrap() };
    let engine = Engine::load(&settings).unwrap();
    for side in [256usize, 512, 1024] {
        let message =
            FrameMessage { pixel_size_pm: Some([15.0, 15.0]), ..FrameMessage::new(1, crystal(side)) };
        let bytes = cbor::encode_frames(&FramesMessage::Frame(Box::new(message.clone()))).unwrap();
        let source = SourceSettings::default();
        let frame = validate(message.clone(), &source, "bench", 1).unwrap();
        let inputs = [ModelInput {
            pixel_size_pm: 15.0,
            normalisation: Normalisation::Local { sigma_px: 40.0 },
            multiple_of: 1,
            window_px: Some(80),
        }];
        let (hints, preprocess) = (CalibrationHints::default(), PreprocessSettings::default());
        let prepared = prepare(&frame, &inputs, &hints, &preprocess).unwrap().remove(0);
        let probability = engine.fcnn(&prepared.image).unwrap().unwrap();
        let column_settings = ColumnSettings::default();
        let columns = find_columns(&probability, &prepared.valid, &prepared.map, &column_settings).unwrap();

        let mut group = criterion.benchmark_group("stage");
        group
            .sample_size(10)
            .measurement_time(Duration::from_secs(3))
            .warm_up_time(Duration::from_millis(500));
        group.bench_function(BenchmarkId::new("decode", side), |b| {
            b.iter(|| cbor::decode_frames(black_box(&bytes), &Limits::default()).unwrap());
        });
        group.bench_function(BenchmarkId::new("validate", side), |b| {
            b.iter(|| validate(black_box(message.clone()), &source, "bench", 1).unwrap());
        });
        group.bench_function(BenchmarkId::new("prepare", side), |b| {
            b.iter(|| prepare(black_box(&frame), &inputs, &hints, &preprocess).unwrap());
        });
        group.bench_function(BenchmarkId::new("lattice", side), |b| {
            b.iter(|| estimate_lattice(black_box(&prepared.image), &prepared.valid));
        });
        group.bench_function(BenchmarkId::new("dcnn", side), |b| {
            b.iter(|| engine.dcnn(black_box(&prepared.image), 8).unwrap());
        });
        group.bench_function(BenchmarkId::new("fcnn", side), |b| {
            b.iter(|| engine.fcnn(black_box(&prepared.image)).unwrap());
        });
        group.bench_function(BenchmarkId::new("columns", side), |b| {
            b.iter(|| {
                find_columns(black_box(&probability), &prepared.valid, &prepared.map, &column_settings)
                    .unwrap()
            });
        });
        group.bench_function(BenchmarkId::new("refine", side), |b| {
            b.iter(|| refine_columns(&frame.pixels, black_box(&mut columns.clone()), &column_settings));
        });
        group.bench_function(BenchmarkId::new("classical", side), |b| {
            b.iter(|| measure_cells(black_box(&columns), [15.0, 15.0], &ClassicalSettings::default()));
        });
        group.finish();
    }
}

/// A frame of the simulator, which training makes as it goes: of the demo's scene, with every fault of a
/// microscope, and with every feature of a specimen beside.
fn simulation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("simulate");
    group.sample_size(20).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_millis(500));
    for (name, specimen, microscope) in
        [("plain", "bifeo3", "bifeo3"), ("faults", "faults", "faults"), ("everything", "crowded", "faults")]
    {
        let mut scene = Scene::resolve(specimen).unwrap();
        scene.microscope = Scene::resolve(microscope).unwrap().microscope.scanned();
        assert_eq!(scene.microscope.shape, [512, 512]);
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        group.bench_function(BenchmarkId::new(name, 512), |b| {
            b.iter(|| render(black_box(&scene.specimen), &scene.microscope, &mut rng).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, simulation, stages);
criterion_main!(benches);
