//! Random numbers that follow from indices, so that a place looks the same whenever it is asked for.

/// A word in which every bit depends on every bit of `words` (SplitMix64's finaliser over each in turn).
pub(super) fn mixed(words: [u64; 4]) -> u64 {
    words.iter().fold(0x9e37_79b9_7f4a_7c15, |state: u64, word| {
        let mut z = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// A number in 0..1 from a mixed word.
pub(super) fn unit(word: u64) -> f64 {
    (word >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_indices_give_unrelated_uniform_numbers() {
        let n = 10_000u32;
        let draws: Vec<f64> = (0..n).map(|i| unit(mixed([7, u64::from(i), 0, 1]))).collect();
        let mean = draws.iter().sum::<f64>() / f64::from(n);
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
        let lag: f64 = draws.windows(2).map(|w| (w[0] - 0.5) * (w[1] - 0.5)).sum::<f64>() / f64::from(n);
        // Independent: 1 / 12 / √n = 8e-4.
        assert!(lag.abs() < 4e-3, "{lag}");
        assert_ne!(mixed([1, 2, 0, 0]), mixed([2, 1, 0, 0]));
    }
}
