//! How many atomic columns the FCNN finds, and how near to the truth they lie once refined, by dose.

use super::EvaluateError;
use super::accuracy::{AccuracySettings, faultless, rms};
use super::table::Table;
use super::windows::{KnownFrame, at_dose, known_frame};
use crate::columns::Neighbours;
use crate::pipeline::Analyzer;
use crate::simulate::ColumnClass;
use ferrostem_proto::ResultMessage;

/// A column is found if one of its class lies no farther from it than this, in edges of the cell; half of the way to the nearest
/// column of the other class is 0.35.
const FOUND_CELLS: f64 = 0.25;
/// Columns nearer to the frame's edge than this are not asked for, in edges of the cell: what is around them is not in the frame.
const EDGE_CELLS: f64 = 0.75;

/// Columns of one class on all frames of a row.
#[derive(Debug, Default)]
struct Tally {
    /// In the truth, found, and reported.
    columns: usize,
    found: usize,
    reported: usize,
    /// Reported where none of its class is.
    spurious: usize,
    /// Both components of all differences, pm.
    errors: Vec<f64>,
    /// Cramér–Rao bound of a component, pm, frame by frame.
    bounds: Vec<f64>,
}

impl Tally {
    fn add(&mut self, class: ColumnClass, known: &KnownFrame, result: &ResultMessage) {
        let cell_pm = known.cell_pm();
        let [row_pm, col_pm] = known.pixel_sizes_pm;
        let (rows, cols) = known.frame.pixels.dim();
        let edge = EDGE_CELLS * cell_pm;
        let inside = |[x, y]: &[f64; 2]| {
            (edge..cols as f64 * col_pm - edge).contains(x) && (edge..rows as f64 * row_pm - edge).contains(y)
        };
        let at = |row: f64, col: f64| [col * col_pm, row * row_pm];
        let truth: Vec<[f64; 2]> = known
            .truth
            .columns
            .iter()
            .filter(|column| column.class == class)
            .map(|column| at(column.row, column.col))
            .collect();
        let table = &result.columns;
        let reported: Vec<[f64; 2]> = table
            .row
            .iter()
            .zip(&table.col)
            .zip(&table.class)
            .filter(|(_, found)| **found == class as u8)
            .map(|((row, col), _)| at(f64::from(*row), f64::from(*col)))
            .collect();
        let bound = FOUND_CELLS * cell_pm;
        let tree = Neighbours::new(&reported);
        for place in truth.iter().filter(|place| inside(place)) {
            self.columns += 1;
            let Some((index, _)) = tree.nearest(*place, bound) else { continue };
            let Some(nearest) = reported.get(index) else { continue };
            self.found += 1;
            self.errors.extend([nearest[0] - place[0], nearest[1] - place[1]]);
        }
        let tree = Neighbours::new(&truth);
        for place in reported.iter().filter(|place| inside(place)) {
            self.reported += 1;
            self.spurious += usize::from(tree.nearest(*place, bound).is_none());
        }
        self.bounds.extend(known.bound.map(|bound| match class {
            ColumnClass::A => bound.a,
            _ => bound.b,
        }));
    }
}

/// Columns found, spurious, and their refined positions beside the Cramér–Rao bound of a square lattice of such columns, dose by dose
/// and class by class. No fault but noise and blur.
///
/// # Errors
/// When a frame cannot be simulated or processed, or no FCNN is loaded.
pub fn by_dose(
    analyzer: &mut Analyzer,
    settings: &AccuracySettings,
    mut each: impl FnMut(),
) -> Result<Table, EvaluateError> {
    if analyzer.engine().fcnn_manifest().is_none() {
        return Err(EvaluateError::NoFcnn);
    }
    let side = settings.side_px;
    let mut table = Table::new(
        "Columns by dose (counts at the peak of an A column), no fault but noise and blur: positions per component, RMS.",
        &[
            ("counts", 0),
            ("class", 0),
            ("columns", 0),
            ("found (%)", 2),
            ("spurious (%)", 2),
            ("position (pm)", 2),
            ("bound (pm)", 2),
            ("position / bound", 2),
        ],
    );
    for &counts in &settings.counts {
        let scenes = faultless(at_dose(&settings.scenes, counts)?);
        let mut tallies = [ColumnClass::A, ColumnClass::B].map(|class| (class, Tally::default()));
        for index in 0..settings.frames {
            let known = known_frame(&scenes, [side, side], settings.seed, index)?;
            let result = analyzer.analyze(known.frame.clone())?;
            for (class, tally) in &mut tallies {
                tally.add(*class, &known, &result);
            }
            each();
        }
        for (class, tally) in &tallies {
            let part = |count: usize, of: usize| 100.0 * count as f64 / of as f64;
            let (position, bound) = (rms(tally.errors.iter().copied()), rms(tally.bounds.iter().copied()));
            table.push(vec![
                counts.into(),
                if *class == ColumnClass::A { "A" } else { "B" }.into(),
                tally.columns.into(),
                part(tally.found, tally.columns).into(),
                part(tally.spurious, tally.reported).into(),
                position.into(),
                bound.into(),
                (position / bound).into(),
            ]);
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::{TrainingRanges, TruthColumn};
    use ferrostem_proto::ColumnTable;

    #[test]
    fn a_hand_made_result_is_counted() {
        let scenes = TrainingRanges { pixel_size_pm: [20.0; 2], ..TrainingRanges::default() };
        let mut known = known_frame(&scenes, [128, 128], 1, 0).unwrap();
        let cell_px = known.cell_pm() / 20.0;
        let column = |row: f64, class| TruthColumn { row, col: 60.0, class, intensity: 1.0 };
        known.truth.columns = vec![
            column(40.0, ColumnClass::A),
            column(80.0, ColumnClass::A),
            column(60.0, ColumnClass::B),
            column(2.0, ColumnClass::A),
        ];
        let mut result = ResultMessage::default();
        // The first is found a pixel off, the second where the class is wrong, and one stands where none is.
        let rows = [41.0, 80.0, (60.0 + cell_px) as f32];
        result.columns = ColumnTable {
            row: rows.to_vec(),
            col: vec![60.0; 3],
            class: vec![1, 0, 0],
            confidence: vec![1.0; 3],
        };
        let mut tally = Tally::default();
        tally.add(ColumnClass::A, &known, &result);
        assert_eq!((tally.columns, tally.found, tally.reported, tally.spurious), (2, 1, 1, 0));
        assert!((rms(tally.errors.iter().copied()) - 20.0 / 2f64.sqrt()).abs() < 1e-3, "{:?}", tally.errors);
        let mut tally = Tally::default();
        tally.add(ColumnClass::B, &known, &result);
        assert_eq!((tally.columns, tally.found, tally.reported, tally.spurious), (1, 0, 2, 2));
    }
}
