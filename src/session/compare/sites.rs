//! Differences of columns and candidates, which are matched by where they are.

use super::FrameName;
use ferrostem_proto::{Candidate, ColumnTable};
use serde::Serialize;

/// Sites farther apart than this are not the same, px.
const MATCH_PX: f64 = 1.0;

/// How the columns differ, over all frames.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ColumnDifference {
    /// Each the other's nearest, within one pixel.
    pub matched: u64,
    pub only_a: u64,
    pub only_b: u64,
    /// Matched ones that are farther apart than the tolerance.
    pub moved: u64,
    pub class_differs: u64,
    /// Matched ones whose confidence differs by more than the tolerance.
    pub confidence_differs: u64,
    pub max_distance_px: f64,
    pub max_confidence_difference: f64,
    /// Where the largest distance is, or the first column without a partner.
    pub worst: Option<FrameName>,
}

/// How the candidates differ, over all frames.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct CandidateDifference {
    /// By id and kind, or else by kind and place within one pixel.
    pub matched: u64,
    pub only_a: u64,
    pub only_b: u64,
    /// Matched by their place: the ids differ.
    pub id_differs: u64,
    /// Matched ones that are farther apart than the tolerance, px.
    pub moved: u64,
    /// Matched ones with another score, p-value, coordinate or history (at a tolerance of 0: or reason or model).
    pub content_differs: u64,
    pub max_distance_px: f64,
    pub max_score_difference: f64,
    /// The first frame with a difference.
    pub first: Option<FrameName>,
}

impl ColumnDifference {
    /// Whether nothing differs by more than the tolerance.
    pub const fn is_none(&self) -> bool {
        self.only_a == 0
            && self.only_b == 0
            && self.moved == 0
            && self.class_differs == 0
            && self.confidence_differs == 0
    }

    pub(super) fn add(&mut self, frame: &FrameName, a: &ColumnTable, b: &ColumnTable, tolerance: f64) {
        let (places_a, places_b) = (places(a), places(b));
        let (a_to_b, b_to_a) = (nearest(&places_a, &places_b), nearest(&places_b, &places_a));
        let mut matched = 0;
        for (index, partner) in a_to_b.iter().enumerate() {
            let Some((partner, distance)) = *partner else { continue };
            if b_to_a[partner].is_none_or(|(back, _)| back != index) {
                continue;
            }
            matched += 1;
            self.moved += u64::from(distance > tolerance);
            self.class_differs += u64::from(a.class.get(index) != b.class.get(partner));
            let confidence = |table: &ColumnTable, at: usize| table.confidence.get(at).copied();
            let (sure_a, sure_b) = (confidence(a, index), confidence(b, partner));
            let difference = sure_a.zip(sure_b).map_or(0.0, |(a, b)| f64::from((a - b).abs()));
            self.confidence_differs += u64::from(difference > tolerance);
            self.max_confidence_difference = self.max_confidence_difference.max(difference);
            if distance > self.max_distance_px {
                self.max_distance_px = distance;
                self.worst = Some(frame.clone());
            }
        }
        self.matched += matched;
        self.only_a += places_a.len() as u64 - matched;
        self.only_b += places_b.len() as u64 - matched;
        if self.worst.is_none() && !self.is_none() {
            self.worst = Some(frame.clone());
        }
    }
}

fn places(table: &ColumnTable) -> Vec<[f64; 2]> {
    table.row.iter().zip(&table.col).map(|(&row, &col)| [f64::from(row), f64::from(col)]).collect()
}

/// For each of `from`, the nearest of `to` within [`MATCH_PX`] and its distance, px.
fn nearest(from: &[[f64; 2]], to: &[[f64; 2]]) -> Vec<Option<(usize, f64)>> {
    let mut by_row: Vec<usize> = (0..to.len()).collect();
    by_row.sort_by(|&i, &j| to[i][0].total_cmp(&to[j][0]));
    let one = |&[row, col]: &[f64; 2]| {
        let first = by_row.partition_point(|&i| to[i][0] < row - MATCH_PX);
        by_row[first..]
            .iter()
            .take_while(|&&i| to[i][0] <= row + MATCH_PX)
            .map(|&i| (i, (to[i][0] - row).hypot(to[i][1] - col)))
            .filter(|(_, distance)| *distance <= MATCH_PX)
            .min_by(|a, b| a.1.total_cmp(&b.1))
    };
    from.iter().map(one).collect()
}

impl CandidateDifference {
    /// Whether nothing differs by more than the tolerance.
    pub const fn is_none(&self) -> bool {
        self.only_a == 0
            && self.only_b == 0
            && self.id_differs == 0
            && self.moved == 0
            && self.content_differs == 0
    }

    pub(super) fn add(&mut self, frame: &FrameName, a: &[Candidate], b: &[Candidate], tolerance: f64) {
        let mut left: Vec<&Candidate> = b.iter().collect();
        let mut unmatched = Vec::new();
        for a in a {
            match left.iter().position(|b| b.id == a.id && b.kind == a.kind) {
                Some(position) => self.pair(a, left.remove(position), tolerance),
                None => unmatched.push(a),
            }
        }
        for a in unmatched {
            let near = left
                .iter()
                .enumerate()
                .filter(|(_, b)| b.kind == a.kind && distance_px(a, b) <= MATCH_PX)
                .min_by(|(_, b), (_, c)| distance_px(a, b).total_cmp(&distance_px(a, c)))
                .map(|(position, _)| position);
            match near {
                Some(position) => {
                    self.id_differs += 1;
                    self.pair(a, left.remove(position), tolerance);
                }
                None => self.only_a += 1,
            }
        }
        self.only_b += left.len() as u64;
        if self.first.is_none() && !self.is_none() {
            self.first = Some(frame.clone());
        }
    }

    fn pair(&mut self, a: &Candidate, b: &Candidate, tolerance: f64) {
        self.matched += 1;
        let distance = distance_px(a, b);
        self.moved += u64::from(distance > tolerance);
        self.max_distance_px = self.max_distance_px.max(distance);
        self.max_score_difference = self.max_score_difference.max((a.score - b.score).abs());
        let numbers =
            |c: &Candidate| [c.score, c.p_value, c.frac.y, c.frac.x, c.nm.y, c.nm.x, c.nm.rotation_rad];
        let close = |(a, b): (f64, f64)| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance;
        let same_numbers = numbers(a).into_iter().zip(numbers(b)).all(close);
        let same_texts = tolerance > 0.0 || (a.reason == b.reason && a.model == b.model);
        let same_history = a.first_seq == b.first_seq && a.seq == b.seq;
        self.content_differs += u64::from(!(same_numbers && same_texts && same_history));
    }
}

fn distance_px(a: &Candidate, b: &Candidate) -> f64 {
    (a.px.row - b.px.row).hypot(a.px.col - b.px.col)
}
