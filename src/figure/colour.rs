//! Colours and what they stand for. Kept apart so that pictures, legends and tests read the same tables.

use ferrostem_proto::CandidateKind;

/// Red, green, blue.
pub type Rgb = [u8; 3];

pub const INK: Rgb = [34, 34, 40];
pub const PAPER: Rgb = [255, 255, 255];
pub const FAINT_INK: Rgb = [105, 105, 115];
/// Outline of windows flagged as out of distribution.
pub const FLAG_OUTLINE: Rgb = [0, 229, 255];
/// Bright A columns and dim B columns, in this order (Okabe–Ito orange and sky blue).
pub const A_COLUMN: Rgb = [255, 159, 0];
pub const B_COLUMN: Rgb = [86, 190, 255];
/// Where nothing was measured: the ground and the lines of the hatch.
pub const HATCH: [Rgb; 2] = [[38, 38, 43], [82, 82, 90]];

/// The smallest p-value that the heat map still tells apart from smaller ones, as a power of ten.
pub const P_VALUE_DECADES: f32 = 4.0;

/// The colour of a polar displacement: hue is its direction counter-clockwise as displayed
/// (`x` right, `y` down, so the angle is `atan2(-p_y, p_x)`; 0° red, 90° up), saturation its length, full at
/// `full_scale_pm`. `None` where a component is NaN: not measured.
pub fn wheel(p_x: f32, p_y: f32, full_scale_pm: f32) -> Option<Rgb> {
    let length = p_x.hypot(p_y);
    if !length.is_finite() {
        return None;
    }
    let turn = ((-p_y).atan2(p_x) / std::f32::consts::TAU).rem_euclid(1.0);
    Some(hsv(turn, (length / full_scale_pm).clamp(0.0, 1.0), 1.0))
}

/// `hue` in turns; `saturation` and `value` 0..1.
fn hsv(hue: f32, saturation: f32, value: f32) -> Rgb {
    let channel = |offset: f32| {
        let k = (offset + hue * 6.0).rem_euclid(6.0);
        let level = value - value * saturation * k.min(4.0 - k).clamp(0.0, 1.0);
        (level * 255.0).round() as u8
    };
    [channel(5.0), channel(3.0), channel(1.0)]
}

/// Where a p-value lies on the heat map: 0 for p = 1, 1 for p ≤ 10⁻⁴. `None` for NaN.
pub fn p_value_level(p_value: f32) -> Option<f32> {
    (!p_value.is_nan()).then(|| (-p_value.max(1e-30).log10() / P_VALUE_DECADES).clamp(0.0, 1.0))
}

/// matplotlib's *inferno* (CC0), linear between nine of its colours; `level` 0..1.
pub fn inferno(level: f32) -> Rgb {
    const ANCHORS: [Rgb; 9] = [
        [0, 0, 4],
        [33, 12, 74],
        [87, 16, 110],
        [138, 34, 106],
        [188, 55, 84],
        [228, 90, 49],
        [249, 142, 9],
        [249, 203, 53],
        [252, 255, 164],
    ];
    let place = level.clamp(0.0, 1.0) * (ANCHORS.len() - 1) as f32;
    let lower = (place as usize).min(ANCHORS.len() - 2);
    mix(ANCHORS[lower], ANCHORS[lower + 1], place - lower as f32)
}

/// Blue below, white in the middle, red above; `level` 0..1 (Okabe–Ito blue and vermilion).
pub fn blue_white_red(level: f32) -> Rgb {
    const ENDS: [Rgb; 2] = [[0, 90, 170], [200, 60, 10]];
    let away = 2.0 * level.clamp(0.0, 1.0) - 1.0;
    mix(PAPER, ENDS[usize::from(away > 0.0)], away.abs())
}

/// `share` of `b` in `a`, 0..1.
pub fn mix(a: Rgb, b: Rgb, share: f32) -> Rgb {
    std::array::from_fn(|i| (f32::from(a[i]) * (1.0 - share) + f32::from(b[i]) * share).round() as u8)
}

/// Colour and name of a candidate's kind.
pub const fn kind(kind: CandidateKind) -> (Rgb, &'static str) {
    match kind {
        CandidateKind::Ood => ([255, 82, 82], "out of distribution"),
        CandidateKind::DomainWall => ([64, 196, 255], "domain wall"),
        CandidateKind::Mistilt => ([255, 214, 0], "mistilt"),
        CandidateKind::Column => ([105, 240, 174], "column"),
        CandidateKind::Vortex => ([234, 128, 252], "vortex"),
        CandidateKind::Expression => ([255, 171, 64], "expression"),
    }
}

/// Fill colour and name of a mistilt tile's state as on the wire; an unknown number reads as not evaluated.
pub const fn tile_state(state: u8) -> (Rgb, &'static str) {
    match state {
        1 => ([0, 158, 115], "consistent"),
        2 => ([230, 70, 20], "suspect"),
        3 => ([240, 205, 60], "undetermined"),
        _ => ([150, 150, 156], "not evaluated"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wheel_turns_counter_clockwise_as_displayed() {
        assert_eq!(wheel(50.0, 0.0, 50.0), Some([255, 0, 0]), "right: 0°");
        assert_eq!(wheel(0.0, -50.0, 50.0), Some([128, 255, 0]), "up is 90°");
        assert_eq!(wheel(-50.0, 0.0, 50.0), Some([0, 255, 255]), "left is 180°");
        assert_eq!(wheel(0.0, 50.0, 50.0), Some([128, 0, 255]), "down is 270°");
    }

    #[test]
    fn the_wheel_pales_to_white_and_saturates() {
        assert_eq!(wheel(0.0, 0.0, 50.0), Some([255, 255, 255]));
        assert_eq!(wheel(25.0, 0.0, 50.0), Some([255, 128, 128]));
        assert_eq!(wheel(400.0, 0.0, 50.0), wheel(50.0, 0.0, 50.0));
        assert_eq!(wheel(f32::NAN, 1.0, 50.0), None);
        assert_eq!(wheel(1.0, f32::INFINITY, 50.0), None);
    }

    #[test]
    fn the_heat_map_runs_over_four_decades() {
        assert_eq!(p_value_level(1.0), Some(0.0));
        assert!((p_value_level(0.01).unwrap() - 0.5).abs() < 1e-6);
        assert_eq!(p_value_level(0.0), Some(1.0));
        assert_eq!(p_value_level(f32::NAN), None);
        assert_eq!(inferno(0.0), [0, 0, 4]);
        assert_eq!(inferno(0.5), [188, 55, 84]);
        assert_eq!(inferno(1.0), [252, 255, 164]);
    }
}
