//! Planted offsets.

mod published;

use super::field::Measurement;
use super::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

const HALF: f64 = std::f64::consts::FRAC_1_SQRT_2;
const DIAGONALS: [[f64; 2]; 4] = [[HALF, HALF], [HALF, -HALF], [-HALF, HALF], [-HALF, -HALF]];
const P_PM: f64 = 30.0;

fn lattice(angle: f64) -> Lattice {
    let polar = Some(DIAGONALS.iter().map(|&v| turned(v, angle)).collect());
    Lattice { polar, hidden: false, usual_pm: P_PM }
}

fn non_polar() -> Lattice {
    Lattice { polar: Some(Vec::new()), hidden: false, usual_pm: 0.0 }
}

fn unbiased() -> MistiltSettings {
    MistiltSettings { classical_bias_pm: 0.5, ..MistiltSettings::default() }
}

struct Noise(ChaCha8Rng);

impl Noise {
    fn of(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    fn vector(&mut self, sigma: f64) -> Vector2<f64> {
        let normal = Normal::new(0.0, sigma).unwrap();
        Vector2::new(normal.sample(&mut self.0), normal.sample(&mut self.0))
    }

    /// `shares[k]` values of variant k in tile `tile`, shifted by `offset` and with noise of `sigma`.
    fn tile(
        &mut self,
        tile: usize,
        shares: [usize; 4],
        angle: f64,
        (offset, sigma): (Vector2<f64>, f64),
    ) -> Vec<Sample> {
        let mut samples = Vec::new();
        for (variant, count) in DIAGONALS.iter().map(|&v| turned(v, angle)).zip(shares) {
            for _ in 0..count {
                let p = variant * P_PM + offset + self.vector(sigma);
                samples.push(Sample { tile, p, reference: false, window: None });
            }
        }
        samples
    }
}

fn judged(
    tiles: usize,
    lattice: &Lattice,
    cells: Vec<Sample>,
    settings: &MistiltSettings,
) -> Vec<TileVerdict> {
    let centres: Vec<[f64; 2]> = (0..tiles).map(|t| [4.0 * t as f64, 0.0]).collect();
    let nothing = Observed { samples: Vec::new(), bias_pm: 3.0, independent: 0.1 };
    let cells = Observed { samples: cells, bias_pm: settings.classical_bias_pm, independent: 1.0 };
    judge(&centres, lattice, (&Windows::default(), [nothing, cells]), settings)
}

fn offset(verdict: &TileVerdict) -> Vector2<f64> {
    Vector2::new(verdict.offset_x, verdict.offset_y)
}

#[test]
fn an_offset_of_mirror_domains_is_found_and_measured() {
    for (n, shares) in
        [[60, 0, 0, 60], [80, 30, 0, 0], [30, 30, 30, 30], [90, 0, 0, 20]].into_iter().enumerate()
    {
        let planted = Vector2::new(7.0, -3.0);
        let cells = Noise::of(n as u64).tile(0, shares, 0.3, (planted, 4.0));
        let found = judged(1, &lattice(0.3), cells, &unbiased())[0];
        assert_eq!(found.state, TileState::Suspect, "{shares:?} {found:?}");
        assert!((offset(&found) - planted).norm() < 2.5, "{shares:?}: {found:?}");
    }
}

#[test]
fn the_covariance_is_that_of_hand_worked_numbers() {
    // 500 values each of two opposite variants along x, residual 3 pm: the mean of both sides, and that of y, is known to
    // 3 / sqrt(1000) = 0.095 pm, and the bias of 1 pm comes on top. The prior of 30 pm does not matter.
    let lattice = Lattice {
        polar: Some(vec![Vector2::new(1.0, 0.0), Vector2::new(-1.0, 0.0)]),
        hidden: false,
        usual_pm: P_PM,
    };
    let mut noise = Noise::of(8);
    let mut cells = Vec::new();
    for sense in [1.0, -1.0] {
        for _ in 0..500 {
            let p = Vector2::new(sense * P_PM, 0.0) + noise.vector(3.0);
            cells.push(Sample { tile: 0, p, reference: false, window: None });
        }
    }
    let settings =
        MistiltSettings { classical_bias_pm: 1.0, variant_tolerance: 0.0, ..MistiltSettings::default() };
    let found = judged(1, &lattice, cells.clone(), &settings)[0];
    let statistical = 3.0f64.powi(2) / 1000.0;
    for variance in [found.offset_xx, found.offset_yy] {
        assert!((variance - 1.0 - statistical).abs() < 0.01, "{found:?}");
    }
    assert!(found.offset_xy.abs() < 0.01 && found.state == TileState::Consistent);
    // Of a squared length over variance of r², chance gives more with exp(-r² / 2).
    let r2 = offset(&found).norm_squared() / found.offset_xx;
    assert!((found.p_value - (-0.5 * r2).exp()).abs() < 1e-3, "{found:?}");
    // Each side may differ in length by 3 % of 30 pm: their mean by 0.9 / sqrt(2) pm along x.
    let found = judged(1, &lattice, cells, &MistiltSettings { variant_tolerance: 0.03, ..settings })[0];
    assert!((found.offset_xx - 1.0 - statistical - 0.405).abs() < 0.02, "{found:?}");
    assert!((found.offset_yy - 1.0 - statistical).abs() < 0.01, "{found:?}");
}

#[test]
fn unequal_domain_areas_alone_are_consistent() {
    let mut alarms = 0;
    for seed in 0..200 {
        let cells = Noise::of(seed).tile(0, [100, 20, 0, 15], 0.0, (Vector2::zeros(), 4.0));
        let found = judged(1, &lattice(0.0), cells, &unbiased())[0];
        assert!(matches!(found.state, TileState::Consistent | TileState::Suspect), "{found:?}");
        alarms += u32::from(found.state == TileState::Suspect);
    }
    assert!(alarms <= 4, "{alarms} of 200");
}

#[test]
fn a_noisy_single_domain_is_not_split_in_two() {
    let axes = [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]].map(Vector2::from).to_vec();
    let lattice = Lattice { polar: Some(axes), hidden: false, usual_pm: P_PM };
    for seed in 0..50 {
        let mut noise = Noise::of(seed);
        // Between two variants, where the split is easiest.
        let cells = (0..200)
            .map(|_| Sample {
                tile: 0,
                p: Vector2::new(-12.0, 20.0) + noise.vector(7.0),
                reference: false,
                window: None,
            })
            .collect();
        assert_eq!(judged(1, &lattice, cells, &unbiased())[0].state, TileState::Undetermined, "seed {seed}");
    }
}

#[test]
fn one_domain_is_undetermined_and_never_consistent() {
    for planted in [Vector2::zeros(), Vector2::new(10.0, 0.0)] {
        let cells = Noise::of(5).tile(0, [120, 0, 0, 0], 0.0, (planted, 4.0));
        let found = judged(1, &lattice(0.0), cells, &unbiased())[0];
        assert_eq!(found.state, TileState::Undetermined);
        assert!(found.p_value.is_nan() && found.offset_xx.is_nan());
    }
}

#[test]
fn one_domain_beside_a_region_that_is_not_polar_is_judged_by_that() {
    for (planted, state) in
        [(Vector2::new(0.5, 0.0), TileState::Consistent), (Vector2::new(6.0, 5.0), TileState::Suspect)]
    {
        let mut noise = Noise::of(6);
        let mut cells = noise.tile(0, [120, 0, 0, 0], 0.0, (planted, 4.0));
        cells.extend((0..60).map(|_| Sample {
            tile: 1,
            p: planted + noise.vector(4.0),
            reference: true,
            window: None,
        }));
        let found = judged(2, &lattice(0.0), cells, &unbiased());
        assert_eq!(found[1].state, state, "{found:?}");
        assert!((offset(&found[1]) - planted).norm() < 2.0, "{found:?}");
    }
}

#[test]
fn tiles_of_one_domain_each_are_judged_together() {
    let planted = Vector2::new(-4.0, 6.0);
    let mut noise = Noise::of(11);
    let mut cells = noise.tile(0, [90, 0, 0, 0], 0.0, (planted, 5.0));
    cells.extend(noise.tile(1, [0, 0, 0, 90], 0.0, (planted, 5.0)));
    for found in judged(2, &lattice(0.0), cells, &unbiased()) {
        assert!((offset(&found) - planted).norm() < 3.0, "{found:?}");
        // Each leans on the other. What each domain may differ by in length, 0.9 pm / sqrt(2), and the bias of 0.5 pm remain.
        assert!(found.offset_xx > 0.5 && found.state != TileState::Undetermined, "{found:?}");
    }
}

#[test]
fn a_bend_is_followed_over_the_frame() {
    let mut noise = Noise::of(12);
    let planted = |tile: usize| Vector2::new(0.0, 4.0 * tile as f64);
    let cells = (0..5).flat_map(|t| noise.tile(t, [40, 10, 20, 30], 0.0, (planted(t), 6.0))).collect();
    for (tile, found) in judged(5, &lattice(0.0), cells, &unbiased()).iter().enumerate() {
        assert!((offset(found) - planted(tile)).norm() < 3.0, "{tile}: {found:?}");
        let state = if tile > 1 { TileState::Suspect } else { found.state };
        assert_eq!(found.state, state, "{tile}: {found:?}");
    }
}

#[test]
fn the_frame_says_how_much_the_offset_varies() {
    let verdicts = |slope: f64| {
        let mut noise = Noise::of(31);
        let planted = |tile: usize| Vector2::new(slope * tile as f64, 0.0);
        let cells = (0..6).flat_map(|t| noise.tile(t, [40, 40, 40, 40], 0.0, (planted(t), 4.0))).collect();
        judged(6, &lattice(0.0), cells, &unbiased())
    };
    let widths = |verdicts: &[TileVerdict]| verdicts.iter().map(|v| v.offset_xx).sum::<f64>();
    let (even, bent) = (verdicts(0.0), verdicts(3.0));
    assert!(widths(&even) < 0.95 * widths(&bent), "{} {}", widths(&even), widths(&bent));
}

#[test]
fn tiles_that_lean_on_each_other_are_nearly_one_test() {
    let tests = |smooth_nm: f64| {
        let mut noise = Noise::of(41);
        let samples = (0..4)
            .flat_map(|tile| noise.tile(tile, [40; 4], 0.0, (Vector2::zeros(), 4.0)))
            .collect::<Vec<_>>();
        let settings = MistiltSettings { smooth_nm, variation_pm: 100.0, ..unbiased() };
        let cells = Observed { samples, bias_pm: 0.01, independent: 1.0 };
        let clusters = lattice(0.0).clusters(&cells, &settings).unwrap();
        let Observed { samples, bias_pm, independent } = cells;
        let mut measured = [Measurement { samples, clusters, bias_pm, independent, beyond_reference: true }];
        let centres: Vec<[f64; 2]> = (0..4).map(|t| [4.0 * f64::from(t), 0.0]).collect();
        let posterior =
            field::fit(&centres, &lattice(0.0).variants(), (&Windows::default(), &mut measured), &settings)
                .unwrap();
        posterior.tests(&[0, 1, 2, 3])
    };
    assert!(tests(1e4) < 2.5 && tests(0.1) > 3.5, "{} {}", tests(1e4), tests(0.1));
}

#[test]
fn a_non_polar_lattice_that_looks_polar_is_suspect() {
    for (x, state) in [(0.0, TileState::Consistent), (8.0, TileState::Suspect)] {
        let mut noise = Noise::of(3);
        let cells = (0..100)
            .map(|_| Sample {
                tile: 0,
                p: Vector2::new(x, 0.0) + noise.vector(4.0),
                reference: false,
                window: None,
            })
            .collect();
        assert_eq!(judged(1, &non_polar(), cells, &unbiased())[0].state, state);
    }
}

#[test]
fn failed_fits_hardly_move_the_offset() {
    let mut noise = Noise::of(4);
    let mut cells = noise.tile(0, [50, 50, 50, 50], 0.0, (Vector2::zeros(), 4.0));
    cells.extend((0..20).map(|k| {
        let stray = Vector2::new(120.0, 40.0 + f64::from(k));
        Sample { tile: 0, p: stray, reference: false, window: None }
    }));
    let found = judged(1, &lattice(0.0), cells, &unbiased())[0];
    assert!(offset(&found).norm() < 1.5 && found.state == TileState::Consistent, "{found:?}");
}

#[test]
fn opposite_variants_share_an_axis() {
    // With a deviation of its own from the material's direction an axis leaves the mean of its two variants where it is.
    let skewed = [Vector2::new(0.9, 0.2), Vector2::new(-0.9, -0.2)];
    let mut noise = Noise::of(21);
    let cells = skewed
        .iter()
        .flat_map(|v| (0..80).map(|_| *v * P_PM).collect::<Vec<_>>())
        .map(|p| Sample { tile: 0, p: p + noise.vector(3.0), reference: false, window: None })
        .collect();
    let axes = vec![Vector2::new(1.0, 0.0), Vector2::new(-1.0, 0.0)];
    let lattice = Lattice { polar: Some(axes), hidden: false, usual_pm: P_PM };
    let found = judged(1, &lattice, cells, &unbiased())[0];
    assert!(offset(&found).norm() < 1.0 && found.state == TileState::Consistent, "{found:?}");
}

#[test]
fn domains_that_may_be_others_with_another_offset_are_suspect_but_not_measured() {
    // P along (1, 1) and (1, -1) with an offset of -20 pm in x looks like (-1, 1) and (-1, -1) with one of 22.4 pm.
    let (shares, nearly) = ([60, 60, 0, 0], Vector2::new(-20.0, 0.0));
    let found = judged(1, &lattice(0.0), Noise::of(51).tile(0, shares, 0.0, (nearly, 4.0)), &unbiased())[0];
    assert_eq!(found.state, TileState::Suspect, "{found:?}");
    assert!((offset(&found) - nearly).norm() < 2.0, "{found:?}");
    // The likelihoods of the two offsets stand as exp(-20² / 200) to exp(-22.4² / 200): 62 % to 38 %, and they are 42.4 pm apart.
    assert!(
        (found.offset_xx.sqrt() - 42.4 * 0.38f64.sqrt()).abs() < 3.0 && found.offset_yy < 9.0,
        "{found:?}"
    );
    // One of 42.4 pm is no rival of none, nor is there one where three variants are seen.
    let cells = Noise::of(52).tile(0, shares, 0.0, (Vector2::zeros(), 4.0));
    let found = judged(1, &lattice(0.0), cells, &unbiased())[0];
    assert!(found.state == TileState::Consistent && found.offset_xx < 9.0, "{found:?}");
    let cells = Noise::of(53).tile(0, [60, 60, 60, 0], 0.0, (nearly, 4.0));
    let found = judged(1, &lattice(0.0), cells, &unbiased())[0];
    assert!(found.state == TileState::Suspect && found.offset_xx < 9.0, "{found:?}");
}

#[test]
fn an_offset_longer_than_p_is_found() {
    let short = Lattice { usual_pm: 12.0, ..lattice(0.2) };
    for turn in 0..8 {
        let (sin, cos) = (f64::from(turn) * std::f64::consts::FRAC_PI_4).sin_cos();
        let planted = Vector2::new(cos, sin) * 15.0;
        let mut noise = Noise::of(60 + turn as u64);
        let cells = DIAGONALS
            .iter()
            .flat_map(|&v| (0..60).map(move |_| turned(v, 0.2) * 12.0 + planted))
            .map(|p| Sample { tile: 0, p: p + noise.vector(3.0), reference: false, window: None })
            .collect();
        let found = judged(1, &short, cells, &unbiased())[0];
        assert!((offset(&found) - planted).norm() < 2.0, "{turn}: {found:?}");
    }
}

#[test]
fn walls_of_small_domains_are_no_offset() {
    // Stripes of 1.5 nm, each beside one and the same variant: (1, 1), (1, -1), (-1, -1), (1, -1) and again.
    let stripes = [0, 1, 3, 1].map(|k: usize| Vector2::from(DIAGONALS[k]) * P_PM);
    for (xi_pm, most_pm) in [(330.0, 1.0), (400.0, 0.7), (500.0, 1.0)] {
        let p = |s: f64| {
            (1..8).fold(stripes[0], |p, k| {
                let after = 0.5 * (1.0 + ((s - 1500.0 * k as f64) / xi_pm).tanh());
                p + (stripes[k % 4] - stripes[(k - 1) % 4]) * after
            })
        };
        let samples = Array2::from_shape_fn((20, 100), |(i, j)| {
            Some(Sample { tile: 0, p: p(120.0 * j as f64), reference: false, window: Some([i, j]) })
        });
        let found = |windows: &Windows| {
            let samples = samples.iter().flatten().copied().collect();
            let observed = Observed { samples, bias_pm: 0.5, independent: 0.03 };
            let nothing = Observed { samples: Vec::new(), bias_pm: 0.5, independent: 1.0 };
            judge(&[[0.0, 0.0]], &lattice(0.0), (windows, [observed, nothing]), &unbiased())[0]
        };
        let seen = offset(&found(&Windows { samples: samples.clone(), step_pm: [120.0; 2] })).norm();
        let unseen = offset(&found(&Windows::default())).norm();
        assert!(seen < most_pm && seen < 0.5 * unseen, "{xi_pm}: {seen}, unseen {unseen}");
    }
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let settings = MistiltSettings { reference: Some([0.5, 0.2, 0.0, 1.0]), ..MistiltSettings::default() };
    assert_eq!(settings.validate("flags.mistilt").unwrap_err().key, "flags.mistilt.reference");
    let settings = MistiltSettings { bias_pm: Some(-1.0), ..MistiltSettings::default() };
    assert_eq!(settings.validate("flags.mistilt").unwrap_err().key, "flags.mistilt.bias_pm");
    assert!(MistiltSettings::default().validate("flags.mistilt").is_ok());
}
