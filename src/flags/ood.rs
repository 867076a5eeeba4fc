//! Out-of-distribution windows: features unlike those of the training set, or outputs that it never held.

use super::{Evidence, Reference};
use crate::config::InvalidSetting;
use crate::frame::PolarizationMaps;
use crate::networks::{DCNN_OUTPUTS, OutputSpec, Sampling, Score};
use crate::polarization::sample_on_grid;
use crate::preprocess::median;
use ndarray::{Array2, Zip};
use serde::{Deserialize, Serialize};

/// A window's P is compared with that of a cell no farther from its centre, pm.
const SAME_CELL_PM: f64 = 200.0;
/// Windows that a frame must have to say how DCNN and columns usually differ.
const LEAST_COMPARED: usize = 25;
/// Median length of a vector whose components are normally distributed with standard deviation 1.
const RAYLEIGH_MEDIAN: f32 = 1.1774;
/// DCNN and columns disagree beyond so many standard deviations of their usual difference.
const DISAGREEING_SIGMAS: f32 = 6.0;

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
        Self { alpha: 0.02, range_margin: 0.1 }
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

/// Evidence per window, all `[window row, window col]`. Empty maps when no DCNN ran.
#[derive(Debug, Clone)]
pub struct OodEvidence {
    /// At most a share p of in-distribution windows has a p-value below p, at any dose, pixel size and rotation. NaN = not
    /// evaluated.
    pub p_value: Array2<f32>,
    /// 1 = p-value below [`OodSettings::alpha`], or an output outside its trained range.
    pub flag: Array2<u8>,
    /// How much rarer a window is than what one in-distribution window in a thousand exceeds, a factor.
    pub excess: Array2<f32>,
    /// Index into the DCNN's outputs of the first one outside its trained range.
    pub out_of_range: Array2<Option<u8>>,
    /// p-values of what `p_value` comes from, and that one, in the order of [`Score`](crate::networks::Score).
    pub parts: [Array2<f32>; Score::ALL.len()],
    pub settings: OodSettings,
}

/// Why a window should not be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Its features are unlike those of the training set.
    UnlikeTraining,
    /// The mean features of the area around it are unlike those of the training set.
    AreaUnlikeTraining,
    /// Its features are unlike those of the frame around it.
    UnlikeSurroundings,
    /// The DCNN's output of this index is outside its trained range.
    OutOfRange(u8),
    /// The DCNN itself says that P is uncertain, more than noise explains.
    Sigma,
    /// The DCNN says that P is more uncertain than around.
    SigmaAround,
    /// The DCNN says that the unit cell is another than around.
    CellAround,
    /// The cell that the DCNN predicts is none: its edges do not enclose its area.
    Contradiction,
    /// They enclose it less well than around.
    ContradictionAround,
    /// The image is smoother than those of the training set: blurred, or its noise was taken out.
    Smooth,
    /// The columns say otherwise.
    Classical,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnlikeTraining => f.write_str("unlike the training set"),
            Self::AreaUnlikeTraining => f.write_str("the area unlike the training set"),
            Self::UnlikeSurroundings => f.write_str("unlike its surroundings"),
            Self::OutOfRange(index) => {
                let name = DCNN_OUTPUTS.get(usize::from(*index)).unwrap_or(&"an output");
                write!(f, "{name} outside the trained range")
            }
            Self::Sigma => f.write_str("P uncertain"),
            Self::SigmaAround => f.write_str("P more uncertain than around"),
            Self::CellAround => f.write_str("the cell unlike that around"),
            Self::Contradiction => f.write_str("the predicted cell contradicts itself"),
            Self::ContradictionAround => {
                f.write_str("the predicted cell contradicts itself more than around")
            }
            Self::Smooth => f.write_str("smoother than the training set"),
            Self::Classical => f.write_str("P is not what the columns say"),
        }
    }
}

impl OodEvidence {
    /// What speaks against a window: what its features say first, the stronger of it before the weaker. None where it was not
    /// evaluated. `from_classical` is [`from_classical`] of the frame.
    pub fn reasons(&self, at: [usize; 2], from_classical: &Array2<f32>) -> Vec<Reason> {
        let alpha = self.settings.alpha as f32;
        let part = |score: Score| self.parts.get(score as usize).and_then(|map| map.get(at)).copied();
        let named = [
            Reason::UnlikeTraining,
            Reason::UnlikeSurroundings,
            Reason::Sigma,
            Reason::SigmaAround,
            Reason::CellAround,
            Reason::AreaUnlikeTraining,
            Reason::Contradiction,
            Reason::ContradictionAround,
            Reason::Smooth,
        ];
        let parts = Score::PARTS.into_iter().zip(named);
        let mut parts: Vec<(f32, Reason)> = parts
            .filter_map(|(score, reason)| Some((part(score).filter(|p| p.is_finite())?, reason)))
            .collect();
        parts.sort_by(|a, b| a.0.total_cmp(&b.0));
        // Together they may say what none says alone: then the strongest is named.
        let together = part(Score::Together).is_some_and(|p| p < alpha);
        let said = parts.iter().filter(|(p, _)| *p < alpha).count().max(usize::from(together));
        let mut reasons: Vec<Reason> = parts.into_iter().take(said).map(|(_, reason)| reason).collect();
        reasons.extend(self.out_of_range.get(at).copied().flatten().map(Reason::OutOfRange));
        let disagrees = from_classical.get(at).is_some_and(|sigmas| *sigmas > DISAGREEING_SIGMAS);
        reasons.extend(disagrees.then_some(Reason::Classical));
        reasons
    }
}

pub(super) fn evaluate(
    evidence: &Evidence<'_>,
    reference: &Reference,
    settings: &OodSettings,
) -> OodEvidence {
    let maps = evidence.fields.polarization.as_ref();
    let shape = maps.map_or((0, 0), |maps| maps.p_x.dim());
    let unknown = || Array2::from_elem(shape, f32::NAN);
    let mut found = OodEvidence {
        p_value: unknown(),
        flag: Array2::zeros(shape),
        excess: unknown(),
        out_of_range: Array2::from_elem(shape, None),
        parts: std::array::from_fn(|_| unknown()),
        settings: *settings,
    };
    let Some(maps) = maps else { return found };
    if let Some(statistics) = reference.features.as_ref().filter(|_| !maps.features.is_empty()) {
        let sampling = Sampling::of(&evidence.fields.grid, evidence.calibration.pixel_size_pm);
        let unusual = statistics.judge(maps, sampling);
        found.p_value.assign(unusual.p_value());
        found.excess = unusual.excess;
        found.parts = unusual.p_values;
    }
    for (index, (spec, map)) in reference.outputs.iter().zip(regressed(maps)).enumerate() {
        let [low, high] = tolerated(spec, settings.range_margin);
        Zip::from(&mut found.out_of_range).and(map).for_each(|first, &value| {
            if first.is_none() && (f64::from(value) < low || f64::from(value) > high) {
                *first = Some(index as u8);
            }
        });
    }
    let alpha = settings.alpha as f32;
    Zip::from(&mut found.flag).and(&found.p_value).and(&found.out_of_range).for_each(
        |flag, &p_value, out| {
            // NaN compares false: a window that was not evaluated is not flagged.
            *flag = u8::from(p_value < alpha || out.is_some());
        },
    );
    found
}

/// How far the DCNN's P lies from that measured on the columns, in standard deviations of that difference over the frame; NaN where
/// no cell was measured. It takes a search for the nearest cell of every window, which most frames do without.
///
/// # Shapes
/// `[window row, window col]`; empty without a DCNN.
pub fn from_classical(evidence: &Evidence<'_>) -> Array2<f32> {
    let Some(maps) = &evidence.fields.polarization else { return Array2::default((0, 0)) };
    let mut far = Array2::from_elem(maps.p_x.dim(), f32::NAN);
    let (cells, grid) = (&evidence.fields.cells, &evidence.fields.grid);
    let nearest = sample_on_grid(cells, grid, evidence.calibration.pixel_size_pm, SAME_CELL_PM);
    if nearest.dim() != far.dim() {
        return far;
    }
    let difference = |at: [usize; 2]| -> Option<[f32; 2]> {
        let cell = cells.get((*nearest.get(at)?)?)?;
        let [x, y] = [maps.p_x.get(at)? - cell.p_x as f32, maps.p_y.get(at)? - cell.p_y as f32];
        (x.is_finite() && y.is_finite()).then_some([x, y])
    };
    let places: Vec<([usize; 2], [f32; 2])> =
        far.indexed_iter().filter_map(|((i, j), _)| Some(([i, j], difference([i, j])?))).collect();
    if places.len() < LEAST_COMPARED {
        return far;
    }
    let median = |values: &mut dyn Iterator<Item = f32>| median(values, f32::total_cmp).unwrap_or(f32::NAN);
    let usual = [0, 1].map(|axis| median(&mut places.iter().map(|(_, difference)| difference[axis])));
    let length = |[x, y]: [f32; 2]| (x - usual[0]).hypot(y - usual[1]);
    let deviation = median(&mut places.iter().map(|(_, difference)| length(*difference))) / RAYLEIGH_MEDIAN;
    for (at, difference) in places {
        far[at] = length(difference) / deviation.max(f32::MIN_POSITIVE);
    }
    far
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
    use crate::frame::{ClassicalCell, Fields, Frame};
    use crate::material::Material;
    use crate::networks::{Calibration, FeatureStatistics, HeldOut};
    use ferrostem_proto::GridSpec;
    use ndarray::{Array3, s};

    const SIDE: usize = 14;

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
                within: vec![1.0],
                calibration: Calibration::fit(&[HeldOut::spread(20.0)]).unwrap(),
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

    /// Windows 8 px apart, whose features lie between -1 and 1, and a classical cell in the middle of each.
    fn fields() -> Fields {
        let filled = |value: f32| Array2::from_elem((SIDE, SIDE), value);
        let jitter = |i: usize, j: usize| ((i * 7 + j * 3) % 5) as f32 - 2.0;
        let cells = (0..SIDE * SIDE).map(|n| ClassicalCell {
            row: (n / SIDE) as f64 * 8.0 + 39.5,
            col: (n % SIDE) as f64 * 8.0 + 39.5,
            p_x: 0.0,
            p_y: 0.0,
            cell_a: 400.0,
            cell_b: 400.0,
            cell_angle: 1.57,
            cell_area: 1.6e5,
        });
        Fields {
            grid: GridSpec {
                row0: 39.5,
                col0: 39.5,
                step_row: 8.0,
                step_col: 8.0,
                rows: SIDE as u32,
                cols: SIDE as u32,
            },
            polarization: Some(PolarizationMaps {
                p_x: Array2::from_shape_fn((SIDE, SIDE), |(i, j)| jitter(i, j)),
                p_y: Array2::from_shape_fn((SIDE, SIDE), |(i, j)| jitter(j, i + 1)),
                p_sigma: filled(3.0),
                cell_a: filled(400.0),
                cell_b: filled(400.0),
                cell_angle: filled(1.57),
                cell_area: filled(1.6e5),
                smoothness: filled(3.0),
                features: Array3::from_shape_fn((SIDE, SIDE, 1), |(i, j, _)| {
                    ((i * SIDE + j + i) % 7) as f32 / 3.0 - 1.0
                }),
            }),
            columns: None,
            cells: cells.collect(),
            incomplete: Vec::new(),
        }
    }

    fn on_evidence<T>(fields: &Fields, of: impl Fn(&Evidence<'_>) -> T) -> T {
        let frame = Frame::blank(192, 192, 0.0);
        let calibration = ferrostem_proto::Calibration { pixel_size_pm: [15.0; 2], ..Default::default() };
        of(&Evidence { frame: &frame, fields, calibration: &calibration, lattice_angle_rad: None })
    }

    fn evaluated(fields: &Fields, reference: &Reference) -> OodEvidence {
        on_evidence(fields, |evidence| evaluate(evidence, reference, &OodSettings::default()))
    }

    #[test]
    fn strange_features_and_impossible_outputs_are_flagged_with_their_reasons() {
        let mut fields = fields();
        let maps = fields.polarization.as_mut().unwrap();
        // Seen by four windows, as a defect is.
        maps.features.slice_mut(s![5..7, 5..7, 0]).fill(4.5);
        maps.features[[13, 13, 0]] = f32::NAN;
        maps.p_x[[11, 2]] = 80.0;
        let found = evaluated(&fields, &reference());
        let flagged: Vec<[usize; 2]> =
            found.flag.indexed_iter().filter(|(_, flag)| **flag != 0).map(|((i, j), _)| [i, j]).collect();
        // Two strange windows flag one beside them too; a single one, at a corner, may or may not.
        let corner = |k: usize| k == 4 || k == 7;
        let around = (4..8).flat_map(|i| (4..8).map(move |j| [i, j]));
        let (corners, beside): (Vec<_>, Vec<_>) = around.partition(|[i, j]| corner(*i) && corner(*j));
        let but_corners: Vec<_> = flagged.into_iter().filter(|at| !corners.contains(at)).collect();
        assert_eq!(but_corners, beside.into_iter().chain([[11, 2]]).collect::<Vec<_>>());
        let p = |at: [usize; 2]| found.p_value[at];
        assert!(p([5, 5]) < 0.05 && p([12, 0]) > 0.2 && p([13, 13]).is_nan(), "{}", found.p_value);
        assert!(found.excess[[5, 5]] > 5.0 * found.excess[[12, 0]], "{}", found.excess);
        assert_eq!(found.out_of_range[[11, 2]], Some(0));
        let from_classical = on_evidence(&fields, from_classical);
        let reasons = |at: [usize; 2]| found.reasons(at, &from_classical);
        let strange = reasons([5, 5]);
        assert!(strange.contains(&Reason::UnlikeTraining) && strange.contains(&Reason::UnlikeSurroundings));
        // 80 pm where the columns say nothing of the kind.
        assert_eq!(reasons([11, 2]), [Reason::OutOfRange(0), Reason::Classical]);
        assert!(reasons([12, 0]).is_empty() && reasons([13, 13]).is_empty());
        assert_eq!(Reason::OutOfRange(2).to_string(), "cell_a outside the trained range");
    }

    #[test]
    fn the_distance_from_the_columns_is_measured_in_its_own_spread() {
        let mut fields = fields();
        let plain = on_evidence(&fields, from_classical);
        assert!(plain.iter().all(|sigmas| *sigmas < 3.0), "{plain}");
        fields.polarization.as_mut().unwrap().p_y[[2, 2]] += 30.0;
        let found = on_evidence(&fields, from_classical);
        assert!(found[[2, 2]] > 8.0, "{found}");
        fields.cells.truncate(4);
        assert!(on_evidence(&fields, from_classical).iter().all(|sigmas| sigmas.is_nan()));
    }

    #[test]
    fn without_statistics_nothing_is_evaluated() {
        let reference = Reference { features: None, ..reference() };
        let found = evaluated(&fields(), &reference);
        assert!(found.p_value.iter().all(|p| p.is_nan()));
        assert!(found.flag.iter().all(|&flag| flag == 0));
    }
}
