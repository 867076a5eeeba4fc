//! Columns found without a network: bright spots at the scale of the lattice, told apart by their neighbours.
//!
//! Features: peaks of the smoothed frame, none nearer to a brighter one than columns can be; sublattices by whether a column is
//! brighter than its neighbours half a diagonal away, a vote among all columns around; the columns just outside the frame.
//! Assumptions: a perovskite along [100] whose lattice vectors are known to some percent. Grains, steps in thickness and antiphase
//! boundaries are local and do not matter; other lattice directions than the one given do.

use super::Neighbours;
use super::joint::blurred;
use crate::frame::{Column, Sublattice};
use crate::preprocess::LatticeEstimate;
use ndarray::Array2;
use std::collections::HashMap;

/// In cell edges: how wide the smoothing is, and the mean that is taken away.
const SMOOTHING_CELLS: f64 = 0.08;
const SURROUNDINGS_CELLS: f64 = 0.3;
/// Nearest that two columns of A and B can be, in cell edges: 0.71 less a polar displacement of 100 pm.
const LEAST_DISTANCE_CELLS: f64 = 0.45;
/// How far a neighbour may be from where the lattice puts it, in cell edges.
const NEIGHBOUR_CELLS: f64 = 0.24;
/// Peaks below this part of the typical peak's height are the noise between columns.
const LEAST_HEIGHT: f64 = 0.1;
const VOTES: usize = 2;
/// Vote of a column without a neighbour of the other sublattice: where one sublattice has no peaks, because it is faint between broad
/// columns, those that are seen are A.
const ALONE: f64 = 0.2;
/// How far inside the frame, px, columns may be missing that have their flank in it: the flank of what has its peak at the edge is no
/// peak of the frame, and the FCNN's are dropped there.
const WITHIN_PX: f64 = 6.0;
/// How far outside the frame columns still matter, in cell edges.
const BEYOND_CELLS: f64 = 1.6;
/// Neighbours of a place without a peak that make it worth a try: noise may hide a column.
const NEIGHBOURS_OF_HIDDEN: usize = 4;

/// Columns of a frame, and of its surroundings as the lattice continues there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FoundColumns {
    /// Those in the frame; where neighbours ask for one that no peak shows, with confidence 0.
    pub columns: Vec<Column>,
    /// Those outside whose flanks reach into it.
    pub beyond: Vec<BeyondColumn>,
}

/// A column outside the frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BeyondColumn {
    pub column: Column,
    /// The column that says where it is: index into [`FoundColumns::columns`], and after them into [`FoundColumns::beyond`].
    pub parent: usize,
    /// From there to here, `[row, col]`.
    pub step: [f64; 2],
}

/// A local maximum.
#[derive(Debug, Clone, Copy)]
struct Peak {
    at: [f64; 2],
    height: f64,
}

/// Finds the columns of both sublattices.
///
/// # Shapes
/// `pixels` `[row, col]`, NaN where not measured; lattice vectors and results in its pixels. The confidence of a column is how
/// clearly its neighbours tell its sublattice, 0 to 1.
pub fn find_columns_by_lattice(pixels: &Array2<f32>, lattice: &LatticeEstimate) -> FoundColumns {
    let cell_px = lattice.cell_px();
    let peaks = peaks(pixels, cell_px);
    let points: Vec<[f64; 2]> = peaks.iter().map(|peak| peak.at).collect();
    let tree = Neighbours::new(&points);
    let bound = NEIGHBOUR_CELLS * cell_px;
    let [like, unlike] = steps(lattice);
    let linked = |at: [f64; 2], steps: &[[f64; 2]; 4]| -> Vec<usize> {
        steps.iter().filter_map(|step| Some(tree.nearest(sum(at, *step), bound)?.0)).collect()
    };
    let likes: Vec<Vec<usize>> = points.iter().map(|&at| linked(at, &like)).collect();
    let unlikes: Vec<Vec<usize>> = points.iter().map(|&at| linked(at, &unlike)).collect();
    // Brighter than the neighbours of the other sublattice: A.
    let mut score: Vec<f64> = peaks
        .iter()
        .zip(&unlikes)
        .map(|(peak, unlikes)| {
            let n = unlikes.len().max(1) as f64;
            let around = unlikes.iter().filter_map(|&k| peaks.get(k)).map(|other| other.height).sum::<f64>();
            if unlikes.is_empty() { ALONE } else { (peak.height - around / n) / (peak.height + around / n) }
        })
        .collect();
    for _ in 0..VOTES {
        score = (0..peaks.len())
            .map(|k| {
                let agree: f64 = likes[k].iter().map(|&n| score[n]).sum();
                let oppose: f64 = unlikes[k].iter().map(|&n| score[n]).sum();
                (2.0 * score[k] + agree - oppose) / (2 + likes[k].len() + unlikes[k].len()) as f64
            })
            .collect();
    }
    let mut columns: Vec<Column> = (0..peaks.len())
        // Columns stand in a lattice; what does not is noise or a defect that no cell is made of.
        .filter(|&k| likes[k].len() + unlikes[k].len() >= 3)
        .map(|k| Column {
            row: points[k][0],
            col: points[k][1],
            sublattice: if score[k] > 0.0 { Sublattice::A } else { Sublattice::B },
            confidence: score[k].abs().min(1.0) as f32,
        })
        .collect();
    columns.extend(hidden(&columns, pixels, lattice));
    FoundColumns::around(columns, pixels.dim(), lattice)
}

impl FoundColumns {
    /// These columns of a frame of `shape`, and its surroundings as the lattice continues there.
    pub(super) fn around(columns: Vec<Column>, shape: (usize, usize), lattice: &LatticeEstimate) -> Self {
        let beyond = beyond(&columns, shape, lattice);
        Self { columns, beyond }
    }
}

/// Steps to the four nearest columns of the same and of the other sublattice, `[row, col]`.
pub(crate) fn steps(lattice: &LatticeEstimate) -> [[[f64; 2]; 4]; 2] {
    let (a, b) = (lattice.a_px, lattice.b_px);
    let combine = |i: f64, j: f64| [i * a[0] + j * b[0], i * a[1] + j * b[1]];
    [
        [combine(1.0, 0.0), combine(-1.0, 0.0), combine(0.0, 1.0), combine(0.0, -1.0)],
        [combine(0.5, 0.5), combine(-0.5, -0.5), combine(0.5, -0.5), combine(-0.5, 0.5)],
    ]
}

fn sum(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
    [a[0] + b[0], a[1] + b[1]]
}

/// Local maxima of the smoothed frame, brightest first, none too near to a brighter one.
fn peaks(pixels: &Array2<f32>, cell_px: f64) -> Vec<Peak> {
    let smooth = blurred(pixels, (SMOOTHING_CELLS * cell_px).max(0.7));
    let flat = &smooth - &blurred(pixels, SURROUNDINGS_CELLS * cell_px);
    let (rows, cols) = flat.dim();
    let mut peaks: Vec<Peak> = Vec::new();
    for row in 1..rows.saturating_sub(1) {
        for col in 1..cols.saturating_sub(1) {
            let value = flat[[row, col]];
            let highest = pixels[[row, col]].is_finite()
                && (0..9).filter(|&k| k != 4).all(|k| {
                    let other = flat[[row + k / 3 - 1, col + k % 3 - 1]];
                    // The first of equals counts.
                    if k < 4 { value > other } else { value >= other }
                });
            if highest {
                let vertex = |before: f32, after: f32| {
                    let curvature = f64::from(before - 2.0 * value + after);
                    if curvature < 0.0 {
                        (0.5 * f64::from(before - after) / curvature).clamp(-0.5, 0.5)
                    } else {
                        0.0
                    }
                };
                let at = [
                    row as f64 + vertex(flat[[row - 1, col]], flat[[row + 1, col]]),
                    col as f64 + vertex(flat[[row, col - 1]], flat[[row, col + 1]]),
                ];
                peaks.push(Peak { at, height: f64::from(smooth[[row, col]]) });
            }
        }
    }
    // Heights above the darkest surroundings, so that they compare as parts of one another.
    let mut values: Vec<f32> = smooth.iter().copied().filter(|value| value.is_finite()).collect();
    let low = values.len() / 50;
    if values.is_empty() {
        return Vec::new();
    }
    let dark = f64::from(*values.select_nth_unstable_by(low, f32::total_cmp).1);
    peaks.iter_mut().for_each(|peak| peak.height -= dark);
    peaks.sort_by(|a, b| b.height.total_cmp(&a.height));
    let peaks = apart(&peaks, LEAST_DISTANCE_CELLS * cell_px);
    let typical = peaks.get(peaks.len() / 4).map_or(0.0, |peak| peak.height);
    peaks.into_iter().filter(|peak| peak.height > LEAST_HEIGHT * typical).collect()
}

/// Those of `peaks`, in the order of height, that lie further than `distance` from all kept before them.
fn apart(peaks: &[Peak], distance: f64) -> Vec<Peak> {
    let mut taken = Buckets::new(distance);
    let mut kept = Vec::new();
    for peak in peaks {
        if !taken.near(peak.at) {
            taken.put(peak.at);
            kept.push(*peak);
        }
    }
    kept
}

/// Places taken, in squares of a side of the distance that is asked for.
struct Buckets {
    distance: f64,
    taken: HashMap<[i64; 2], Vec<[f64; 2]>>,
}

impl Buckets {
    fn new(distance: f64) -> Self {
        Self { distance, taken: HashMap::new() }
    }

    fn of(&self, at: [f64; 2]) -> [i64; 2] {
        at.map(|x| (x / self.distance).floor() as i64)
    }

    fn put(&mut self, at: [f64; 2]) {
        self.taken.entry(self.of(at)).or_default().push(at);
    }

    /// Whether a place within the distance is taken.
    fn near(&self, at: [f64; 2]) -> bool {
        let [row, col] = self.of(at);
        let around = (-1..=1).flat_map(|dr| (-1..=1).map(move |dc| [row + dr, col + dc]));
        around
            .filter_map(|bucket| self.taken.get(&bucket))
            .flatten()
            .any(|other| (other[0] - at[0]).hypot(other[1] - at[1]) < self.distance)
    }
}

fn other(sublattice: Sublattice) -> Sublattice {
    match sublattice {
        Sublattice::A => Sublattice::B,
        Sublattice::B => Sublattice::A,
    }
}

/// How far a place is outside a frame of this shape, px; negative inside.
fn outside([row, col]: [f64; 2], (rows, cols): (usize, usize)) -> f64 {
    let beyond = |x: f64, length: usize| (-x - 0.5).max(x + 0.5 - length as f64);
    beyond(row, rows).max(beyond(col, cols))
}

/// Columns that noise hides, or a brighter neighbour: places that most of the neighbours around ask for and no peak is at.
fn hidden(columns: &[Column], pixels: &Array2<f32>, lattice: &LatticeEstimate) -> Vec<Column> {
    let near_px = NEIGHBOUR_CELLS * lattice.cell_px();
    let points: Vec<[f64; 2]> = columns.iter().map(|column| [column.row, column.col]).collect();
    let tree = Neighbours::new(&points);
    let [like, unlike] = steps(lattice);
    let asked = |at: [f64; 2], sublattice: Sublattice| -> Vec<[f64; 2]> {
        [(like, sublattice), (unlike, other(sublattice))]
            .into_iter()
            .flat_map(|(steps, wanted)| steps.map(|step| (step, wanted)))
            .filter_map(|(step, wanted)| {
                let (k, _) = tree.nearest(sum(at, step), near_px)?;
                (columns[k].sublattice == wanted).then(|| [points[k][0] - step[0], points[k][1] - step[1]])
            })
            .collect()
    };
    let mut found: Vec<Column> = Vec::new();
    for column in columns {
        let alike = like.map(|step| (step, column.sublattice));
        for (step, sublattice) in alike.into_iter().chain(unlike.map(|step| (step, other(column.sublattice))))
        {
            let at = sum([column.row, column.col], step);
            let free = |at: [f64; 2]| {
                outside(at, pixels.dim()) < -2.0
                    && tree.nearest(at, near_px).is_none()
                    && found.iter().all(|other| (other.row - at[0]).hypot(other.col - at[1]) > near_px)
            };
            if !free(at) {
                continue;
            }
            let asking = asked(at, sublattice);
            let n = asking.len() as f64;
            let [row, col] = [0, 1].map(|axis| asking.iter().map(|at| at[axis]).sum::<f64>() / n);
            let measured = pixels.get([row as usize, col as usize]).is_some_and(|pixel| pixel.is_finite());
            if asking.len() >= NEIGHBOURS_OF_HIDDEN && measured && free([row, col]) {
                found.push(Column { row, col, sublattice, confidence: 0.0 });
            }
        }
    }
    found
}

/// Columns outside the frame, each where its neighbour of the same sublattice, else of the other, says; then their neighbours'
/// neighbours.
fn beyond(columns: &[Column], shape: (usize, usize), lattice: &LatticeEstimate) -> Vec<BeyondColumn> {
    let margin = BEYOND_CELLS * lattice.cell_px();
    let near_px = NEIGHBOUR_CELLS * lattice.cell_px();
    // A little inside too.
    let wanted = |at: [f64; 2]| (-WITHIN_PX..=margin).contains(&outside(at, shape));
    let mut taken = Buckets::new(1.5 * near_px);
    columns.iter().for_each(|column| taken.put([column.row, column.col]));
    let mut known: Vec<Column> = columns
        .iter()
        .filter(|column| outside([column.row, column.col], shape) > -2.0 * margin)
        .copied()
        .collect();
    let mut index: Vec<usize> = (0..columns.len())
        .filter(|&k| outside([columns[k].row, columns[k].col], shape) > -2.0 * margin)
        .collect();
    let mut found: Vec<BeyondColumn> = Vec::new();
    let [like, unlike] = steps(lattice);
    for (steps, same) in [(like, true), (unlike, false), (like, true)] {
        let mut from = 0;
        while from < known.len() {
            let (parent, column) = (index[from], known[from]);
            from += 1;
            for step in steps {
                let at = sum([column.row, column.col], step);
                if wanted(at) && !taken.near(at) {
                    taken.put(at);
                    let sublattice = if same { column.sublattice } else { other(column.sublattice) };
                    let column = Column { row: at[0], col: at[1], sublattice, confidence: 0.0 };
                    index.push(columns.len() + found.len());
                    known.push(column);
                    found.push(BeyondColumn { column, parent, step });
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preprocess::estimate_lattice;
    use crate::simulate::{Columns, Microscope, Polarization, Specimen, render};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    /// Columns of a frame of 320 px, those found with the right sublattice, and all found, each 8 px inside the frame.
    fn counted(specimen: &Specimen, peak_counts: f64, seed: u64) -> [usize; 3] {
        let microscope = Microscope { shape: [320, 320], peak_counts, ..Microscope::default() };
        let frame = render(specimen, &microscope, &mut ChaCha8Rng::seed_from_u64(seed)).unwrap();
        let lattice = estimate_lattice(&frame.pixels, &Array2::from_elem((320, 320), true)).unwrap();
        let found = find_columns_by_lattice(&frame.pixels, &lattice);
        assert!(found.beyond.len() > 20);
        let inside = |row: f64, col: f64| (8.0..312.0).contains(&row) && (8.0..312.0).contains(&col);
        let truth = frame.truth.columns.iter().filter(|c| c.sublattice().is_some() && inside(c.row, c.col));
        let hit = truth.clone().filter(|column| {
            found.columns.iter().any(|other| {
                Some(other.sublattice) == column.sublattice()
                    && (other.row - column.row).hypot(other.col - column.col) < 5.0
            })
        });
        let inner = found.columns.iter().filter(|c| inside(c.row, c.col)).count();
        [truth.clone().count(), hit.count(), inner]
    }

    #[test]
    fn both_sublattices_are_found_at_ten_counts() {
        let columns = Columns {
            o: Some(crate::material::ColumnShape { intensity: 0.06, sigma_pm: 60.0 }),
            ..Columns::default()
        };
        for (seed, rotation_rad) in [(1, 0.0), (2, 0.3), (3, 0.78)] {
            let polarization = Polarization::Uniform { p_pm: [35.0, -20.0] };
            let specimen = Specimen { rotation_rad, columns, polarization, ..Specimen::default() };
            let [columns, found, all] = counted(&specimen, 10.0, seed);
            assert!((columns - found) * 200 <= columns && all <= columns + 2, "{columns} {found} {all}");
        }
    }

    #[test]
    fn faint_columns_that_have_no_peak_between_broad_ones_are_tried() {
        let shape = |intensity, sigma_pm| crate::material::ColumnShape { intensity, sigma_pm };
        let columns = Columns { a: shape(1.0, 95.0), b: shape(0.1, 63.0), ..Columns::default() };
        let specimen = Specimen { rotation_rad: 0.1, columns, ..Specimen::default() };
        let [columns, found, all] = counted(&specimen, 300.0, 4);
        // Those at the frame's edges lack a neighbour that asks for them.
        assert!(found * 10 >= columns * 9 && all <= columns + 2, "{columns} {found} {all}");
    }

    #[test]
    fn peaks_too_near_to_a_brighter_one_are_none() {
        let peak = |row: f64, height: f64| Peak { at: [row, 0.0], height };
        let kept = apart(&[peak(0.0, 3.0), peak(2.0, 2.0), peak(4.0, 1.0)], 3.0);
        assert_eq!(kept.iter().map(|peak| peak.at[0]).collect::<Vec<_>>(), [0.0, 4.0]);
    }
}
