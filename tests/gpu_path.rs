//! The networks on a Vulkan adapter against the CPU. A software rasteriser (SwiftShader) is adapter enough: what is
//! tested is our use of the GPU stack, not a driver.
//!
//! Without an adapter the test says so and passes; with `FERROSTEM_REQUIRE_VULKAN=1` it fails.

use anyhow::{Context as _, Result};
use ferrostem::networks::{
    Architecture, DcnnConfig, DcnnMaps, DeviceChoice, Engine, EngineSettings, FcnnConfig, HeadKind, Padding,
    list_devices, write_untrained,
};
use ndarray::Array2;
use std::path::Path;
use std::time::Instant;

const STRIDE_PX: usize = 8;
/// Largest difference, relative to a map's range.
const TOLERANCE: f32 = 1e-3;

fn engine(device: DeviceChoice, models: &Path) -> Result<Engine> {
    let (dcnn, fcnn) = (Some(models.join("dcnn")), Some(models.join("fcnn")));
    Ok(Engine::load(&EngineSettings { device, dcnn, fcnn, exact_windows: false, burn_layers: false })?)
}

/// Columns on a square lattice of 400 pm at 15 pm/px, with a deterministic texture on top.
fn frame(rows: usize, cols: usize) -> Array2<f32> {
    let wave = std::f32::consts::TAU / 26.7;
    Array2::from_shape_fn((rows, cols), |(row, col)| {
        let texture = ((row * 31 + col * 17 + row * col) % 23) as f32 / 23.0 - 0.5;
        (row as f32 * wave).cos() + (col as f32 * wave).cos() + texture
    })
}

fn each_map(maps: &DcnnMaps) -> [(&'static str, Vec<f32>); 8] {
    let values = |map: &Array2<f32>| map.iter().copied().collect();
    [
        ("p_x", values(&maps.p_x)),
        ("p_y", values(&maps.p_y)),
        ("p_sigma", values(&maps.p_sigma)),
        ("cell_a", values(&maps.cell_a)),
        ("cell_b", values(&maps.cell_b)),
        ("cell_angle", values(&maps.cell_angle)),
        ("cell_area", values(&maps.cell_area)),
        ("features", maps.features.iter().copied().collect()),
    ]
}

/// Largest difference relative to the range of what was expected.
fn largest_difference<'a>(
    expected: impl Iterator<Item = &'a f32> + Clone,
    found: impl Iterator<Item = &'a f32>,
) -> f32 {
    let low = expected.clone().copied().fold(f32::MAX, f32::min);
    let high = expected.clone().copied().fold(f32::MIN, f32::max);
    assert!(high > low, "a constant map proves nothing");
    // NaN on either side is the largest difference of all; `f32::max` would drop it.
    let difference =
        |(a, b): (&f32, &f32)| if (a - b).is_finite() { (a - b).abs() / (high - low) } else { f32::INFINITY };
    expected.zip(found).map(difference).fold(0.0, f32::max)
}

#[test]
fn a_vulkan_adapter_gives_what_the_cpu_gives() -> Result<()> {
    let Some(adapter) = list_devices().into_iter().find(|device| device.choice.starts_with("vulkan")) else {
        assert!(std::env::var_os("FERROSTEM_REQUIRE_VULKAN").is_none_or(|v| v != "1"), "no Vulkan adapter");
        eprintln!("skipped: this machine has no Vulkan adapter (VK_DRIVER_FILES can name a software one)");
        return Ok(());
    };
    let models = tempfile::tempdir()?;
    let dcnn = DcnnConfig { padding: Padding::Valid, head: HeadKind::Linear, window_px: 80, outputs: 7 };
    write_untrained(&models.path().join("dcnn"), Architecture::Dcnn(dcnn), 1)?;
    write_untrained(
        &models.path().join("fcnn"),
        Architecture::Fcnn(FcnnConfig { filters: 16, classes: 3 }),
        2,
    )?;
    let image = frame(96, 112);
    let run = |device: DeviceChoice| -> Result<_> {
        let engine = engine(device, models.path())?;
        let started = Instant::now();
        let maps = engine.dcnn(&image, STRIDE_PX)?.context("no DCNN")?;
        let dcnn_s = started.elapsed().as_secs_f64();
        let probabilities = engine.fcnn(&image)?.context("no FCNN")?;
        let both_s = started.elapsed().as_secs_f64();
        eprintln!("{}: DCNN {dcnn_s:.2} s, then FCNN {:.2} s", engine.device_name(), both_s - dcnn_s);
        Ok((maps, probabilities))
    };
    let (cpu_maps, cpu_probabilities) = run(DeviceChoice::Cpu)?;
    let (maps, probabilities) = run(adapter.choice.parse()?)?;
    assert_eq!((cpu_maps.p_x.dim(), maps.p_x.dim()), ((3, 5), (3, 5)));
    assert_eq!(maps.features.dim(), (3, 5, 128));
    for ((name, expected), (_, found)) in each_map(&cpu_maps).into_iter().zip(each_map(&maps)) {
        assert_eq!(expected.len(), found.len(), "{name}");
        let difference = largest_difference(expected.iter(), found.iter());
        eprintln!("{name}: {difference:.1e}");
        assert!(difference < TOLERANCE, "{name}: {difference} of its range");
    }
    assert_eq!(probabilities.dim(), (3, 96, 112));
    let difference = largest_difference(cpu_probabilities.iter(), probabilities.iter());
    eprintln!("class probabilities: {difference:.1e}");
    assert!(difference < TOLERANCE, "class probabilities: {difference}");
    Ok(())
}

#[test]
fn auto_takes_a_card_and_never_a_rasteriser() -> Result<()> {
    let devices = list_devices();
    let expected = devices
        .iter()
        .find(|device| device.is_gpu && device.choice.starts_with("vulkan"))
        .map_or("cpu", |device| device.choice.as_str());
    let engine = Engine::load(&EngineSettings { device: DeviceChoice::Auto, ..EngineSettings::default() })?;
    let found = Engine::load(&EngineSettings { device: expected.parse()?, ..EngineSettings::default() })?;
    assert_eq!(engine.device_name(), found.device_name(), "{devices:?}");
    for rasteriser in devices.iter().filter(|device| device.name.contains("SwiftShader")) {
        assert!(!rasteriser.is_gpu && !rasteriser.is_auto, "{rasteriser:?}");
    }
    Ok(())
}
