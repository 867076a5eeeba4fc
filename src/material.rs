//! Materials: lattice, polar variants and Born charges.

use crate::config::InvalidSetting;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// How the columns of a sublattice look in a HAADF image.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnShape {
    /// Peak height relative to the A columns, 0 to 2.
    pub intensity: f64,
    /// Standard deviation of the column before the probe's blur, 10 to 200 pm.
    pub sigma_pm: f64,
}

impl ColumnShape {
    /// # Errors
    /// [`InvalidSetting`] for a value outside its range.
    pub fn validate(&self, key_prefix: &str) -> Result<(), InvalidSetting> {
        let within = |key: &str, value: f64, [low, high]: [f64; 2]| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(InvalidSetting::new(format!("{key_prefix}.{key}"), value, format!("{low} to {high}")))
        };
        within("intensity", self.intensity, [0.0, 2.0])?;
        within("sigma_pm", self.sigma_pm, [10.0, 200.0])
    }
}

/// What is known of a material before it is imaged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Material {
    pub name: String,
    /// The projected structure; `perovskite [100]` is the one there is.
    pub structure: String,
    /// Edges of the projected, pseudo-cubic cell, 200 to 1000 pm.
    pub lattice_a_pm: f64,
    pub lattice_b_pm: f64,
    /// The cell's edge along the beam.
    pub lattice_c_pm: f64,
    pub polar: bool,
    /// Directions that the crystal's symmetry allows the projected P, unit vectors `[x, y]` with x along a and y along b.
    pub variants: Vec<[f64; 2]>,
    /// Whether P may also lie along the beam, where a projection shows none.
    pub out_of_plane_variant: bool,
    /// Typical magnitude of the projected P (B minus the mean of its A neighbours).
    pub displacement_pm: f64,
    pub columns: MaterialColumns,
    /// How P in pm becomes a dipole density; absent where the crystal has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dipole: Option<DipoleMode>,
    /// What a tilt off the zone axis does to P; absent where nobody calculated it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mistilt: Option<MistiltCalibration>,
}

/// What a tilt off the zone axis does to P.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MistiltCalibration {
    /// What P gains for each mrad, in the direction in which the tilt shifts the columns; negative where A columns shift
    /// farther than B columns. -20 to 20 pm, not 0.
    pub offset_pm_per_mrad: f64,
    /// What it was calculated with, and for which depth.
    pub source: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaterialColumns {
    pub a: ColumnShape,
    pub b: ColumnShape,
    pub o: ColumnShape,
}

/// Born charges and the part that oxygen, which HAADF does not show, takes in the polar displacement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DipoleMode {
    pub born_a: f64,
    pub born_b: f64,
    /// The oxygen whose bond to B lies along P.
    pub born_o_parallel: f64,
    /// Each of the two others.
    pub born_o_perpendicular: f64,
    /// Shift of the oxygens relative to A along P, in units of B's shift relative to A.
    pub oxygen_parallel: f64,
    pub oxygen_perpendicular: f64,
}

/// The materials that are built in, by name of their file.
const BUILT_IN: [(&str, &str); 4] = [
    ("batio3", include_str!("../configs/materials/batio3.toml")),
    ("srtio3", include_str!("../configs/materials/srtio3.toml")),
    ("bifeo3", include_str!("../configs/materials/bifeo3.toml")),
    ("pbtio3", include_str!("../configs/materials/pbtio3.toml")),
];

const PEROVSKITE_100: &str = "perovskite [100]";
/// C, and C/m² in µC/cm².
const ELEMENTARY_CHARGE: f64 = 1.602_176_634e-19;
const UC_PER_CM2: f64 = 100.0;

/// A material that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    #[error("no material `{name}` is built in: there are {}, or the path of a .toml file", known.join(", "))]
    Unknown { name: String, known: Vec<&'static str> },
    #[error("the material file {} cannot be read", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("the material `{name}` is not in the expected form: {source}")]
    Malformed { name: String, source: Box<toml::de::Error> },
    #[error("the material `{name}` cannot be used: {source}")]
    Invalid { name: String, source: InvalidSetting },
}

impl Material {
    /// The names that [`Self::built_in`] knows.
    pub fn built_in_names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// The built-in material of this name, in any case (`batio3`, `BiFeO3`).
    ///
    /// # Errors
    /// [`MaterialError::Unknown`] naming those there are.
    pub fn built_in(name: &str) -> Result<Self, MaterialError> {
        let found = BUILT_IN.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        let (name, text) = found.ok_or_else(|| MaterialError::Unknown {
            name: name.to_owned(),
            known: Self::built_in_names().collect(),
        })?;
        Self::parse(name, text)
    }

    /// Reads a material file.
    ///
    /// # Errors
    /// When the file cannot be read, is not a material, or has a value out of range.
    pub fn load(path: &Path) -> Result<Self, MaterialError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| MaterialError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// The material that a config names: a built-in one, or the path of a file that ends in `.toml`.
    ///
    /// # Errors
    /// As [`Self::built_in`] and [`Self::load`].
    pub fn resolve(name_or_path: &str) -> Result<Self, MaterialError> {
        let path = Path::new(name_or_path);
        match path.extension() {
            Some(extension) if extension.eq_ignore_ascii_case("toml") => Self::load(path),
            _ => Self::built_in(name_or_path),
        }
    }

    fn parse(name: &str, text: &str) -> Result<Self, MaterialError> {
        let material: Self = toml::from_str(text)
            .map_err(|source| MaterialError::Malformed { name: name.to_owned(), source: Box::new(source) })?;
        material.validate().map_err(|source| MaterialError::Invalid { name: name.to_owned(), source })?;
        Ok(material)
    }

    fn validate(&self) -> Result<(), InvalidSetting> {
        let check = |ok: bool, key: &str, value: &dyn std::fmt::Debug, expected: &str| {
            if ok {
                return Ok(());
            }
            Err(InvalidSetting::new(key, format!("{value:?}"), expected))
        };
        check(self.structure == PEROVSKITE_100, "structure", &self.structure, PEROVSKITE_100)?;
        for (key, edge) in [
            ("lattice_a_pm", self.lattice_a_pm),
            ("lattice_b_pm", self.lattice_b_pm),
            ("lattice_c_pm", self.lattice_c_pm),
        ] {
            check((200.0..=1000.0).contains(&edge), key, &edge, "200 to 1000")?;
        }
        let unit = self.variants.iter().all(|[x, y]| (x.hypot(*y) - 1.0).abs() < 1e-6);
        check(unit, "variants", &self.variants, "unit vectors")?;
        let named = self.polar != self.variants.is_empty();
        check(named, "variants", &self.variants, "at least one if the material is polar, else none")?;
        let displaced = if self.polar { 0.1..=200.0 } else { 0.0..=0.0 };
        let expected = "0.1 to 200 if the material is polar, else 0";
        check(displaced.contains(&self.displacement_pm), "displacement_pm", &self.displacement_pm, expected)?;
        let no_hidden = self.polar || (!self.out_of_plane_variant && self.dipole.is_none());
        check(no_hidden, "polar", &self.polar, "true where there is an out-of-plane variant or a dipole")?;
        self.columns.a.validate("columns.a")?;
        self.columns.b.validate("columns.b")?;
        self.columns.o.validate("columns.o")?;
        if let Some(MistiltCalibration { offset_pm_per_mrad: offset, source }) = &self.mistilt {
            let usable = offset.abs() <= 20.0 && *offset != 0.0;
            check(usable, "mistilt.offset_pm_per_mrad", offset, "-20 to 20, not 0")?;
            check(!source.trim().is_empty(), "mistilt.source", source, "where it comes from")?;
        }
        let Some(dipole) = self.dipole else { return Ok(()) };
        // The acoustic sum rule: moving the whole crystal makes no dipole.
        let sum = dipole.born_a + dipole.born_b + dipole.born_o_parallel + 2.0 * dipole.born_o_perpendicular;
        check(sum.abs() < 0.1, "dipole", &dipole, "Born charges that add up to 0 within 0.1")?;
        let shifts = [dipole.oxygen_parallel, dipole.oxygen_perpendicular];
        check(shifts.iter().all(|s| s.abs() < 20.0), "dipole", &dipole, "oxygen shifts of at most 20")
    }

    /// Volume of the pseudo-cubic cell, pm³.
    pub fn cell_volume_pm3(&self) -> f64 {
        self.lattice_a_pm * self.lattice_b_pm * self.lattice_c_pm
    }

    /// Dipole density in µC/cm² that goes with a component of P in pm (B minus the mean of its A neighbours), the oxygens
    /// taking their usual part in the displacement; negative where they outrun B and the dipole points against P (PbTiO3,
    /// BiFeO3). `None` for a material without a dipole; NaN in, NaN out.
    ///
    /// (e / V) Σ Z*ᵢ uᵢ over the cell's atoms, with uᵢ relative to the A site.
    pub fn dipole_uc_per_cm2(&self, p_pm: f64) -> Option<f64> {
        let mode = self.dipole?;
        let charge = mode.born_b
            + mode.born_o_parallel * mode.oxygen_parallel
            + 2.0 * mode.born_o_perpendicular * mode.oxygen_perpendicular;
        let dipole_c_m = charge * ELEMENTARY_CHARGE * p_pm * 1e-12;
        Some(dipole_c_m / (self.cell_volume_pm3() * 1e-36) * UC_PER_CM2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_material_loads() {
        for name in Material::built_in_names() {
            let material = Material::built_in(name).unwrap();
            assert!(material.name.eq_ignore_ascii_case(name));
            assert_eq!(Material::resolve(&material.name).unwrap(), material);
        }
        let unknown = Material::resolve("kryptonite").unwrap_err().to_string();
        assert!(unknown.contains("kryptonite") && unknown.contains("bifeo3"), "{unknown}");
    }

    #[test]
    fn the_dipole_of_the_bulk_displacement_is_near_the_measured_spontaneous_polarization() {
        // By hand for BaTiO3: 7.16 + 5.69 · 1.85 + 2 · 2.11 · 1.11 = 22.37 e, times 5.4 pm, over 6.427e7 pm³.
        let barium = Material::built_in("batio3").unwrap();
        let dipole = barium.dipole_uc_per_cm2(barium.displacement_pm).unwrap();
        assert!((dipole - 30.1).abs() < 0.1, "{dipole}");
        // Measured: 26 (BaTiO3), 75 to 97 (PbTiO3) along [001], 90 to 100 along [111] (BiFeO3). The latter two point against P.
        let lead = Material::built_in("pbtio3").unwrap();
        let dipole = lead.dipole_uc_per_cm2(lead.displacement_pm).unwrap();
        assert!((-110.0..-75.0).contains(&dipole), "{dipole}");
        let bismuth = Material::built_in("bifeo3").unwrap();
        let dipole = bismuth.dipole_uc_per_cm2(bismuth.displacement_pm).unwrap() * 1.5f64.sqrt();
        assert!((-100.0..-80.0).contains(&dipole), "{dipole}");
        assert_eq!(Material::built_in("srtio3").unwrap().dipole_uc_per_cm2(10.0), None);
    }

    #[test]
    fn a_material_that_contradicts_itself_is_refused() {
        let text = include_str!("../configs/materials/batio3.toml");
        let refusal = |from: &str, to: &str| {
            assert!(text.contains(from));
            Material::parse("changed", &text.replace(from, to)).unwrap_err().to_string()
        };
        assert!(refusal("polar = true", "polar = false").contains("variants"));
        assert!(refusal("[1.0, 0.0]", "[1.0, 0.5]").contains("unit vectors"));
        assert!(refusal("born_a = 2.75", "born_a = 2.0").contains("add up"));
        assert!(refusal("lattice_a_pm = 399.1", "lattice_a_pm = 0.3991").contains("lattice_a_pm"));
        assert!(refusal("polar = true", "polar = true\ncolour = 1").contains("colour"));
    }

    #[test]
    fn a_material_can_come_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        std::fs::write(&path, include_str!("../configs/materials/srtio3.toml")).unwrap();
        let material = Material::resolve(path.to_str().unwrap()).unwrap();
        assert_eq!(material, Material::built_in("srtio3").unwrap());
        let missing = Material::load(&folder.path().join("absent.toml")).unwrap_err();
        assert!(matches!(missing, MaterialError::Unreadable { .. }));
    }
}
