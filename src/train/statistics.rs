//! Feature statistics of a trained DCNN, and the calibration of its out-of-distribution test, on frames that it was not trained
//! on and that come to it as live ones do: of many pixel sizes, resampled to its own.

use super::TrainError;
use super::samples::{AtScale, Simulation, Split};
use super::settings::DcnnTrainSettings;
use crate::networks::{
    Calibration, DcnnMaps, DeviceChoice, Engine, FEATURE_CHANNELS, FeatureAccumulator, FeatureStatistics,
    HeldOut, Manifest, Sampling, write_part,
};
use burn::tensor::Device;
use ndarray::Array2;
use rayon::prelude::*;
use std::f64::consts::FRAC_PI_2;
use std::path::Path;

/// Of the frames to calibrate on, every third is at the pixel size that training drew.
const OWN_PIXEL_EVERY: usize = 3;
/// Frames that give mean and components, for each one that calibrates: 128 components are only as good as the number of frames
/// that they are from.
const FITTED_PER_CALIBRATED: f64 = 0.75;
/// Bounds of the strata: counts at the peak of an A column, and pixel sizes, pm.
const COUNTS: [f64; 5] = [15.0, 30.0, 100.0, 300.0, 1000.0];
const SIZES_PM: [f64; 6] = [8.5, 10.0, 14.0, 16.5, 25.0, 31.0];
/// Strata of the lattice's direction, in a quarter turn.
const SECTORS: f64 = 3.0;
/// Frames simulated at once.
const AT_ONCE: usize = 16;

/// A frame at the model's scale, normalised, and the strata that it is from.
struct Prepared {
    image: Array2<f32>,
    /// Before it was resampled.
    pixel_pm: f64,
    strata: [u8; 3],
}

/// Takes the statistics of the model in `folder` anew, on `frames` frames like those that `settings` trained it on, and writes them
/// there.
///
/// # Errors
/// When the model, the device or the simulator fails.
pub(super) fn write(
    folder: &Path,
    settings: &DcnnTrainSettings,
    device: &Device,
    frames: usize,
) -> Result<(), TrainError> {
    let engine = Engine::with_raw_features(folder, device)?;
    let statistics = statistics(&engine, settings, frames)?;
    let mut manifest = Manifest::read(folder)?;
    manifest.features = Some(write_part(folder, "features.safetensors", &statistics.to_bytes()?)?);
    Ok(manifest.write(folder)?)
}

/// Copies the model in `from` to `to`, unless they are one, and takes its statistics anew.
///
/// # Errors
/// When the model does not say how it was trained; as the device, the simulator and files fail.
pub fn renew_statistics(
    from: &Path,
    to: &Path,
    choice: DeviceChoice,
    frames: usize,
) -> Result<(), TrainError> {
    let settings = DcnnTrainSettings::of_model(from)?;
    let (device, _) = choice.open()?;
    let file = |source| TrainError::File { path: to.to_owned(), source };
    std::fs::create_dir_all(to).map_err(file)?;
    if from.canonicalize().map_err(file)? != to.canonicalize().map_err(file)? {
        let weights = Manifest::read(from)?.weights.file;
        for name in [weights.as_str(), "model.toml"] {
            std::fs::copy(from.join(name), to.join(name)).map_err(file)?;
        }
    }
    write(to, &settings, &device, frames)
}

fn statistics(
    engine: &Engine,
    settings: &DcnnTrainSettings,
    frames: usize,
) -> Result<FeatureStatistics, TrainError> {
    let fitted = ((frames as f64 * FITTED_PER_CALIBRATED).ceil() as usize).max(2);
    let mut accumulator = FeatureAccumulator::new(FEATURE_CHANNELS);
    each(
        engine,
        settings,
        0..fitted,
        |_| false,
        |maps, _, _| {
            accumulator.add_frame(maps.features.view());
            Ok(())
        },
    )?;
    let statistics = accumulator.finish()?;
    let step_pm = [settings.stride_px as f64 * settings.pixel_size_pm; 2];
    let mut held_out = Vec::new();
    let rescaled = |index: usize| !index.is_multiple_of(OWN_PIXEL_EVERY);
    each(engine, settings, fitted..fitted + frames, rescaled, |mut maps, pixel_pm, strata| {
        maps.features = statistics.components(maps.features.view())?;
        let scores = statistics.scores(&maps, Sampling { step_pm, pixel_pm });
        held_out.push(HeldOut { scores, strata });
        Ok(())
    })?;
    Ok(FeatureStatistics { calibration: Calibration::fit(&held_out)?, ..statistics })
}

/// Simulates frames, a few at once, and runs the network on them: its answers, the pixel size and the strata of each go to `take`.
fn each(
    engine: &Engine,
    settings: &DcnnTrainSettings,
    frames: std::ops::Range<usize>,
    rescaled: impl Fn(usize) -> bool + Sync,
    mut take: impl FnMut(DcnnMaps, f64, [u8; 3]) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let indices: Vec<usize> = frames.collect();
    for some in indices.chunks(AT_ONCE) {
        let prepared: Vec<Prepared> = some
            .par_iter()
            .map(|&index| prepared(settings, index, rescaled(index)))
            .collect::<Result<_, TrainError>>()?;
        for Prepared { image, pixel_pm, strata } in prepared {
            if let Some(maps) = engine.dcnn(&image, settings.stride_px)? {
                take(maps, pixel_pm, strata)?;
            }
        }
    }
    Ok(())
}

fn prepared(settings: &DcnnTrainSettings, index: usize, rescaled: bool) -> Result<Prepared, TrainError> {
    let mut rng = Split::Statistics { index }.random(settings.schedule.seed);
    let simulation = Simulation { resampled: f64::from(u8::from(rescaled)), ..settings.simulation() };
    let AtScale { pixels, specimen, microscope, .. } =
        simulation.frame(settings.judged_side_px(), &mut rng)?;
    let stratum = |bounds: &[f64], value: f64| bounds.partition_point(|&bound| bound <= value) as u8;
    let sector = specimen.rotation_rad.rem_euclid(FRAC_PI_2) / FRAC_PI_2 * SECTORS;
    let strata = [
        stratum(&COUNTS, microscope.peak_counts),
        stratum(&SIZES_PM, microscope.pixel_size_pm),
        sector as u8,
    ];
    let image = settings.normalisation.normalise(&pixels);
    Ok(Prepared { image, pixel_pm: microscope.pixel_size_pm, strata })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_at_the_models_scale_whatever_their_own() {
        let settings = DcnnTrainSettings::default();
        for index in 0..6 {
            let Prepared { image, strata, .. } = prepared(&settings, index, index > 1).unwrap();
            let (rows, cols) = image.dim();
            // Pixels may be 2 % higher than wide, or lower.
            assert!((256..=275).contains(&rows) && rows.abs_diff(cols) < 8, "{rows} x {cols}");
            assert!(image.iter().all(|value| value.is_finite()));
            assert!(strata[0] <= 5 && strata[1] <= 6 && strata[2] <= 2);
            if index <= 1 {
                assert_eq!(strata[1], 3);
            }
        }
    }
}
