//! Sites that the user asks for: where an expression of the config holds.

use super::Evidence;
use super::candidates::{Finding, Found};
use super::expression::{CLASSICAL, CORRECTED, Condition, FIELDS, Score, Values};
use super::mistilt::TileVerdict;
use super::regions::regions;
use crate::config::InvalidSetting;
use crate::frame::{ClassicalCell, PolarizationMaps, grid_centre, grid_index};
use crate::polarization::sample_on_grid;
use ferrostem_proto::CandidateKind;
use ndarray::Array2;
use serde::{Deserialize, Serialize};

/// An entry of `flags.candidates.expressions`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedExpression {
    /// The reasons of its candidates begin with it.
    pub name: String,
    /// Where it holds there is a site, one for each region of neighbouring windows.
    pub expression: Condition,
    /// What the site is worth, 1 without: large = interesting, as the negative decimal logarithm of a p-value. It is taken
    /// where it is largest in the region, and so is the site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<Score>,
    /// Neighbouring windows that it needs to hold in.
    #[serde(default = "one_window")]
    pub min_windows: usize,
}

const fn one_window() -> usize {
    1
}

/// Longest name, characters.
const MAX_NAME: usize = 40;
/// More expressions than this take too long.
const MAX_EXPRESSIONS: usize = 20;
/// A window is compared with the cell of columns nearest to its centre, if it is no farther away, pm: half a cell.
const SAME_CELL_PM: f64 = 200.0;

pub(super) fn validate(expressions: &[NamedExpression], key: &str) -> Result<(), InvalidSetting> {
    if expressions.len() > MAX_EXPRESSIONS {
        return Err(InvalidSetting::new(key, expressions.len(), "at most 20 expressions"));
    }
    for (index, NamedExpression { name, min_windows, .. }) in expressions.iter().enumerate() {
        let length = name.chars().count();
        if !(1..=MAX_NAME).contains(&length) || name.chars().any(char::is_control) {
            let expected = "1 to 40 characters";
            return Err(InvalidSetting::new(format!("{key}[{index}].name"), name, expected));
        }
        if expressions.iter().take(index).any(|other| other.name == *name) {
            let expected = "a name that no other expression has";
            return Err(InvalidSetting::new(format!("{key}[{index}].name"), name, expected));
        }
        if *min_windows == 0 {
            return Err(InvalidSetting::new(format!("{key}[{index}].min_windows"), 0, "at least 1"));
        }
    }
    Ok(())
}

/// Refuses expressions on P less the offset where that is not published.
pub(super) fn validate_corrected(expressions: &[NamedExpression], key: &str) -> Result<(), InvalidSetting> {
    let expected = "no p_corrected, or flags.mistilt.publish_corrected = true";
    for (index, NamedExpression { expression, score, .. }) in expressions.iter().enumerate() {
        if expression.names(CORRECTED) {
            return Err(InvalidSetting::new(format!("{key}[{index}].expression"), expression, expected));
        }
        if let Some(score) = score.as_ref().filter(|score| score.names(CORRECTED)) {
            return Err(InvalidSetting::new(format!("{key}[{index}].score"), score, expected));
        }
    }
    Ok(())
}

pub(super) fn findings(
    evidence: &Evidence<'_>,
    found: &Found<'_>,
    expressions: &[NamedExpression],
) -> Vec<Finding> {
    let Some(maps) = &evidence.fields.polarization else { return Vec::new() };
    if expressions.is_empty() {
        return Vec::new();
    }
    let (cells, grid) = (&evidence.fields.cells, &evidence.fields.grid);
    let ask_columns = |NamedExpression { expression, score, .. }: &NamedExpression| {
        expression.names(CLASSICAL) || score.as_ref().is_some_and(|score| score.names(CLASSICAL))
    };
    // A search for every window, which most expressions do without.
    let nearest = if expressions.iter().any(ask_columns) {
        sample_on_grid(cells, grid, evidence.calibration.pixel_size_pm, SAME_CELL_PM)
    } else {
        Array2::default((0, 0))
    };
    let windows = Array2::from_shape_fn(maps.p_x.dim(), |(i, j)| {
        let tile = grid_index(&found.mistilt.tiles, grid_centre(grid, i, j));
        let around = Around {
            tile: tile.and_then(|tile| found.mistilt.verdicts.get(tile)),
            cell: nearest.get([i, j]).copied().flatten().and_then(|cell| cells.get(cell)),
        };
        values(maps, found, [i, j], &around)
    });
    expressions.iter().flat_map(|expression| sites_of(expression, evidence, &windows)).collect()
}

/// What a window lies in.
struct Around<'a> {
    tile: Option<&'a TileVerdict>,
    cell: Option<&'a ClassicalCell>,
}

/// In the order of [`FIELDS`].
fn values(maps: &PolarizationMaps, found: &Found<'_>, at: [usize; 2], around: &Around<'_>) -> Values {
    let read = |map: &Array2<f32>| map.get(at).map_or(f64::NAN, |&value| f64::from(value));
    let tile = |of: fn(&TileVerdict) -> f64| around.tile.map_or(f64::NAN, of);
    let cell = |of: fn(&ClassicalCell) -> f64| around.cell.map_or(f64::NAN, of);
    let [p_x, p_y, cell_a, cell_b] = [&maps.p_x, &maps.p_y, &maps.cell_a, &maps.cell_b].map(read);
    let [offset_x, offset_y] = [tile(|tile| tile.offset_x), tile(|tile| tile.offset_y)];
    let corrected = found.mistilt.corrected.as_ref();
    let [corrected_x, corrected_y] =
        corrected.map_or([f64::NAN; 2], |corrected| [read(&corrected.p_x), read(&corrected.p_y)]);
    let [classical_x, classical_y] = [cell(|cell| cell.p_x), cell(|cell| cell.p_y)];
    [
        p_x,
        p_y,
        p_x.hypot(p_y),
        (-p_y).atan2(p_x),
        read(&maps.p_sigma),
        cell_a,
        cell_b,
        read(&maps.cell_angle),
        read(&maps.cell_area),
        cell_a / cell_b,
        read(&found.ood.p_value),
        found.ood.flag.get(at).map_or(f64::NAN, |&flag| f64::from(flag)),
        read(&found.ood.excess),
        offset_x,
        offset_y,
        offset_x.hypot(offset_y),
        tile(|tile| tile.p_value),
        tile(|tile| f64::from(tile.state as u8)),
        tile(|tile| tile.tilt_x),
        tile(|tile| tile.tilt_y),
        corrected_x,
        corrected_y,
        corrected_x.hypot(corrected_y),
        classical_x,
        classical_y,
        classical_x.hypot(classical_y),
        cell(|cell| cell.cell_a),
        cell(|cell| cell.cell_b),
        cell(|cell| cell.cell_angle),
        cell(|cell| cell.cell_area),
        (p_x - classical_x).hypot(p_y - classical_y),
    ]
}

fn sites_of(wanted: &NamedExpression, evidence: &Evidence<'_>, windows: &Array2<Values>) -> Vec<Finding> {
    let mut stack = Vec::new();
    let holds = windows.map(|values| u8::from(wanted.expression.holds(values, &mut stack)));
    let mut worth = |at: [usize; 2]| {
        let values = windows.get(at).copied().unwrap_or([f64::NAN; FIELDS.len()]);
        let score = wanted.score.as_ref().map_or(1.0, |score| score.of(&values, &mut stack));
        // A score that is no number is worth nothing, and does not come before one that is.
        if score.is_finite() { score } else { f64::NEG_INFINITY }
    };
    regions(&holds)
        .into_iter()
        .filter(|region| region.len() >= wanted.min_windows)
        .filter_map(|region| {
            let middle =
                |axis: usize| region.iter().map(|at| at[axis] as f64).sum::<f64>() / region.len() as f64;
            let (row, col) = (middle(0), middle(1));
            // The best window; of equals, as without a score, the one nearest to the middle of the region.
            let off = |at: &[usize; 2]| (at[0] as f64 - row).hypot(at[1] as f64 - col);
            let rated: Vec<(f64, [usize; 2])> = region.iter().map(|&at| (worth(at), at)).collect();
            let (score, at) = rated
                .into_iter()
                .max_by(|(a, at), (b, other)| a.total_cmp(b).then(off(other).total_cmp(&off(at))))?;
            let values = windows.get(at)?;
            let reason = format!(
                "{}: {} ({} windows; {})",
                wanted.name,
                wanted.expression,
                region.len(),
                wanted.expression.describe(values)
            );
            Some(Finding {
                kind: CandidateKind::Expression,
                px: grid_centre(&evidence.fields.grid, at[0], at[1]),
                score: if score.is_finite() { score } else { 0.0 },
                p_value: f64::NAN,
                reason,
                region: None,
                expression: Some(wanted.name.clone()),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::mistilt::{CorrectedMaps, MistiltMap, TileState};
    use super::super::ood::OodEvidence;
    use super::super::testing::{Scenery, no_ood};
    use super::*;
    use ferrostem_proto::GridSpec;

    fn expressions(toml: &str) -> Vec<NamedExpression> {
        #[derive(Deserialize)]
        struct Listed {
            expressions: Vec<NamedExpression>,
        }
        toml::from_str::<Listed>(toml).unwrap().expressions
    }

    fn no_mistilt() -> MistiltMap {
        MistiltMap {
            tiles: GridSpec::default(),
            verdicts: Array2::default((0, 0)),
            tilt_source: None,
            corrected: None,
        }
    }

    fn found<'a>(ood: &'a OodEvidence, mistilt: &'a MistiltMap) -> Found<'a> {
        Found { ood, mistilt, walls: &[], vortices: &[] }
    }

    #[test]
    fn a_site_for_each_region_where_it_holds() {
        // |P| is 50 pm in two blocks, 20 pm elsewhere; the left block is longest in its corner.
        let scenery = Scenery::new(20, |i, j| match (i, j) {
            (3, 2) => [60.0, 0.0],
            (3..6, 2..5) | (10..13, 14..17) => [50.0, 0.0],
            _ => [0.0, 20.0],
        });
        let wanted = expressions(
            "[[expressions]]\nname = 'long'\nexpression = 'p > 40 && ood_p_value > 0.01'\n\
             [[expressions]]\nname = 'longest'\nexpression = 'p > 40'\nscore = 'p / 10'\nmin_windows = 9\n\
             [[expressions]]\nname = 'never'\nexpression = 'ood_excess > 0'\n",
        );
        let found = findings(&scenery.evidence(), &found(&no_ood(20), &no_mistilt()), &wanted);
        let places: Vec<_> = found
            .iter()
            .map(|finding| (finding.expression.as_deref().unwrap(), finding.px, finding.score))
            .collect();
        let at = |i, j| grid_centre(&scenery.fields.grid, i, j);
        assert_eq!(
            places,
            [
                ("long", at(4, 3), 1.0),
                ("long", at(11, 15), 1.0),
                ("longest", at(3, 2), 6.0),
                ("longest", at(11, 15), 5.0)
            ]
        );
        let reason = "long: p > 40 && ood_p_value > 0.01 (9 windows; p = 50.00, ood_p_value = 0.5000)";
        assert_eq!(found[0].reason, reason);
    }

    /// Windows 20 × 20 with P of (20, 5) pm. Two tiles, ten window columns each: the left one with an offset of (3, -4) pm, the right
    /// one undetermined. One cell of columns, 30 pm right of window (2, 5).
    fn tilted() -> (Scenery, MistiltMap) {
        let mut scenery = Scenery::new(20, |_, _| [20.0, 5.0]);
        let px = grid_centre(&scenery.fields.grid, 2, 5);
        scenery.fields.cells = vec![ClassicalCell {
            row: px.row,
            col: px.col + 2.0,
            p_x: 12.0,
            p_y: -1.0,
            cell_a: 410.0,
            cell_b: 380.0,
            cell_angle: 1.5,
            cell_area: 155_000.0,
        }];
        let suspect = TileVerdict {
            offset_x: 3.0,
            offset_y: -4.0,
            p_value: 0.001,
            tilt_x: 6.0,
            tilt_y: -8.0,
            state: TileState::Suspect,
            ..TileVerdict::default()
        };
        let undetermined = TileVerdict { state: TileState::Undetermined, ..TileVerdict::default() };
        let less = |p: f32| Array2::from_shape_fn((20, 20), |(_, j)| if j < 10 { p } else { f32::NAN });
        let mistilt = MistiltMap {
            // Windows stand at 39.5 + 8 k px.
            tiles: GridSpec { row0: 115.5, col0: 75.5, step_row: 160.0, step_col: 80.0, rows: 1, cols: 2 },
            verdicts: ndarray::array![[suspect, undetermined]],
            tilt_source: Some("a test".to_owned()),
            corrected: Some(CorrectedMaps { p_x: less(17.0), p_y: less(9.0) }),
        };
        (scenery, mistilt)
    }

    #[test]
    fn what_is_published_and_what_the_columns_say_is_there_by_name() {
        let (scenery, mistilt) = tilted();
        let ood = no_ood(20);
        let windows = |condition: &str| {
            let toml = format!("[[expressions]]\nname = 'a'\nexpression = '{condition}'\n");
            let found = findings(&scenery.evidence(), &found(&ood, &mistilt), &expressions(&toml));
            let counts = found.iter().map(|finding| {
                let (_, rest) = finding.reason.rsplit_once('(').unwrap();
                rest.split_once(' ').unwrap().0.parse::<usize>().unwrap()
            });
            counts.sum::<usize>()
        };
        // Each holds in the left tile alone, all of it.
        for condition in [
            "mistilt_offset_x == 3 && mistilt_offset_y == -4 && mistilt_offset == 5",
            "mistilt_p_value == 0.001 && mistilt_state == 2",
            "mistilt_tilt_x == 6 && mistilt_tilt_y == -8",
            "p_corrected_x == 17 && p_corrected_y == 9 && abs(p_corrected ^ 2 - 370) < 1e-6",
            "p_x - mistilt_offset_x == p_corrected_x && p_y - mistilt_offset_y == p_corrected_y",
        ] {
            assert_eq!(windows(condition), 200, "{condition}");
        }
        assert_eq!(windows("mistilt_state == 3"), 200);
        // Windows are 120 pm apart: those 150 and 30 pm left of the cell and 90 pm right of it see it, in its own row and in the next
        // ones; the farthest is hypot(150, 120) = 192 pm away.
        assert_eq!(windows("classical_p_x == 12 && classical_p_y == -1 && classical_p < 12.1"), 9);
        assert_eq!(
            windows("classical_cell_a == 410 && classical_cell_b == 380 && classical_cell_angle == 1.5"),
            9
        );
        assert_eq!(windows("classical_cell_area == 155000 && classical_away == 10"), 9);
        assert_eq!(windows("p > 0 || classical_p < 0"), 9);
    }

    #[test]
    fn p_less_the_offset_is_asked_for_only_where_it_is_published() {
        use super::super::FlagSettings;
        let mut settings = FlagSettings::default();
        settings.candidates.expressions = expressions(
            "[[expressions]]\nname = 'a'\nexpression = 'p > 1'\n\
             [[expressions]]\nname = 'b'\nexpression = 'p > 1'\nscore = 'p_corrected / 10'\n",
        );
        let refused = settings.validate("flags").unwrap_err();
        assert_eq!(refused.key, "flags.candidates.expressions[1].score");
        settings.candidates.expressions =
            expressions("[[expressions]]\nname = 'a'\nexpression = 'abs(p_corrected_x) > 1'\n");
        let refused = settings.validate("flags").unwrap_err();
        assert_eq!(refused.key, "flags.candidates.expressions[0].expression");
        settings.mistilt.publish_corrected = true;
        settings.validate("flags").unwrap();
    }

    #[test]
    fn names_are_told_apart() {
        let key = |toml: &str| validate(&expressions(toml), "e").unwrap_err().key;
        let one = "[[expressions]]\nname = 'a'\nexpression = 'p > 1'\n";
        assert!(validate(&expressions(one), "e").is_ok());
        assert_eq!(key(&format!("{one}{one}")), "e[1].name");
        assert_eq!(key(&one.replace("'a'", "''")), "e[0].name");
        assert_eq!(key(&format!("{one}min_windows = 0\n")), "e[0].min_windows");
    }
}
