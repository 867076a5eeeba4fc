//! Where the frame is not polar, as far as the settings mark it or the image shows it.
//!
//! In a polar material whose P never points along the beam, an area without P is another phase: substrate, electrode, or paraelectric.
//! It shows when it is larger than any wall is wide, and lies beside P of the material's usual length: P that is short everywhere may
//! be a single domain of a weaker film, or one that an offset shortens.

use super::{MistiltSettings, turned};
use crate::flags::Evidence;
use crate::frame::{PolarizationMaps, grid_index};
use crate::material::Material;
use crate::preprocess::AreaSums;
use ferrostem_proto::PixelPosition;
use nalgebra::Vector2;
use ndarray::Array2;

/// P below this part of the material's is none, its standard deviation included; halfway, an offset may be as long as half of P.
pub(super) const NONE_BELOW: f64 = 0.5;
/// Of the windows of a square that is not polar, this part shows no P: noise lengthens single ones.
const SHARE: f64 = 0.95;
/// The rim of such a square, as a part of its side, that is left out: windows there still see P beside it.
const RIM: f64 = 0.125;

/// Places that are not polar.
pub(super) struct References {
    marked: Option<[f64; 4]>,
    /// `[window row, window col]`.
    shown: Array2<bool>,
}

impl References {
    pub fn of(
        evidence: &Evidence<'_>,
        maps: &PolarizationMaps,
        passed_over: &Array2<bool>,
        material: &Material,
        settings: &MistiltSettings,
    ) -> Self {
        // P along the beam looks like none.
        let may_show = material.polar && !material.out_of_plane_variant;
        let shown = if may_show { shown(evidence, maps, passed_over, material, settings) } else { None };
        Self { marked: settings.reference, shown: shown.unwrap_or_default() }
    }

    /// Whether a place, by frame pixels, is one of them.
    pub fn hold(&self, evidence: &Evidence<'_>, [row, col]: [f64; 2]) -> bool {
        let (rows, cols) = evidence.frame.pixels.dim();
        let (y, x) = ((row + 0.5) / rows as f64, (col + 0.5) / cols as f64);
        let marked = self.marked.is_some_and(|[top, bottom, left, right]| {
            (top..=bottom).contains(&y) && (left..=right).contains(&x)
        });
        let window = grid_index(&evidence.fields.grid, PixelPosition { row, col });
        marked || window.is_some_and(|at| self.shown.get(at) == Some(&true))
    }
}

/// All windows within squares of a tile's side that show no P; `None` where there are none, or nothing else shows P.
fn shown(
    evidence: &Evidence<'_>,
    maps: &PolarizationMaps,
    passed_over: &Array2<bool>,
    material: &Material,
    settings: &MistiltSettings,
) -> Option<Array2<bool>> {
    let limit = NONE_BELOW * material.displacement_pm;
    let (rows, cols) = maps.p_x.dim();
    let mut none = Array2::from_elem((rows, cols), 0u32);
    let (mut polar, mut measured) = (0usize, 0usize);
    for ((i, j), p_x) in maps.p_x.indexed_iter().filter(|&(at, _)| passed_over.get(at) != Some(&true)) {
        let (Some(p_y), Some(sigma)) = (maps.p_y.get((i, j)), maps.p_sigma.get((i, j))) else { continue };
        let length = f64::from(p_x.hypot(*p_y));
        if !length.is_finite() {
            continue;
        }
        measured += 1;
        polar += usize::from(length >= limit);
        if let Some(none) = none.get_mut((i, j)) {
            *none = u32::from(length.hypot(f64::from(*sigma)) < limit);
        }
    }
    if (polar as f64) < settings.min_variant_share * measured as f64 {
        return None;
    }
    let grid = &evidence.fields.grid;
    let side =
        |step: f64, pixel_pm: f64| ((1000.0 * settings.tile_nm / (step * pixel_pm)).ceil() as usize).max(1);
    let pixel = evidence.calibration.pixel_size_pm;
    let (height, width) = (side(grid.step_row, pixel[0]), side(grid.step_col, pixel[1]));
    let (last_i, last_j) = (rows.checked_sub(height)?, cols.checked_sub(width)?);
    let sums = AreaSums::new(none.view(), |none: u32| none);
    let enough = SHARE * (height * width) as f64;
    let rim = |side: usize| (RIM * side as f64).round() as usize;
    let mut shown = Array2::from_elem((rows, cols), false);
    let mut any = false;
    for i in 0..=last_i {
        for j in 0..=last_j {
            if f64::from(sums.of(i..i + height, j..j + width)) < enough {
                continue;
            }
            any = true;
            for k in i + rim(height)..i + height - rim(height) {
                for l in j + rim(width)..j + width - rim(width) {
                    shown[[k, l]] = true;
                }
            }
        }
    }
    if !any {
        return None;
    }
    let beside = Array2::from_shape_fn((rows, cols), |at| {
        let (p_x, p_y) = (maps.p_x.get(at).unwrap_or(&f32::NAN), maps.p_y.get(at).unwrap_or(&f32::NAN));
        f64::from(p_x.hypot(*p_y)) >= limit && passed_over.get(at) != Some(&true)
    });
    // Without a lattice direction there is nothing to compare P with.
    let is_domain = evidence.lattice_angle_rad.is_some_and(|angle| {
        let full = material.variants.iter().map(|v| turned(*v, angle) * material.displacement_pm);
        shortened(maps, &shown, &beside, &full.collect::<Vec<_>>())
    });
    (!is_domain).then_some(shown)
}

/// Whether P beside what looks like no P differs from it as that of another domain does, and not as P from none: then an offset
/// shortens one domain's P and lengthens the other's.
fn shortened(
    maps: &PolarizationMaps,
    shown: &Array2<bool>,
    beside: &Array2<bool>,
    p_pm: &[Vector2<f64>],
) -> bool {
    let within = |which: &Array2<bool>| -> Vec<Vector2<f64>> {
        let chosen = which.indexed_iter().filter(|(_, chosen)| **chosen);
        let vector = |at| Some(Vector2::new(f64::from(*maps.p_x.get(at)?), f64::from(*maps.p_y.get(at)?)));
        chosen.filter_map(|(at, _)| vector(at)).filter(|p| p.norm().is_finite()).collect()
    };
    let none = within(shown);
    let none = none.iter().sum::<Vector2<f64>>() / none.len().max(1) as f64;
    let pairs = p_pm.iter().flat_map(|a| p_pm.iter().map(move |b| a - b)).filter(|apart| apart.norm() > 0.0);
    let pairs: Vec<Vector2<f64>> = pairs.collect();
    let away = |p: &Vector2<f64>, from: &[Vector2<f64>]| {
        from.iter().map(|from| (p - none - from).norm()).fold(f64::INFINITY, f64::min)
    };
    let beside = within(beside);
    beside.iter().map(|p| away(p, &pairs)).sum::<f64>() < beside.iter().map(|p| away(p, p_pm)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::super::{MistiltMap, TileState, evaluate};
    use super::*;
    use crate::flags::Reference;
    use crate::flags::testing::Scenery;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, Normal};

    /// Windows on a side, 120 pm apart.
    const SIDE: usize = 80;
    /// A full P along a diagonal.
    const P: [f64; 2] = [23.0, 23.0];

    /// The verdicts on a frame whose P depends on the column of windows, with errors of 3 pm.
    fn judged(material: &str, p: impl Fn(usize) -> [f64; 2]) -> MistiltMap {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let normal = Normal::new(0.0, 3.0).unwrap();
        let scenery = Scenery::new(SIDE, |_, j| p(j).map(|p| p + normal.sample(&mut rng)));
        let evidence = Evidence { lattice_angle_rad: Some(0.0), ..scenery.evidence() };
        let material = Material::built_in(material).unwrap();
        let reference = Reference { material, features: None, outputs: Vec::new() };
        let settings = MistiltSettings { bias_pm: Some(0.5), ..MistiltSettings::default() };
        evaluate(&evidence, &reference, &Array2::from_elem((SIDE, SIDE), false), &settings)
    }

    /// A substrate beside one domain of a film.
    fn on_substrate(j: usize) -> [f64; 2] {
        if j < SIDE / 2 { P.map(|p| p + 5.0) } else { [5.0, 5.0] }
    }

    fn all_undetermined(map: &MistiltMap) -> bool {
        map.verdicts.iter().all(|verdict| verdict.state == TileState::Undetermined)
    }

    #[test]
    fn an_area_without_p_beside_a_domain_tells_the_offset() {
        let map = judged("bifeo3", on_substrate);
        let beside: Vec<_> = map.verdicts.columns().into_iter().next_back().unwrap().to_vec();
        for verdict in beside {
            assert_eq!(verdict.state, TileState::Suspect, "{verdict:?}");
            assert!((verdict.offset_x - 5.0).hypot(verdict.offset_y - 5.0) < 1.5, "{verdict:?}");
        }
    }

    #[test]
    fn p_along_the_beam_may_look_like_none() {
        let scenery = Scenery::new(SIDE, |_, j| on_substrate(j));
        let maps = scenery.fields.polarization.as_ref().unwrap();
        let passed_over = Array2::from_elem((SIDE, SIDE), false);
        for (name, held) in [("bifeo3", true), ("batio3", false)] {
            let material = Material { displacement_pm: 32.6, ..Material::built_in(name).unwrap() };
            let settings = MistiltSettings::default();
            let references = References::of(&scenery.evidence(), maps, &passed_over, &material, &settings);
            // The window in row 40 and column 60, pixels.
            assert_eq!(references.hold(&scenery.evidence(), [359.5, 519.5]), held, "{name}");
            assert!(!references.hold(&scenery.evidence(), [359.5, 119.5]), "{name}");
        }
    }

    #[test]
    fn a_domain_of_full_or_short_p_is_undetermined() {
        for length in [1.0, 0.3] {
            assert!(all_undetermined(&judged("bifeo3", |_| P.map(|p| p * length))), "{length}");
        }
    }

    #[test]
    fn a_domain_that_an_offset_shortens_is_no_reference() {
        // Two opposite domains and an offset of 20 pm along one of them, which leaves it 12.5 pm of its 32.5 pm.
        let map = judged("bifeo3", |j| if j < SIDE / 2 { P.map(|p| p + 14.1) } else { P.map(|p| 14.1 - p) });
        for verdict in &map.verdicts {
            assert_eq!(verdict.state, TileState::Suspect, "{verdict:?}");
            assert!((verdict.offset_x - 14.1).hypot(verdict.offset_y - 14.1) < 1.5, "{verdict:?}");
        }
    }

    #[test]
    fn a_wide_wall_is_no_reference() {
        // 3 nm without P between a domain and another of the same P.
        let map = judged("bifeo3", |j| if (28..53).contains(&j) { [5.0, 5.0] } else { P });
        assert!(all_undetermined(&map), "{:?}", map.verdicts);
    }
}
