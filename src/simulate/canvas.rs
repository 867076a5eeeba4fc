//! The frame of expected counts: columns put where the beam really went.

use super::plane::{Gaussian, Plane, Stamp};
use super::scan_field::ScanField;
use ndarray::Array2;

/// Expected counts.
pub(super) struct Canvas<'a> {
    field: &'a ScanField,
    farthest_line_px: [f64; 2],
    shape: [usize; 2],
    /// Lines where the scan put them. Where the displacement changes along a line there are several layers, each with its lines
    /// displaced by so much more along y; what lies between is interpolated. They have margins along x for what is displaced
    /// within lines.
    layers: Vec<Layer>,
    /// What is wide enough, on meshes of a scan whose lines are where they belong: each has half as many nodes a side as that before.
    meshes: Vec<Mesh>,
    stamp: Stamp,
}

struct Layer {
    offset_y_px: f64,
    plane: Plane,
}

/// One node every `step_px` pixels.
struct Mesh {
    step_px: usize,
    plane: Plane,
    /// Whether there is anything on it.
    used: bool,
}

/// Pixels that a value between them is interpolated from. For a Gaussian of σ ≥ 3 pixels that is good to 2e-5 of its height.
const TAPS: usize = 8;
const GOOD_SIGMA_PX: f64 = 3.0;
/// Displacement along y within lines, in standard deviations of the narrowest column, up to which 3, 5, 7 and 9 layers do.
const LAYERS: [(f64, usize); 3] = [(0.1, 3), (0.4, 5), (0.9, 7)];
const MOST_LAYERS: usize = 9;
/// Steps of the meshes are powers of two up to this.
const COARSEST_PX: usize = 64;

impl<'a> Canvas<'a> {
    /// An empty canvas of `shape` = `[rows, cols]` for Gaussians of at least `narrowest_px`.
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
            plane: Plane::new(shape, [margin, 0]),
        });
        let finest = 1 << ((narrowest_px / GOOD_SIGMA_PX).clamp(1.0, COARSEST_PX as f64) as usize).ilog2();
        let steps = std::iter::successors(Some(finest), |step| (2 * step <= COARSEST_PX).then_some(2 * step));
        let meshes = steps.map(|step_px: usize| {
            let nodes = |px: f64| (px / step_px as f64).ceil() as usize;
            let margin = nodes(margin as f64 + field.farthest_px()) + TAPS + 1;
            Mesh { step_px, plane: Plane::new(shape.map(|n| nodes(n as f64)), [margin; 2]), used: false }
        });
        Self {
            field,
            farthest_line_px: field.farthest_line_px(),
            shape,
            layers: layers.collect(),
            meshes: meshes.collect(),
            stamp: Stamp::new(),
        }
    }

    /// Lets `smooth` add to every line, whose first pixel is at `[x, y]` of the frame.
    pub fn add_smooth(&mut self, mut smooth: impl FnMut([f64; 2], &mut [f32])) {
        for Layer { offset_y_px, plane } in &mut self.layers {
            let margin = plane.origin[0] as f64;
            for (row, mut line) in plane.values.rows_mut().into_iter().enumerate() {
                let [x, y] = self.field.line_px(row);
                if let Some(line) = line.as_slice_mut() {
                    smooth([x - margin, row as f64 + y + *offset_y_px], line);
                }
            }
        }
    }

    /// Adds a Gaussian as far as it is above `least`: to the coarsest mesh on which it is still wide, or else to the lines.
    pub fn add(&mut self, gaussian: &Gaussian, least: f64) {
        let steps = gaussian.covariance.narrowest() / GOOD_SIGMA_PX;
        if let Some(mesh) = self.meshes.iter_mut().rev().find(|mesh| steps >= mesh.step_px as f64) {
            mesh.used = true;
            let node = 1.0 / mesh.step_px as f64;
            let on_mesh = Gaussian {
                center: gaussian.center.map(|c| c * node),
                covariance: gaussian.covariance.scaled(node * node),
                height: gaussian.height,
            };
            self.stamp.set(&on_mesh, least);
            mesh.plane.add(&self.stamp, [0.0, 0.0], |_| [0.0, 0.0]);
            return;
        }
        self.stamp.set(gaussian, least);
        for Layer { offset_y_px, plane } in &mut self.layers {
            let [farthest_x, farthest_y] = self.farthest_line_px;
            plane.add(&self.stamp, [farthest_x, farthest_y + offset_y_px.abs()], |row| {
                let [x, y] = self.field.line_px(row);
                [x, y + *offset_y_px]
            });
        }
    }

    /// The frame as scanned: each pixel read where the beam was.
    pub fn into_scanned(mut self) -> Array2<f32> {
        self.read_meshes();
        if self.field.farthest_within_px().is_none() {
            return self.layers.swap_remove(0).plane.values;
        }
        let nodes = Nodes::new(self.layers.iter().map(|layer| layer.offset_y_px).collect());
        let phases = Phases::new();
        let margin = self.layers.first().map_or(0, |layer| layer.plane.origin[0]);
        let mut by_layer = vec![1.0; self.layers.len()];
        let mut displacement = vec![[0.0, 0.0]; self.shape[1]];
        let mut scanned = Array2::zeros((self.shape[0], self.shape[1]));
        for (row, mut pixels) in scanned.rows_mut().into_iter().enumerate() {
            self.field.within_line_px(row, &mut displacement);
            let lines: Vec<&[f32]> = self.layers.iter().map(|layer| line(&layer.plane, row)).collect();
            for ((col, pixel), [x, y]) in pixels.iter_mut().enumerate().zip(&displacement) {
                let at = (margin + col) as f64 + x;
                // Not negative: the margin is wider than what is displaced.
                let whole = at as usize;
                let weights = phases.nearest(at - whole as f64);
                if lines.len() > 1 {
                    nodes.weigh(*y as f32, &mut by_layer);
                }
                let by_line = lines.iter().zip(&by_layer);
                *pixel =
                    by_line.map(|(line, weight)| weight * tapped(line, whole, weights)).sum::<f32>().max(0.0);
            }
        }
        scanned
    }

    /// Adds each mesh to the next finer one, and the finest to the lines of all layers.
    fn read_meshes(&mut self) {
        let mut scratch = Scratch::default();
        for number in (1..self.meshes.len()).rev() {
            let (finer, coarser) = self.meshes.split_at_mut(number);
            let (Some(fine), Some(coarse)) = (finer.last_mut(), coarser.first()) else { continue };
            if !coarse.used {
                continue;
            }
            fine.used = true;
            let [x, y] = fine.plane.origin.map(|o| o as f64);
            for (row, mut line) in fine.plane.values.rows_mut().into_iter().enumerate() {
                if let Some(line) = line.as_slice_mut() {
                    coarse.read([-0.5 * x, 0.5 * (row as f64 - y)], 2, line, &mut scratch);
                }
            }
        }
        let Some(mesh) = self.meshes.first().filter(|mesh| mesh.used) else { return };
        let step = mesh.step_px as f64;
        for Layer { offset_y_px, plane } in &mut self.layers {
            let margin = plane.origin[0] as f64;
            for (row, mut line) in plane.values.rows_mut().into_iter().enumerate() {
                let [x, y] = self.field.line_px(row);
                let at = [(x - margin) / step, (row as f64 + y + *offset_y_px) / step];
                if let Some(line) = line.as_slice_mut() {
                    mesh.read(at, mesh.step_px, line, &mut scratch);
                }
            }
        }
    }
}

/// Room for the sums of [`Mesh::read`].
#[derive(Default)]
struct Scratch {
    between: Vec<f32>,
    sums: Vec<f32>,
}

impl Mesh {
    /// Adds what lies under a line to its pixels, `per_node` of them from node to node. It begins `[x, y]` nodes from where x and y are
    /// 0, and within the mesh and half of its margin.
    fn read(&self, [x, y]: [f64; 2], per_node: usize, pixels: &mut [f32], scratch: &mut Scratch) {
        let Scratch { between, sums } = scratch;
        let [origin_x, origin_y] = self.plane.origin.map(|o| o as f64);
        let (at_x, at_y) = (x + origin_x, y + origin_y);
        between.clear();
        between.resize(self.plane.values.ncols(), 0.0);
        for (row, weight) in taps(at_y) {
            add_weighted(between, line(&self.plane, row), weight);
        }
        // Every `per_node`-th pixel lies equally between nodes.
        for phase in 0..per_node {
            let pixels = pixels.iter_mut().skip(phase).step_by(per_node);
            sums.clear();
            sums.resize(pixels.len(), 0.0);
            for (col, weight) in taps(at_x + phase as f64 / per_node as f64) {
                add_weighted(sums, between.get(col..).unwrap_or_default(), weight);
            }
            pixels.zip(sums.iter()).for_each(|(pixel, sum)| *pixel += sum);
        }
    }
}

/// The nodes that a value at `at` is interpolated from, with their weights.
fn taps(at: f64) -> impl Iterator<Item = (usize, f32)> {
    // Not negative: meshes have margins for what is displaced.
    let whole = at as usize;
    let weights = tap_weights((at - whole as f64) as f32);
    let nodes = (0..TAPS).map(move |k| (whole + k).saturating_sub(TAPS / 2 - 1));
    // On a node, all others weigh nothing.
    nodes.zip(weights).filter(|(_, weight)| *weight != 0.0)
}

fn add_weighted(sums: &mut [f32], values: &[f32], weight: f32) {
    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
}

fn line(plane: &Plane, row: usize) -> &[f32] {
    let width = plane.values.ncols();
    plane.values.as_slice().and_then(|values| values.get(row * width..(row + 1) * width)).unwrap_or_default()
}

/// The value of a line between its pixels `whole` and `whole + 1`.
fn tapped(line: &[f32], whole: usize, weights: &[f32; TAPS]) -> f32 {
    let first = whole.saturating_sub(TAPS / 2 - 1);
    let Some(pixels) = line.get(first..first + TAPS) else { return 0.0 };
    // Two sums side by side.
    let (mut even, mut odd) = (0.0, 0.0);
    for k in 0..TAPS / 2 {
        even += pixels[2 * k] * weights[2 * k];
        odd += pixels[2 * k + 1] * weights[2 * k + 1];
    }
    even + odd
}

/// Interpolation by the polynomial through all nodes.
struct Nodes {
    at: Vec<f32>,
    /// One over the product of the distances to all others.
    inverse: Vec<f32>,
}

impl Nodes {
    fn new(at: Vec<f64>) -> Self {
        let inverse = (0..at.len()).map(|k| {
            let others = at.iter().enumerate().filter(|(n, _)| *n != k);
            1.0 / others.map(|(_, node)| at[k] - node).product::<f64>()
        });
        let inverse = inverse.map(|i| i as f32).collect();
        Self { at: at.into_iter().map(|node| node as f32).collect(), inverse }
    }

    /// The weights of the nodes' values at `t`.
    fn weigh(&self, t: f32, weights: &mut [f32]) {
        let mut before = 1.0;
        for ((weight, node), inverse) in weights.iter_mut().zip(&self.at).zip(&self.inverse) {
            *weight = before * inverse;
            before *= t - node;
        }
        let mut after = 1.0;
        for (weight, node) in weights.iter_mut().zip(&self.at).rev() {
            *weight *= after;
            after *= t - node;
        }
    }
}

/// The weights of the pixels around a point, for points that are evenly spaced between two of them.
struct Phases(Vec<[f32; TAPS]>);

impl Phases {
    /// So many that the nearest is good enough: to 1 / 8192 of a pixel.
    const COUNT: usize = 4096;

    fn new() -> Self {
        Self((0..=Self::COUNT).map(|n| tap_weights(n as f32 / Self::COUNT as f32)).collect())
    }

    /// For a point at `t` in 0..1.
    fn nearest(&self, t: f64) -> &[f32; TAPS] {
        let n = (t * Self::COUNT as f64 + 0.5) as usize;
        self.0.get(n).unwrap_or(&[0.0; TAPS])
    }
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
    use super::super::microscope::{Covariance, Distortions, Flagging, Flyback, Hum, Jumps, Microscope};
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    /// The sum of Gaussians at every pixel, by the formula, and the largest deviation of the canvas from it.
    fn worst_deviation(shape: [usize; 2], field: &ScanField, gaussians: &[Gaussian], least: f64) -> f64 {
        let narrowest = gaussians.iter().map(|g| g.covariance.narrowest()).fold(f64::INFINITY, f64::min);
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
        let nodes = Nodes::new(vec![-1.0, 0.0, 1.0]);
        let mut weights = [0.0; 3];
        nodes.weigh(0.4, &mut weights);
        assert!(
            (weights[0] + weights[2] - 0.16).abs() < 1e-6 && (weights[2] - weights[0] - 0.4).abs() < 1e-6
        );
    }
}
