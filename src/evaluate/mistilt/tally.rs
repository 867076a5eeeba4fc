//! What was said of frames, counted up to the rows of tables.

use super::scenes::{Direction, Kind};
use crate::evaluate::table::{Entry, Table};
use crate::flags::mistilt::TileState;
use crate::simulate::Truth;
use ferrostem_proto::ResultMessage;

const COLUMNS: [(&str, usize); 9] = [
    ("frames", 0),
    ("judged (%)", 0),
    ("suspect (%)", 1),
    ("undetermined tiles (%)", 0),
    ("offset error (pm)", 2),
    ("bias (pm)", 2),
    ("expected error (pm)", 2),
    ("1 in (%)", 0),
    ("p below 0.01 (%)", 1),
];

/// All frames of a kind, and by the direction of the offset.
pub(super) struct Tables(pub [Table; 2]);

impl Tables {
    pub fn new(title: &str, third: &'static str) -> Self {
        let headings = |directions: &[(&'static str, usize)]| {
            let first = [("frames show", 0), ("offset (pm)", 0), (third, 0)];
            first.iter().chain(directions).chain(&COLUMNS).copied().collect::<Vec<_>>()
        };
        Self([
            Table::new(title, &headings(&[])),
            Table::new(
                format!("{title} By direction of the offset in the lattice."),
                &headings(&[("along", 0)]),
            ),
        ])
    }

    /// Frames without an offset have no direction.
    pub fn push(&mut self, tallies: &Tallies, (kind, offset_pm, third): (Kind, f64, f64)) {
        let start = || -> Vec<Entry> { vec![kind.name().into(), offset_pm.into(), third.into()] };
        let [all, by_direction] = &mut self.0;
        all.push([start(), tallies.all.row()].concat());
        if offset_pm == 0.0 {
            return;
        }
        for (direction, tally) in Direction::ALL.into_iter().zip(&tallies.by_direction) {
            if tally.frames > 0 {
                by_direction.push([start(), vec![direction.name().into()], tally.row()].concat());
            }
        }
    }
}

/// What a row of the first table and its rows of the second are made of.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    all: Tally,
    /// In the order of [`Direction::ALL`].
    by_direction: [Tally; Direction::ALL.len()],
}

impl Tallies {
    /// Adds frame `index`.
    pub fn add(&mut self, index: usize, tiles: &[Tile], truth: &Truth) {
        self.all.add(tiles, truth);
        if let Some(tally) = self.by_direction.get_mut(Direction::of(index) as usize) {
            tally.add(tiles, truth);
        }
    }
}

/// What was said of a tile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile {
    pub offset: [f64; 2],
    /// xx, xy, yy, pm².
    pub covariance: [f64; 3],
    pub p_value: f64,
    pub state: u8,
}

impl Tile {
    fn is(&self, state: TileState) -> bool {
        self.state == state as u8
    }
}

/// Of a result.
pub(super) fn tiles_of(result: &ResultMessage) -> Vec<Tile> {
    let maps = &result.mistilt;
    let [rows, cols] = maps.state.shape();
    let value = |map: &ferrostem_proto::Grid<f32>, i, j| map.get(i, j).map_or(f64::NAN, |v| f64::from(*v));
    (0..rows)
        .flat_map(|i| (0..cols).map(move |j| (i, j)))
        .map(|(i, j)| Tile {
            offset: [value(&maps.offset_x, i, j), value(&maps.offset_y, i, j)],
            covariance: [&maps.offset_xx, &maps.offset_xy, &maps.offset_yy].map(|map| value(map, i, j)),
            p_value: value(&maps.p_value, i, j),
            state: maps.state.get(i, j).copied().unwrap_or(0),
        })
        .collect()
}

/// One row of a table before it is written.
#[derive(Debug, Default)]
pub(super) struct Tally {
    frames: usize,
    judged: usize,
    suspect: usize,
    tiles: usize,
    undetermined: usize,
    /// Of each judged tile: its error's components, and what they were expected to be.
    errors: Vec<[f64; 2]>,
    variances: Vec<f64>,
    within_one: usize,
    /// Judged tiles with a p-value below a hundredth.
    unlikely: usize,
}

impl Tally {
    pub fn add(&mut self, tiles: &[Tile], truth: &Truth) {
        let count = truth.cells.len().max(1) as f64;
        let planted = truth
            .cells
            .iter()
            .fold([0.0, 0.0], |sum, cell| [sum[0] + cell.mistilt_x / count, sum[1] + cell.mistilt_y / count]);
        let judged: Vec<&Tile> = tiles
            .iter()
            .filter(|tile| tile.is(TileState::Consistent) || tile.is(TileState::Suspect))
            .collect();
        self.frames += 1;
        self.judged += usize::from(!judged.is_empty());
        self.suspect += usize::from(tiles.iter().any(|tile| tile.is(TileState::Suspect)));
        self.tiles += tiles.len();
        self.undetermined += tiles.iter().filter(|tile| tile.is(TileState::Undetermined)).count();
        for tile in judged {
            let error = [tile.offset[0] - planted[0], tile.offset[1] - planted[1]];
            let [xx, xy, yy] = tile.covariance;
            let determinant = xx * yy - xy * xy;
            let [x, y] = error;
            // The ellipse that holds 39 % of a two-component normal error.
            let distance = (yy * x * x - 2.0 * xy * x * y + xx * y * y) / determinant;
            self.within_one += usize::from(distance <= 1.0);
            self.unlikely += usize::from(tile.p_value < 0.01);
            self.errors.push(error);
            self.variances.push(xx + yy);
        }
    }

    /// The [`COLUMNS`]. Errors are lengths of vectors, root mean square over the judged tiles.
    pub fn row(&self) -> Vec<Entry> {
        let percent = |part: usize, whole: usize| 100.0 * part as f64 / whole as f64;
        let n = self.errors.len() as f64;
        let mean = |k: usize| self.errors.iter().map(|error| error[k]).sum::<f64>() / n;
        let squares = self.errors.iter().map(|[x, y]| x * x + y * y).sum::<f64>();
        vec![
            self.frames.into(),
            percent(self.judged, self.frames).into(),
            percent(self.suspect, self.frames).into(),
            percent(self.undetermined, self.tiles).into(),
            (squares / n).sqrt().into(),
            mean(0).hypot(mean(1)).into(),
            (self.variances.iter().sum::<f64>() / n).sqrt().into(),
            percent(self.within_one, self.errors.len()).into(),
            percent(self.unlikely, self.errors.len()).into(),
        ]
    }
}
