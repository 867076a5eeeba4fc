//! The shapes of regions, ready to be asked.
//!
//! Positions `[x, y]` in nm in the specimen frame.

use crate::simulate::hash::{mixed, unit};
use crate::simulate::specimen::{Edge, Shape};
use std::f64::consts::{PI, TAU};

/// A shape with everything looked up.
#[derive(Debug, Clone)]
pub(in crate::simulate) enum Outline {
    Line(Line),
    /// Between two lines that face away from each other.
    Strip([Line; 2]),
    Circle {
        center: [f64; 2],
        radius: f64,
    },
    Polygon {
        corners: Vec<[f64; 2]>,
    },
}

/// A wandering line; inside is where its normal points.
#[derive(Debug, Clone)]
pub(in crate::simulate) struct Line {
    at: [f64; 2],
    normal: [f64; 2],
    waves: [Wave; WAVES],
    /// How far it strays from straight.
    stray: f64,
    /// Distance at which it is followed.
    step: f64,
}

#[derive(Debug, Clone, Copy)]
struct Wave {
    amplitude: f64,
    wave_number: f64,
    phase: f64,
}

const WAVES: usize = 3;
/// Their wavelengths over the one asked for.
const WAVELENGTHS: [f64; WAVES] = [0.57, 1.0, 1.73];
/// A closed outline or a straight line is followed in so many steps.
const STEPS: usize = 72;
const MOST_STEPS: usize = 1024;

/// A round part of the plane.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::simulate) struct Focus {
    /// `[x, y]` in nm.
    pub center: [f64; 2],
    pub radius: f64,
}

impl Focus {
    pub fn distance(&self, [x, y]: [f64; 2]) -> f64 {
        (x - self.center[0]).hypot(y - self.center[1])
    }

    /// Whether a disc reaches into it.
    pub fn touches(&self, at: [f64; 2], radius: f64) -> bool {
        self.distance(at) <= self.radius + radius
    }
}

fn dot(a: [f64; 2], b: [f64; 2]) -> f64 {
    a[0] * b[0] + a[1] * b[1]
}

impl Line {
    pub fn new(at: [f64; 2], normal: [f64; 2], edge: Edge, seed: u64) -> Self {
        let waves = std::array::from_fn(|k| Wave {
            // Each wave has half the variance of its amplitude's square.
            amplitude: edge.roughness_nm * (2.0 / WAVES as f64).sqrt(),
            wave_number: TAU / (edge.wavelength_nm * WAVELENGTHS[k]),
            phase: TAU * unit(mixed([seed, k as u64, 0x6564_6765, 0])),
        });
        let rough = edge.roughness_nm > 0.0;
        Self {
            at,
            normal,
            waves,
            stray: edge.roughness_nm * (2.0 * WAVES as f64).sqrt(),
            step: if rough { 0.1 * edge.wavelength_nm } else { f64::INFINITY },
        }
    }

    fn wander(&self, t: f64) -> f64 {
        if self.stray == 0.0 {
            return 0.0;
        }
        self.waves.iter().map(|w| w.amplitude * (w.wave_number * t + w.phase).sin()).sum()
    }

    /// Along the line and beyond it.
    fn local(&self, position: [f64; 2]) -> [f64; 2] {
        let from = [position[0] - self.at[0], position[1] - self.at[1]];
        [self.normal[0] * from[1] - self.normal[1] * from[0], dot(from, self.normal)]
    }

    fn global(&self, [t, s]: [f64; 2]) -> [f64; 2] {
        let [nx, ny] = self.normal;
        [self.at[0] + s * nx - t * ny, self.at[1] + s * ny + t * nx]
    }

    fn depth(&self, position: [f64; 2]) -> f64 {
        let [t, s] = self.local(position);
        s + self.wander(t)
    }

    /// The part of the line that passes through the focus, none where it passes by.
    fn path(&self, focus: Focus) -> Vec<[f64; 2]> {
        let [t, s] = self.local(focus.center);
        if s.abs() > focus.radius + self.stray {
            return Vec::new();
        }
        let step = self.step.min(2.0 * focus.radius / STEPS as f64);
        let steps = ((2.0 * focus.radius / step).ceil() as usize).min(MOST_STEPS);
        (0..=steps)
            .map(|k| {
                let t = t + focus.radius * (2.0 * k as f64 / steps as f64 - 1.0);
                self.global([t, -self.wander(t)])
            })
            .collect()
    }

    /// What lies beyond the line, out to well outside the focus.
    fn area(&self, focus: Focus) -> Vec<[f64; 2]> {
        let [t, s] = self.local(focus.center);
        let mut area = self.path(focus);
        if area.is_empty() {
            if s < 0.0 {
                return area;
            }
            area = vec![
                self.global([t - focus.radius, s - focus.radius]),
                self.global([t + focus.radius, s - focus.radius]),
            ];
        }
        let far = s.max(0.0) + 1.5 * focus.radius;
        area.extend([self.global([t + focus.radius, far]), self.global([t - focus.radius, far])]);
        area
    }
}

impl Outline {
    pub fn new(shape: &Shape, seed: u64) -> Self {
        let xy = |[y, x]: [f64; 2]| [x, y];
        let facing = |normal_rad: f64| [normal_rad.cos(), -normal_rad.sin()];
        match shape {
            Shape::HalfPlane { at_nm, normal_rad, edge } => {
                Self::Line(Line::new(xy(*at_nm), facing(*normal_rad), *edge, seed))
            }
            Shape::Strip { at_nm, normal_rad, width_nm, edge } => {
                let (normal, half) = (facing(*normal_rad), 0.5 * width_nm);
                let side = |sense: f64, seed: u64| {
                    let at = [at_nm[1] - sense * half * normal[0], at_nm[0] - sense * half * normal[1]];
                    Line::new(at, normal.map(|c| sense * c), *edge, seed)
                };
                Self::Strip([side(1.0, seed), side(-1.0, !seed)])
            }
            Shape::Circle { center_nm, radius_nm } => {
                Self::Circle { center: xy(*center_nm), radius: *radius_nm }
            }
            Shape::Polygon { corners_nm } => {
                Self::Polygon { corners: corners_nm.iter().map(|corner| xy(*corner)).collect() }
            }
        }
    }

    /// How deep inside a position lies, nm; negative outside. The distance from the outline, where that is straight and smooth.
    pub fn depth(&self, position: [f64; 2]) -> f64 {
        match self {
            Self::Line(line) => line.depth(position),
            Self::Strip([one, other]) => one.depth(position).min(other.depth(position)),
            Self::Circle { center, radius } => {
                radius - (position[0] - center[0]).hypot(position[1] - center[1])
            }
            Self::Polygon { corners } => polygon_depth(corners, position),
        }
    }

    /// Whether any of it may lie within the focus.
    pub fn touches(&self, focus: Focus) -> bool {
        let stray = match self {
            Self::Line(line) => line.stray,
            Self::Strip([line, _]) => line.stray,
            Self::Circle { .. } | Self::Polygon { .. } => 0.0,
        };
        self.depth(focus.center) > -(focus.radius + 2.0 * stray)
    }

    /// Its boundary where it passes through the focus, as open or closed paths.
    pub fn paths(&self, focus: Focus) -> Vec<Vec<[f64; 2]>> {
        let paths = match self {
            Self::Line(line) => vec![line.path(focus)],
            Self::Strip([one, other]) => vec![one.path(focus), other.path(focus)],
            Self::Circle { .. } | Self::Polygon { .. } => {
                let mut path = self.area(focus);
                path.extend(path.first().copied());
                vec![path]
            }
        };
        paths.into_iter().filter(|path| path.len() > 1).collect()
    }

    /// A polygon that agrees with it within the focus; empty where none of it is there.
    pub fn area(&self, focus: Focus) -> Vec<[f64; 2]> {
        match self {
            _ if !self.touches(focus) => Vec::new(),
            Self::Line(line) => line.area(focus),
            Self::Strip([one, other]) => {
                let mut area = one.side(focus);
                area.extend(other.side(focus));
                area
            }
            Self::Circle { center, radius } => {
                let facing = (focus.center[1] - center[1]).atan2(focus.center[0] - center[0]);
                // Of a large circle, half of the steps are spent on the part near the focus.
                let near = (4.0 * focus.radius / radius).min(0.5 * PI);
                let turn = |k: usize| {
                    let s = 4.0 * k as f64 / STEPS as f64 - 2.0;
                    if s.abs() <= 1.0 {
                        s * near
                    } else {
                        (near + (s.abs() - 1.0) * (PI - near)) * s.signum()
                    }
                };
                (0..STEPS)
                    .map(|k| {
                        let (sin, cos) = (facing + turn(k)).sin_cos();
                        [center[0] + radius * cos, center[1] + radius * sin]
                    })
                    .collect()
            }
            Self::Polygon { corners } => {
                let sides = corners.iter().zip(corners.iter().cycle().skip(1));
                sides.flat_map(|(from, to)| followed(*from, *to, focus)).collect()
            }
        }
    }

    /// A place of it near the middle of the focus.
    pub fn place(&self, focus: Focus) -> [f64; 2] {
        match self {
            Self::Line(line) => line.global([line.local(focus.center)[0], 0.0]),
            Self::Strip([one, other]) => {
                let on = |line: &Line| line.global([line.local(focus.center)[0], 0.0]);
                let ([ax, ay], [bx, by]) = (on(one), on(other));
                [0.5 * (ax + bx), 0.5 * (ay + by)]
            }
            Self::Circle { center, .. } => *center,
            Self::Polygon { corners } => {
                let n = corners.len().max(1) as f64;
                corners.iter().fold([0.0, 0.0], |sum, c| [sum[0] + c[0] / n, sum[1] + c[1] / n])
            }
        }
    }
}

impl Line {
    /// The line along the focus, or as near to it as it comes.
    fn side(&self, focus: Focus) -> Vec<[f64; 2]> {
        let path = self.path(focus);
        if !path.is_empty() {
            return path;
        }
        let [t, s] = self.local(focus.center);
        let s = if s > 0.0 { s - 1.5 * focus.radius } else { s + 1.5 * focus.radius };
        vec![self.global([t - focus.radius, s]), self.global([t + focus.radius, s])]
    }
}

/// A side of a polygon from its first corner on, in steps where it passes the focus.
fn followed(from: [f64; 2], to: [f64; 2], focus: Focus) -> Vec<[f64; 2]> {
    let along = [to[0] - from[0], to[1] - from[1]];
    let length = along[0].hypot(along[1]);
    let nearest = dot([focus.center[0] - from[0], focus.center[1] - from[1]], along) / length;
    let step = 2.0 * focus.radius / STEPS as f64;
    let steps = (0..=STEPS).map(|k| nearest - focus.radius + step * k as f64);
    let within = steps.filter(|s| (0.0..length).contains(s)).map(|s| s / length);
    std::iter::once(0.0).chain(within).map(|t| [from[0] + t * along[0], from[1] + t * along[1]]).collect()
}

/// The distance from the nearest side, negative outside.
fn polygon_depth(corners: &[[f64; 2]], [x, y]: [f64; 2]) -> f64 {
    let mut inside = false;
    let mut nearest = f64::INFINITY;
    for (k, &[x0, y0]) in corners.iter().enumerate() {
        let [x1, y1] = corners[(k + 1) % corners.len()];
        if (y0 > y) != (y1 > y) && x < x0 + (y - y0) / (y1 - y0) * (x1 - x0) {
            inside = !inside;
        }
        let (dx, dy) = (x1 - x0, y1 - y0);
        let length2 = dx * dx + dy * dy;
        let t = if length2 > 0.0 { ((x - x0) * dx + (y - y0) * dy) / length2 } else { 0.0 }.clamp(0.0, 1.0);
        nearest = nearest.min((x - x0 - t * dx).hypot(y - y0 - t * dy));
    }
    if inside { nearest } else { -nearest }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inside_polygon(corners: &[[f64; 2]], at: [f64; 2]) -> bool {
        !corners.is_empty() && polygon_depth(corners, at) > 0.0
    }

    #[test]
    fn depths_are_distances_inside() {
        let line =
            Outline::new(&Shape::HalfPlane { at_nm: [0.0, 3.0], normal_rad: 0.0, edge: Edge::default() }, 1);
        assert_eq!([line.depth([5.0, 9.0]), line.depth([1.0, -7.0])], [2.0, -2.0]);
        // Up as displayed is -y.
        let up = std::f64::consts::FRAC_PI_2;
        let strip = Outline::new(
            &Shape::Strip { at_nm: [2.0, 0.0], normal_rad: up, width_nm: 4.0, edge: Edge::default() },
            1,
        );
        for (y, depth) in [(2.0, 2.0), (3.5, 0.5), (5.0, -1.0), (-1.0, -1.0)] {
            assert!((strip.depth([7.0, y]) - depth).abs() < 1e-12);
        }
        let square = Outline::Polygon { corners: vec![[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0]] };
        assert_eq!(
            [square.depth([1.0, 2.0]), square.depth([2.0, -3.0]), square.depth([7.0, 8.0])],
            [1.0, -3.0, -5.0]
        );
    }

    #[test]
    fn areas_agree_with_the_depth_within_the_focus() {
        let edge = Edge { roughness_nm: 0.6, wavelength_nm: 4.0 };
        let shapes = [
            Shape::HalfPlane { at_nm: [1.0, -2.0], normal_rad: 0.7, edge },
            Shape::HalfPlane { at_nm: [1.0, -2.0], normal_rad: 2.7, edge: Edge::default() },
            Shape::HalfPlane { at_nm: [0.0, -40.0], normal_rad: 0.1, edge },
            Shape::HalfPlane { at_nm: [0.0, 40.0], normal_rad: 0.1, edge },
            Shape::Strip { at_nm: [3.0, 0.0], normal_rad: -1.1, width_nm: 6.0, edge },
            Shape::Strip { at_nm: [3.0, 0.0], normal_rad: -1.1, width_nm: 60.0, edge },
            Shape::Strip { at_nm: [20.0, 0.0], normal_rad: -1.5, width_nm: 30.0, edge },
            Shape::Circle { center_nm: [2.0, 2.0], radius_nm: 5.0 },
            Shape::Circle { center_nm: [90.0, 50.0], radius_nm: 100.0 },
            Shape::Circle { center_nm: [9e4, 1.0], radius_nm: 9e4 },
            Shape::Polygon { corners_nm: vec![[0.0, -9e4], [0.0, 9e4], [9e4, 3.0]] },
            Shape::Polygon { corners_nm: vec![[0.0, 0.0], [0.0, 9.0], [9.0, 0.0]] },
        ];
        let focus = Focus { center: [1.0, 2.0], radius: 12.0 };
        for shape in shapes {
            let outline = Outline::new(&shape, 5);
            let area = outline.area(focus);
            for k in 0..40 {
                for l in 0..40 {
                    let at = [0.6 * f64::from(k) - 11.0, 0.6 * f64::from(l) - 10.0];
                    let depth = outline.depth(at);
                    if focus.distance(at) < 12.0 && depth.abs() > 0.15 {
                        assert_eq!(inside_polygon(&area, at), depth > 0.0, "{shape:?} {at:?} {depth}");
                    }
                }
            }
            for path in outline.paths(focus) {
                assert!(path.iter().all(|at| outline.depth(*at).abs() < 0.05), "{shape:?}");
            }
        }
    }

    #[test]
    fn a_rough_edge_strays_as_it_was_told() {
        let edge = Edge { roughness_nm: 0.5, wavelength_nm: 3.0 };
        let line = Line::new([0.0, 0.0], [1.0, 0.0], edge, 9);
        let n = 20_000;
        let variance = (0..n).map(|k| line.wander(0.37 * f64::from(k)).powi(2)).sum::<f64>() / f64::from(n);
        assert!((variance.sqrt() - 0.5).abs() < 0.01, "{variance}");
    }
}
