//! What lies under the beam: a description of the crystal that says for every site what stands there.

use super::polarization::Polarization;
use super::truth::DefectKind;
use crate::config::InvalidSetting;
use crate::material::{ColumnShape, Material};
use serde::{Deserialize, Serialize};

/// A perovskite along [100], without bounds: A columns on the cell's corners, B columns in the middle, O columns in the middle
/// of the edges. Positions are `[y, x]` in nm in the specimen frame, with an A site of the undisplaced lattice at the origin.
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
    pub columns: Columns,
    pub polarization: Polarization,
    /// Standard deviation of each component of each column's own static displacement.
    pub static_displacement_pm: f64,
    /// Relative standard deviation of the columns' peak heights.
    pub roughness: f64,
    pub thickness: Thickness,
    pub background: Background,
    pub defects: Vec<Defect>,
    pub random_defects: RandomDefects,
    pub bends: Vec<Bend>,
}

/// Uniform strain of the lattice in the specimen frame (x right, y down), dimensionless.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Strain {
    pub xx: f64,
    pub yy: f64,
    pub xy: f64,
}

/// How columns look: each is a Gaussian of the given peak height (1 = A) and width, of which a fraction is a wide Gaussian in
/// place of the long tails that a focused probe and channelling give a column.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Columns {
    pub a: ColumnShape,
    pub b: ColumnShape,
    /// The pure oxygen columns; HAADF hardly shows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub o: Option<ColumnShape>,
    /// Fraction of the peak height that is tail, 0 to 0.5.
    pub tail_fraction: f64,
    /// Width of the tail over that of the column, 1 to 4.
    pub tail_ratio: f64,
}

/// Smooth variation of the specimen's thickness, which scales columns and background alike.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thickness {
    /// Relative standard deviation, 0 to 0.3.
    pub rms: f64,
    /// Wavelength of the variation, nm.
    pub wavelength_nm: f64,
}

/// Signal between the columns, as a fraction of the A columns' peak height.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Background {
    /// At the specimen's origin.
    pub level: f64,
    /// Change per nm, `[x, y]`; the background never falls below 0.
    pub gradient_per_nm: [f64; 2],
}

/// A planted defect, at the site nearest to its position.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defect {
    pub kind: DefectKind,
    pub at_nm: [f64; 2],
    /// What is left of the column's peak height (vacancies), or what it becomes a multiple of (substitutions).
    /// Without effect in amorphous patches.
    #[serde(default)]
    pub intensity_ratio: f64,
    /// Radius of an amorphous patch.
    #[serde(default)]
    pub radius_nm: f64,
}

/// Defects scattered at random, as fractions of all sites of the sublattice.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RandomDefects {
    pub vacancy_a: f64,
    pub vacancy_b: f64,
    pub substitution_a: f64,
    pub substitution_b: f64,
    /// What a vacancy leaves of its column's peak height.
    pub vacancy_intensity_ratio: f64,
    /// What a substitution multiplies its column's peak height by.
    pub substitution_intensity_ratio: f64,
}

/// A region bent out of the zone axis: an additional mistilt that falls off as a Gaussian.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bend {
    pub center_nm: [f64; 2],
    /// Standard deviation of the Gaussian.
    pub radius_nm: f64,
    /// As [`Tilt::mrad`](super::Tilt::mrad), at the centre: with all that a tilt does to columns.
    #[serde(default)]
    pub tilt_mrad: [f64; 2],
    /// As [`Microscope::tilt_offset_pm`](super::Microscope::tilt_offset_pm), at the centre: a shift alone.
    #[serde(default)]
    pub tilt_offset_pm: [f64; 2],
}

impl Default for Specimen {
    /// A non-polar cubic crystal of 390 pm without any defect.
    fn default() -> Self {
        Self {
            seed: 0,
            cell_a_pm: 390.0,
            cell_b_pm: 390.0,
            cell_angle_rad: std::f64::consts::FRAC_PI_2,
            rotation_rad: 0.0,
            strain: Strain::default(),
            columns: Columns::default(),
            polarization: Polarization::default(),
            static_displacement_pm: 0.0,
            roughness: 0.0,
            thickness: Thickness::default(),
            background: Background::default(),
            defects: Vec::new(),
            random_defects: RandomDefects::default(),
            bends: Vec::new(),
        }
    }
}

impl Default for Columns {
    fn default() -> Self {
        Self {
            a: ColumnShape { intensity: 1.0, sigma_pm: 70.0 },
            b: ColumnShape { intensity: 0.4, sigma_pm: 65.0 },
            o: None,
            tail_fraction: 0.0,
            tail_ratio: 2.5,
        }
    }
}

impl Default for Thickness {
    fn default() -> Self {
        Self { rms: 0.0, wavelength_nm: 30.0 }
    }
}

impl Default for RandomDefects {
    fn default() -> Self {
        Self {
            vacancy_a: 0.0,
            vacancy_b: 0.0,
            substitution_a: 0.0,
            substitution_b: 0.0,
            vacancy_intensity_ratio: 0.4,
            substitution_intensity_ratio: 1.5,
        }
    }
}

impl Specimen {
    /// The material's lattice and columns; a single domain of its first polar variant.
    pub fn of_material(material: &Material) -> Self {
        let p_pm = material.variants.first().map_or([0.0; 2], |v| v.map(|c| c * material.displacement_pm));
        Self {
            cell_a_pm: material.lattice_a_pm,
            cell_b_pm: material.lattice_b_pm,
            columns: Columns {
                a: material.columns.a,
                b: material.columns.b,
                o: Some(material.columns.o),
                ..Columns::default()
            },
            polarization: Polarization::Uniform { p_pm },
            ..Self::default()
        }
    }

    /// # Errors
    /// [`InvalidSetting`] for the first value outside its range.
    pub fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let check = |ok: bool, key: &str, value: &dyn std::fmt::Debug, expected: &str| {
            if ok {
                return Ok(());
            }
            Err(InvalidSetting::new(format!("{key_prefix}.{key}"), format!("{value:?}"), expected))
        };
        let within = |v: f64, low: f64, high: f64| (low..=high).contains(&v);
        check(within(self.cell_a_pm, 200.0, 1000.0), "cell_a_pm", &self.cell_a_pm, "200 to 1000")?;
        check(within(self.cell_b_pm, 200.0, 1000.0), "cell_b_pm", &self.cell_b_pm, "200 to 1000")?;
        check(within(self.cell_angle_rad, 0.8, 2.3), "cell_angle_rad", &self.cell_angle_rad, "0.8 to 2.3")?;
        check(self.rotation_rad.is_finite(), "rotation_rad", &self.rotation_rad, "a finite angle")?;
        let Strain { xx, yy, xy } = self.strain;
        let small = [xx, yy, xy].iter().all(|e| e.abs() <= 0.2);
        check(small, "strain", &self.strain, "components of at most 0.2")?;
        let Columns { a, b, o, tail_fraction, tail_ratio } = self.columns;
        a.validate(&format!("{key_prefix}.columns.a"))?;
        b.validate(&format!("{key_prefix}.columns.b"))?;
        if let Some(o) = o {
            o.validate(&format!("{key_prefix}.columns.o"))?;
        }
        check(within(tail_fraction, 0.0, 0.5), "columns.tail_fraction", &tail_fraction, "0 to 0.5")?;
        check(within(tail_ratio, 1.0, 4.0), "columns.tail_ratio", &tail_ratio, "1 to 4")?;
        self.polarization.validate(&format!("{key_prefix}.polarization"))?;
        let displacement = self.static_displacement_pm;
        check(within(displacement, 0.0, 50.0), "static_displacement_pm", &displacement, "0 to 50")?;
        check(within(self.roughness, 0.0, 0.5), "roughness", &self.roughness, "0 to 0.5")?;
        let Thickness { rms, wavelength_nm } = self.thickness;
        check(within(rms, 0.0, 0.3), "thickness.rms", &rms, "0 to 0.3")?;
        check(within(wavelength_nm, 1.0, 1e6), "thickness.wavelength_nm", &wavelength_nm, "1 to 1e6")?;
        let Background { level, gradient_per_nm } = self.background;
        check(within(level, 0.0, 100.0), "background.level", &level, "0 to 100")?;
        let finite = gradient_per_nm.iter().all(|g| g.is_finite());
        check(finite, "background.gradient_per_nm", &gradient_per_nm, "finite values")?;
        for (n, defect) in self.defects.iter().enumerate() {
            let Defect { kind, at_nm, intensity_ratio, radius_nm } = *defect;
            let key = |name: &str| format!("defects.{n}.{name}");
            check(
                at_nm.iter().all(|c| c.abs() <= 1e6),
                &key("at_nm"),
                &at_nm,
                "within 1e6 nm of the origin",
            )?;
            check(
                within(intensity_ratio, 0.0, 20.0),
                &key("intensity_ratio"),
                &intensity_ratio,
                "0 to 20, 0 for an empty column",
            )?;
            let patch = kind == DefectKind::Amorphous;
            check(!patch || within(radius_nm, 0.1, 1e3), &key("radius_nm"), &radius_nm, "0.1 to 1000")?;
        }
        let random = self.random_defects;
        let fractions = [random.vacancy_a, random.vacancy_b, random.substitution_a, random.substitution_b];
        let ratios = [random.vacancy_intensity_ratio, random.substitution_intensity_ratio];
        check(
            fractions.iter().all(|f| within(*f, 0.0, 0.5)),
            "random_defects",
            &random,
            "fractions of 0 to 0.5",
        )?;
        check(ratios.iter().all(|r| within(*r, 0.0, 20.0)), "random_defects", &random, "ratios of 0 to 20")?;
        for (n, bend) in self.bends.iter().enumerate() {
            let finite = bend.center_nm.iter().all(|c| c.is_finite());
            let mild = bend.tilt_offset_pm.iter().all(|t| t.abs() <= 200.0);
            let sized = bend.radius_nm > 0.0 && bend.radius_nm.is_finite();
            let slight = bend.tilt_mrad.iter().all(|t| t.abs() <= 40.0);
            let expected =
                "a finite centre, a radius above 0, tilts of at most 40 mrad, offsets of at most 200 pm";
            check(finite && mild && slight && sized, &format!("bends.{n}"), bend, expected)?;
        }
        Ok(())
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

    /// Background at `position_nm` before thickness, as a fraction of the A columns' peak height.
    pub(super) fn background_at(&self, position_nm: [f64; 2]) -> f64 {
        let [gx, gy] = self.background.gradient_per_nm;
        (self.background.level + gx * position_nm[1] + gy * position_nm[0]).max(0.0)
    }
}
