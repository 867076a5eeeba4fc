//! A patchwork of domains of unequal size.

use crate::simulate::hash::{mixed, unit};

/// Voronoi cells about one point in every square of a grid, each of a variant drawn by weight.
#[derive(Debug, Clone)]
pub(super) struct Mosaic {
    pub vectors_pm: Vec<[f64; 2]>,
    /// Running sum of the variants' weights, the last 1.
    pub cumulative: Vec<f64>,
    /// Side of the squares: the mean size of the domains.
    pub domain_nm: f64,
    pub width_nm: f64,
    pub seed: u64,
}

/// Squares on every side in which the nearest points are looked for.
const AROUND: i64 = 2;

impl Mosaic {
    /// Running sums of weights that need not add up to 1; all equal where none are given.
    pub fn cumulative(weights: &[f64], variants: usize) -> Vec<f64> {
        let weight = |n: usize| weights.get(n).copied().unwrap_or(if weights.is_empty() { 1.0 } else { 0.0 });
        let total: f64 = (0..variants).map(weight).sum();
        let mut sum = 0.0;
        (0..variants)
            .map(|n| {
                sum += weight(n) / total;
                sum
            })
            .collect()
    }

    /// The point of a square, `[x, y]` in nm, and P of its domain.
    fn domain(&self, square: [i64; 2]) -> ([f64; 2], [f64; 2]) {
        let word = mixed([self.seed, square[0] as u64, square[1] as u64, 0x6d6f_7361]);
        let [x, y] =
            [0, 1].map(|k| (square[k] as f64 + unit(mixed([word, k as u64, 0, 0]))) * self.domain_nm);
        let drawn = unit(mixed([word, 2, 0, 0]));
        let variant = self.cumulative.partition_point(|&sum| sum <= drawn);
        let last = self.vectors_pm.len().saturating_sub(1);
        let p = self.vectors_pm.get(variant.min(last)).copied().unwrap_or([0.0, 0.0]);
        ([x, y], p)
    }

    /// P at `[y, x]` in nm: that of the nearest point, blended as tanh(s / ξ), s the distance from the bisector.
    pub fn at(&self, [y, x]: [f64; 2]) -> [f64; 2] {
        const SIDE: usize = (2 * AROUND + 1) as usize;
        let home = [x, y].map(|c| (c / self.domain_nm).floor() as i64);
        let mut near = [([0.0; 2], [0.0; 2], f64::INFINITY); SIDE * SIDE];
        let squares = (-AROUND..=AROUND).flat_map(|dj| (-AROUND..=AROUND).map(move |di| [di, dj]));
        for (slot, [di, dj]) in near.iter_mut().zip(squares) {
            let (at, p) = self.domain([home[0] + di, home[1] + dj]);
            *slot = (at, p, (at[0] - x).powi(2) + (at[1] - y).powi(2));
        }
        let nearest = near.iter().fold(near[0], |best, other| if other.2 < best.2 { *other } else { best });
        let (mut sum, mut total) = ([0.0, 0.0], 0.0);
        for (at, p, distance2) in near {
            let apart = (at[0] - nearest.0[0]).hypot(at[1] - nearest.0[1]);
            // The nearest itself, at no distance from itself, weighs 1.
            let beyond = if apart > 0.0 { (distance2 - nearest.2) / (2.0 * apart) } else { 0.0 };
            let weight = (-4.0 * beyond / self.width_nm).exp();
            total += weight;
            sum = [sum[0] + weight * p[0], sum[1] + weight * p[1]];
        }
        sum.map(|s| s / total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mosaic(width_nm: f64) -> Mosaic {
        Mosaic {
            vectors_pm: vec![[20.0, 0.0], [0.0, 20.0], [-20.0, 0.0]],
            cumulative: Mosaic::cumulative(&[3.0, 2.0, 1.0], 3),
            domain_nm: 8.0,
            width_nm,
            seed: 3,
        }
    }

    #[test]
    fn domains_take_their_share_of_the_area_and_are_whole() {
        let mosaic = mosaic(0.05);
        let mut counts = [0; 3];
        for k in 0..200 {
            for l in 0..200 {
                let p = mosaic.at([2.0 * f64::from(k), 2.0 * f64::from(l)]);
                let found = mosaic.vectors_pm.iter().position(|v| (v[0] - p[0]).hypot(v[1] - p[1]) < 0.5);
                if let Some(n) = found {
                    counts[n] += 1;
                }
            }
        }
        // 50 × 50 squares: the shares scatter by about 1 % about ½, ⅓ and ⅙; walls take about 1 %.
        for (count, share) in counts.iter().zip([1.0 / 2.0, 1.0 / 3.0, 1.0 / 6.0]) {
            assert!((f64::from(*count) / 40_000.0 - share).abs() < 0.04, "{counts:?}");
        }
    }

    #[test]
    fn p_passes_from_domain_to_domain_as_a_tanh() {
        let mosaic = mosaic(1.0);
        // From a point of the mosaic to its nearest fellow of another variant, whose bisector is their wall.
        type Domain = ([f64; 2], [f64; 2]);
        let off_4_nm = |(s, t): &(Domain, Domain)| ((s.0[0] - t.0[0]).hypot(s.0[1] - t.0[1]) - 4.0).abs();
        let squares = || (0..10).flat_map(|j| (0..10).map(move |i| [i, j]));
        let (a, b) = squares()
            .flat_map(|s| squares().map(move |t| (s, t)))
            .map(|(s, t)| (mosaic.domain(s), mosaic.domain(t)))
            .filter(|(s, t)| s.1 != t.1)
            .min_by(|p, q| off_4_nm(p).total_cmp(&off_4_nm(q)))
            .unwrap();
        let (from, to) = (a.0, b.0);
        let length = (to[0] - from[0]).hypot(to[1] - from[1]);
        let at = |s: f64| {
            let t = 0.5 + s / length;
            mosaic.at([from[1] + t * (to[1] - from[1]), from[0] + t * (to[0] - from[0])])
        };
        for s in [-0.6, -0.2, 0.0, 0.3, 0.7] {
            let after = 0.5 * (1.0 + (2.0f64 * s).tanh());
            let expected = [0, 1].map(|k| a.1[k] + (b.1[k] - a.1[k]) * after);
            let found = at(s);
            // Third domains are some way off.
            assert!(
                (found[0] - expected[0]).hypot(found[1] - expected[1]) < 1.0,
                "{s}: {found:?} {expected:?}"
            );
        }
    }
}
