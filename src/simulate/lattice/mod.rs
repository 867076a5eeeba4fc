//! Which column stands at which site of the specimen.

mod defects;
mod displacement;
mod grid;
mod misfit;
mod outline;
mod territory;
#[cfg(test)]
mod tests;

pub(super) use defects::Interstitial;
pub(super) use displacement::Displacement;
pub(super) use grid::{Grid, Site, SiteKind};
pub(super) use outline::Focus;
pub(super) use territory::{HOST, Piece};

use super::hash::mixed;
use super::microscope::turned;
use super::polarization::{Host, PolarizationField};
use super::specimen::{Specimen, ZoneAxis};
use super::truth::DefectKind;
use crate::material::ColumnShape;
use defects::{CONTAMINATION_REACH, Contamination, exchanged};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use std::collections::HashMap;
use std::f64::consts::TAU;
use territory::{Polarity, Territory, random_patches};

/// The column at a site. Lengths in pm in the specimen frame, `[x, y]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct SiteColumn {
    /// Displacement from the site of the perfect lattice by the specimen's fields, polarization and static disorder.
    pub shift: [f64; 2],
    /// Where an amorphous patch moved it from there.
    pub scatter: [f64; 2],
    /// Peak height, 1 = an undisturbed A column.
    pub intensity: f64,
    /// Before the probe's blur.
    pub sigma_pm: f64,
    pub defect: Option<DefectKind>,
    /// Fraction of foreign atoms, of an A column.
    pub composition: f64,
    /// The kind of the region that it stands in; `None` in the host.
    pub region: Option<DefectKind>,
}

/// The specimen near a focus, with everything looked up that does not depend on the scan.
pub(super) struct Lattice<'a> {
    specimen: &'a Specimen,
    territory: Territory,
    displacement: Displacement<'a>,
    polarization: PolarizationField<'a>,
    /// Single-column defects by grid and site: what they are and their intensity ratio.
    planted: HashMap<(usize, Site), (DefectKind, f64)>,
    pub interstitials: Vec<Interstitial>,
    pub contaminations: Vec<Contamination>,
    pub focus: Focus,
    waves: Vec<ThicknessWave>,
}

/// One of the plane waves that make up the thickness variation.
struct ThicknessWave {
    /// rad per nm, `[x, y]`.
    wave_vector: [f64; 2],
    phase: f64,
}

const THICKNESS_WAVES: usize = 6;
/// Position spread in an amorphous patch over the mean cell edge: enough that no lattice remains.
const AMORPHOUS_SCATTER: f64 = 0.35;
/// Over that of a column: a column's atoms lie side by side in amorphous material.
const AMORPHOUS_WIDENING: f64 = 1.6;
/// Where two lattices meet, columns of the later one that come nearer than this to one of the earlier are left out: over the mean
/// cell edge, between cations and where an oxygen column is one of the two.
const LEAST_DISTANCE: f64 = 0.5;
const LEAST_OXYGEN_DISTANCE: f64 = 0.3;

/// `[x, y]` of `[y, x]`.
const fn xy([y, x]: [f64; 2]) -> [f64; 2] {
    [x, y]
}

/// `[y, x]` in nm of `[x, y]` in pm.
fn yx_nm([x, y]: [f64; 2]) -> [f64; 2] {
    [y * 1e-3, x * 1e-3]
}

impl<'a> Lattice<'a> {
    /// What any part of the specimen within the focus needs.
    pub fn new(specimen: &'a Specimen, focus: Focus) -> Self {
        let host = host_grid(specimen);
        let displacement = Displacement::new(specimen, &host);
        let territory = Territory::new(specimen, host, displacement.interface(), focus);
        let surroundings = Host {
            variants_pm: &specimen.variants_pm,
            rotation_rad: specimen.rotation_rad,
            seed: specimen.seed,
        };
        let mut lattice = Self {
            specimen,
            territory,
            displacement,
            polarization: PolarizationField::new(&specimen.polarization, surroundings),
            planted: HashMap::new(),
            interstitials: Vec::new(),
            contaminations: Vec::new(),
            focus,
            waves: thickness_waves(specimen),
        };
        lattice.plant();
        lattice
    }

    pub fn grids(&self) -> &[Grid] {
        &self.territory.grids
    }

    fn host(&self) -> &Grid {
        &self.territory.grids[HOST]
    }

    /// The regions near the focus.
    pub fn pieces(&self) -> &[Piece] {
        &self.territory.pieces
    }

    pub const fn displacement(&self) -> &Displacement<'a> {
        &self.displacement
    }

    /// The columns of all crystals here, before alloying.
    pub fn shapes(&self) -> impl Iterator<Item = ColumnShape> {
        self.territory.crystals.iter().flat_map(|c| [Some(c.a), Some(c.b), c.o]).flatten()
    }

    /// Whether a position `[x, y]` in pm may be within `distance_pm` of a column of grid number `grid`.
    pub fn may_be_near(&self, grid: usize, position_pm: [f64; 2], distance_pm: f64) -> bool {
        self.territory.may_be_near(grid, position_pm.map(|c| c * 1e-3), distance_pm * 1e-3)
    }

    /// How far the specimen's fields move an undisplaced position of a grid.
    pub fn displaced(&self, grid: &Grid, position: [f64; 2]) -> [f64; 2] {
        if grid.displaced && !self.displacement.is_none() {
            self.displacement.at(position)
        } else {
            [0.0, 0.0]
        }
    }

    /// The undisplaced position of a grid that is moved to `position`.
    pub fn undisplaced(&self, grid: &Grid, position: [f64; 2]) -> [f64; 2] {
        if grid.displaced { self.displacement.inverse(position) } else { position }
    }

    /// The column at a site of grid number `grid`, whose undisplaced position the specimen's fields move by `moved`; `None` where
    /// the specimen has none. The same site always gives the same column.
    pub fn column(&self, grid: usize, site: Site, moved: [f64; 2]) -> Option<SiteColumn> {
        let lattice = self.grids().get(grid)?;
        let undisplaced = lattice.position(site)?;
        let position_pm = [undisplaced[0] + moved[0], undisplaced[1] + moved[1]];
        let owner = self.territory.owner(position_pm.map(|c| c * 1e-3))?;
        if owner.grid != grid || self.is_crowded_out(grid, site.kind, position_pm) {
            return None;
        }
        let crystal = self.territory.crystals.get(owner.crystal)?;
        let shape = match site.kind {
            SiteKind::A => crystal.a,
            SiteKind::B => crystal.b,
            SiteKind::OnA | SiteKind::OnB => crystal.o?,
        };
        let specimen = self.specimen;
        let mut rng = self.site_rng(grid, site);
        let mut normal = || rng.sample::<f64, _>(StandardNormal);
        let position_nm = yx_nm(position_pm);
        let disorder = [normal(), normal()].map(|n| n * specimen.static_displacement_pm);
        let roughness = (1.0 + specimen.roughness * normal()).max(0.0);
        let scatter = [normal(), normal()];
        let fraction: f64 = rng.random();
        let alloyed = !specimen.alloy.is_pure() && crystal.polarity == Polarity::Host;
        let composition = if alloyed { specimen.alloy.fraction.at(yx_nm(undisplaced)) } else { 0.0 };

        let mut shift = [moved[0] + disorder[0], moved[1] + disorder[1]];
        if site.kind == SiteKind::B && lattice.zone_axis == ZoneAxis::Z100 {
            let [x, y] = self.p_at(crystal.polarity, position_nm, composition, lattice.rotation_rad);
            shift = [shift[0] + x, shift[1] + y];
        }
        let thickness = self.thickness_at(position_nm);
        let mut column = SiteColumn {
            shift,
            scatter: [0.0, 0.0],
            intensity: shape.intensity * roughness * thickness,
            sigma_pm: shape.sigma_pm * (1.0 + specimen.thickness.widening * (thickness - 1.0)),
            defect: None,
            composition,
            region: owner.region,
        };
        if alloyed {
            column.composition = self.of_column(composition, &mut rng);
            column = self.alloyed(column, site.kind, composition);
        }
        if let Some((kind, ratio)) =
            self.planted.get(&(grid, site)).copied().or_else(|| self.scattered(site.kind, fraction))
        {
            column.defect = Some(kind);
            column.intensity *= match kind {
                DefectKind::AntisiteA => exchanged(crystal.a.intensity, crystal.b.intensity, ratio),
                DefectKind::AntisiteB => exchanged(crystal.b.intensity, crystal.a.intensity, ratio),
                _ => ratio,
            };
        }
        if owner.amorphous {
            let mean_edge_pm = 0.5 * (specimen.cell_a_pm + specimen.cell_b_pm);
            column.scatter = scatter.map(|n| n * AMORPHOUS_SCATTER * mean_edge_pm);
            // As many electrons as before, spread wider.
            column.intensity /= AMORPHOUS_WIDENING.powi(2);
            column.sigma_pm *= AMORPHOUS_WIDENING;
            column.defect = Some(DefectKind::Amorphous);
        }
        Some(column)
    }

    /// P of a crystal at a position `[y, x]` in nm, in the specimen frame.
    fn p_at(
        &self,
        polarity: Polarity,
        position_nm: [f64; 2],
        composition: f64,
        rotation_rad: f64,
    ) -> [f64; 2] {
        let host = || {
            let scale = 1.0 + (self.specimen.alloy.polarization_ratio - 1.0) * composition;
            self.polarization.at(position_nm).map(|c| c * scale)
        };
        let p = match (polarity, &self.specimen.substrate, self.displacement.interface()) {
            (Polarity::Own(p), _, _) => p,
            (_, Some(substrate), Some((at, normal))) => {
                let [y, x] = position_nm;
                let beyond = (x - at[0] * 1e-3) * normal[0] + (y - at[1] * 1e-3) * normal[1];
                let film = 0.5 * (1.0 - (2.0 * beyond / substrate.polarization_width_nm).tanh());
                let (host, below) = (host(), substrate.phase.p_pm);
                [0, 1].map(|k: usize| film * host[k] + (1.0 - film) * below[k])
            }
            _ => host(),
        };
        turned(p, rotation_rad)
    }

    /// The fraction of foreign atoms in a column about the fraction around it.
    fn of_column(&self, fraction: f64, rng: &mut ChaCha8Rng) -> f64 {
        let atoms = f64::from(self.specimen.alloy.atoms_per_column);
        if atoms == 0.0 {
            return fraction;
        }
        // Each atom by chance: binomial, drawn from a normal variable of its variance.
        let scatter = (fraction * (1.0 - fraction) / atoms).sqrt() * rng.sample::<f64, _>(StandardNormal);
        ((fraction + scatter).clamp(0.0, 1.0) * atoms).round() / atoms
    }

    fn alloyed(&self, column: SiteColumn, kind: SiteKind, around: f64) -> SiteColumn {
        let alloy = &self.specimen.alloy;
        let by = |ratio: f64, fraction: f64| 1.0 + (ratio - 1.0) * fraction;
        match kind {
            SiteKind::A => SiteColumn {
                intensity: column.intensity * by(alloy.a_intensity_ratio, column.composition),
                sigma_pm: column.sigma_pm * by(alloy.a_sigma_ratio, column.composition),
                ..column
            },
            SiteKind::B => {
                SiteColumn { intensity: column.intensity * by(alloy.b_intensity_ratio, around), ..column }
            }
            SiteKind::OnA | SiteKind::OnB => column,
        }
    }

    /// Whether an earlier lattice has a column too near to a place at which this one would have one.
    fn is_crowded_out(&self, grid: usize, kind: SiteKind, position: [f64; 2]) -> bool {
        let edge = self.host().mean_edge();
        let nm = |p: [f64; 2]| p.map(|c| c * 1e-3);
        if grid == HOST || !self.territory.near_seam(nm(position), 1e-3 * LEAST_DISTANCE * edge) {
            return false;
        }
        self.grids().iter().enumerate().take(grid).any(|(number, earlier)| {
            let undisplaced = self.undisplaced(earlier, position);
            SiteKind::ALL.into_iter().any(|other| {
                let Some(site) = earlier.nearest(undisplaced, other) else { return false };
                let Some(at) = earlier.position(site) else { return false };
                let moved = self.displaced(earlier, at);
                let at = [at[0] + moved[0], at[1] + moved[1]];
                let oxygen = kind.is_oxygen() || other.is_oxygen();
                let least = edge * if oxygen { LEAST_OXYGEN_DISTANCE } else { LEAST_DISTANCE };
                (at[0] - position[0]).hypot(at[1] - position[1]) < least
                    && self.territory.owner(nm(at)).is_some_and(|owner| owner.grid == number)
            })
        })
    }

    /// Relative thickness at a position `[y, x]` in nm; mean 1.
    pub fn thickness_at(&self, [y, x]: [f64; 2]) -> f64 {
        if self.specimen.thickness.rms == 0.0 {
            return 1.0;
        }
        let sum: f64 =
            self.waves.iter().map(|w| (w.wave_vector[0] * x + w.wave_vector[1] * y + w.phase).cos()).sum();
        // Each wave has variance ½.
        (1.0 + self.specimen.thickness.rms * sum / (0.5 * self.waves.len() as f64).sqrt()).max(0.1)
    }

    /// Whether there is anything between the columns.
    pub fn has_background(&self) -> bool {
        self.specimen.background != Default::default() || !self.contaminations.is_empty()
    }

    /// Signal between the columns at a position `[y, x]` in nm, as a fraction of the A columns' peak height: the specimen's own, where
    /// there is one, and contamination.
    pub fn background_at(&self, position_nm: [f64; 2]) -> f64 {
        let own = self.specimen.background.at(position_nm) * self.thickness_at(position_nm);
        let position = xy(position_nm);
        let blobs = self.contaminations.iter().map(|blob| {
            let r = (position[0] - blob.center[0]).hypot(position[1] - blob.center[1]) / blob.radius;
            if r < CONTAMINATION_REACH { blob.height * (-0.5 * r * r).exp() } else { 0.0 }
        });
        own * self.territory.presence(position) + blobs.sum::<f64>()
    }

    /// A generator keyed by the specimen's seed and the site, so that a site looks the same in every frame.
    fn site_rng(&self, grid: usize, site: Site) -> ChaCha8Rng {
        let mut key = [0; 32];
        let kind = site.kind as u64 | (grid_key(&self.grids()[grid], grid) << 8);
        let words = [self.specimen.seed, site.i as u64, site.j as u64, kind];
        for (bytes, word) in key.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        ChaCha8Rng::from_seed(key)
    }
}

/// Tells a region's lattice from the others by what it is, since its number depends on which regions are near the focus.
fn grid_key(grid: &Grid, number: usize) -> u64 {
    if number == HOST {
        return 0;
    }
    let [[a, b], [c, d]] = grid.edges.map(|edge| edge.map(f64::to_bits));
    let word = mixed([a, b, c, d]);
    mixed([word, grid.origin[0].to_bits(), grid.origin[1].to_bits(), 0]) >> 8
}

fn host_grid(specimen: &Specimen) -> Grid {
    let alloy = &specimen.alloy;
    let swelling = 1.0 + (alloy.cell_ratio - 1.0) * alloy.fraction.at([0.0, 0.0]);
    let edge = |length_pm: f64, angle_rad: f64| {
        let [x, y] =
            turned([length_pm * angle_rad.cos(), length_pm * angle_rad.sin()], specimen.rotation_rad);
        let strain = specimen.strain;
        [x + strain.xx * x + strain.xy * y, y + strain.xy * x + strain.yy * y].map(|c| c * swelling)
    };
    Grid {
        edges: [edge(specimen.cell_a_pm, 0.0), edge(specimen.cell_b_pm, specimen.cell_angle_rad)],
        origin: [0.0, 0.0],
        zone_axis: ZoneAxis::Z100,
        rotation_rad: specimen.rotation_rad,
        displaced: true,
    }
}

fn thickness_waves(specimen: &Specimen) -> Vec<ThicknessWave> {
    let mut rng = ChaCha8Rng::seed_from_u64(specimen.seed);
    (0..THICKNESS_WAVES)
        .map(|n| {
            // Directions evenly spread with some play, so that no seed gives one-sided stripes.
            let direction = TAU * (n as f64 + 0.6 * rng.random::<f64>()) / THICKNESS_WAVES as f64;
            let k = TAU / specimen.thickness.wavelength_nm * rng.random_range(0.5..1.5);
            ThicknessWave {
                wave_vector: [k * direction.cos(), k * direction.sin()],
                phase: rng.random_range(0.0..TAU),
            }
        })
        .collect()
}
