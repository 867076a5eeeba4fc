//! From flags to a short ranked list of sites for the controller.

use super::Evidence;
use super::asked::{self, NamedExpression};
use super::geometry::locate;
use super::mistilt::{MistiltMap, TileState};
use super::ood::{OodEvidence, from_classical};
use super::regions::{labels, regions, spread};
use super::selection;
use super::vortices::Vortex;
use super::walls::WallPoint;
use crate::config::InvalidSetting;
use crate::frame::{Sublattice, grid_centre, grid_index};
use crate::preprocess::median;
use ferrostem_proto::{CandidateKind, FractionalPosition, PixelPosition, StagePosition};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

/// How many sites, and how far apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CandidateSettings {
    /// At most this many sites a frame.
    pub max_sites: usize,
    /// At most this many of one kind; each expression is a kind of its own.
    pub max_per_kind: usize,
    /// At most this many of one connected wall or tilted area, so that ten candidates are not one wall.
    pub max_per_region: usize,
    /// Sites nearer to each other than this are one, nm.
    pub separation_nm: f64,
    /// Sites of one connected wall or tilted area are at least this far apart, nm.
    pub region_separation_nm: f64,
    /// An out-of-distribution region needs this many neighbouring windows.
    pub min_ood_windows: usize,
    /// What else the user wants to be led to.
    pub expressions: Vec<NamedExpression>,
}

impl Default for CandidateSettings {
    fn default() -> Self {
        Self {
            max_sites: 10,
            max_per_kind: 4,
            max_per_region: 2,
            separation_nm: 1.0,
            region_separation_nm: 4.0,
            min_ood_windows: 6,
            expressions: Vec::new(),
        }
    }
}

impl CandidateSettings {
    pub(super) fn validate(&self, prefix: &str) -> Result<(), InvalidSetting> {
        let counts = [
            ("max_sites", self.max_sites),
            ("max_per_kind", self.max_per_kind),
            ("max_per_region", self.max_per_region),
        ];
        for (key, value) in counts {
            if !(1..=1000).contains(&value) {
                return Err(InvalidSetting::new(format!("{prefix}.{key}"), value, "1 to 1000"));
            }
        }
        let distances =
            [("separation_nm", self.separation_nm), ("region_separation_nm", self.region_separation_nm)];
        for (key, value) in distances {
            if !(0.0..=1e4).contains(&value) {
                return Err(InvalidSetting::new(format!("{prefix}.{key}"), value, "0 to 10000"));
            }
        }
        if self.min_ood_windows == 0 {
            return Err(InvalidSetting::new(format!("{prefix}.min_ood_windows"), 0, "at least 1"));
        }
        asked::validate(&self.expressions, &format!("{prefix}.expressions"))
    }
}

/// A candidate before it has an identity.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    pub kind: CandidateKind,
    pub px: PixelPosition,
    pub frac: FractionalPosition,
    pub nm: StagePosition,
    /// Decades of surprise: the negative decimal logarithm of the p-value, or what stands for it.
    pub score: f64,
    /// NaN where the kind has no test behind it.
    pub p_value: f64,
    pub reason: String,
    /// Which wall, tilted area or region of flagged windows of this frame it belongs to, by number; sites without are on
    /// their own. Numbers of different kinds have nothing to do with each other, but for a column's, which is that of the
    /// flagged region it lies in.
    pub region: Option<usize>,
    /// Name of the user's expression that holds there.
    pub expression: Option<String>,
}

/// Score of a wall that turns P by half a turn; smaller turns score less.
const WALL_SCORE: f64 = 2.0;
/// Score of an A or B column without its neighbours.
const COLUMN_SCORE: f64 = 1.5;

/// Score of a vortex or a junction of walls: above the walls that meet in it.
const VORTEX_SCORE: f64 = 2.5;

/// What the flags of a frame found, from which sites are made.
pub(super) struct Found<'a> {
    pub ood: &'a OodEvidence,
    pub mistilt: &'a MistiltMap,
    pub walls: &'a [WallPoint],
    pub vortices: &'a [Vortex],
}

pub(super) fn rank(evidence: &Evidence<'_>, found: &Found<'_>, settings: &CandidateSettings) -> Vec<Site> {
    let flagged = regions(&found.ood.flag);
    let mut findings = ood_findings(evidence, found.ood, &flagged, settings);
    findings.extend(mistilt_findings(found.mistilt));
    findings.extend(wall_findings(evidence, found.walls));
    findings.extend(found.vortices.iter().map(vortex_finding));
    findings.extend(column_findings(evidence, &labels(&flagged, found.ood.flag.dim())));
    findings.extend(asked::findings(evidence, found, &settings.expressions));
    let sites = findings.into_iter().map(|finding| finding.located(evidence)).collect();
    selection::select(sites, evidence.calibration.pixel_size_pm, settings)
}

/// What makes a place a site, before it is located.
pub(super) struct Finding {
    pub kind: CandidateKind,
    pub px: PixelPosition,
    pub score: f64,
    pub p_value: f64,
    pub reason: String,
    pub region: Option<usize>,
    pub expression: Option<String>,
}

impl Finding {
    fn located(self, evidence: &Evidence<'_>) -> Site {
        let Self { kind, px, score, p_value, reason, region, expression } = self;
        let (frac, nm) = locate(px, evidence.frame, evidence.calibration);
        Site { kind, px, frac, nm, score, p_value, reason, region, expression }
    }
}

/// One site per region of flagged windows, in the middle of what is strange around its strangest window.
fn ood_findings(
    evidence: &Evidence<'_>,
    ood: &OodEvidence,
    flagged: &[Vec<[usize; 2]>],
    settings: &CandidateSettings,
) -> Vec<Finding> {
    let large: Vec<(usize, &Vec<[usize; 2]>)> =
        flagged.iter().enumerate().filter(|(_, region)| region.len() >= settings.min_ood_windows).collect();
    if large.is_empty() {
        return Vec::new();
    }
    let from_classical = from_classical(evidence);
    let cells_in_window = unit_cells_in_window(evidence);
    large
        .into_iter()
        .filter_map(|(number, region)| {
            let strangeness = |at: &[usize; 2]| f64::from(ood.excess.get(*at).copied().unwrap_or(f32::NAN));
            let peak = *region.iter().max_by(|a, b| strangeness(a).total_cmp(&strangeness(b)))?;
            let p_value = f64::from(*ood.p_value.get(peak)?);
            let excess = strangeness(&peak);
            let outside = ood.out_of_range.get(peak).copied().flatten();
            let decades = if p_value > 0.0 { -p_value.log10() } else { 0.0 };
            // The p-value cannot fall below one over the calibration's size; beyond it the distance itself ranks.
            let score = decades + excess.max(1.0).log10() + if outside.is_some() { 1.0 } else { 0.0 };
            let why: Vec<String> =
                ood.reasons(peak, &from_classical).iter().map(ToString::to_string).collect();
            let cells = match (region.len() as f64 * cells_in_window).round() {
                cells if cells > 1.0 => format!("{cells} unit cells"),
                _ => "a unit cell".to_owned(),
            };
            let mut reason = format!("{} windows on {cells} (p = {p_value:.1e})", region.len());
            if !why.is_empty() {
                reason.push_str(&format!("; {}", why.join(", ")));
            }
            let px = middle(evidence, region, peak, strangeness);
            let kind = CandidateKind::Ood;
            Some(Finding { kind, px, score, p_value, reason, region: Some(number), expression: None })
        })
        .collect()
}

/// Unit cells between a window and the next ones, by the median of the cells that the DCNN measured; NaN without any.
fn unit_cells_in_window(evidence: &Evidence<'_>) -> f64 {
    let grid = &evidence.fields.grid;
    let [row_pm, col_pm] = evidence.calibration.pixel_size_pm;
    let areas = evidence.fields.polarization.iter().flat_map(|maps| &maps.cell_area);
    let mut areas = areas.copied().filter(|area| area.is_finite() && *area > 0.0);
    let cell_pm2 = median(&mut areas, f32::total_cmp).map_or(f64::NAN, f64::from);
    grid.step_row * row_pm * grid.step_col * col_pm / cell_pm2
}

/// Windows see a defect as far as they reach: it is in the middle of those that it makes strange. Weighted mean of the windows
/// of a region within half a window of its peak.
fn middle(
    evidence: &Evidence<'_>,
    region: &[[usize; 2]],
    peak: [usize; 2],
    weight: impl Fn(&[usize; 2]) -> f64,
) -> PixelPosition {
    /// Half a window of 80 px at 15 pm.
    const REACH_PM: f64 = 600.0;
    let grid = &evidence.fields.grid;
    let [row_pm, col_pm] = evidence.calibration.pixel_size_pm;
    let top = grid_centre(grid, peak[0], peak[1]);
    let (mut sum, mut rows, mut cols) = (0.0, 0.0, 0.0);
    for at in region {
        let px = grid_centre(grid, at[0], at[1]);
        let near = ((px.row - top.row) * row_pm).hypot((px.col - top.col) * col_pm) <= REACH_PM;
        let weight = weight(at);
        if near && weight > 0.0 {
            sum += weight;
            rows += weight * px.row;
            cols += weight * px.col;
        }
    }
    if sum > 0.0 { PixelPosition { row: rows / sum, col: cols / sum } } else { top }
}

fn mistilt_findings(mistilt: &MistiltMap) -> Vec<Finding> {
    let suspect = mistilt.verdicts.mapv(|verdict| u8::from(verdict.state == TileState::Suspect));
    let areas = labels(&regions(&suspect), suspect.dim());
    mistilt
        .verdicts
        .indexed_iter()
        .filter(|(_, verdict)| verdict.state == TileState::Suspect)
        .map(|((i, j), verdict)| {
            let reason = format!(
                "offset of ({:.1}, {:.1}) pm common to all domains (p = {:.1e})",
                verdict.offset_x, verdict.offset_y, verdict.p_value
            );
            // Tiny p-values of large tiles would drown everything else.
            let score = (-verdict.p_value.max(1e-4).log10()).max(0.0);
            let px = grid_centre(&mistilt.tiles, i, j);
            let (kind, p_value, region) = (CandidateKind::Mistilt, verdict.p_value, areas[[i, j]]);
            Finding { kind, px, score, p_value, reason, region, expression: None }
        })
        .collect()
}

fn wall_findings(evidence: &Evidence<'_>, walls: &[WallPoint]) -> Vec<Finding> {
    /// A wall goes on across gaps of this many windows.
    const GAP_WINDOWS: usize = 2;
    let grid = &evidence.fields.grid;
    let shape = evidence.fields.polarization.as_ref().map_or((0, 0), |maps| maps.p_x.dim());
    let at: Vec<Option<[usize; 2]>> = walls.iter().map(|wall| grid_index(grid, wall.px)).collect();
    let mut marked = Array2::zeros(shape);
    for at in at.iter().flatten() {
        if let Some(mark) = marked.get_mut(*at) {
            *mark = 1;
        }
    }
    let connected = labels(&regions(&spread(&marked, GAP_WINDOWS.div_ceil(2))), shape);
    walls
        .iter()
        .zip(at)
        .map(|(wall, at)| {
            let degrees = wall.turn_rad.to_degrees();
            let reason = format!(
                "P turns by {degrees:.0}° across {:.0} pm ({:.1} sigma)",
                wall.jump_pm, wall.significance
            );
            let certainty = 1.0 - (-wall.significance / 4.0).exp();
            let score = WALL_SCORE * wall.turn_rad / std::f64::consts::PI * certainty;
            let region = at.and_then(|at| connected.get(at).copied().flatten());
            let kind = CandidateKind::DomainWall;
            Finding { kind, px: wall.px, score, p_value: f64::NAN, reason, region, expression: None }
        })
        .collect()
}

fn vortex_finding(vortex: &Vortex) -> Finding {
    let (name, back) = if vortex.winding > 0 { ("vortex", "") } else { ("antivortex", " backwards") };
    let times = match vortex.winding.abs() {
        1 => "once".to_owned(),
        turns => format!("{turns} times"),
    };
    let reason = format!(
        "{name}: P turns {times}{back} around it (|P| at least {:.1} sigma on the way)",
        vortex.significance
    );
    let score = VORTEX_SCORE * (1.0 - (-vortex.significance).exp());
    let kind = CandidateKind::Vortex;
    Finding { kind, px: vortex.px, score, p_value: f64::NAN, reason, region: None, expression: None }
}

/// B columns away from the border that lack their four A neighbours. `flagged` numbers the regions of flagged windows.
fn column_findings(evidence: &Evidence<'_>, flagged: &Array2<Option<usize>>) -> Vec<Finding> {
    let Some(columns) = &evidence.fields.columns else { return Vec::new() };
    let (rows, cols) = evidence.frame.pixels.dim();
    evidence
        .fields
        .incomplete
        .iter()
        .filter_map(|&index| columns.get(index))
        .filter(|column| column.sublattice == Sublattice::B)
        .filter(|column| {
            // A cell and a half from the border, in pixels, so that missing neighbours are missing in the specimen.
            let [row_px, col_px] = evidence.calibration.pixel_size_pm.map(|pm| 600.0 / pm);
            (row_px..rows as f64 - row_px).contains(&column.row)
                && (col_px..cols as f64 - col_px).contains(&column.col)
        })
        .map(|column| {
            let px = PixelPosition { row: column.row, col: column.col };
            let reason = "B column without four A neighbours around it".to_owned();
            let score = COLUMN_SCORE * f64::from(column.confidence);
            let at = grid_index(&evidence.fields.grid, px);
            let region = at.and_then(|at| flagged.get(at).copied().flatten());
            let kind = CandidateKind::Column;
            Finding { kind, px, score, p_value: f64::NAN, reason, region, expression: None }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scenery, no_ood};
    use super::*;

    #[test]
    fn neighbouring_flagged_windows_are_one_site_on_the_unit_cells_that_they_cover() {
        let scenery = Scenery::new(20, |_, _| [0.0; 2]);
        let mut ood = no_ood(20);
        // 3 x 3 windows of 120 pm on cells of 158 000 pm²: 0.8 cells; 9 x 6 of them: 4.9 cells; five windows are too few.
        for (down, across) in [(2..5, 2..5), (8..17, 10..16), (19..20, 0..5)] {
            let mut flags = ood.flag.slice_mut(ndarray::s![down.clone(), across.clone()]);
            flags.fill(1);
            ood.p_value.slice_mut(ndarray::s![down.clone(), across.clone()]).fill(0.02);
            ood.excess.slice_mut(ndarray::s![down, across]).fill(2.0);
        }
        let settings = CandidateSettings::default();
        let found = ood_findings(&scenery.evidence(), &ood, &regions(&ood.flag), &settings);
        let said: Vec<&str> = found.iter().map(|finding| finding.reason.as_str()).collect();
        assert_eq!(
            said,
            ["9 windows on a unit cell (p = 2.0e-2)", "54 windows on 5 unit cells (p = 2.0e-2)"]
        );
        assert_eq!(found[0].px, grid_centre(&scenery.fields.grid, 3, 3));
        // 1.7 decades, and twice what one window in a thousand exceeds.
        assert!(found.iter().all(|finding| (finding.score - 2.0).abs() < 1e-3), "{}", found[0].score);
    }
}
