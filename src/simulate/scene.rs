//! A scene file: what lies under the beam, how it is scanned, and how the frames are served.

use super::acquisition::ServerSettings;
use super::microscope::Microscope;
use super::specimen::{Phase, Specimen};
use crate::config::InvalidSetting;
use crate::material::{Material, MaterialError};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// The scenes that are built in, by name of their file.
const BUILT_IN: [(&str, &str); 10] = [
    ("bifeo3", include_str!("../../configs/scenes/bifeo3.toml")),
    ("batio3", include_str!("../../configs/scenes/batio3.toml")),
    ("srtio3-scan", include_str!("../../configs/scenes/srtio3-scan.toml")),
    ("srtio3-averaged", include_str!("../../configs/scenes/srtio3-averaged.toml")),
    ("srtio3-control", include_str!("../../configs/scenes/srtio3-control.toml")),
    ("pbtio3-srtio3", include_str!("../../configs/scenes/pbtio3-srtio3.toml")),
    ("sm-bifeo3", include_str!("../../configs/scenes/sm-bifeo3.toml")),
    ("zoo", include_str!("../../configs/scenes/zoo.toml")),
    ("crowded", include_str!("../../configs/scenes/crowded.toml")),
    ("faults", include_str!("../../configs/scenes/faults.toml")),
];

/// Everything that a simulated acquisition needs, complete and valid.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scene {
    pub specimen: Specimen,
    pub microscope: Microscope,
    pub server: ServerSettings,
}

/// A scene file as it is written. `[specimen]` changes single values of the material's specimen.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SceneFile {
    /// A built-in material, or the path of a material file.
    material: String,
    #[serde(default)]
    specimen: Table,
    #[serde(default)]
    microscope: Microscope,
    #[serde(default)]
    server: ServerSettings,
}

/// A scene that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SceneError {
    #[error("no scene `{name}` is built in: there are {}, or the path of a .toml file", known.join(", "))]
    Unknown { name: String, known: Vec<&'static str> },
    #[error("the scene file {} cannot be read", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("the scene `{name}` is not in the expected form: {source}")]
    Malformed { name: String, source: Box<toml::de::Error> },
    #[error("the scene `{name}` cannot be used: {source}")]
    Material { name: String, source: MaterialError },
    #[error("the scene `{name}` cannot be used: {source}")]
    Invalid { name: String, source: InvalidSetting },
}

impl Scene {
    /// The built-in scene of this name.
    ///
    /// # Errors
    /// [`SceneError::Unknown`] naming those there are.
    pub fn built_in(name: &str) -> Result<Self, SceneError> {
        let found = BUILT_IN.iter().find(|(known, _)| *known == name);
        let (name, text) = found.ok_or_else(|| SceneError::Unknown {
            name: name.to_owned(),
            known: BUILT_IN.map(|(known, _)| known).to_vec(),
        })?;
        Self::parse(name, text)
    }

    /// The scene that a user names: a built-in one, or the path of a file that ends in `.toml`.
    ///
    /// # Errors
    /// When there is no such scene, or it cannot be used.
    pub fn resolve(name_or_path: &str) -> Result<Self, SceneError> {
        let path = Path::new(name_or_path);
        if path.extension().is_none_or(|extension| !extension.eq_ignore_ascii_case("toml")) {
            return Self::built_in(name_or_path);
        }
        let text = std::fs::read_to_string(path)
            .map_err(|source| SceneError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(name_or_path, &text)
    }

    /// # Errors
    /// When the text is no scene, names no material, or has a value out of range; unknown keys are refused.
    pub fn parse(name: &str, text: &str) -> Result<Self, SceneError> {
        let malformed = |source| SceneError::Malformed { name: name.to_owned(), source: Box::new(source) };
        let file: SceneFile = toml::from_str(text).map_err(malformed)?;
        let material = Material::resolve(&file.material)
            .map_err(|source| SceneError::Material { name: name.to_owned(), source })?;
        let mut changes = file.specimen;
        name_phases(&mut changes).map_err(|error| match error {
            PhaseError::Material(source) => SceneError::Material { name: name.to_owned(), source },
            PhaseError::Form(source) => malformed(source),
        })?;
        let specimen = specimen_with(&material, changes).map_err(malformed)?;
        let scene = Self { specimen, microscope: file.microscope, server: file.server };
        scene.validate().map_err(|source| SceneError::Invalid { name: name.to_owned(), source })?;
        Ok(scene)
    }

    /// # Errors
    /// [`InvalidSetting`] for the first value outside its range.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        self.specimen.validate("specimen")?;
        self.microscope.validate("microscope")?;
        self.server.validate("server")
    }
}

/// The material's specimen with the values of `changes` in place of its own.
fn specimen_with(material: &Material, changes: Table) -> Result<Specimen, toml::de::Error> {
    let specimen = Specimen::of_material(material);
    let mut table = Table::try_from(&specimen).map_err(serde::de::Error::custom)?;
    overlay(&mut table, changes);
    table.try_into()
}

/// Why a phase cannot be had.
enum PhaseError {
    Material(MaterialError),
    Form(toml::de::Error),
}

/// Replaces `material` in the phases of regions and substrate by what the material is; the other keys of the phase stay.
fn name_phases(specimen: &mut Table) -> Result<(), PhaseError> {
    if let Some(substrate) = specimen.get_mut("substrate") {
        name_phase(substrate)?;
    }
    let regions = specimen.get_mut("regions").and_then(Value::as_array_mut);
    let contents = regions.into_iter().flatten().filter_map(|region| region.get_mut("content"));
    contents.into_iter().try_for_each(name_phase)
}

fn name_phase(of: &mut Value) -> Result<(), PhaseError> {
    let Some(phase) = of.get_mut("phase").and_then(Value::as_table_mut) else { return Ok(()) };
    let Some(Value::String(name)) = phase.get("material").cloned() else { return Ok(()) };
    phase.remove("material");
    let material = Material::resolve(&name).map_err(PhaseError::Material)?;
    let mut whole = Table::try_from(Phase::of_material(&material))
        .map_err(|error| PhaseError::Form(serde::de::Error::custom(error)))?;
    overlay(&mut whole, std::mem::take(phase));
    *phase = whole;
    Ok(())
}

/// Puts `changes` over `table`, table by table. A table that says its `kind` replaces what was there: the fields of one
/// kind mean nothing to another.
fn overlay(table: &mut Table, changes: Table) {
    for (key, change) in changes {
        match (table.get_mut(&key), change) {
            (Some(Value::Table(below)), Value::Table(change)) if !change.contains_key("kind") => {
                overlay(below, change);
            }
            (_, change) => {
                table.insert(key, change);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DefectKind, Polarization};
    use super::*;

    #[test]
    fn every_built_in_scene_loads() {
        for (name, _) in BUILT_IN {
            Scene::resolve(name).unwrap();
        }
        let unknown = Scene::resolve("atlantis").unwrap_err().to_string();
        assert!(unknown.contains("atlantis") && unknown.contains("bifeo3"), "{unknown}");
    }

    #[test]
    fn the_shipped_scene_gives_a_controller_something_to_find() {
        let scene = Scene::built_in("bifeo3").unwrap();
        let Polarization::Domains { vectors_pm, .. } = &scene.specimen.polarization else {
            panic!("{:?}", scene.specimen.polarization)
        };
        assert!(vectors_pm.len() >= 2);
        assert!(scene.specimen.defects.len() >= 5);
        assert!(scene.specimen.defects.iter().any(|d| d.kind == DefectKind::Amorphous));
        // Not all of them in the first field of view.
        let [height, width] = scene.microscope.fov_nm();
        let outside = |[y, x]: [f64; 2]| {
            let [cy, cx] = scene.microscope.center_nm;
            (y - cy).abs() > height / 2.0 || (x - cx).abs() > width / 2.0
        };
        assert!(scene.specimen.defects.iter().filter(|d| outside(d.at_nm)).count() >= 3);
    }

    #[test]
    fn a_scene_changes_single_values_of_its_material() {
        let text = "
            material = 'srtio3'
            [specimen]
            rotation_rad = 0.25
            columns.b = { intensity = 0.6 }
            polarization = { kind = 'vortex', center_nm = [0, 0], core_nm = 2, magnitude_pm = 9, counter_clockwise = true }
        ";
        let scene = Scene::parse("test", text).unwrap();
        let material = Material::built_in("srtio3").unwrap();
        assert_eq!(scene.specimen.rotation_rad, 0.25);
        assert_eq!(scene.specimen.cell_a_pm, material.lattice_a_pm);
        assert_eq!(scene.specimen.columns.b.intensity, 0.6);
        assert_eq!(scene.specimen.columns.b.sigma_pm, material.columns.b.sigma_pm);
        assert!(matches!(scene.specimen.polarization, Polarization::Vortex { .. }));
    }

    #[test]
    fn phases_come_from_materials_and_scenes_survive_being_written() {
        for (name, _) in BUILT_IN {
            let scene = Scene::built_in(name).unwrap();
            // The resolved scene names no material any more.
            let mut table = Table::try_from(&scene).unwrap();
            table.insert("material".to_owned(), Value::String("srtio3".to_owned()));
            let again = Scene::parse(name, &toml::to_string(&table).unwrap()).unwrap();
            assert_eq!(again, scene, "{name}");
        }
        let text = "
            material = 'bifeo3'
            [specimen.substrate]
            phase = { material = 'srtio3', cell_a_pm = 391.5 }
            toward = '-b'
            at_nm = 3.0
            relaxed = 0.5
            polarization_width_nm = 1.0
        ";
        let phase = Scene::parse("test", text).unwrap().specimen.substrate.unwrap().phase;
        let material = Material::built_in("srtio3").unwrap();
        assert_eq!((phase.cell_a_pm, phase.cell_b_pm, phase.a), (391.5, 390.5, material.columns.a));
    }

    #[test]
    fn mistakes_in_the_specimen_are_named() {
        let refusal = |specimen: &str| {
            let text = format!("material = 'bifeo3'\n[specimen]\n{specimen}");
            Scene::parse("test", &text).unwrap_err().to_string()
        };
        let cases = [
            ("defects = [{ kind = 'dislocation', at_nm = [0, 0] }]", "defects.0.kind"),
            ("defects = [{ kind = 'amorphous', at_nm = [0, 0] }]", "defects.0.radius_nm"),
            (
                "defects = [{ kind = 'antisite_a', at_nm = [0, 0], intensity_ratio = 2.0 }]",
                "defects.0.intensity_ratio",
            ),
            ("dislocations = [{ at_nm = [0, 0], burgers_cells = [0, 0] }]", "dislocations.0.burgers_cells"),
            (
                "regions = [{ shape = { kind = 'circle', center_nm = [0, 0], radius_nm = -1 }, content = { kind = 'vacuum' } }]",
                "regions.0.shape.radius_nm",
            ),
            (
                "regions = [{ shape = { kind = 'polygon', corners_nm = [[0, 0], [1, 1]] }, content = { kind = 'vacuum' } }]",
                "regions.0.shape.corners_nm",
            ),
            (
                "regions = [{ shape = { kind = 'circle', center_nm = [0, 0], radius_nm = 1 }, content = { kind = 'stacking_fault', shift_cells = [3, 0] } }]",
                "regions.0.content.shift_cells",
            ),
            (
                "regions = [{ shape = { kind = 'circle', center_nm = [0, 0], radius_nm = 1 }, content = { kind = 'inclusion', phase = { material = 'unobtainium' } } }]",
                "unobtainium",
            ),
            (
                "regions = [{ shape = { kind = 'circle', center_nm = [0, 0], radius_nm = 1 }, content = { kind = 'inclusion', phase = { material = 'srtio3', colour = 1 } } }]",
                "colour",
            ),
            (
                "strain_fields = [{ kind = 'bending', center_nm = [0, 0], direction_rad = 0, radius_nm = 10, reach_nm = 50 }]",
                "strain_fields.0.reach_nm",
            ),
            (
                "alloy = { fraction = { kind = 'layers', normal_rad = 0, at_nm = [0], values = [0.1], width_nm = 1 } }",
                "alloy.fraction.values",
            ),
            ("alloy = { fraction = { kind = 'uniform', value = 1.2 } }", "alloy.fraction.value"),
            ("columns.tails = 'cauchy'", "cauchy"),
            ("random_defects = { antisite_a = 0.9 }", "random_defects.antisite_a"),
            (
                "polarization = { kind = 'stripes', wall = '90', walls = { at_nm = [0] }, width_nm = 1 }",
                "polarization.wall",
            ),
            (
                "polarization = { kind = 'stripes', wall = '71', first = 4, walls = { at_nm = [0] }, width_nm = 1 }",
                "polarization.first",
            ),
            (
                "polarization = { kind = 'mosaic', domain_nm = 5, width_nm = 1, weights = [1.0] }",
                "polarization.weights",
            ),
            (
                "polarization = { kind = 'flux_closure', center_nm = [0, 0], width_nm = 0, magnitude_pm = 10, counter_clockwise = true }",
                "polarization.width_nm",
            ),
            (
                "substrate = { phase = { material = 'srtio3' }, toward = 'b', at_nm = 0, relaxed = 2, polarization_width_nm = 1 }",
                "substrate.relaxed",
            ),
        ];
        for (specimen, named) in cases {
            let message = refusal(specimen);
            assert!(message.contains(named), "{specimen}: {message}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let refusal = |text: &str| Scene::parse("test", text).unwrap_err().to_string();
        assert!(refusal("material = 'srtio3'\n[specimen]\ncolour = 1").contains("colour"));
        assert!(refusal("material = 'srtio3'\n[microscope]\npixel_size_pm = 0").contains("pixel_size_pm"));
        assert!(refusal("material = 'unobtainium'").contains("unobtainium"));
        assert!(refusal("material = 'srtio3'\n[server]\nframes = 'here'").contains("server.frames"));
    }
}
