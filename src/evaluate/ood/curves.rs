//! How well a score ranks what is strange above what is usual.

/// Three summaries of a ranking; NaN where there is nothing on one of the sides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranking {
    /// Probability that a strange window scores higher than a usual one, ties counting half: 0.5 is chance.
    pub auroc: f64,
    /// Area under precision over recall (average precision); chance is the share of strange windows.
    pub aupr: f64,
    /// Share of usual windows that score at least as high as the lowest of the best 95 % of the strange ones.
    pub fpr_at_95: f64,
}

/// Recall at which false positives are counted.
const RECALL: f64 = 0.95;

/// Compares the scores of strange windows with those of usual ones; higher is stranger. Scores that are not finite are passed
/// over.
pub fn ranking(strange: &[f64], usual: &[f64]) -> Ranking {
    let of = |scores: &[f64], is_strange: bool| -> Vec<(f64, bool)> {
        scores.iter().filter(|score| score.is_finite()).map(|score| (*score, is_strange)).collect()
    };
    let mut all = of(strange, true);
    let positives = all.len() as f64;
    all.extend(of(usual, false));
    let negatives = all.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return Ranking { auroc: f64::NAN, aupr: f64::NAN, fpr_at_95: f64::NAN };
    }
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut found, mut wrong) = (0.0, 0.0);
    let (mut auroc, mut aupr, mut fpr_at_95) = (0.0, 0.0, f64::NAN);
    for tied in all.chunk_by(|a, b| a.0 == b.0) {
        let strange = tied.iter().filter(|(_, is_strange)| *is_strange).count() as f64;
        let usual = tied.len() as f64 - strange;
        auroc += usual * (found + 0.5 * strange);
        found += strange;
        wrong += usual;
        aupr += strange / positives * found / (found + wrong);
        if fpr_at_95.is_nan() && found >= RECALL * positives {
            fpr_at_95 = wrong / negatives;
        }
    }
    Ranking { auroc: auroc / (positives * negatives), aupr, fpr_at_95 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hand_worked_rankings() {
        // 4 > 3 > 2 > 1 with strange 4 and 2: of the pairs (4,3) (4,1) (2,3) (2,1) three are right.
        let mixed = ranking(&[4.0, 2.0, f64::NAN], &[3.0, 1.0]);
        assert!((mixed.auroc - 0.75).abs() < 1e-12);
        // Precision 1 at the first, 2/3 at the second.
        assert!((mixed.aupr - (0.5 + 0.5 * 2.0 / 3.0)).abs() < 1e-12);
        assert!((mixed.fpr_at_95 - 0.5).abs() < 1e-12);
        let perfect = ranking(&[5.0, 6.0], &[1.0, 2.0]);
        assert_eq!(perfect, Ranking { auroc: 1.0, aupr: 1.0, fpr_at_95: 0.0 });
        let tied = ranking(&[1.0; 3], &[1.0; 9]);
        assert!((tied.auroc - 0.5).abs() < 1e-12 && (tied.aupr - 0.25).abs() < 1e-12);
        assert_eq!(tied.fpr_at_95, 1.0);
        assert!(ranking(&[], &[1.0]).auroc.is_nan());
    }

    proptest! {
        #[test]
        fn auroc_counts_pairs(
            strange in prop::collection::vec(0_u8..12, 1..30),
            usual in prop::collection::vec(0_u8..12, 1..30),
        ) {
            let [strange, usual] =
                [strange, usual].map(|scores| scores.into_iter().map(f64::from).collect::<Vec<f64>>());
            let pairs = strange.iter().flat_map(|s| usual.iter().map(move |u| (*s, *u)));
            let right: f64 = pairs.map(|(s, u)| if s > u { 1.0 } else if s == u { 0.5 } else { 0.0 }).sum();
            let expected = right / (strange.len() * usual.len()) as f64;
            prop_assert!((ranking(&strange, &usual).auroc - expected).abs() < 1e-12);
        }
    }
}
