//! Which lattice a place of the specimen belongs to.
//!
//! Positions `[x, y]` in nm in the specimen frame.

use super::grid::Grid;
use super::outline::{Focus, Line, Outline};
use crate::material::ColumnShape;
use crate::simulate::hash::{mixed, unit};
use crate::simulate::microscope::turned;
use crate::simulate::specimen::{Content, Phase, Specimen, Substrate, ZoneAxis};
use crate::simulate::truth::DefectKind;
use std::f64::consts::SQRT_2;

/// The host's grid, and crystal.
pub(in crate::simulate) const HOST: usize = 0;

/// What stands on the sites of a region.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::simulate) struct Crystal {
    pub a: ColumnShape,
    pub b: ColumnShape,
    pub o: Option<ColumnShape>,
    pub polarity: Polarity,
}

/// Where a crystal has its P from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::simulate) enum Polarity {
    /// The host's polarization, and its composition.
    Host,
    /// Its own beyond the interface, the host's before it.
    Substrate([f64; 2]),
    /// The same everywhere, along the lattice's own axes, pm.
    Own([f64; 2]),
}

/// A region near the focus.
#[derive(Debug, Clone)]
pub(in crate::simulate) struct Piece {
    pub outline: Outline,
    pub kind: DefectKind,
    filling: Filling,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Filling {
    Lattice { grid: usize, crystal: usize },
    Amorphous,
    Vacuum,
}

/// Who a place belongs to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::simulate) struct Owner {
    pub grid: usize,
    pub crystal: usize,
    /// The kind of the region with the lattice; `None` in the host.
    pub region: Option<DefectKind>,
    pub amorphous: bool,
}

/// The regions near the focus, later ones over earlier ones.
#[derive(Debug)]
pub(in crate::simulate) struct Territory {
    pub grids: Vec<Grid>,
    pub crystals: Vec<Crystal>,
    pub pieces: Vec<Piece>,
}

/// Side of the squares that each may hold one random patch.
const PATCH_SQUARE_NM: f64 = 10.0;

impl Territory {
    /// The host's grid with the regions that reach into the focus.
    pub fn new(
        specimen: &Specimen,
        host: Grid,
        interface: Option<([f64; 2], [f64; 2])>,
        focus: Focus,
    ) -> Self {
        let columns = &specimen.columns;
        let crystal = Crystal { a: columns.a, b: columns.b, o: columns.o, polarity: Polarity::Host };
        let mut territory = Self { grids: vec![host], crystals: vec![crystal], pieces: Vec::new() };
        if let (Some(substrate), Some(interface)) = (&specimen.substrate, interface) {
            territory.add_substrate(substrate, interface, specimen.seed, focus);
        }
        for (n, region) in specimen.regions.iter().enumerate() {
            let outline = Outline::new(&region.shape, mixed([specimen.seed, n as u64, 0x7265_6769, 0]));
            if outline.touches(focus) {
                let (kind, filling) = territory.filling(&region.content, specimen);
                territory.pieces.push(Piece { outline, kind, filling });
            }
        }
        let planted = specimen
            .defects
            .iter()
            .filter(|defect| defect.kind == DefectKind::Amorphous)
            .map(|defect| ([defect.at_nm[1], defect.at_nm[0]], defect.radius_nm));
        let scattered = random_patches(specimen, specimen.random_defects.amorphous_per_nm2, 1, focus);
        for (center, radius) in planted.chain(scattered).filter(|(center, r)| focus.touches(*center, *r)) {
            let outline = Outline::Circle { center, radius };
            territory.pieces.push(Piece {
                outline,
                kind: DefectKind::Amorphous,
                filling: Filling::Amorphous,
            });
        }
        territory
    }

    fn add_substrate(
        &mut self,
        substrate: &Substrate,
        (at, normal): ([f64; 2], [f64; 2]),
        seed: u64,
        focus: Focus,
    ) {
        let seed = mixed([seed, 0x7375_6273, 0, 0]);
        let outline = Outline::Line(Line::new(at.map(|c| c * 1e-3), normal, substrate.edge, seed));
        if outline.touches(focus) {
            let polarity = Polarity::Substrate(substrate.phase.p_pm);
            self.crystals.push(Crystal { polarity, ..of_phase(&substrate.phase) });
            let filling = Filling::Lattice { grid: HOST, crystal: self.crystals.len() - 1 };
            self.pieces.push(Piece { outline, kind: DefectKind::Substrate, filling });
        }
    }

    /// Makes the lattice of a region.
    fn filling(&mut self, content: &Content, specimen: &Specimen) -> (DefectKind, Filling) {
        let host = self.grids[HOST];
        let still = Grid { displaced: false, ..host };
        match *content {
            Content::Grain { rotation_rad, shift_pm } => {
                let edges = host.edges.map(|edge| turned(edge, rotation_rad));
                let origin = [host.origin[0] + shift_pm[0], host.origin[1] + shift_pm[1]];
                let rotation_rad = host.rotation_rad + rotation_rad;
                (DefectKind::Grain, self.lattice(Grid { edges, origin, rotation_rad, ..still }, HOST))
            }
            Content::StackingFault { shift_cells } | Content::Antiphase { shift_cells } => {
                let [x, y] = host.along_edges(shift_cells);
                let origin = [host.origin[0] + x, host.origin[1] + y];
                let stacking = matches!(content, Content::StackingFault { .. });
                let kind = if stacking { DefectKind::StackingFault } else { DefectKind::Antiphase };
                (kind, self.lattice(Grid { origin, ..host }, HOST))
            }
            Content::Inclusion { phase, zone_axis, rotation_rad } => {
                let rotation_rad = host.rotation_rad + rotation_rad;
                let edges = projected([phase.cell_a_pm, phase.cell_b_pm], zone_axis, rotation_rad);
                self.crystals.push(of_phase(&phase));
                let grid = Grid { edges, zone_axis, rotation_rad, ..still };
                (DefectKind::Inclusion, self.lattice(grid, self.crystals.len() - 1))
            }
            Content::ZoneAxis { zone_axis, rotation_rad } => {
                let rotation_rad = host.rotation_rad + rotation_rad;
                let cell = [specimen.cell_a_pm, specimen.cell_b_pm];
                let edges = projected(cell, zone_axis, rotation_rad);
                let crystal = Crystal { polarity: Polarity::Own([0.0, 0.0]), ..self.crystals[HOST] };
                self.crystals.push(crystal);
                let grid = Grid { edges, zone_axis, rotation_rad, ..still };
                (DefectKind::ZoneAxis, self.lattice(grid, self.crystals.len() - 1))
            }
            Content::Amorphous => (DefectKind::Amorphous, Filling::Amorphous),
            Content::Vacuum => (DefectKind::Vacuum, Filling::Vacuum),
        }
    }

    fn lattice(&mut self, grid: Grid, crystal: usize) -> Filling {
        self.grids.push(grid);
        Filling::Lattice { grid: self.grids.len() - 1, crystal }
    }

    /// Who a position belongs to; `None` in vacuum.
    pub fn owner(&self, position: [f64; 2]) -> Option<Owner> {
        let mut amorphous = false;
        for piece in self.pieces.iter().rev() {
            if piece.outline.depth(position) < 0.0 {
                continue;
            }
            match piece.filling {
                Filling::Vacuum => return None,
                Filling::Amorphous => amorphous = true,
                Filling::Lattice { grid, crystal } => {
                    return Some(Owner { grid, crystal, region: Some(piece.kind), amorphous });
                }
            }
        }
        Some(Owner { grid: HOST, crystal: HOST, region: None, amorphous })
    }

    /// Whether the outline of a region with another lattice passes within `distance`.
    pub fn near_seam(&self, position: [f64; 2], distance: f64) -> bool {
        let seam = |piece: &&Piece| matches!(piece.filling, Filling::Lattice { grid, .. } if grid != HOST);
        self.pieces.iter().filter(seam).any(|piece| piece.outline.depth(position).abs() <= distance)
    }

    /// Whether a region of this grid may be within `distance` of a position.
    pub fn may_be_near(&self, grid: usize, position: [f64; 2], distance: f64) -> bool {
        let of_grid =
            |piece: &&Piece| matches!(piece.filling, Filling::Lattice { grid: of, .. } if of == grid);
        grid == HOST
            || self.pieces.iter().filter(of_grid).any(|piece| piece.outline.depth(position) > -distance)
    }

    /// How much of the specimen is left at a position, 0 in vacuum, 1 well within the specimen; half at its edge.
    pub fn presence(&self, position: [f64; 2]) -> f64 {
        const EDGE_NM: f64 = 0.15;
        let vacuum = self.pieces.iter().filter(|piece| piece.filling == Filling::Vacuum);
        vacuum.map(|piece| 0.5 * (1.0 - (piece.outline.depth(position) / EDGE_NM).tanh())).product()
    }
}

const fn of_phase(phase: &Phase) -> Crystal {
    Crystal { a: phase.a, b: phase.b, o: phase.o, polarity: Polarity::Own(phase.p_pm) }
}

/// The projected edges of a cell, whose a lies along `rotation_rad`.
fn projected([a, b]: [f64; 2], zone_axis: ZoneAxis, rotation_rad: f64) -> [[f64; 2]; 2] {
    let a = if zone_axis == ZoneAxis::Z110 { a / SQRT_2 } else { a };
    [turned([a, 0.0], rotation_rad), turned([0.0, b], rotation_rad)]
}

/// Discs scattered by chance that reach into the focus, `(center, radius)`: at most one in every square of a grid.
pub(super) fn random_patches(
    specimen: &Specimen,
    per_nm2: f64,
    stream: u64,
    focus: Focus,
) -> Vec<([f64; 2], f64)> {
    if per_nm2 == 0.0 {
        return Vec::new();
    }
    let [low, high] = specimen.random_defects.patch_radius_nm;
    // A contamination is seen out to four standard deviations.
    let reach = focus.radius + 4.0 * high;
    let squares = |axis: usize| {
        let at = |offset: f64| ((focus.center[axis] + offset) / PATCH_SQUARE_NM).floor() as i64;
        at(-reach)..=at(reach)
    };
    let mut patches = Vec::new();
    for j in squares(1) {
        for i in squares(0) {
            let draw =
                |n: u64| unit(mixed([specimen.seed ^ (stream << 32), i as u64, j as u64, 0x7061_7463 + n]));
            if draw(0) < per_nm2 * PATCH_SQUARE_NM.powi(2) {
                let center = [(i as f64 + draw(1)) * PATCH_SQUARE_NM, (j as f64 + draw(2)) * PATCH_SQUARE_NM];
                patches.push((center, low + (high - low) * draw(3)));
            }
        }
    }
    patches
}
