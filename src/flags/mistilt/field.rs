//! The offset of P over a frame: one linear Gaussian model of all tiles, variants and measurements.
//!
//! The mean of what belongs to variant `k` in tile `t`, as one measurement `s` sees it, is
//! `offset(t) + bias(s) + (magnitude(s) + change(s, t, k)) · variant(k) ± deviation(s, axis of k)`. The offset is smooth over the frame
//! (a Gaussian process), so that tiles vote for their neighbours; the bias is the measurement's own; opposite variants deviate from
//! the material's direction and length alike, which is what a strain does to them; the change is a domain's own, which walls shorten.
//!
//! How much the offset varies is the frame's to say: the model is solved for several variations, each as likely as the others before,
//! and the solutions are averaged by the evidence that the frame gives for each (MacKay, Neural Comput. 4, 415 (1992)).

use super::MistiltSettings;
use super::cluster::{Clusters, T_INFORMATION, share_of_weight};
use nalgebra::{DMatrix, DVector, Matrix2, Vector2};

/// The offset's standard deviation before anything is measured, pm.
const PRIOR_OFFSET_PM: f64 = 30.0;
/// The magnitude's, as a part of itself.
const PRIOR_MAGNITUDE: f64 = 0.5;
/// A bias of nothing at all would make the normal matrix singular, pm.
const LEAST_BIAS_PM: f64 = 1e-3;
/// The same for deviations, as a part of the magnitude.
const LEAST_TOLERANCE: f64 = 1e-4;
/// Variations of the offset that a frame may have, as parts of the settings'.
const VARIATIONS: [f64; 4] = [0.125, 0.25, 0.5, 1.0];
/// Rounds of sorting into variants and solving.
const ROUNDS: usize = 4;

/// One measured P.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub tile: usize,
    pub p: Vector2<f64>,
    /// Whether it lies where the material is known not to be polar.
    pub reference: bool,
}

/// All that one way of measuring says of a frame.
#[derive(Debug)]
pub(super) struct Measurement {
    pub samples: Vec<Sample>,
    pub clusters: Clusters,
    /// Standard deviation of its own bias, each component, pm.
    pub bias_pm: f64,
    /// The part of its samples that counts as independent.
    pub independent: f64,
    /// Whether samples outside the reference region tell anything: where P is one cluster they do not.
    pub beyond_reference: bool,
}

/// The polar variants of the frame, the last of which may be none at all.
#[derive(Debug, Clone)]
pub(super) struct Variants {
    pub all: Vec<Vector2<f64>>,
    /// Of each the axis that it shares with its opposite, and its sense along it; `None` for no P.
    axes: Vec<Option<(usize, f64)>>,
    count: usize,
}

impl Variants {
    pub fn new(all: Vec<Vector2<f64>>) -> Self {
        let mut axes: Vec<Option<(usize, f64)>> = Vec::new();
        let mut count = 0;
        for (k, variant) in all.iter().enumerate() {
            let opposite = all.iter().take(k).position(|other| (other + variant).norm() < 1e-6);
            let shared =
                opposite.and_then(|j| axes.get(j).copied().flatten()).map(|(axis, sense)| (axis, -sense));
            axes.push(match shared {
                _ if variant.norm() < 1e-6 => None,
                Some(shared) => Some(shared),
                None => {
                    count += 1;
                    Some((count - 1, 1.0))
                }
            });
        }
        Self { all, axes, count }
    }

    /// Which of them is no P.
    fn none(&self) -> Option<usize> {
        self.axes.iter().position(Option::is_none)
    }
}

/// The offsets of the tiles, x and y of one after the other, pm, and their covariance.
#[derive(Debug, Clone)]
pub(super) struct Posterior {
    offset: DVector<f64>,
    covariance: DMatrix<f64>,
}

impl Posterior {
    pub fn offset(&self, tile: usize) -> Vector2<f64> {
        self.offset.fixed_rows::<2>(2 * tile).into_owned()
    }

    pub fn covariance(&self, tile: usize) -> Matrix2<f64> {
        let covariance = self.covariance.fixed_view::<2, 2>(2 * tile, 2 * tile);
        (covariance + covariance.transpose()) * 0.5
    }

    /// How many independent tests the tests of these tiles are worth: `1 + n - Σ r² / n` over all pairs, r the correlation of their
    /// offsets (Nyholt, Am. J. Hum. Genet. 74, 765 (2004), eq. 5, where the variance of the eigenvalues is written out). Tiles that
    /// lean on each other are nearly one test.
    pub fn tests(&self, tiles: &[usize]) -> f64 {
        let component = |axis: usize| {
            let variance = |t: usize| self.covariance[(2 * t + axis, 2 * t + axis)];
            let squared = |a: usize, b: usize| {
                self.covariance[(2 * a + axis, 2 * b + axis)].powi(2) / (variance(a) * variance(b))
            };
            tiles.iter().flat_map(|&a| tiles.iter().map(move |&b| squared(a, b))).sum::<f64>()
        };
        let count = tiles.len().max(1) as f64;
        (1.0 + count - 0.5 * (component(0) + component(1)) / count).clamp(1.0, count)
    }

    /// The average of `solved` by their evidence; it scatters by what each does and by how much they differ.
    fn averaged(solved: &[Solved], tiles: usize) -> Option<Self> {
        let best = solved.iter().map(|solved| solved.ln_evidence).fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = solved.iter().map(|solved| (solved.ln_evidence - best).exp()).collect();
        let total = weights.iter().sum::<f64>();
        if !(total > 0.0 && total.is_finite()) {
            return None;
        }
        let mut offset = DVector::zeros(2 * tiles);
        for (solved, weight) in solved.iter().zip(&weights) {
            offset += solved.unknowns.rows(0, 2 * tiles) * (weight / total);
        }
        let mut covariance = DMatrix::zeros(2 * tiles, 2 * tiles);
        for (solved, weight) in solved.iter().zip(&weights) {
            let apart = solved.unknowns.rows(0, 2 * tiles) - &offset;
            covariance += (&solved.covariance + &apart * apart.transpose()) * (weight / total);
        }
        Some(Self { offset, covariance })
    }
}

/// The model solved for one variation of the offset.
struct Solved {
    unknowns: DVector<f64>,
    /// Of the tiles' offsets.
    covariance: DMatrix<f64>,
    /// Logarithm of the probability of what was measured, but for what is the same for every variation.
    ln_evidence: f64,
}

/// What is known of one component of the tiles' offsets before anything is measured.
struct Smooth {
    precision: DMatrix<f64>,
    ln_determinant: f64,
}

/// What belongs to one variant in one tile.
#[derive(Debug, Clone, Copy, Default)]
struct Group {
    weight: f64,
    sum: Vector2<f64>,
}

/// Where the unknowns of one measurement begin, behind the offsets of the tiles.
struct Places {
    bias: usize,
    magnitude: usize,
    deviations: usize,
}

/// Fits the model. `tiles_nm`: centres `[x, y]`. `None` where there is nothing to fit.
pub(super) fn fit(
    tiles_nm: &[[f64; 2]],
    variants: &Variants,
    measurements: &mut [Measurement],
    settings: &MistiltSettings,
) -> Option<Posterior> {
    let tiles = tiles_nm.len();
    let variations = VARIATIONS.map(|part| part * settings.variation_pm);
    let smooth: Vec<Smooth> = variations
        .iter()
        .map(|variation_pm| smoothness(tiles_nm, *variation_pm, settings.smooth_nm))
        .collect::<Option<_>>()?;
    // Values are sorted where the offset may vary most: with less, those of a bent frame would go to the wrong variants.
    let most = smooth.last()?;
    let mut unknowns: Option<DVector<f64>> = None;
    let mut groups = Vec::new();
    for _ in 0..ROUNDS {
        for (index, measurement) in measurements.iter_mut().enumerate() {
            rescale(measurement, variants, centres(unknowns.as_ref(), tiles, index, variants));
        }
        groups = measurements
            .iter()
            .enumerate()
            .map(|(index, measurement)| {
                sort(measurement, variants, tiles, centres(unknowns.as_ref(), tiles, index, variants))
            })
            .collect();
        unknowns = Some(solve(most, variants, measurements, &groups, settings)?.unknowns);
    }
    let solved: Vec<Solved> = smooth
        .iter()
        .map(|smooth| solve(smooth, variants, measurements, &groups, settings))
        .collect::<Option<_>>()?;
    Posterior::averaged(&solved, tiles)
}

fn places(tiles: usize, index: usize, variants: &Variants) -> Places {
    let bias = 2 * tiles + index * (3 + 2 * variants.count);
    Places { bias, magnitude: bias + 2, deviations: bias + 3 }
}

/// Where a measurement expects each variant, tile by tile; before the first solution, nothing.
fn centres<'a>(
    unknowns: Option<&'a DVector<f64>>,
    tiles: usize,
    index: usize,
    variants: &'a Variants,
) -> impl Fn(usize, &Clusters) -> Vec<Vector2<f64>> + 'a {
    move |tile, clusters| {
        let Some(found) = unknowns else {
            return variants.all.iter().map(|v| clusters.offset + v * clusters.magnitude).collect();
        };
        let at = places(tiles, index, variants);
        let pair = |k: usize| Vector2::new(found[k], found[k + 1]);
        let offset = pair(2 * tile) + pair(at.bias);
        let magnitude = clusters.magnitude + found[at.magnitude];
        let deviation = |axis: &Option<(usize, f64)>| {
            axis.map_or_else(Vector2::zeros, |(axis, sense)| pair(at.deviations + 2 * axis) * sense)
        };
        let each = variants.all.iter().zip(&variants.axes);
        each.map(|(variant, axis)| offset + variant * magnitude + deviation(axis)).collect()
    }
}

/// How much of `sample` belongs to each variant, with its weight; nothing where it tells nothing.
fn belongs(
    sample: &Sample,
    measurement: &Measurement,
    variants: &Variants,
    centres: &[Vector2<f64>],
) -> Vec<f64> {
    if let (true, Some(none)) = (sample.reference, variants.none()) {
        let weight = centres.get(none).map_or(0.0, |centre| measurement.clusters.weight(&sample.p, centre));
        return (0..variants.all.len()).map(|k| if k == none { weight } else { 0.0 }).collect();
    }
    if !measurement.beyond_reference {
        return vec![0.0; variants.all.len()];
    }
    measurement.clusters.weights(&sample.p, centres)
}

/// The scatter about where the variants are now expected.
fn rescale(
    measurement: &mut Measurement,
    variants: &Variants,
    centres: impl Fn(usize, &Clusters) -> Vec<Vector2<f64>>,
) {
    let (mut squares, mut count) = (0.0, 0.0);
    let sigma = measurement.clusters.sigma;
    for sample in &measurement.samples {
        let centres = centres(sample.tile, &measurement.clusters);
        let weights = belongs(sample, measurement, variants, &centres);
        for (weight, centre) in weights.iter().zip(&centres) {
            let square = (sample.p - centre).norm_squared();
            count += weight * share_of_weight(square / (sigma * sigma));
            squares += weight * square;
        }
    }
    if count > 0.0 && squares > 0.0 {
        measurement.clusters.sigma = (squares / (2.0 * count)).sqrt();
    }
}

/// `[tile][variant]`.
fn sort(
    measurement: &Measurement,
    variants: &Variants,
    tiles: usize,
    centres: impl Fn(usize, &Clusters) -> Vec<Vector2<f64>>,
) -> Vec<Vec<Group>> {
    let mut groups = vec![vec![Group::default(); variants.all.len()]; tiles];
    for sample in &measurement.samples {
        let centres = centres(sample.tile, &measurement.clusters);
        let weights = belongs(sample, measurement, variants, &centres);
        let Some(tile) = groups.get_mut(sample.tile) else { continue };
        for (group, weight) in tile.iter_mut().zip(weights) {
            group.weight += weight;
            group.sum += sample.p * weight;
        }
    }
    groups
}

fn smoothness(tiles_nm: &[[f64; 2]], variation_pm: f64, smooth_nm: f64) -> Option<Smooth> {
    let n = tiles_nm.len();
    let covariance = DMatrix::from_fn(n, n, |i, j| {
        let (Some(a), Some(b)) = (tiles_nm.get(i), tiles_nm.get(j)) else { return 0.0 };
        let apart = (a[0] - b[0]).hypot(a[1] - b[1]) / smooth_nm;
        let alike = variation_pm.powi(2) * (-0.5 * apart * apart).exp();
        // The small term is for numerics alone: neighbours are nearly the same.
        PRIOR_OFFSET_PM.powi(2) + alike + if i == j { 0.01 } else { 0.0 }
    });
    let root = covariance.cholesky()?;
    Some(Smooth { precision: root.inverse(), ln_determinant: -root.ln_determinant() })
}

fn solve(
    smooth: &Smooth,
    variants: &Variants,
    measurements: &[Measurement],
    groups: &[Vec<Vec<Group>>],
    settings: &MistiltSettings,
) -> Option<Solved> {
    let tiles = smooth.precision.nrows();
    let size = places(tiles, measurements.len(), variants).bias;
    let mut normal = DMatrix::zeros(size, size);
    let mut right = DVector::zeros(size);
    for i in 0..tiles {
        for j in 0..tiles {
            for axis in 0..2 {
                normal[(2 * i + axis, 2 * j + axis)] = smooth.precision[(i, j)];
            }
        }
    }
    for (index, (measurement, groups)) in measurements.iter().zip(groups).enumerate() {
        let at = places(tiles, index, variants);
        let magnitude = measurement.clusters.magnitude;
        let mut hold = |k: usize, deviation: f64| normal[(k, k)] += 1.0 / (deviation * deviation);
        let tolerance = settings.variant_tolerance.max(LEAST_TOLERANCE) * magnitude.max(1.0);
        hold(at.bias, measurement.bias_pm.max(LEAST_BIAS_PM));
        hold(at.bias + 1, measurement.bias_pm.max(LEAST_BIAS_PM));
        hold(at.magnitude, PRIOR_MAGNITUDE * magnitude.max(1.0));
        (0..2 * variants.count).for_each(|k| hold(at.deviations + k, tolerance));
        for (tile, groups) in groups.iter().enumerate() {
            add_tile(&mut normal, &mut right, (tile, &at, tolerance), (variants, measurement), groups);
        }
    }
    let root = normal.cholesky()?;
    let inverse = root.inverse();
    let unknowns = &inverse * &right;
    // Both components have the same prior.
    let ln_evidence = smooth.ln_determinant + 0.5 * (right.dot(&unknowns) - root.ln_determinant());
    let covariance = inverse.view((0, 0), (2 * tiles, 2 * tiles)).into_owned();
    Some(Solved { unknowns, covariance, ln_evidence })
}

/// Adds what one measurement says of one tile. The change of each domain's length is part of what its mean scatters by.
fn add_tile(
    normal: &mut DMatrix<f64>,
    right: &mut DVector<f64>,
    (tile, at, tolerance): (usize, &Places, f64),
    (variants, measurement): (&Variants, &Measurement),
    groups: &[Group],
) {
    let scatter = measurement.clusters.sigma.powi(2);
    for ((group, variant), axis) in groups.iter().zip(&variants.all).zip(&variants.axes) {
        if group.weight <= 0.0 {
            continue;
        }
        let information = group.weight * measurement.independent * T_INFORMATION / scatter;
        let spread =
            Matrix2::identity() / information + variant * variant.transpose() * tolerance * tolerance;
        let Some(precision) = spread.try_inverse() else { continue };
        let rest = group.sum / group.weight - variant * measurement.clusters.magnitude;
        let design = |component: usize| {
            let mut design = vec![
                (2 * tile + component, 1.0),
                (at.bias + component, 1.0),
                (at.magnitude, variant[component]),
            ];
            design.extend(axis.map(|(axis, sense)| (at.deviations + 2 * axis + component, sense)));
            design
        };
        for (one, other) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let weight = precision[(one, other)];
            for (i, a) in design(one) {
                right[i] += weight * a * rest[other];
                for (j, b) in design(other) {
                    normal[(i, j)] += weight * a * b;
                }
            }
        }
    }
}
