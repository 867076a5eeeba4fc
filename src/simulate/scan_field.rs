//! Where the beam really went in one scan, and how bright it was: drawn once a frame, and part of its truth.

use super::microscope::{Flagging, Microscope};
use rand::{Rng, RngExt};
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};
use std::f64::consts::TAU;

/// What one scan did to its lines. Empty where nothing was.
///
/// Pixel `(row, col)` of the frame shows what a perfect scan would have shown at `(row + y, col + x)`, with `[x, y]` the
/// displacement. It holds everything but the uniform drift, which is in the positions of the truth.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ScanField {
    /// Displacement of the middle of each line, pixels: jitter, flagging, jumps, curved drift and hum.
    pub line_x_px: Vec<f64>,
    pub line_y_px: Vec<f64>,
    /// What the displacement of a line changes by along it: flyback, and hum where lines are slow.
    pub(crate) within: Option<WithinLine>,
    /// Current of the probe in each line over its mean.
    pub current: Vec<f32>,
    /// The lines that did not arrive, in ascending order.
    pub lost: Vec<usize>,
}

/// Displacement relative to that of the middle of the line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct WithinLine {
    /// Along x, by column.
    pub flyback_px: Vec<f64>,
    /// `[x, y]`.
    pub hum_px: [f64; 2],
    /// Sine and cosine of the hum's phase in the middle of each line.
    pub line_phase: Vec<[f64; 2]>,
    /// Sine of how much it differs at each column, and its cosine less 1.
    pub col_phase: Vec<[f64; 2]>,
}

/// What moves pixels by less is not worth a sum over interpolated ones.
const NEGLIGIBLE_PX: f64 = 0.002;

impl ScanField {
    /// One scan of the `microscope` (which has no sub-scan). Effects that are off take no random numbers.
    pub(super) fn draw(microscope: &Microscope, rng: &mut impl Rng) -> Self {
        let rows = microscope.shape[0];
        let [high_pm, wide_pm] = microscope.pixel_sizes_pm();
        let d = &microscope.distortions;
        let mut pm = [vec![0.0; rows], vec![0.0; rows]];
        let mut add = |component: usize, lines: Vec<f64>| {
            for (sum, line) in pm[component].iter_mut().zip(lines) {
                *sum += line;
            }
        };
        for component in [0, 1] {
            if microscope.line_jitter_pm > 0.0 {
                add(component, (0..rows).map(|_| microscope.line_jitter_pm * normal(rng)).collect());
            }
            if d.flagging.rms_pm > 0.0 {
                add(component, correlated(rows, d.flagging, rng));
            }
            let curve_pm = d.drift_curve_pm[component];
            if curve_pm != 0.0 {
                // Where the specimen has moved right, the beam finds what lies to the left. ±1 at the first and last line.
                let at = |row: usize| 2.0 * row as f64 / (rows - 1) as f64 - 1.0;
                add(component, (0..rows).map(|row| -curve_pm * at(row).powi(2)).collect());
            }
        }
        if d.jumps.probability > 0.0 && d.jumps.rms_pm > 0.0 {
            let mut jumped = [0.0, 0.0];
            let jumps: Vec<[f64; 2]> = (0..rows)
                .map(|_| {
                    if rng.random_bool(d.jumps.probability) {
                        jumped = jumped.map(|j| j + d.jumps.rms_pm * normal(rng));
                    }
                    jumped
                })
                .collect();
            add(0, jumps.iter().map(|j| j[0]).collect());
            add(1, jumps.iter().map(|j| j[1]).collect());
        }
        let within = Self::hum_and_flyback(microscope, rng).inspect(|within| {
            for component in [0, 1] {
                let amplitude_pm = d.hum.amplitude_pm[component];
                add(component, within.line_phase.iter().map(|[sin, _]| amplitude_pm * sin).collect());
            }
        });
        let moved = pm.iter().flatten().any(|p| *p != 0.0);
        let [x, y] = pm;
        let in_px = |lines: Vec<f64>, size_pm: f64| lines.into_iter().map(|p| p / size_pm).collect();
        let (line_x_px, line_y_px) =
            if moved { (in_px(x, wide_pm), in_px(y, high_pm)) } else { (Vec::new(), Vec::new()) };
        let lost = d.lost_lines.probability;
        Self {
            line_x_px,
            line_y_px,
            within: within.filter(|within| within.farthest_px().iter().any(|px| *px > NEGLIGIBLE_PX)),
            current: currents(microscope, rng),
            lost: if lost > 0.0 { (1..rows).filter(|_| rng.random_bool(lost)).collect() } else { Vec::new() },
        }
    }

    fn hum_and_flyback(microscope: &Microscope, rng: &mut impl Rng) -> Option<WithinLine> {
        let [rows, cols] = microscope.shape;
        let [high_pm, wide_pm] = microscope.pixel_sizes_pm();
        let (hum, flyback) = (microscope.distortions.hum, microscope.distortions.flyback);
        let hums = hum.amplitude_pm != [0.0, 0.0];
        if !hums && flyback.offset_pm == 0.0 {
            return None;
        }
        let rad_per_us = TAU * hum.hz * 1e-6;
        let from_mid_us = |col: usize| (col as f64 - 0.5 * (cols - 1) as f64) * microscope.dwell_us;
        let start_rad = match hum.phase_rad {
            Some(phase) => phase,
            None if hums => rng.random_range(0.0..TAU),
            None => 0.0,
        };
        let line_phase = |row: usize| {
            let mid_us = row as f64 * microscope.line_us() - from_mid_us(0);
            let (sin, cos) = (start_rad + rad_per_us * mid_us).sin_cos();
            [sin, cos]
        };
        let col_phase = |col: usize| {
            let (sin, cos) = (rad_per_us * from_mid_us(col)).sin_cos();
            [sin, cos - 1.0]
        };
        let settling = |col: usize| (-(col as f64) * microscope.dwell_us / flyback.settling_us).exp();
        Some(WithinLine {
            flyback_px: (0..cols).map(|col| flyback.offset_pm / wide_pm * settling(col)).collect(),
            hum_px: [hum.amplitude_pm[0] / wide_pm, hum.amplitude_pm[1] / high_pm],
            line_phase: (0..rows).map(line_phase).collect(),
            col_phase: (0..cols).map(col_phase).collect(),
        })
    }

    /// Displacement `[x, y]` of the middle of the line `row`, pixels.
    pub fn line_px(&self, row: usize) -> [f64; 2] {
        let at = |lines: &[f64]| lines.get(row).copied().unwrap_or(0.0);
        [at(&self.line_x_px), at(&self.line_y_px)]
    }

    /// What the pixels of a line are displaced by beside it, `[x, y]`, pixels.
    pub(super) fn within_line_px(&self, row: usize, displacement: &mut [[f64; 2]]) {
        match &self.within {
            Some(within) => within.write(row, displacement),
            None => displacement.fill([0.0, 0.0]),
        }
    }

    /// Displacement `[x, y]` of a pixel, pixels.
    pub fn displacement_px(&self, row: usize, col: usize) -> [f64; 2] {
        let within = self.within.as_ref().map_or([0.0, 0.0], |within| within.at(row, col));
        let [x, y] = self.line_px(row);
        [x + within[0], y + within[1]]
    }

    /// Where the frame shows the centre of mass of a column that the truth has at `[row, col]`, for a column of `sigma_px`.
    ///
    /// It moves against the mean displacement of the lines that show it: along x weighted by how bright it is in them, along y by
    /// that times the squared distance from its centre, since a line in the middle that is displaced along y looks the same.
    pub fn imaged_px(&self, position: [f64; 2], sigma_px: f64) -> [f64; 2] {
        let rows = self.line_x_px.len().max(self.within.as_ref().map_or(0, |within| within.line_phase.len()));
        let mut at = position;
        // A fixed point: what counts are the lines where the column is seen.
        for _ in 0..8 {
            let [row, col] = at;
            let end = ((row + 4.0 * sigma_px).ceil() + 1.0).clamp(0.0, rows as f64) as usize;
            let first = (row - 4.0 * sigma_px).floor().max(0.0) as usize;
            let (mut moved, mut weights) = ([0.0, 0.0], [0.0, 0.0]);
            for line in first..end {
                let from_center = (line as f64 - row) / sigma_px;
                let brightness = (-0.5 * from_center * from_center).exp();
                let weight = [brightness, brightness * from_center * from_center];
                let displacement = self.displacement_px(line, col.round().max(0.0) as usize);
                for k in [0, 1] {
                    moved[k] += weight[k] * displacement[k];
                    weights[k] += weight[k];
                }
            }
            if weights[0] == 0.0 || weights[1] == 0.0 {
                break;
            }
            at = [position[0] - moved[1] / weights[1], position[1] - moved[0] / weights[0]];
        }
        at
    }

    /// The largest displacement of anything, pixels.
    pub(super) fn farthest_px(&self) -> f64 {
        let ([line_x, line_y], [x, y]) =
            (self.farthest_line_px(), self.farthest_within_px().unwrap_or_default());
        (line_x + x).max(line_y + y)
    }

    /// The largest displacement of a line along x and along y, pixels.
    pub(super) fn farthest_line_px(&self) -> [f64; 2] {
        [&self.line_x_px, &self.line_y_px].map(|lines| lines.iter().fold(0.0, |far: f64, p| far.max(p.abs())))
    }

    /// The largest displacement of a pixel beside its line's, along x and along y; `None` where lines move as a whole.
    pub(super) fn farthest_within_px(&self) -> Option<[f64; 2]> {
        self.within.as_ref().map(WithinLine::farthest_px)
    }
}

impl WithinLine {
    fn at(&self, row: usize, col: usize) -> [f64; 2] {
        let (Some(line), Some(along), Some(flyback_px)) =
            (self.line_phase.get(row), self.col_phase.get(col), self.flyback_px.get(col))
        else {
            return [0.0, 0.0];
        };
        self.displaced(*line, *along, *flyback_px)
    }

    /// All of a line.
    fn write(&self, row: usize, displacement: &mut [[f64; 2]]) {
        let Some(line) = self.line_phase.get(row) else { return };
        let columns = self.col_phase.iter().zip(&self.flyback_px);
        for (to, (along, flyback_px)) in displacement.iter_mut().zip(columns) {
            *to = self.displaced(*line, *along, *flyback_px);
        }
    }

    fn displaced(
        &self,
        [sin, cos]: [f64; 2],
        [along_sin, along_cos_less_1]: [f64; 2],
        flyback_px: f64,
    ) -> [f64; 2] {
        // sin(line + along) - sin(line)
        let hum = sin * along_cos_less_1 + cos * along_sin;
        [flyback_px + self.hum_px[0] * hum, self.hum_px[1] * hum]
    }

    fn farthest_px(&self) -> [f64; 2] {
        // A sine and a cosine less 1, whatever the line's phase.
        let hum = self.col_phase.iter().map(|[sin, cos_less_1]| sin.hypot(*cos_less_1));
        let farthest_hum = hum.fold(0.0, f64::max);
        let flyback_px = self.flyback_px.first().copied().unwrap_or(0.0);
        [flyback_px + farthest_hum * self.hum_px[0].abs(), farthest_hum * self.hum_px[1].abs()]
    }
}

fn normal(rng: &mut impl Rng) -> f64 {
    rng.sample(StandardNormal)
}

/// A stationary Gauss–Markov process.
fn correlated(rows: usize, Flagging { rms_pm, lines }: Flagging, rng: &mut impl Rng) -> Vec<f64> {
    let keeps = (-1.0 / lines).exp();
    let fresh = (1.0 - keeps * keeps).sqrt();
    let mut value = normal(rng);
    (0..rows)
        .map(|_| {
            let now = value;
            value = keeps * value + fresh * normal(rng);
            rms_pm * now
        })
        .collect()
}

fn currents(microscope: &Microscope, rng: &mut impl Rng) -> Vec<f32> {
    let (rows, flicker) = (microscope.shape[0], microscope.distortions.flicker);
    if flicker.line_rms == 0.0 && flicker.slow_rms == 0.0 {
        return Vec::new();
    }
    let slow = Flagging { rms_pm: flicker.slow_rms, lines: flicker.slow_lines };
    let slow = if flicker.slow_rms > 0.0 { correlated(rows, slow, rng) } else { vec![0.0; rows] };
    let mut current = |slow: f64| (1.0 + slow + flicker.line_rms * normal(rng)).max(0.0) as f32;
    slow.into_iter().map(&mut current).collect()
}

#[cfg(test)]
mod tests {
    use super::super::microscope::{Distortions, Flicker, Flyback, Hum, Jumps, LostLines};
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn drawn(microscope: Microscope) -> ScanField {
        microscope.validate("microscope").unwrap();
        ScanField::draw(&microscope, &mut ChaCha8Rng::seed_from_u64(12))
    }

    /// A frame of 8000 lines of 20 px of 10 pm, with the given distortions.
    fn tall(distortions: Distortions) -> Microscope {
        Microscope { shape: [8000, 20], pixel_size_pm: 10.0, distortions, ..Microscope::default() }
    }

    fn rms(values: &[f64]) -> f64 {
        (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt()
    }

    fn correlation(values: &[f64], lag: usize) -> f64 {
        let pairs = values.iter().zip(&values[lag..]);
        pairs.map(|(a, b)| a * b).sum::<f64>() / (values.len() - lag) as f64 / rms(values).powi(2)
    }

    #[test]
    fn a_perfect_scan_goes_where_it_should() {
        let field = drawn(Microscope::default());
        assert_eq!(field, ScanField::default());
        assert_eq!(field.displacement_px(100, 7), [0.0, 0.0]);
        assert_eq!(field.imaged_px([31.5, 7.25], 4.0), [31.5, 7.25]);
        assert_eq!(field.farthest_px(), 0.0);
    }

    #[test]
    fn jitter_is_white_and_of_the_size_that_was_asked_for() {
        let field = drawn(Microscope { line_jitter_pm: 12.0, ..tall(Distortions::default()) });
        for lines in [&field.line_x_px, &field.line_y_px] {
            assert!((rms(lines) - 1.2).abs() < 5.0 * 1.2 / 16000f64.sqrt(), "{}", rms(lines));
            assert!(correlation(lines, 1).abs() < 5.0 / 8000f64.sqrt());
        }
        let pairs = field.line_x_px.iter().zip(&field.line_y_px);
        assert!((pairs.map(|(x, y)| x * y).sum::<f64>() / 8000.0 / 1.44).abs() < 5.0 / 8000f64.sqrt());
    }

    #[test]
    fn flagging_has_its_size_and_its_correlation() {
        let flagging = Flagging { rms_pm: 30.0, lines: 10.0 };
        let field = drawn(tall(Distortions { flagging, ..Distortions::default() }));
        for lines in [&field.line_x_px, &field.line_y_px] {
            // 8000 lines of correlation length 10 are about 800 independent ones.
            assert!((rms(lines) / 3.0 - 1.0).abs() < 0.13, "{}", rms(lines));
            for lag in [1, 10, 20] {
                let expected = (-(lag as f64) / 10.0).exp();
                let found = correlation(lines, lag);
                assert!((found - expected).abs() < 0.15, "lag {lag}: {found} {expected}");
            }
        }
    }

    #[test]
    fn hum_swings_with_the_mains_over_lines_and_within_them() {
        let hum = Hum { amplitude_pm: [20.0, -10.0], hz: 50.0, phase_rad: Some(0.4) };
        let distortions = Distortions { hum, ..Distortions::default() };
        let microscope = Microscope {
            shape: [64, 100],
            pixel_size_pm: 10.0,
            dwell_us: 10.0,
            line_overhead_us: 250.0,
            distortions,
            ..Microscope::default()
        };
        let field = drawn(microscope);
        for (row, col) in [(0, 0), (0, 99), (16, 0), (17, 50), (63, 20)] {
            let seconds = (f64::from(row) * 1250.0 + f64::from(col) * 10.0) * 1e-6;
            let swing = (TAU * 50.0 * seconds + 0.4).sin();
            let [x, y] = field.displacement_px(row as usize, col as usize);
            assert!((x - 2.0 * swing).abs() < 1e-9 && (y + swing).abs() < 1e-9, "{row} {col}: {x} {y}");
        }
        // A period of 20 ms is 16 lines.
        assert!((field.line_px(3)[0] - field.line_px(19)[0]).abs() < 1e-9);
        assert!((field.line_px(3)[0] + field.line_px(11)[0]).abs() < 1e-9);
    }

    #[test]
    fn flyback_settles_exponentially_along_every_line() {
        let flyback = Flyback { offset_pm: 50.0, settling_us: 40.0 };
        let distortions = Distortions { flyback, ..Distortions::default() };
        let field =
            drawn(Microscope { shape: [16, 200], pixel_size_pm: 10.0, distortions, ..Microscope::default() });
        // 4 µs a pixel: to 1/e in 10 pixels.
        for row in [0, 15] {
            for (col, expected) in [(0, 5.0), (10, 5.0 / 1f64.exp()), (30, 5.0 * (-3f64).exp())] {
                let [x, y] = field.displacement_px(row, col);
                assert!((x - expected).abs() < 1e-9 && y == 0.0, "{col}: {x}");
            }
        }
        assert_eq!(field.line_px(4), [0.0, 0.0]);
    }

    #[test]
    fn curved_drift_is_a_parabola_about_mid_frame() {
        let distortions = Distortions { drift_curve_pm: [80.0, -40.0], ..Distortions::default() };
        let field =
            drawn(Microscope { shape: [101, 64], pixel_size_pm: 10.0, distortions, ..Microscope::default() });
        // The specimen has moved right and up; the beam finds what is left of it and below.
        assert_eq!(field.line_px(0), [-8.0, 4.0]);
        assert_eq!(field.line_px(100), [-8.0, 4.0]);
        assert!((field.line_px(25)[0] + 2.0).abs() < 1e-12 && field.line_px(50)[0].abs() < 1e-12);
        // A column at line 50 is where it is; one that the first line shows lies 8 pixels right of its place.
        let [row, col] = field.imaged_px([4.0, 20.0], 0.5);
        assert!((col - 28.0).abs() < 0.1 && row < 1.0, "{row} {col}");
    }

    #[test]
    fn jumps_stay_and_lines_are_lost_as_often_as_asked() {
        let distortions = Distortions {
            jumps: Jumps { probability: 0.01, rms_pm: 25.0 },
            lost_lines: LostLines { probability: 0.02, ..LostLines::default() },
            ..Distortions::default()
        };
        let field = drawn(tall(distortions));
        let steps: Vec<f64> =
            field.line_x_px.windows(2).map(|w| w[1] - w[0]).filter(|step| *step != 0.0).collect();
        assert!((45..=120).contains(&steps.len()), "{}", steps.len());
        assert!((rms(&steps) - 2.5).abs() < 0.9, "{}", rms(&steps));
        assert!((110..=215).contains(&field.lost.len()), "{}", field.lost.len());
        assert!(field.lost.is_sorted() && !field.lost.contains(&0));
    }

    #[test]
    fn the_current_flickers_about_1_as_asked() {
        let flicker = Flicker { line_rms: 0.03, slow_rms: 0.04, slow_lines: 20.0 };
        let field = drawn(tall(Distortions { flicker, ..Distortions::default() }));
        let deviation: Vec<f64> = field.current.iter().map(|c| f64::from(*c) - 1.0).collect();
        assert!((rms(&deviation) - 0.05).abs() < 0.004, "{}", rms(&deviation));
        // Of the variance, 16 parts of 25 are slow.
        let expected = 0.64 * (-0.05f64).exp();
        assert!((correlation(&deviation, 1) - expected).abs() < 0.08);
    }
}
