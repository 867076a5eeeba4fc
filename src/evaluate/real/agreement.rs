//! Whether the DCNN's P is that of the classical measurement.

use super::super::accuracy::{mean, rms};
use super::super::table::Entry;
use crate::label::FrameLabels;
use ferrostem_proto::{Grid, ResultMessage};

pub(super) const TITLE: &str = "P of the DCNN and of the classical measurement, cell by cell: each cell with the window whose \
    centre is nearest to its own. RMS difference: of a component, means included; expected: what the errors that both state \
    would give.";
pub(super) const HEADINGS: [(&str, usize); 16] = [
    ("image", 0),
    ("pixel (pm)", 3),
    ("windows", 0),
    ("flagged (%)", 2),
    ("cells", 0),
    ("compared", 0),
    ("correlation x", 3),
    ("correlation y", 3),
    ("RMS difference (pm)", 2),
    ("expected (pm)", 2),
    ("mean P_x DCNN (pm)", 2),
    ("mean P_x classical (pm)", 2),
    ("difference x (pm)", 2),
    ("mean P_y DCNN (pm)", 2),
    ("mean P_y classical (pm)", 2),
    ("difference y (pm)", 2),
];

/// A cell that both measured.
#[derive(Debug, Clone, Copy)]
struct Pair {
    /// P, `[x, y]`, pm.
    dcnn: [f64; 2],
    classical: [f64; 2],
    /// Variance of the difference by what both say of their errors, `[x, y]`, pm².
    variance: [f64; 2],
}

/// The cells of an image that both measured, and how many the classical measurement found.
#[derive(Debug)]
pub(super) struct Agreement {
    cells: usize,
    pairs: Vec<Pair>,
}

impl Agreement {
    /// None without labels.
    pub fn of(result: &ResultMessage, labels: Option<&FrameLabels>) -> Self {
        let grid = &result.grid;
        let cells = labels.map_or(&[][..], |labels| &labels.cells);
        let index = |at: f64, first: f64, step: f64| {
            let index = ((at - first) / step).round();
            (index >= 0.0).then_some(index as usize)
        };
        let pair = |labelled: &crate::label::LabelledCell| {
            let cell = &labelled.cell;
            let (i, j) =
                (index(cell.row, grid.row0, grid.step_row)?, index(cell.col, grid.col0, grid.step_col)?);
            let value =
                |map: &Grid<f32>| map.get(i, j).map(|value| f64::from(*value)).filter(|v| v.is_finite());
            let sigma = value(&result.p_sigma)?;
            Some(Pair {
                dcnn: [value(&result.p_x)?, value(&result.p_y)?],
                classical: [cell.p_x, cell.p_y],
                variance: [labelled.p_x_error, labelled.p_y_error].map(|error| error.powi(2) + sigma.powi(2)),
            })
        };
        Self { cells: cells.len(), pairs: cells.iter().filter_map(pair).collect() }
    }

    pub fn row(&self, result: &ResultMessage) -> Vec<Entry> {
        let measured = result.p_x.values().iter().filter(|p| p.is_finite()).count();
        let flagged = result.ood.flag.values().iter().filter(|flag| **flag != 0).count();
        let [row_pm, col_pm] = result.calibration.pixel_size_pm;
        let means = |axis: usize| {
            let of = |p: fn(&Pair) -> [f64; 2]| mean(self.pairs.iter().map(|pair| p(pair)[axis]));
            let (dcnn, classical) = (of(|pair| pair.dcnn), of(|pair| pair.classical));
            [dcnn.into(), classical.into(), (dcnn - classical).into()]
        };
        let difference = |pair: &Pair| [0, 1].map(|axis| pair.dcnn[axis] - pair.classical[axis]);
        let mut row: Vec<Entry> = vec![
            result.acquisition.as_str().into(),
            (row_pm * col_pm).sqrt().into(),
            measured.into(),
            (100.0 * flagged as f64 / measured as f64).into(),
            self.cells.into(),
            self.pairs.len().into(),
            self.correlation(0).into(),
            self.correlation(1).into(),
            rms(self.pairs.iter().flat_map(difference)).into(),
            mean(self.pairs.iter().flat_map(|pair| pair.variance)).sqrt().into(),
        ];
        row.extend(means(0));
        row.extend(means(1));
        row
    }

    /// Pearson's, of one component.
    fn correlation(&self, axis: usize) -> f64 {
        let values =
            |p: fn(&Pair) -> [f64; 2]| -> Vec<f64> { self.pairs.iter().map(|pair| p(pair)[axis]).collect() };
        let centred = |values: Vec<f64>| {
            let middle = mean(values.iter().copied());
            values.into_iter().map(|value| value - middle).collect::<Vec<f64>>()
        };
        let (dcnn, classical) = (centred(values(|pair| pair.dcnn)), centred(values(|pair| pair.classical)));
        let product = mean(dcnn.iter().zip(&classical).map(|(a, b)| a * b));
        product / (rms(dcnn.into_iter()) * rms(classical.into_iter()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hand_worked_agreement() {
        let pair = |dcnn: [f64; 2], classical: [f64; 2]| Pair { dcnn, classical, variance: [9.0, 25.0] };
        // x: classical -1, 0, 1 and the DCNN twice that and 3 more; y: one against the other.
        let pairs =
            vec![pair([1.0, 1.0], [-1.0, -1.0]), pair([3.0, 0.0], [0.0, 0.0]), pair([5.0, -1.0], [1.0, 1.0])];
        let agreement = Agreement { cells: 4, pairs };
        assert!((agreement.correlation(0) - 1.0).abs() < 1e-12);
        assert!((agreement.correlation(1) + 1.0).abs() < 1e-12);
        let row = agreement.row(&ResultMessage::default());
        // Squares of the differences: 4, 9, 16 and 4, 0, 4.
        assert_eq!(row[4..6], [4_usize.into(), 3_usize.into()]);
        assert_eq!(
            row[8..],
            [
                (37.0_f64 / 6.0).sqrt().into(),
                17.0_f64.sqrt().into(),
                3.0.into(),
                0.0.into(),
                3.0.into(),
                0.0.into(),
                0.0.into(),
                0.0.into()
            ]
        );
    }
}
