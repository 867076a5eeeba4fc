//! Verdicts on tiles from P measured in one or several ways.

use super::blend::Windows;
use super::cluster::{Clusters, cluster, ln_likely_offset};
use super::field::{self, Measurement, Sample, Variants};
use super::reference::NONE_BELOW;
use super::{MIN_SAMPLES, MistiltSettings, NOT_EVALUATED, TileState, TileVerdict, UNDETERMINED};
use nalgebra::{Matrix2, Vector2};

/// Variants that differ by less, as a part of P, are one.
const ALIKE: f64 = 0.05;

/// One way of measuring P, before it is known which variants there are.
pub(super) struct Observed {
    pub samples: Vec<Sample>,
    pub bias_pm: f64,
    pub independent: f64,
}

/// What P may be in the frame.
pub(super) struct Lattice {
    /// The directions of P in the image, none for a lattice that is not polar; `None` when the lattice's own is not known.
    pub polar: Option<Vec<Vector2<f64>>>,
    /// Whether P may lie along the beam.
    pub hidden: bool,
    pub usual_pm: f64,
}

impl Lattice {
    fn is_polar(&self) -> bool {
        self.polar.as_ref().is_none_or(|polar| !polar.is_empty())
    }

    /// All of them, no P at the end.
    pub fn variants(&self) -> Variants {
        let none = std::iter::once(Vector2::zeros());
        Variants::new(self.polar.iter().flatten().copied().chain(none).collect())
    }

    /// Which variants the samples belong to; `None` when they tell nothing of the offset.
    pub fn clusters(&self, observed: &Observed, settings: &MistiltSettings) -> Option<Clusters> {
        // Where there is no P, nothing is to be sorted into variants.
        let sorted = observed.samples.iter().filter(|sample| !(self.is_polar() && sample.reference));
        let vectors: Vec<Vector2<f64>> = sorted.map(|sample| sample.p).collect();
        if vectors.len() < MIN_SAMPLES {
            return None;
        }
        if !self.is_polar() {
            return Some(Clusters::single(&vectors));
        }
        let mut variants = self.polar.clone()?;
        if self.hidden {
            variants.push(Vector2::zeros());
        }
        let mut found =
            cluster(&vectors, &variants, self.usual_pm, observed.independent, settings.min_variant_share)?;
        found.shares.resize(self.variants().all.len(), 0.0);
        // A domain beside a wall or a substrate without P would pass for two opposite domains of half its length.
        (found.magnitude.abs() >= NONE_BELOW * self.usual_pm).then_some(found)
    }
}

/// Verdicts on the tiles with these centres `[x, y]`.
pub(super) fn judge(
    tiles_nm: &[[f64; 2]],
    lattice: &Lattice,
    (windows, observed): (&Windows, [Observed; 2]),
    settings: &MistiltSettings,
) -> Vec<TileVerdict> {
    let variants = lattice.variants();
    let mut verdicts = vec![NOT_EVALUATED; tiles_nm.len()];
    let mut measurements = Vec::new();
    for observed in observed {
        let mut counts = vec![0usize; tiles_nm.len()];
        for sample in &observed.samples {
            if let Some(count) = counts.get_mut(sample.tile) {
                *count += 1;
            }
        }
        for (verdict, _) in verdicts.iter_mut().zip(counts).filter(|(_, count)| *count >= MIN_SAMPLES) {
            *verdict = UNDETERMINED;
        }
        let clusters = lattice.clusters(&observed, settings);
        let beyond_reference = clusters.is_some();
        let marked: Vec<Vector2<f64>> =
            observed.samples.iter().filter(|sample| sample.reference).map(|sample| sample.p).collect();
        let alone = || {
            let mut alone = Clusters::single(&marked);
            alone.shares.resize(variants.all.len(), 0.0);
            alone
        };
        let clusters = clusters.or_else(|| (marked.len() >= MIN_SAMPLES).then(alone));
        let Observed { samples, bias_pm, independent } = observed;
        measurements.extend(clusters.map(|clusters| Measurement {
            samples,
            clusters,
            bias_pm,
            independent,
            beyond_reference,
        }));
    }
    if measurements.is_empty() {
        return verdicts;
    }
    let Some(posterior) = field::fit(tiles_nm, &variants, (windows, &mut measurements), settings) else {
        return verdicts;
    };
    let readings = readings(&variants, &measurements, posterior.mean(), settings.min_variant_share);
    let narrow =
        |covariance: Matrix2<f64>| covariance.symmetric_eigenvalues().max() <= settings.max_sigma_pm.powi(2);
    let undetermined = verdicts.iter().enumerate().filter(|(_, v)| v.state == TileState::Undetermined);
    let known: Vec<usize> =
        undetermined.map(|(tile, _)| tile).filter(|&tile| narrow(posterior.covariance(tile))).collect();
    let tests = posterior.tests(&known);
    for tile in known {
        let found = tested(posterior.offset(tile), posterior.covariance(tile), &readings, tests, settings);
        let covariance = Matrix2::new(found.offset_xx, found.offset_xy, found.offset_xy, found.offset_yy);
        // Every reading may say that there is an offset, and none how long it is.
        if let Some(verdict) = verdicts.get_mut(tile)
            && (found.state == TileState::Suspect || narrow(covariance))
        {
            *verdict = found;
        }
    }
    verdicts
}

/// One way of saying which variants the domains are: by how much it moves the offset, and how likely it is.
#[derive(Debug, Clone, Copy)]
struct Reading {
    shift: Vector2<f64>,
    probability: f64,
}

/// All of them, the likeliest first: domains whose P differs by as much as that of other variants may be those with another offset,
/// which only its length speaks against. `offset` is the mean of what was found.
fn readings(
    variants: &Variants,
    measurements: &[Measurement],
    offset: Vector2<f64>,
    min_share: f64,
) -> Vec<Reading> {
    let mut shifts = vec![Vector2::zeros()];
    let sees_none =
        measurements.iter().any(|measured| measured.samples.iter().any(|sample| sample.reference));
    let telling = measurements.iter().find(|measured| measured.beyond_reference);
    if let (Some(Measurement { clusters, .. }), false) = (telling, sees_none) {
        let here = |least: f64| {
            let shares = variants.all.iter().zip(&clusters.shares);
            shares.filter(move |(_, share)| **share > 0.0 && **share >= least).map(|(variant, _)| *variant)
        };
        let populated: Vec<Vector2<f64>> = here(min_share).collect();
        let Some(first) = populated.first() else { return Vec::new() };
        for other in here(0.0) {
            let moved = other - first;
            let allowed = |v: &Vector2<f64>| here(0.0).any(|other| (v + moved - other).norm() < ALIKE);
            if moved.norm() > ALIKE && populated.iter().all(allowed) {
                shifts.push(-moved * clusters.magnitude);
            }
        }
    }
    let likely: Vec<f64> = shifts.iter().map(|shift| ln_likely_offset(offset + shift).exp()).collect();
    let total: f64 = likely.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    let mut readings: Vec<Reading> = shifts
        .into_iter()
        .zip(likely)
        .map(|(shift, likely)| Reading { shift, probability: likely / total })
        .collect();
    readings.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    readings
}

/// The offset of the likeliest reading; the others widen its ellipse, and each has its say in the p-value.
fn tested(
    offset: Vector2<f64>,
    covariance: Matrix2<f64>,
    readings: &[Reading],
    tests: f64,
    settings: &MistiltSettings,
) -> TileVerdict {
    let (Some(inverse), Some(first)) = (covariance.try_inverse(), readings.first()) else {
        return UNDETERMINED;
    };
    // The squared length of a two-component normal vector exceeds t with probability exp(-t / 2).
    let p_value = |offset: Vector2<f64>| (-0.5 * offset.dot(&(inverse * offset))).exp();
    let p_value = readings.iter().map(|r| r.probability * p_value(offset + r.shift)).sum::<f64>();
    let apart = readings.iter().map(|r| (r.shift - first.shift, r.probability));
    let covariance = apart.fold(covariance, |sum, (d, probability)| sum + d * d.transpose() * probability);
    let offset = offset + first.shift;
    let suspect = p_value < settings.alpha / tests && offset.norm() > settings.min_offset_pm;
    let state = if suspect { TileState::Suspect } else { TileState::Consistent };
    TileVerdict {
        offset_x: offset.x,
        offset_y: offset.y,
        offset_xx: covariance[(0, 0)],
        offset_xy: covariance[(0, 1)],
        offset_yy: covariance[(1, 1)],
        p_value,
        state,
        ..NOT_EVALUATED
    }
}
