//! Out-of-distribution windows: features unlike those of the training set, or outputs that it never held.

use super::Reference;
use crate::config::InvalidSetting;
use crate::frame::PolarizationMaps;
use crate::networks::OutputSpec;
use ndarray::{Array2, Zip};
use serde::{Deserialize, Serialize};

/// When a window is flagged.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OodSettings {
    /// A window is flagged when its p-value is below this.
    pub alpha: f64,
    /// An output is outside the trained range when it exceeds it by more than this share of the range's width.
    pub range_margin: f64,
}

impl Default for OodSettings {
    fn default() -> Self {
        Self { alpha: 0.001, range_margin: 0.1 }
    }
}

impl OodSettings {
    pub(super) fn validate(&self, prefix: &str) -> Result<(), InvalidSetting> {
        if !(self.alpha > 0.0 && self.alpha < 0.5) {
            return Err(InvalidSetting::new(format!("{prefix}.alpha"), self.alpha, "above 0, below 0.5"));
        }
        if !(0.0..=10.0).contains(&self.range_margin) {
            return Err(InvalidSetting::new(format!("{prefix}.range_margin"), self.range_margin, "0 to 10"));
        }
        Ok(())
    }
}

/// Evidence per window. Empty maps when no DCNN ran.
#[derive(Debug, Clone)]
pub struct OodEvidence {
    /// Small = unusual; NaN = not evaluated.
    pub p_value: Array2<f32>,
    pub flag: Array2<u8>,
    /// Squared feature distance relative to the 99.9 % quantile of in-distribution sites.
    pub excess: Array2<f32>,
    /// Index into the DCNN's outputs of the first one outside its trained range.
    pub out_of_range: Array2<Option<u8>>,
    pub settings: OodSettings,
}

pub(super) fn evaluate(
    maps: Option<&PolarizationMaps>,
    reference: &Reference,
    settings: &OodSettings,
) -> OodEvidence {
    let shape = maps.map_or((0, 0), |maps| maps.p_x.dim());
    let mut evidence = OodEvidence {
        p_value: Array2::from_elem(shape, f32::NAN),
        flag: Array2::zeros(shape),
        excess: Array2::from_elem(shape, f32::NAN),
        out_of_range: Array2::from_elem(shape, None),
        settings: *settings,
    };
    let Some(maps) = maps else { return evidence };
    if let Some(statistics) = &reference.features {
        let position = (statistics.calibration.len() as f64 * 0.999) as usize;
        let limit =
            statistics.calibration.get(position).or(statistics.calibration.last()).copied().unwrap_or(1.0);
        Zip::from(&mut evidence.p_value).and(&mut evidence.excess).and(&maps.feature_distance).for_each(
            |p_value, excess, &distance| {
                *p_value = statistics.p_value(distance);
                *excess = distance / limit;
            },
        );
    }
    for (index, (spec, map)) in reference.outputs.iter().zip(regressed(maps)).enumerate() {
        let [low, high] = tolerated(spec, settings.range_margin);
        Zip::from(&mut evidence.out_of_range).and(map).for_each(|first, &value| {
            if first.is_none() && (f64::from(value) < low || f64::from(value) > high) {
                *first = Some(index as u8);
            }
        });
    }
    let alpha = settings.alpha as f32;
    Zip::from(&mut evidence.flag).and(&evidence.p_value).and(&evidence.out_of_range).for_each(
        |flag, &p_value, out| {
            // NaN compares false: a window that was not evaluated is not flagged.
            *flag = u8::from(p_value < alpha || out.is_some());
        },
    );
    evidence
}

/// The maps in the order of the DCNN's outputs (`networks::DCNN_OUTPUTS`), sigma left out: it has no physical range.
fn regressed(maps: &PolarizationMaps) -> [&Array2<f32>; 6] {
    [&maps.p_x, &maps.p_y, &maps.cell_a, &maps.cell_b, &maps.cell_angle, &maps.cell_area]
}

fn tolerated(spec: &OutputSpec, margin: f64) -> [f64; 2] {
    let [low, high] = spec.trained_range;
    let slack = margin * (high - low);
    [low - slack, high + slack]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::material::Material;
    use crate::networks::FeatureStatistics;

    fn reference() -> Reference {
        let spec = |name: &str, low, high| OutputSpec {
            name: name.to_owned(),
            unit: "pm".to_owned(),
            mean: 0.0,
            scale: 1.0,
            trained_range: [low, high],
        };
        Reference {
            material: Material::built_in("bifeo3").unwrap(),
            features: Some(FeatureStatistics {
                mean: vec![0.0],
                whitening: vec![1.0],
                calibration: (0..1999).map(|i| i as f32).collect(),
            }),
            outputs: vec![
                spec("p_x", -60.0, 60.0),
                spec("p_y", -60.0, 60.0),
                spec("cell_a", 370.0, 430.0),
                spec("cell_b", 370.0, 430.0),
                spec("cell_angle", 1.5, 1.6),
                spec("cell_area", 1e5, 2e5),
            ],
        }
    }

    fn maps(distance: [f32; 4], p_x: [f32; 4]) -> PolarizationMaps {
        let filled = |value: f32| Array2::from_elem((2, 2), value);
        PolarizationMaps {
            p_x: Array2::from_shape_vec((2, 2), p_x.to_vec()).unwrap(),
            p_y: filled(0.0),
            p_sigma: filled(3.0),
            cell_a: filled(400.0),
            cell_b: filled(400.0),
            cell_angle: filled(1.57),
            cell_area: filled(1.6e5),
            feature_distance: Array2::from_shape_vec((2, 2), distance.to_vec()).unwrap(),
        }
    }

    #[test]
    fn far_features_and_impossible_outputs_are_flagged_with_their_reason() {
        let maps = maps([1000.0, 5000.0, f32::NAN, 10.0], [0.0, 0.0, f32::NAN, 80.0]);
        let found = evaluate(Some(&maps), &reference(), &OodSettings::default());
        assert_eq!(found.flag, Array2::from_shape_vec((2, 2), vec![0, 1, 0, 1]).unwrap());
        assert!((found.p_value[[0, 0]] - 0.5).abs() < 1e-6);
        assert!((found.p_value[[0, 1]] - 1.0 / 2000.0).abs() < 1e-9);
        assert!(found.p_value[[1, 0]].is_nan());
        assert_eq!(found.out_of_range[[1, 1]], Some(0));
        assert_eq!(found.out_of_range[[0, 1]], None);
        assert!(found.excess[[0, 1]] > 2.0);
    }

    #[test]
    fn without_statistics_nothing_is_evaluated() {
        let reference = Reference { features: None, ..reference() };
        let found = evaluate(Some(&maps([9e9; 4], [0.0; 4])), &reference, &OodSettings::default());
        assert!(found.p_value.iter().all(|p| p.is_nan()));
        assert!(found.flag.iter().all(|&flag| flag == 0));
    }
}
