//! What one measurement says of each variant in each tile.

use super::blend::{Blend, nearest};
use super::cluster::weight;
use super::field::{Measurement, Sample, Variants};
use nalgebra::Vector2;

/// What belongs to one variant in one tile.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub weight: f64,
    /// Of P, with weights.
    pub sum: Vector2<f64>,
    /// Of the shares of all variants that were seen, with weights.
    pub seen: Vec<f64>,
}

/// Where a measurement expects P.
#[derive(Debug)]
pub(super) struct Expected {
    /// Of each variant, `[tile][variant]`, pm.
    pub centres: Vec<Vec<Vector2<f64>>>,
    /// By what part walls take less of P than a blend says.
    pub narrower: f64,
}

/// `[tile][variant]`, and the scatter about what is expected.
///
/// A sample belongs to the variant of which it sees most.
pub(super) fn sort(
    measurement: &Measurement,
    variants: &Variants,
    blend: Option<&Blend>,
    expected: &Expected,
) -> (Vec<Vec<Group>>, f64) {
    let count = variants.all.len();
    let none = Group { weight: 0.0, sum: Vector2::zeros(), seen: vec![0.0; count] };
    let mut groups = vec![vec![none; count]; expected.centres.len()];
    let sigma = measurement.clusters.sigma;
    let (mut squares, mut members) = (0.0, 0.0);
    for sample in &measurement.samples {
        let (Some(centres), Some(tile)) = (expected.centres.get(sample.tile), groups.get_mut(sample.tile))
        else {
            continue;
        };
        let Some(shares) = seen(sample, measurement, (variants, blend), centres) else { continue };
        let most = shares.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b)).map_or(0, |(k, _)| k);
        let (Some(group), Some(centre)) = (tile.get_mut(most), centres.get(most)) else { continue };
        let blended: Vector2<f64> = shares.iter().zip(centres).map(|(share, centre)| centre * *share).sum();
        let square = (sample.p - blended - (centre - blended) * expected.narrower).norm_squared();
        let weight = weight(square / (sigma * sigma));
        squares += weight * square;
        members += 1.0;
        group.weight += weight;
        group.sum += sample.p * weight;
        group.seen.iter_mut().zip(&shares).for_each(|(seen, share)| *seen += weight * share);
    }
    let scatter = if squares > 0.0 { (squares / (2.0 * members)).sqrt() } else { sigma };
    (groups, scatter)
}

/// Shares of the variants that `sample` sees: those of its window, or else the nearest one alone. `None` where it tells nothing.
fn seen(
    sample: &Sample,
    measurement: &Measurement,
    (variants, blend): (&Variants, Option<&Blend>),
    centres: &[Vector2<f64>],
) -> Option<Vec<f64>> {
    let alone = |k: usize| (0..variants.all.len()).map(|l| if l == k { 1.0 } else { 0.0 }).collect();
    if let (true, Some(none)) = (sample.reference, variants.none()) {
        return Some(alone(none));
    }
    if !measurement.beyond_reference {
        return None;
    }
    let around = sample.window.zip(blend).and_then(|(window, blend)| blend.at(window));
    around.or_else(|| nearest(&sample.p, centres, |k| measurement.clusters.holds(k)).map(alone))
}
