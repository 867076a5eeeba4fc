//! Sites that the user asks for: where an expression of the config holds.

use super::Evidence;
use super::candidates::Finding;
use super::expression::{Condition, FIELDS, Score, Values};
use super::ood::OodEvidence;
use super::regions::regions;
use crate::config::InvalidSetting;
use crate::frame::{PolarizationMaps, grid_centre};
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

pub(super) fn findings(
    evidence: &Evidence<'_>,
    ood: &OodEvidence,
    expressions: &[NamedExpression],
) -> Vec<Finding> {
    let Some(maps) = &evidence.fields.polarization else { return Vec::new() };
    if expressions.is_empty() {
        return Vec::new();
    }
    let windows = Array2::from_shape_fn(maps.p_x.dim(), |(i, j)| values(maps, ood, [i, j]));
    expressions.iter().flat_map(|expression| sites_of(expression, evidence, &windows)).collect()
}

fn values(maps: &PolarizationMaps, ood: &OodEvidence, at: [usize; 2]) -> Values {
    let read = |map: &Array2<f32>| map.get(at).map_or(f64::NAN, |&value| f64::from(value));
    let [p_x, p_y, cell_a, cell_b] = [&maps.p_x, &maps.p_y, &maps.cell_a, &maps.cell_b].map(read);
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
        read(&ood.p_value),
        ood.flag.get(at).map_or(f64::NAN, |&flag| f64::from(flag)),
        read(&ood.excess),
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
    use super::super::testing::{Scenery, no_ood};
    use super::*;

    fn expressions(toml: &str) -> Vec<NamedExpression> {
        #[derive(Deserialize)]
        struct Listed {
            expressions: Vec<NamedExpression>,
        }
        toml::from_str::<Listed>(toml).unwrap().expressions
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
        let found = findings(&scenery.evidence(), &no_ood(20), &wanted);
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
