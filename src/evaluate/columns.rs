//! How many atomic columns the FCNN finds, and how near to the truth they lie once refined, by dose; beside it what the fit of all
//! columns together ([`label_frame`]) finds of the same frames without a network.

use super::EvaluateError;
use super::accuracy::{AccuracySettings, faultless, rms};
use super::table::Table;
use super::windows::{KnownFrame, at_dose, known_frame};
use crate::columns::Neighbours;
use crate::label::{LabelSettings, label_frame};
use crate::pipeline::Analyzer;
use crate::preprocess::measured_pixels;
use crate::simulate::ColumnClass;
use ferrostem_proto::ResultMessage;

/// A column is found if one of its class lies no farther from it than this, in edges of the cell; half of the way to the nearest
/// column of the other class is 0.35.
const FOUND_CELLS: f64 = 0.25;
/// Columns nearer to the frame's edge than this are not asked for, in edges of the cell: what is around them is not in the frame.
const EDGE_CELLS: f64 = 0.75;

/// A reported column: its class, and its place in frame pixels.
struct Reported {
    class: u8,
    row: f64,
    col: f64,
}

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
    fn add(&mut self, class: ColumnClass, known: &KnownFrame, reported: &[Reported]) {
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
        let reported: Vec<[f64; 2]> = reported
            .iter()
            .filter(|column| column.class == class as u8)
            .map(|column| at(column.row, column.col))
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

    fn found_percent(&self) -> f64 {
        100.0 * self.found as f64 / self.columns as f64
    }

    /// RMS error of a component of the position, pm.
    fn position_pm(&self) -> f64 {
        rms(self.errors.iter().copied())
    }
}

/// What the pipeline reports.
fn published(result: &ResultMessage) -> Vec<Reported> {
    let table = &result.columns;
    let places = table.row.iter().zip(&table.col).zip(&table.class);
    places
        .map(|((&row, &col), &class)| Reported { class, row: f64::from(row), col: f64::from(col) })
        .collect()
}

/// What the fit of all columns together reports; nothing of a frame in which it finds no lattice.
fn fitted_jointly(known: &KnownFrame) -> Vec<Reported> {
    let pixels = &known.frame.pixels;
    let valid = measured_pixels(pixels, &known.frame.valid_rows);
    let labels = label_frame(pixels, &valid, known.pixel_sizes_pm, None, &LabelSettings::default());
    let columns = labels.map_or_else(|_| Vec::new(), |labels| labels.columns);
    columns
        .iter()
        .map(|column| Reported { class: column.sublattice as u8, row: column.fit.row, col: column.fit.col })
        .collect()
}

/// Columns found, spurious, and their refined positions beside the Cramér–Rao bound of a square lattice of such columns, dose by dose
/// and class by class, and the same of the joint fit. No fault but noise and blur.
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
            ("jointly fitted (%)", 2),
            ("joint position (pm)", 2),
            ("joint / bound", 2),
        ],
    );
    for &counts in &settings.counts {
        let scenes = faultless(at_dose(&settings.scenes, counts)?);
        let mut tallies =
            [ColumnClass::A, ColumnClass::B].map(|class| (class, Tally::default(), Tally::default()));
        for index in 0..settings.frames {
            let known = known_frame(&scenes, [side, side], settings.seed, index)?;
            let found = published(&analyzer.analyze(known.frame.clone())?);
            let fitted = fitted_jointly(&known);
            for (class, network, joint) in &mut tallies {
                network.add(*class, &known, &found);
                joint.add(*class, &known, &fitted);
            }
            each();
        }
        for (class, network, joint) in &tallies {
            let bound = rms(network.bounds.iter().copied());
            table.push(vec![
                counts.into(),
                if *class == ColumnClass::A { "A" } else { "B" }.into(),
                network.columns.into(),
                network.found_percent().into(),
                (100.0 * network.spurious as f64 / network.reported as f64).into(),
                network.position_pm().into(),
                bound.into(),
                (network.position_pm() / bound).into(),
                joint.found_percent().into(),
                joint.position_pm().into(),
                (joint.position_pm() / bound).into(),
            ]);
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::{TrainingRanges, TruthColumn};

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
        // The first is found a pixel off, the second where the class is wrong, and one stands where none is.
        let reported = [(1, 41.0), (0, 80.0), (0, 60.0 + cell_px)];
        let reported = reported.map(|(class, row)| Reported { class, row, col: 60.0 });
        let mut tally = Tally::default();
        tally.add(ColumnClass::A, &known, &reported);
        assert_eq!((tally.columns, tally.found, tally.reported, tally.spurious), (2, 1, 1, 0));
        assert!((rms(tally.errors.iter().copied()) - 20.0 / 2f64.sqrt()).abs() < 1e-3, "{:?}", tally.errors);
        let mut tally = Tally::default();
        tally.add(ColumnClass::B, &known, &reported);
        assert_eq!((tally.columns, tally.found, tally.reported, tally.spurious), (1, 0, 2, 2));
    }
}
