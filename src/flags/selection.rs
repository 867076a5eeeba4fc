//! Which of all sites are offered: the best, each thing once, and not ten times the same.

use super::candidates::{CandidateSettings, Site};
use ferrostem_proto::CandidateKind;
use std::collections::HashMap;

/// Ranks the sites and keeps the best: one in each neighbourhood, a few of each kind, and of each wall a few far apart.
/// `pixel_size_pm` is `[row, col]`.
pub(super) fn select(sites: Vec<Site>, pixel_size_pm: [f64; 2], settings: &CandidateSettings) -> Vec<Site> {
    let mut sites = one_defect_once(sites);
    sites.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Site> = Vec::new();
    for site in sites {
        if kept.len() == settings.max_sites {
            break;
        }
        let apart_nm = |other: &Site| distance_nm(&site, other, pixel_size_pm);
        let same_kind = |other: &&Site| other.kind == site.kind && other.expression == site.expression;
        let same_region = |other: &&Site| site.region.is_some() && other.region == site.region;
        let of_kind = || kept.iter().filter(same_kind);
        let of_region = || of_kind().filter(same_region);
        let crowded = kept.iter().any(|other| apart_nm(other) < settings.separation_nm)
            || of_region().any(|other| apart_nm(other) < settings.region_separation_nm);
        if !crowded
            && of_kind().count() < settings.max_per_kind
            && of_region().count() < settings.max_per_region
        {
            kept.push(site);
        }
    }
    kept
}

fn distance_nm(a: &Site, b: &Site, [row_pm, col_pm]: [f64; 2]) -> f64 {
    ((a.px.row - b.px.row) * row_pm).hypot((a.px.col - b.px.col) * col_pm) / 1000.0
}

/// A column that lacks neighbours inside a region of flagged windows is what makes them strange: told in the region's reason
/// and not a site of its own.
fn one_defect_once(sites: Vec<Site>) -> Vec<Site> {
    let mut columns: HashMap<usize, usize> = HashMap::new();
    let flagged: Vec<usize> =
        sites.iter().filter(|site| site.kind == CandidateKind::Ood).filter_map(|site| site.region).collect();
    let inside = |site: &Site| {
        site.region.filter(|region| site.kind == CandidateKind::Column && flagged.contains(region))
    };
    for region in sites.iter().filter_map(inside) {
        *columns.entry(region).or_default() += 1;
    }
    let mut merged: Vec<Site> = sites.into_iter().filter(|site| inside(site).is_none()).collect();
    for site in merged.iter_mut().filter(|site| site.kind == CandidateKind::Ood) {
        if let Some(count) = site.region.and_then(|region| columns.get(&region)) {
            let columns = if *count == 1 { "a B column lacks" } else { "B columns lack" };
            site.reason.push_str(&format!("; {columns} neighbours"));
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferrostem_proto::{FractionalPosition, PixelPosition, StagePosition};

    /// Pixels of 100 pm high and 50 pm wide.
    const PIXEL_PM: [f64; 2] = [100.0, 50.0];

    fn site(kind: CandidateKind, [y_nm, x_nm]: [f64; 2], score: f64) -> Site {
        Site {
            kind,
            px: PixelPosition { row: 10.0 * y_nm, col: 20.0 * x_nm },
            frac: FractionalPosition::default(),
            nm: StagePosition::default(),
            score,
            p_value: f64::NAN,
            reason: "reason".to_owned(),
            region: None,
            expression: None,
        }
    }

    fn places(sites: Vec<Site>, settings: &CandidateSettings) -> Vec<(CandidateKind, f64)> {
        select(sites, PIXEL_PM, settings).into_iter().map(|site| (site.kind, site.score)).collect()
    }

    use CandidateKind::{Column, DomainWall, Expression, Ood, Vortex};

    #[test]
    fn the_best_of_each_neighbourhood_whatever_its_kind() {
        let settings = CandidateSettings::default();
        let sites = vec![
            site(DomainWall, [0.0, 0.0], 1.0),
            site(Vortex, [0.6, 0.6], 2.0),
            // 1.06 nm from the vortex: not the same.
            site(Ood, [0.6, 1.66], 1.5),
            site(Column, [0.6, 1.0], 9.0),
        ];
        assert_eq!(places(sites, &settings), [(Column, 9.0), (DomainWall, 1.0)]);
    }

    #[test]
    fn one_wall_gives_two_sites_far_apart_and_leaves_room_for_others() {
        let settings = CandidateSettings::default();
        // A wall of 20 nm with a point every 0.5 nm, and another one.
        let along = (0..40).map(|n| Site {
            region: Some(0),
            ..site(DomainWall, [0.5 * f64::from(n), 0.0], 2.0 - 0.01 * f64::from(n))
        });
        let other = Site { region: Some(1), ..site(DomainWall, [3.0, 9.0], 0.5) };
        let sites: Vec<Site> = along.chain([other, site(Ood, [0.0, 5.0], 0.1)]).collect();
        let found = select(sites, PIXEL_PM, &settings);
        let rows: Vec<f64> = found.iter().map(|site| site.px.row / 10.0).collect();
        assert_eq!(rows, [0.0, 4.0, 3.0, 0.0]);
        assert_eq!(found[2].region, Some(1));
    }

    #[test]
    fn kinds_and_sites_are_limited_and_each_expression_is_a_kind() {
        let settings = CandidateSettings { max_per_kind: 2, max_sites: 5, ..CandidateSettings::default() };
        let named = |name: &str, x: f64| Site {
            expression: Some(name.to_owned()),
            ..site(Expression, [0.0, x], 1.0)
        };
        let sites: Vec<Site> = (0..4)
            .map(|n| site(Ood, [5.0, 2.0 * f64::from(n)], 3.0))
            .chain((0..4).map(|n| named("a", 2.0 * f64::from(n))))
            .chain((4..8).map(|n| named("b", 2.0 * f64::from(n))))
            .collect();
        let found = select(sites, PIXEL_PM, &settings);
        let names: Vec<Option<&str>> = found.iter().map(|site| site.expression.as_deref()).collect();
        assert_eq!(names, [None, None, Some("a"), Some("a"), Some("b")]);
    }

    #[test]
    fn a_column_in_a_flagged_region_is_that_region() {
        let settings = CandidateSettings::default();
        let within = |region, at, kind, score| Site { region: Some(region), ..site(kind, at, score) };
        let sites = vec![
            within(3, [0.0, 0.0], Ood, 3.0),
            // Farther than the separation, but in the same region; one in a region too small to be a site; one outside.
            within(3, [0.0, 1.5], Column, 1.5),
            within(4, [8.0, 0.0], Column, 1.5),
            site(Column, [0.0, 6.0], 1.4),
        ];
        let found = select(sites, PIXEL_PM, &settings);
        let kinds: Vec<_> = found.iter().map(|site| (site.kind, site.score)).collect();
        assert_eq!(kinds, [(Ood, 3.0), (Column, 1.5), (Column, 1.4)]);
        assert_eq!(found[0].reason, "reason; a B column lacks neighbours");
    }
}
