//! Adding up columns quickly: each line of a Gaussian is a Gaussian, put where the beam really went.

use super::microscope::Covariance;
use super::scan_field::ScanField;
use ndarray::Array2;

/// Expected counts.
pub(super) struct Canvas<'a> {
    field: &'a ScanField,
    shape: [usize; 2],
    /// `[row, margin + col]`, with the lines where the scan put them. Where the displacement changes along a line there are several,
    /// each with its lines displaced by so much more along y; what lies between is interpolated.
    layers: Vec<Layer>,
    /// More columns on either side, for what is displaced along x within its line.
    margin: usize,
    /// Scratch: a Gaussian of height 1 along a line, at whole pixels from its centre.
    profile: Vec<f32>,
}

struct Layer {
    offset_y_px: f64,
    values: Array2<f32>,
}

/// `height` · exp(-½ dᵀ Σ⁻¹ d), with d = `[x, y]` from `center`, all in pixels.
pub(super) struct Gaussian {
    pub center: [f64; 2],
    pub covariance: Covariance,
    pub height: f64,
}

/// Pixels that a value within a line is interpolated from. For a Gaussian of σ ≥ 3 pixels that is good to 2e-5 of its height.
const TAPS: usize = 8;
/// Displacement along y within lines, in standard deviations of the narrowest column, up to which 3, 5, 7 and 9 layers do.
const LAYERS: [(f64, usize); 3] = [(0.1, 3), (0.4, 5), (0.9, 7)];
const MOST_LAYERS: usize = 9;
/// Pixels that are computed side by side.
const LANES: usize = 8;

impl<'a> Canvas<'a> {
    /// An empty canvas of `shape` = `[rows, cols]` for columns of at least `narrowest_px`.
    pub fn new(shape: [usize; 2], field: &'a ScanField, narrowest_px: f64) -> Self {
        let [x, y] = field.farthest_within_px().unwrap_or_default();
        let margin = if x > 0.0 || y > 0.0 { x.ceil() as usize + TAPS / 2 } else { 0 };
        let count = if y > 0.0 {
            let enough = LAYERS.iter().find(|(reach, _)| y <= reach * narrowest_px);
            enough.map_or(MOST_LAYERS, |(_, count)| *count)
        } else {
            1
        };
        let layers = (0..count).map(|k| Layer {
            offset_y_px: y * if count > 1 { 2.0 * k as f64 / (count - 1) as f64 - 1.0 } else { 0.0 },
            values: Array2::zeros((shape[0], shape[1] + 2 * margin)),
        });
        Self { field, shape, layers: layers.collect(), margin, profile: Vec::new() }
    }

    /// Adds to every line what `smooth` writes, one value a column of the frame; beyond its edges they go on as at them. Lines
    /// are taken where they belong.
    pub fn add_smooth(&mut self, mut smooth: impl FnMut(usize, &mut [f32])) {
        let mut line = vec![0.0; self.shape[1]];
        for row in 0..self.shape[0] {
            smooth(row, &mut line);
            for layer in &mut self.layers {
                for (k, value) in layer.values.row_mut(row).iter_mut().enumerate() {
                    let col = k.saturating_sub(self.margin).min(line.len() - 1);
                    *value += line[col];
                }
            }
        }
    }

    /// Adds a Gaussian as far as it is above `least`.
    ///
    /// With Σ⁻¹ = (A B; B C), the Gaussian is on every line that it crosses at a distance dy a Gaussian in x of the same width 1/√A,
    /// lower by exp(-½ dy² / Σyy), whose centre is moved by dy Σxy / Σyy. On the line's pixels, at k + f from that centre with
    /// whole k, it is exp(-½ A k²), the same for all lines, times a power of exp(-A f).
    pub fn add(&mut self, gaussian: &Gaussian, least: f64) {
        let Gaussian { center: [x, y], covariance, height } = *gaussian;
        if height <= least {
            return;
        }
        let reach_squared = 2.0 * (height / least).ln();
        let a = covariance.yy / covariance.determinant();
        let slope = covariance.xy / covariance.yy;
        let farthest = (reach_squared / a).sqrt().ceil() as i64 + 1;
        self.profile.clear();
        self.profile.extend((-farthest..=farthest).map(|k| (-0.5 * a * (k * k) as f64).exp() as f32));
        let [_, farthest_y] = self.field.farthest_line_px();
        for layer in &mut self.layers {
            let reach_y = (reach_squared * covariance.yy).sqrt() + farthest_y + layer.offset_y_px.abs();
            let first_row = (y - reach_y).ceil().max(0.0) as usize;
            let end_row = ((y + reach_y).floor() + 1.0).clamp(0.0, self.shape[0] as f64) as usize;
            let width = layer.values.ncols();
            let Some(pixels) = layer.values.as_slice_mut() else { return };
            for row in first_row..end_row {
                let [line_x, line_y] = self.field.line_px(row);
                let dy = row as f64 + line_y + layer.offset_y_px - y;
                let down = dy * dy / covariance.yy;
                if down >= reach_squared {
                    continue;
                }
                let center = x + slope * dy - line_x + self.margin as f64;
                let half_width = ((reach_squared - down) / a).sqrt();
                let first = (center - half_width).ceil().max(0.0);
                let end = ((center + half_width).floor() + 1.0).min(width as f64);
                if first >= end {
                    continue;
                }
                let nearest = center.round();
                let f = nearest - center;
                let k = first - nearest;
                let value = height * (-0.5 * (down + a * f * f) - a * f * k).exp();
                let line = pixels.get_mut(row * width + first as usize..row * width + end as usize);
                let profile = self.profile.get((k as i64 + farthest) as usize..);
                if let (Some(line), Some(profile)) = (line, profile) {
                    add_geometric(line, profile, [value as f32, (-a * f).exp() as f32]);
                }
            }
        }
    }

    /// The frame as scanned: each pixel read where the beam was.
    pub fn into_scanned(mut self) -> Array2<f32> {
        if self.field.farthest_within_px().is_none() {
            return self.layers.swap_remove(0).values;
        }
        let offsets: Vec<f64> = self.layers.iter().map(|layer| layer.offset_y_px).collect();
        Array2::from_shape_fn((self.shape[0], self.shape[1]), |(row, col)| {
            let [x, y] = self.field.within_line_px(row, col);
            let whole = x.floor();
            let first =
                (self.margin as i64 + col as i64 + whole as i64 - (TAPS as i64 / 2 - 1)).max(0) as usize;
            let weights = tap_weights((x - whole) as f32);
            let along_line = |layer: &Layer| -> f32 {
                let row_start = row * layer.values.ncols();
                let pixels = layer.values.as_slice().and_then(|v| v.get(row_start + first..));
                pixels.map_or(0.0, |pixels| pixels.iter().zip(&weights).map(|(v, w)| v * w).sum())
            };
            let layers = self.layers.iter().enumerate();
            let value: f32 = if offsets.len() == 1 {
                layers.map(|(_, layer)| along_line(layer)).sum()
            } else {
                layers.map(|(k, layer)| lagrange(&offsets, k, y) as f32 * along_line(layer)).sum()
            };
            value.max(0.0)
        })
    }
}

/// `line[k] += profile[k] · start · ratio^k`
fn add_geometric(line: &mut [f32], profile: &[f32], [start, ratio]: [f32; 2]) {
    let mut power = [start; LANES];
    for k in 1..LANES {
        power[k] = power[k - 1] * ratio;
    }
    let squared = ratio * ratio;
    let step = (squared * squared) * (squared * squared);
    let mut lines = line.chunks_exact_mut(LANES);
    let mut profiles = profile.chunks_exact(LANES);
    for (line, profile) in lines.by_ref().zip(profiles.by_ref()) {
        for k in 0..LANES {
            line[k] += power[k] * profile[k];
            power[k] *= step;
        }
    }
    let done = line.len() / LANES * LANES;
    for ((value, profile), power) in line[done..].iter_mut().zip(&profile[done..]).zip(power) {
        *value += power * profile;
    }
}

/// The weight at `t` of the value at node `k` in the polynomial through all nodes.
fn lagrange(nodes: &[f64], k: usize, t: f64) -> f64 {
    let others = nodes.iter().enumerate().filter(|(n, _)| *n != k);
    others.map(|(_, node)| (t - node) / (nodes[k] - node)).product()
}

/// Lagrange weights of the pixels from -3 to 4 for a point at `t` in 0..1.
fn tap_weights(t: f32) -> [f32; TAPS] {
    /// ∏ (k - n) over the other nodes n.
    const DENOMINATORS: [f32; TAPS] = [-5040.0, 720.0, -240.0, 144.0, -144.0, 240.0, -720.0, 5040.0];
    let from: [f32; TAPS] = std::array::from_fn(|k| t + 3.0 - k as f32);
    // Products of the distances to all nodes before and after each.
    let (mut before, mut after) = ([1.0; TAPS], [1.0; TAPS]);
    for k in 1..TAPS {
        before[k] = before[k - 1] * from[k - 1];
        after[TAPS - 1 - k] = after[TAPS - k] * from[TAPS - k];
    }
    std::array::from_fn(|k| before[k] * after[k] / DENOMINATORS[k])
}

#[cfg(test)]
mod tests {
    use super::super::microscope::{Distortions, Flagging, Flyback, Hum, Jumps, Microscope};
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    /// The sum of Gaussians at every pixel, by the formula, and the largest deviation of the canvas from it.
    fn worst_deviation(shape: [usize; 2], field: &ScanField, gaussians: &[Gaussian], least: f64) -> f64 {
        let narrowest = gaussians
            .iter()
            .fold(f64::INFINITY, |low, g| low.min(g.covariance.xx.min(g.covariance.yy).sqrt()));
        let mut canvas = Canvas::new(shape, field, narrowest);
        for gaussian in gaussians {
            canvas.add(gaussian, least);
        }
        let scanned = canvas.into_scanned();
        assert_eq!(scanned.dim(), (shape[0], shape[1]));
        scanned.indexed_iter().fold(0.0, |worst, ((row, col), value)| {
            let [x, y] = field.displacement_px(row, col);
            let expected: f64 = gaussians
                .iter()
                .map(|Gaussian { center, covariance: Covariance { xx, xy, yy }, height }| {
                    let (dx, dy) = (col as f64 + x - center[0], row as f64 + y - center[1]);
                    let exponent = (yy * dx * dx - 2.0 * xy * dx * dy + xx * dy * dy) / (xx * yy - xy * xy);
                    height * (-0.5 * exponent).exp()
                })
                .sum();
            worst.max((f64::from(*value) - expected).abs())
        })
    }

    /// Columns of all shapes over and beyond the frame; the highest 100 high.
    fn crowd(shape: [usize; 2]) -> Vec<Gaussian> {
        let mut gaussians = Vec::new();
        for (n, row) in (0..14).enumerate() {
            for (m, col) in (0..14).enumerate() {
                let center =
                    [col as f64 * 0.1 * shape[1] as f64 - 11.3, row as f64 * 0.1 * shape[0] as f64 - 9.8];
                let covariance = match (n + m) % 4 {
                    0 => Covariance::round(5.1),
                    1 => Covariance { xx: 20.0, xy: -7.0, yy: 14.0 },
                    2 => Covariance { xx: 14.0, xy: 9.0, yy: 31.0 },
                    _ => Covariance::round(12.3),
                };
                gaussians.push(Gaussian { center, covariance, height: 100.0 / (1 + (n * m) % 7) as f64 });
            }
        }
        gaussians
    }

    #[test]
    fn columns_agree_with_the_formula_at_every_pixel() {
        let still = ScanField::default();
        let worst = worst_deviation([150, 170], &still, &crowd([150, 170]), 1e-3);
        assert!(worst < 1e-2, "{worst} of 100");
    }

    #[test]
    fn thin_tall_and_tiny_columns_agree_too() {
        let still = ScanField::default();
        for covariance in [
            Covariance::round(0.05),
            Covariance::round(0.4),
            Covariance { xx: 400.0, xy: 399.0, yy: 400.0 },
            Covariance { xx: 0.09, xy: 0.0, yy: 900.0 },
            Covariance { xx: 900.0, xy: 5.1, yy: 0.09 },
        ] {
            for center in [[20.0, 19.0], [20.5, 18.5], [20.3, 17.8], [-3.0, 1.0]] {
                let gaussian = Gaussian { center, covariance, height: 100.0 };
                let worst = worst_deviation([40, 50], &still, &[gaussian], 1e-3);
                assert!(worst < 2e-3, "{covariance:?} at {center:?}: {worst}");
            }
        }
    }

    #[test]
    fn columns_outside_the_frame_add_nothing_and_do_not_panic() {
        let still = ScanField::default();
        let mut canvas = Canvas::new([16, 16], &still, 2.0);
        for center in [[-100.0, 5.0], [100.0, 5.0], [5.0, -100.0], [5.0, 100.0]] {
            canvas.add(&Gaussian { center, covariance: Covariance::round(2.0), height: 1.0 }, 1e-4);
        }
        canvas.add(&Gaussian { center: [5.0, 5.0], covariance: Covariance::round(2.0), height: 0.0 }, 1e-4);
        assert!(canvas.into_scanned().iter().all(|&v| v == 0.0));
    }

    #[test]
    fn displaced_pixels_show_what_lies_where_the_beam_was() {
        let shape = [120, 140];
        let lines = Distortions {
            flagging: Flagging { rms_pm: 40.0, lines: 9.0 },
            jumps: Jumps { probability: 0.02, rms_pm: 60.0 },
            drift_curve_pm: [90.0, -45.0],
            ..Distortions::default()
        };
        let flyback = Flyback { offset_pm: 75.0, settling_us: 30.0 };
        let hum = |amplitude: f64, hz: f64| Hum {
            amplitude_pm: [amplitude, -0.7 * amplitude],
            hz,
            phase_rad: None,
        };
        let cases = [
            lines,
            Distortions { flyback, ..lines },
            // Fast lines: the hum changes by a tenth of its swing within one.
            Distortions { hum: hum(12.0, 60.0), ..lines },
            // Slow lines: it swings all the way.
            Distortions { hum: hum(15.0, 900.0), flyback, ..lines },
            Distortions { hum: hum(40.0, 900.0), flyback, ..lines },
        ];
        for (n, distortions) in cases.into_iter().enumerate() {
            let microscope = Microscope {
                shape,
                line_jitter_pm: 10.0,
                distortions,
                dwell_us: 4.0,
                ..Microscope::default()
            };
            let field = ScanField::draw(&microscope, &mut ChaCha8Rng::seed_from_u64(3));
            let worst = worst_deviation(shape, &field, &crowd(shape), 1e-3);
            assert!(worst < 1.2e-2, "case {n}: {worst} of 100");
        }
    }

    #[test]
    fn interpolation_is_exact_for_what_a_polynomial_can_be() {
        for t in [0.0f32, 0.3, 0.5, 0.99] {
            let weights = tap_weights(t);
            for power in 0..TAPS as i32 {
                let sum: f32 = weights.iter().zip(-3..).map(|(w, k)| w * (k as f32).powi(power)).sum();
                assert!((sum - t.powi(power)).abs() < 2e-3 * 4f32.powi(power) / 40.0 + 1e-5, "{t} {power}");
            }
        }
        let nodes = [-1.0, 0.0, 1.0];
        let square: f64 = (0..3).map(|k| lagrange(&nodes, k, 0.4) * nodes[k] * nodes[k]).sum();
        assert!((square - 0.16).abs() < 1e-12);
    }
}
