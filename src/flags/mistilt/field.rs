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
use super::blend::Windows;
use super::cluster::{Clusters, T_INFORMATION};
use super::groups::{Expected, Group, sort};
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
/// Standard deviation of the part by which walls take less or more of P than a blend says, in a frame and, besides, in a domain.
const WALL_TOLERANCE: f64 = 0.3;
const WALL_SCATTER: f64 = 0.15;
/// Rounds of sorting into variants and solving.
const ROUNDS: usize = 4;

/// One measured P.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub tile: usize,
    pub p: Vector2<f64>,
    /// Whether it lies where the material is known not to be polar.
    pub reference: bool,
    /// The window that it lies in, of those that say what is around it.
    pub window: Option<[usize; 2]>,
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
    pub fn none(&self) -> Option<usize> {
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

    /// Mean offset of all tiles.
    pub fn mean(&self) -> Vector2<f64> {
        let tiles = self.offset.len() / 2;
        (0..tiles).map(|tile| self.offset(tile)).sum::<Vector2<f64>>() / tiles.max(1) as f64
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

/// Where the unknowns of one measurement begin, behind the offsets of the tiles.
struct Places {
    bias: usize,
    magnitude: usize,
    narrower: usize,
    deviations: usize,
}

/// Fits the model. `tiles_nm`: centres `[x, y]`. `None` where there is nothing to fit.
pub(super) fn fit(
    tiles_nm: &[[f64; 2]],
    variants: &Variants,
    (windows, measurements): (&Windows, &mut [Measurement]),
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
        let expected: Vec<Expected> = measurements
            .iter()
            .enumerate()
            .map(|measured| expected(unknowns.as_ref(), tiles, measured, variants))
            .collect();
        let telling =
            measurements.iter().zip(&expected).find(|(measurement, _)| measurement.beyond_reference);
        let blend = telling.map(|(measurement, expected)| {
            windows.blend(variants, |k| measurement.clusters.holds(k), &expected.centres)
        });
        groups.clear();
        for (measurement, expected) in measurements.iter_mut().zip(&expected) {
            let (sorted, scatter) = sort(measurement, variants, blend.as_ref(), expected);
            measurement.clusters.sigma = scatter;
            groups.push(sorted);
        }
        unknowns = Some(solve(most, variants, measurements, &groups, settings)?.unknowns);
    }
    let solved: Vec<Solved> = smooth
        .iter()
        .map(|smooth| solve(smooth, variants, measurements, &groups, settings))
        .collect::<Option<_>>()?;
    Posterior::averaged(&solved, tiles)
}

fn places(tiles: usize, index: usize, variants: &Variants) -> Places {
    let bias = 2 * tiles + index * (4 + 2 * variants.count);
    Places { bias, magnitude: bias + 2, narrower: bias + 3, deviations: bias + 4 }
}

/// Where a measurement expects P; before the first solution, what its clusters say.
fn expected(
    unknowns: Option<&DVector<f64>>,
    tiles: usize,
    (index, measurement): (usize, &Measurement),
    variants: &Variants,
) -> Expected {
    let clusters = &measurement.clusters;
    let Some(found) = unknowns else {
        let centres = variants.all.iter().map(|v| clusters.offset + v * clusters.magnitude).collect();
        return Expected { centres: vec![centres; tiles], narrower: 0.0 };
    };
    let at = places(tiles, index, variants);
    let pair = |k: usize| Vector2::new(found[k], found[k + 1]);
    let magnitude = clusters.magnitude + found[at.magnitude];
    let deviation = |axis: &Option<(usize, f64)>| {
        axis.map_or_else(Vector2::zeros, |(axis, sense)| pair(at.deviations + 2 * axis) * sense)
    };
    let each = variants.all.iter().zip(&variants.axes);
    let relative: Vec<Vector2<f64>> =
        each.map(|(variant, axis)| pair(at.bias) + variant * magnitude + deviation(axis)).collect();
    let centres = (0..tiles).map(|tile| relative.iter().map(|p| pair(2 * tile) + p).collect()).collect();
    Expected { centres, narrower: found[at.narrower] }
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
        hold(at.narrower, WALL_TOLERANCE);
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
    for (group, variant) in groups.iter().zip(&variants.all).filter(|(group, _)| group.weight > 0.0) {
        let seen: Vec<f64> = group.seen.iter().map(|seen| seen / group.weight).collect();
        let blended: Vector2<f64> = seen.iter().zip(&variants.all).map(|(share, v)| v * *share).sum();
        let taken = (variant - blended) * measurement.clusters.magnitude;
        let information = group.weight * measurement.independent * T_INFORMATION / scatter;
        let spread = Matrix2::identity() / information
            + blended * blended.transpose() * tolerance * tolerance
            + taken * taken.transpose() * WALL_SCATTER * WALL_SCATTER;
        let Some(precision) = spread.try_inverse() else { continue };
        let rest = group.sum / group.weight - blended * measurement.clusters.magnitude;
        let design = |component: usize| {
            let mut design = vec![
                (2 * tile + component, 1.0),
                (at.bias + component, 1.0),
                (at.magnitude, blended[component]),
                (at.narrower, taken[component]),
            ];
            let along = seen.iter().zip(&variants.axes).filter_map(|(share, axis)| Some((share, (*axis)?)));
            design.extend(
                along.map(|(share, (axis, sense))| (at.deviations + 2 * axis + component, sense * share)),
            );
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
