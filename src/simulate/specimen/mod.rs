//! What lies under the beam: a description of the crystal that says for every site what stands there.

mod columns;
mod composition;
mod defects;
mod regions;
mod strain;

pub use columns::{Background, Columns, Phase, Tails, Thickness};
pub use composition::{Alloy, Composition};
pub use defects::{Bend, Defect, RandomDefects};
pub use regions::{Content, Edge, Region, Shape, Substrate, Toward, ZoneAxis};
pub use strain::{Dislocation, Strain, StrainField};

use super::check::Check;
use super::polarization::Polarization;
use crate::config::InvalidSetting;
use crate::material::Material;
use serde::{Deserialize, Serialize};
use std::f64::consts::FRAC_PI_2;

/// More dislocations or regions than this are refused: every site of a frame asks the former, every frame the latter.
const MOST_DISLOCATIONS: usize = 64;
const MOST_REGIONS: usize = 4096;

/// A perovskite along [100], without bounds: A columns on the cell's corners, B columns in the middle, O columns in the middle
/// of the edges. Positions are `[y, x]` in nm in the specimen frame, with an A site of the undisplaced lattice at the origin.
///
/// A site's place follows from the lattice, the fields that displace it (`strain`, `strain_fields`, `dislocations`, the alloy's
/// and the substrate's misfit) and its own displacement (P, disorder); what stands there from the region it lies in, the
/// composition there, and the defects. So the same site looks the same in every frame, and none is computed that no frame shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Specimen {
    /// Everything random in the specimen follows from this number and the site's indices.
    pub seed: u64,
    pub cell_a_pm: f64,
    pub cell_b_pm: f64,
    /// Angle from a to b.
    pub cell_angle_rad: f64,
    /// Direction of a, counter-clockwise from the specimen's x axis as displayed; b lies clockwise of a (down where a points
    /// right).
    pub rotation_rad: f64,
    pub strain: Strain,
    pub strain_fields: Vec<StrainField>,
    pub columns: Columns,
    pub alloy: Alloy,
    /// The projected P of each polar variant, `[x, y]` along a and b, pm; the material's, none for a non-polar crystal.
    pub variants_pm: Vec<[f64; 2]>,
    pub polarization: Polarization,
    /// Standard deviation of each component of each column's own static displacement.
    pub static_displacement_pm: f64,
    /// Relative standard deviation of the columns' peak heights.
    pub roughness: f64,
    pub thickness: Thickness,
    pub background: Background,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub substrate: Option<Substrate>,
    pub regions: Vec<Region>,
    pub dislocations: Vec<Dislocation>,
    pub defects: Vec<Defect>,
    pub random_defects: RandomDefects,
    pub bends: Vec<Bend>,
}

impl Default for Specimen {
    /// A non-polar cubic crystal of 390 pm without any defect.
    fn default() -> Self {
        Self {
            seed: 0,
            cell_a_pm: 390.0,
            cell_b_pm: 390.0,
            cell_angle_rad: FRAC_PI_2,
            rotation_rad: 0.0,
            strain: Strain::default(),
            strain_fields: Vec::new(),
            columns: Columns::default(),
            alloy: Alloy::default(),
            variants_pm: Vec::new(),
            polarization: Polarization::default(),
            static_displacement_pm: 0.0,
            roughness: 0.0,
            thickness: Thickness::default(),
            background: Background::default(),
            substrate: None,
            regions: Vec::new(),
            dislocations: Vec::new(),
            defects: Vec::new(),
            random_defects: RandomDefects::default(),
            bends: Vec::new(),
        }
    }
}

impl Specimen {
    /// The material's lattice and columns; a single domain of its first polar variant.
    pub fn of_material(material: &Material) -> Self {
        let variants_pm: Vec<[f64; 2]> =
            material.variants.iter().map(|v| v.map(|c| c * material.displacement_pm)).collect();
        let p_pm = variants_pm.first().copied().unwrap_or([0.0; 2]);
        Self {
            cell_a_pm: material.lattice_a_pm,
            cell_b_pm: material.lattice_b_pm,
            columns: Columns {
                a: material.columns.a,
                b: material.columns.b,
                o: Some(material.columns.o),
                ..Columns::default()
            },
            variants_pm,
            polarization: Polarization::Uniform { p_pm },
            ..Self::default()
        }
    }

    /// # Errors
    /// [`InvalidSetting`] for the first value outside its range.
    pub fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let check = Check(key_prefix);
        check.within("cell_a_pm", self.cell_a_pm, [200.0, 1000.0])?;
        check.within("cell_b_pm", self.cell_b_pm, [200.0, 1000.0])?;
        check.within("cell_angle_rad", self.cell_angle_rad, [0.8, 2.3])?;
        check.that(self.rotation_rad.is_finite(), "rotation_rad", &self.rotation_rad, "a finite angle")?;
        self.strain.validate(key_prefix)?;
        self.columns.validate(&check.key("columns"))?;
        self.alloy.validate(&check.key("alloy"))?;
        self.variants_pm.iter().try_for_each(|p| check.displacement("variants_pm", *p))?;
        self.polarization.validate(&check.key("polarization"), &self.variants_pm)?;
        check.within("static_displacement_pm", self.static_displacement_pm, [0.0, 50.0])?;
        check.within("roughness", self.roughness, [0.0, 0.5])?;
        self.thickness.validate(&check.key("thickness"))?;
        self.background.validate(&check.key("background"))?;
        if let Some(substrate) = &self.substrate {
            substrate.validate(&check.key("substrate"))?;
        }
        let few = |n: usize, most: usize, key: &str| {
            check.that(n <= most, key, &format_args!("{n} entries"), &format!("at most {most}"))
        };
        few(self.regions.len(), MOST_REGIONS, "regions")?;
        few(self.dislocations.len(), MOST_DISLOCATIONS, "dislocations")?;
        let each = |list: &str, n: usize| check.key(&format!("{list}.{n}"));
        self.strain_fields
            .iter()
            .enumerate()
            .try_for_each(|(n, field)| field.validate(&each("strain_fields", n)))?;
        self.regions.iter().enumerate().try_for_each(|(n, region)| region.validate(&each("regions", n)))?;
        self.dislocations
            .iter()
            .enumerate()
            .try_for_each(|(n, dislocation)| dislocation.validate(&each("dislocations", n)))?;
        self.defects.iter().enumerate().try_for_each(|(n, defect)| defect.validate(&each("defects", n)))?;
        self.random_defects.validate(&check.key("random_defects"))?;
        self.bends.iter().enumerate().try_for_each(|(n, bend)| bend.validate(&each("bends", n)))
    }

    /// Mistilt of the specimen itself at `position_nm`: shift of the A columns, `[x, y]` in the specimen frame, pm.
    pub(super) fn bend_offset_pm(&self, position_nm: [f64; 2]) -> [f64; 2] {
        self.bent(position_nm, |bend| bend.tilt_offset_pm)
    }

    /// Tilt of the specimen itself at `position_nm`, `[x, y]` in the specimen frame.
    pub(super) fn bend_mrad(&self, position_nm: [f64; 2]) -> [f64; 2] {
        self.bent(position_nm, |bend| bend.tilt_mrad)
    }

    fn bent(&self, position_nm: [f64; 2], at_center: impl Fn(&Bend) -> [f64; 2]) -> [f64; 2] {
        self.bends.iter().fold([0.0, 0.0], |sum, bend| {
            let r = (position_nm[0] - bend.center_nm[0]).hypot(position_nm[1] - bend.center_nm[1]);
            let weight = (-0.5 * (r / bend.radius_nm).powi(2)).exp();
            let [x, y] = at_center(bend);
            [sum[0] + weight * x, sum[1] + weight * y]
        })
    }
}
