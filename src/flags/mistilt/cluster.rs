//! Which polar variant each measured P belongs to, over the whole frame: a mixture with one offset and one magnitude.
//!
//! Components are two-dimensional Student t distributions before a flat background, so that windows on walls and failed fits weigh
//! little.

use nalgebra::{Matrix2, Matrix3, Vector2, Vector3};

/// Degrees of freedom of the t distribution.
const TAIL: f64 = 4.0;
/// Half the power that a two-dimensional one falls with.
const HALF_POWER: i32 = 3;
/// Information on the centre of a two-dimensional t distribution, relative to a normal one of the same scale.
pub(super) const T_INFORMATION: f64 = (TAIL + 2.0) / (TAIL + 4.0);
/// Rounds of expectation and maximization, and those after which starts are compared.
const ROUNDS: usize = 40;
const FIRST_ROUNDS: usize = 8;
/// Most vectors that are looked at, and that starts are compared with: neighbours share their errors.
const MOST: usize = 1500;
const FIRST_MOST: usize = 300;
/// Offsets that are tried at first: this part of P, in as many directions, and none at all.
const START_OFFSET: f64 = 0.7;
const START_DIRECTIONS: usize = 8;
/// Of so many starts the best ones are followed to the end.
const FOLLOWED: usize = 3;
/// Standard deviations of the offset, pm, and of the magnitude over the material's, by which solutions that fit equally well are told
/// apart: tilts of 14 mrad, and of films that are strained.
const LIKELY_OFFSET_PM: f64 = 10.0;
const LIKELY_MAGNITUDE: f64 = 0.3;
/// The same while one of them is followed, wide, so that they do not draw it.
const PRIOR_OFFSET_PM: f64 = 20.0;
const PRIOR_MAGNITUDE: f64 = 0.5;
/// The background is flat within this radius, pm, and has this share at first.
const BACKGROUND_PM: f64 = 80.0;
const FIRST_BACKGROUND: f64 = 0.05;
/// Smallest scale of the scatter, pm.
const LEAST_SIGMA_PM: f64 = 0.3;
/// A variant keeps at least this share, so that it can grow again.
const LEAST_SHARE: f64 = 1e-3;
/// Difference of the Bayesian information criterion from which one model is strongly preferred (Kass and Raftery, J. Am. Stat.
/// Assoc. 90, 773 (1995)).
const STRONG: f64 = 6.0;
/// Distance between clusters, in scales of their scatter, below which one cluster may have been split: mixtures fitted to one are at
/// most 2.3 apart, of 200 and 800 values with any scatter.
const LEAST_APART: f64 = 2.8;

/// The mixture that was found.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Clusters {
    pub offset: Vector2<f64>,
    /// Length of P; 0 where no variant has any.
    pub magnitude: f64,
    /// Scale of the scatter of one component.
    pub sigma: f64,
    /// Share of each variant.
    pub shares: Vec<f64>,
    /// Share of what belongs to none.
    pub background: f64,
    log_likelihood: f64,
}

impl Clusters {
    /// How much of `p` belongs to each variant, and its weight there, where the variants' centres are `centres`.
    fn weights(&self, p: &Vector2<f64>, centres: &[Vector2<f64>]) -> Vec<f64> {
        let densities: Vec<(f64, f64)> = centres
            .iter()
            .zip(&self.shares)
            .map(|(centre, share)| {
                let z = (p - centre).norm_squared() / (self.sigma * self.sigma);
                (share * density(z, self.sigma), (TAIL + 2.0) / (TAIL + z))
            })
            .collect();
        let sum = self.background * flat() + densities.iter().map(|(density, _)| density).sum::<f64>();
        densities.into_iter().map(|(density, weight)| weight * density / sum.max(f64::MIN_POSITIVE)).collect()
    }

    /// Whether any P may belong to this variant.
    pub fn holds(&self, variant: usize) -> bool {
        self.shares.get(variant).is_some_and(|share| *share > 0.0)
    }

    /// One cluster of vectors that all belong to no P.
    pub fn single(vectors: &[Vector2<f64>]) -> Self {
        let lengths = vectors.iter().map(|p| p.norm()).sum::<f64>() / vectors.len().max(1) as f64;
        let start = Self::start(Vector2::zeros(), lengths.max(1.0), 1);
        Self { magnitude: 0.0, ..mixture(&thinned(vectors, MOST), &[Vector2::zeros()], &start, ROUNDS) }
    }

    /// Where a fit begins.
    fn start(offset: Vector2<f64>, magnitude: f64, variants: usize) -> Self {
        Self {
            offset,
            magnitude,
            sigma: 0.35 * magnitude,
            shares: vec![(1.0 - FIRST_BACKGROUND) / variants as f64; variants],
            background: FIRST_BACKGROUND,
            log_likelihood: f64::NEG_INFINITY,
        }
    }

    fn centres(&self, variants: &[Vector2<f64>]) -> Vec<Vector2<f64>> {
        variants.iter().map(|variant| self.offset + variant * self.magnitude).collect()
    }
}

/// Density of the background.
fn flat() -> f64 {
    1.0 / (std::f64::consts::PI * BACKGROUND_PM * BACKGROUND_PM)
}

/// Weight of a value `z` squared scales from the centre of what it belongs to; 1 on average.
pub(super) fn weight(z: f64) -> f64 {
    (TAIL + 2.0) / (TAIL + z)
}

/// What part of its weight a value's share of a component is, `z` squared scales from the centre.
fn share_of_weight(z: f64) -> f64 {
    (TAIL + z) / (TAIL + 2.0)
}

/// Density of a two-dimensional t distribution at `z` squared scales from its centre.
fn density(z: f64, sigma: f64) -> f64 {
    (1.0 + z / TAIL).powi(-HALF_POWER) / (std::f64::consts::TAU * sigma * sigma)
}

/// Fits `offset + magnitude · variant` to `vectors`; `None` when they are one cluster as likely as several, so that the offset
/// cannot be told from P. `independent` is the part of the vectors that counts as independent, `min_share` what a second variant
/// must hold.
pub(super) fn cluster(
    vectors: &[Vector2<f64>],
    variants: &[Vector2<f64>],
    usual_pm: f64,
    independent: f64,
    min_share: f64,
) -> Option<Clusters> {
    let lengths = vectors.iter().map(|p| p.norm()).sum::<f64>() / vectors.len() as f64;
    let start = |offset: Vector2<f64>, start_pm: f64| Clusters::start(offset, start_pm, variants.len());
    let around = (0..START_DIRECTIONS).map(|k| {
        let turn = std::f64::consts::TAU * k as f64 / START_DIRECTIONS as f64;
        start(Vector2::new(turn.cos(), turn.sin()) * START_OFFSET * usual_pm, usual_pm)
    });
    let lengths = [usual_pm, 0.6 * usual_pm, lengths].map(|start_pm| start(Vector2::zeros(), start_pm));
    let starts = lengths.into_iter().chain(around).filter(|start| start.magnitude > 0.0);
    let few = thinned(vectors, FIRST_MOST);
    let part = |few: &[Vector2<f64>]| (independent * vectors.len() as f64 / few.len() as f64).min(1.0);
    let mut tried: Vec<Clusters> =
        starts.map(|start| mixture(&few, variants, &start, FIRST_ROUNDS)).collect();
    let score = |found: &Clusters, few: &[Vector2<f64>]| likely(found, usual_pm, part(few));
    tried.sort_by(|a, b| score(b, &few).total_cmp(&score(a, &few)));
    tried.truncate(FOLLOWED);
    let vectors = &thinned(vectors, MOST);
    let best = tried
        .iter()
        .map(|start| mixture(vectors, variants, start, ROUNDS))
        .max_by(|a, b| score(a, vectors).total_cmp(&score(b, vectors)))?;
    let (n, independent) = (vectors.len() as f64, part(vectors));
    let populated = best.shares.iter().filter(|share| **share >= min_share).count();
    if populated < 2 || apart(&best, variants, min_share) < LEAST_APART * best.sigma {
        return None;
    }
    // Parameters: offset, magnitude, scale, background and shares against centre and scatter.
    let more_parameters = (5 + populated - 1) as f64 - 5.0;
    let counted = (n * independent).max(1.0);
    let gain =
        2.0 * independent * (best.log_likelihood - one_cluster(vectors)) - more_parameters * counted.ln();
    (gain > STRONG).then_some(best)
}

/// Distance between the nearest two populated variants, pm.
fn apart(found: &Clusters, variants: &[Vector2<f64>], min_share: f64) -> f64 {
    let populated: Vec<&Vector2<f64>> = variants
        .iter()
        .zip(&found.shares)
        .filter(|(_, share)| **share >= min_share)
        .map(|(v, _)| v)
        .collect();
    let pairs = populated
        .iter()
        .enumerate()
        .flat_map(|(k, a)| populated.iter().skip(k + 1).map(move |b| (*a - *b).norm()));
    found.magnitude.abs() * pairs.fold(f64::INFINITY, f64::min)
}

/// Logarithm of the probability of what was found, but for a constant, of vectors of which a part counts as independent.
fn likely(found: &Clusters, usual_pm: f64, independent: f64) -> f64 {
    let longer = (found.magnitude.abs() - usual_pm) / (LIKELY_MAGNITUDE * usual_pm);
    independent * found.log_likelihood + ln_likely_offset(found.offset) - 0.5 * longer * longer
}

/// How likely an offset is before anything is measured, as a logarithm, but for a constant.
pub(super) fn ln_likely_offset(offset: Vector2<f64>) -> f64 {
    -0.5 * offset.norm_squared() / LIKELY_OFFSET_PM.powi(2)
}

/// At most `most` of the vectors, evenly among them.
fn thinned(vectors: &[Vector2<f64>], most: usize) -> Vec<Vector2<f64>> {
    vectors.iter().step_by(vectors.len().div_ceil(most).max(1)).copied().collect()
}

fn mixture(vectors: &[Vector2<f64>], variants: &[Vector2<f64>], start: &Clusters, rounds: usize) -> Clusters {
    let n = vectors.len() as f64;
    let start_pm = start.magnitude.abs().max(LEAST_SIGMA_PM);
    let mut found = start.clone();
    for _ in 0..rounds {
        let centres = found.centres(variants);
        let mut shares = vec![0.0; variants.len()];
        let mut squares = 0.0;
        let mut normal = Matrix3::zeros();
        let mut right = Vector3::zeros();
        let mut log_likelihood = 0.0;
        let prior = [PRIOR_OFFSET_PM, PRIOR_OFFSET_PM, PRIOR_MAGNITUDE * start_pm];
        for p in vectors {
            let total: f64 = found.background * flat()
                + centres
                    .iter()
                    .zip(&found.shares)
                    .map(|(c, share)| {
                        share * density((p - c).norm_squared() / found.sigma.powi(2), found.sigma)
                    })
                    .sum::<f64>();
            log_likelihood += total.max(f64::MIN_POSITIVE).ln();
            for (k, weight) in found.weights(p, &centres).into_iter().enumerate() {
                let (Some(variant), Some(centre)) = (variants.get(k), centres.get(k)) else { continue };
                let z = (p - centre).norm_squared() / found.sigma.powi(2);
                if let Some(share) = shares.get_mut(k) {
                    *share += weight * share_of_weight(z);
                }
                squares += weight * (p - centre).norm_squared();
                for axis in 0..2 {
                    let mut design = Vector3::zeros();
                    design[axis] = 1.0;
                    design[2] = variant[axis];
                    normal += design * design.transpose() * weight;
                    right += design * (weight * p[axis]);
                }
            }
        }
        let scatter = found.sigma.powi(2);
        for (axis, deviation) in prior.into_iter().enumerate() {
            normal[(axis, axis)] += scatter / (deviation * deviation);
        }
        right[2] += scatter / prior[2].powi(2) * start_pm;
        found.log_likelihood = log_likelihood;
        let Some(solution) = normal.cholesky().map(|normal| normal.solve(&right)) else { break };
        let before = (found.offset, found.magnitude, found.sigma);
        found.offset = Vector2::new(solution.x, solution.y);
        found.magnitude = solution.z;
        let members = shares.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        found.sigma = (squares / (2.0 * members)).sqrt().max(LEAST_SIGMA_PM);
        found.background = (1.0 - members / n).clamp(0.0, 0.5);
        found.shares = shares.into_iter().map(|share| (share / n).max(LEAST_SHARE)).collect();
        let moved = (found.offset - before.0).norm() + (found.magnitude - before.1).abs();
        if moved + (found.sigma - before.2).abs() < 1e-3 {
            break;
        }
    }
    found
}

/// Log-likelihood of one t distribution with a free centre and a free scatter.
fn one_cluster(vectors: &[Vector2<f64>]) -> f64 {
    let n = vectors.len() as f64;
    let mut centre = vectors.iter().sum::<Vector2<f64>>() / n;
    let mut scatter =
        vectors.iter().map(|p| (p - centre) * (p - centre).transpose()).sum::<Matrix2<f64>>() / n;
    let mut log_likelihood = f64::NEG_INFINITY;
    for _ in 0..ROUNDS {
        scatter += Matrix2::identity() * 1e-6;
        let (Some(inverse), area) = (scatter.try_inverse(), scatter.determinant().max(1e-12).sqrt()) else {
            break;
        };
        let (mut sum, mut weights, mut spread, mut logs) = (Vector2::zeros(), 0.0, Matrix2::zeros(), 0.0);
        for p in vectors {
            let d = p - centre;
            let z = d.dot(&(inverse * d));
            let weight = (TAIL + 2.0) / (TAIL + z);
            sum += p * weight;
            weights += weight;
            spread += d * d.transpose() * weight;
            logs += density(z, area.sqrt()).ln();
        }
        let gained = logs - log_likelihood;
        log_likelihood = logs;
        centre = sum / weights;
        scatter = spread / n;
        if gained.abs() < 1e-6 * logs.abs() {
            break;
        }
    }
    log_likelihood
}
