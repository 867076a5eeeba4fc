//! Which column stands at which site of the specimen.

use super::microscope::turned;
use super::specimen::Specimen;
use super::truth::DefectKind;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use std::collections::HashMap;
use std::f64::consts::TAU;

/// A point of the lattice: cell `(i, j)` spans from A site `i a + j b`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Site {
    pub i: i64,
    pub j: i64,
    pub kind: SiteKind,
}

/// Where in its cell a site lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum SiteKind {
    /// (0, 0)
    A,
    /// (½, ½)
    B,
    /// (½, 0)
    OnA,
    /// (0, ½)
    OnB,
}

/// The column at a site. Lengths in pm in the specimen frame, `[x, y]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct SiteColumn {
    /// Displacement from the site by polarization and static disorder.
    pub shift: [f64; 2],
    /// Where an amorphous patch moved it from there.
    pub scatter: [f64; 2],
    /// Peak height, 1 = an undisturbed A column.
    pub intensity: f64,
    /// Before the probe's blur.
    pub sigma_pm: f64,
    pub defect: Option<DefectKind>,
}

/// The specimen with everything looked up that does not depend on the scan.
pub(super) struct Lattice<'a> {
    specimen: &'a Specimen,
    /// Edges a and b, `[x, y]`, pm.
    pub edges: [[f64; 2]; 2],
    /// Single-column defects by site: what they are and the factor on the peak height.
    planted: HashMap<Site, (DefectKind, f64)>,
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
/// Amorphous material scatters each column's atoms sideways: wider, lower peaks.
const AMORPHOUS_WIDENING: f64 = 1.3;

impl<'a> Lattice<'a> {
    pub fn new(specimen: &'a Specimen) -> Self {
        let edge = |length_pm: f64, angle_rad: f64| {
            let [x, y] =
                turned([length_pm * angle_rad.cos(), length_pm * angle_rad.sin()], specimen.rotation_rad);
            let strain = specimen.strain;
            [x + strain.xx * x + strain.xy * y, y + strain.xy * x + strain.yy * y]
        };
        let edges = [edge(specimen.cell_a_pm, 0.0), edge(specimen.cell_b_pm, specimen.cell_angle_rad)];
        let mut rng = ChaCha8Rng::seed_from_u64(specimen.seed);
        let waves = (0..THICKNESS_WAVES)
            .map(|n| {
                // Directions evenly spread with some play, so that no seed gives one-sided stripes.
                let direction = TAU * (n as f64 + 0.6 * rng.random::<f64>()) / THICKNESS_WAVES as f64;
                let k = TAU / specimen.thickness.wavelength_nm * rng.random_range(0.5..1.5);
                ThicknessWave {
                    wave_vector: [k * direction.cos(), k * direction.sin()],
                    phase: rng.random_range(0.0..TAU),
                }
            })
            .collect();
        let mut lattice = Self { specimen, edges, planted: HashMap::new(), waves };
        for defect in &specimen.defects {
            let kind = match defect.kind {
                DefectKind::VacancyA | DefectKind::SubstitutionA => SiteKind::A,
                DefectKind::VacancyB | DefectKind::SubstitutionB => SiteKind::B,
                DefectKind::Amorphous => continue,
            };
            let site = lattice.nearest_site(defect.at_nm, kind);
            lattice.planted.insert(site, (defect.kind, defect.intensity_ratio));
        }
        lattice
    }

    /// Undisplaced position of a site, pm, `[x, y]`.
    pub fn position_pm(&self, site: Site) -> [f64; 2] {
        let [u, v] = site.kind.in_cell();
        let [a, b] = self.edges;
        let (u, v) = (site.i as f64 + u, site.j as f64 + v);
        [u * a[0] + v * b[0], u * a[1] + v * b[1]]
    }

    /// Position `[x, y]` in pm in units of the cell edges.
    pub fn cell_coordinates(&self, position_pm: [f64; 2]) -> [f64; 2] {
        let [a, b] = self.edges;
        let det = a[0] * b[1] - a[1] * b[0];
        let [x, y] = position_pm;
        [(x * b[1] - y * b[0]) / det, (a[0] * y - a[1] * x) / det]
    }

    fn nearest_site(&self, at_nm: [f64; 2], kind: SiteKind) -> Site {
        let [u, v] = self.cell_coordinates([at_nm[1] * 1e3, at_nm[0] * 1e3]);
        let [in_u, in_v] = kind.in_cell();
        Site { i: (u - in_u).round() as i64, j: (v - in_v).round() as i64, kind }
    }

    /// The column at a site; `None` where the specimen has none of this kind. The same site always gives the same column.
    pub fn column(&self, site: Site) -> Option<SiteColumn> {
        let specimen = self.specimen;
        let columns = &specimen.columns;
        let shape = match site.kind {
            SiteKind::A => columns.a,
            SiteKind::B => columns.b,
            SiteKind::OnA | SiteKind::OnB => columns.o?,
        };
        let mut rng = self.site_rng(site);
        let mut normal = || rng.sample::<f64, _>(StandardNormal);
        let position_pm = self.position_pm(site);
        let position_nm = [position_pm[1] * 1e-3, position_pm[0] * 1e-3];
        let mut shift = [normal(), normal()].map(|n| n * specimen.static_displacement_pm);
        if site.kind == SiteKind::B {
            let p = specimen.polarization.at(position_nm, specimen.rotation_rad);
            let p = turned(p, specimen.rotation_rad);
            shift = [shift[0] + p[0], shift[1] + p[1]];
        }
        let roughness = (1.0 + specimen.roughness * normal()).max(0.0);
        let mut column = SiteColumn {
            shift,
            scatter: [0.0, 0.0],
            intensity: shape.intensity * roughness * self.thickness_at(position_nm),
            sigma_pm: shape.sigma_pm,
            defect: None,
        };
        let scatter = [normal(), normal()];
        let fraction: f64 = rng.random();
        if let Some((kind, ratio)) =
            self.planted.get(&site).copied().or_else(|| self.scattered(site.kind, fraction))
        {
            column.defect = Some(kind);
            column.intensity *= ratio;
        }
        if self.in_amorphous_patch(position_nm) {
            let mean_edge_pm = 0.5 * (specimen.cell_a_pm + specimen.cell_b_pm);
            let mean_intensity = 0.5 * (columns.a.intensity + columns.b.intensity);
            column.scatter = scatter.map(|n| n * AMORPHOUS_SCATTER * mean_edge_pm);
            column.intensity = mean_intensity * self.thickness_at(position_nm) * (0.3 + 0.7 * fraction);
            column.sigma_pm *= AMORPHOUS_WIDENING;
            column.defect = Some(DefectKind::Amorphous);
        }
        Some(column)
    }

    /// The defect, if any, that [`Specimen::random_defects`] puts on a site whose random number is `fraction`.
    fn scattered(&self, kind: SiteKind, fraction: f64) -> Option<(DefectKind, f64)> {
        let random = &self.specimen.random_defects;
        let (vacancy, substitution, vacancy_kind, substitution_kind) = match kind {
            SiteKind::A => {
                (random.vacancy_a, random.substitution_a, DefectKind::VacancyA, DefectKind::SubstitutionA)
            }
            SiteKind::B => {
                (random.vacancy_b, random.substitution_b, DefectKind::VacancyB, DefectKind::SubstitutionB)
            }
            SiteKind::OnA | SiteKind::OnB => return None,
        };
        if fraction < vacancy {
            Some((vacancy_kind, random.vacancy_intensity_ratio))
        } else if fraction < vacancy + substitution {
            Some((substitution_kind, random.substitution_intensity_ratio))
        } else {
            None
        }
    }

    fn in_amorphous_patch(&self, [y, x]: [f64; 2]) -> bool {
        self.specimen.defects.iter().any(|defect| {
            defect.kind == DefectKind::Amorphous
                && (y - defect.at_nm[0]).hypot(x - defect.at_nm[1]) <= defect.radius_nm
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

    /// A generator keyed by the specimen's seed and the site, so that a site looks the same in every frame.
    fn site_rng(&self, site: Site) -> ChaCha8Rng {
        let mut key = [0; 32];
        let words = [self.specimen.seed, site.i as u64, site.j as u64, site.kind as u64];
        for (bytes, word) in key.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        ChaCha8Rng::from_seed(key)
    }
}

impl SiteKind {
    pub const ALL: [Self; 4] = [Self::A, Self::B, Self::OnA, Self::OnB];

    /// Coordinates in the cell, in units of its edges.
    pub const fn in_cell(self) -> [f64; 2] {
        match self {
            Self::A => [0.0, 0.0],
            Self::B => [0.5, 0.5],
            Self::OnA => [0.5, 0.0],
            Self::OnB => [0.0, 0.5],
        }
    }
}
