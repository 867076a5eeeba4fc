//! Settings: what a config file may say, checked before anything is bound or loaded.
//!
//! A config is made of layers: the built-in defaults, the file, the environment (`FERROSTEM__LANES__RESULTS=…`), and
//! `--set key=value`; each overrides the one before. Unknown keys are refused.

mod error;
mod layers;
mod sections;
#[cfg(test)]
mod tests;

pub use error::{ConfigError, InvalidSetting};
pub use sections::{Mode, ModelSettings, RecordSection, RuntimeSettings};

use crate::columns::ColumnSettings;
use crate::flags::FlagSettings;
use crate::ingest::SourceSettings;
use crate::material::Material;
use crate::networks::{DeviceChoice, EngineSettings};
use crate::polarization::ClassicalSettings;
use crate::preprocess::PreprocessSettings;
use crate::publish::LaneSettings;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Everything that the daemon can be told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub mode: Mode,
    /// `auto`, `cpu`, `vulkan[:index]` or `wgpu[:index]`.
    pub device: String,
    /// Name of a shipped material, or a path.
    pub material: String,
    pub models: ModelSettings,
    pub preprocess: PreprocessSettings,
    pub columns: ColumnSettings,
    pub polarization: ClassicalSettings,
    pub flags: FlagSettings,
    pub lanes: LaneSettings,
    pub record: RecordSection,
    pub runtime: RuntimeSettings,
    pub sources: Vec<SourceSettings>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            device: "auto".to_owned(),
            material: "bifeo3".to_owned(),
            models: ModelSettings::default(),
            preprocess: PreprocessSettings::default(),
            columns: ColumnSettings::default(),
            polarization: ClassicalSettings::default(),
            flags: FlagSettings::default(),
            lanes: LaneSettings::default(),
            record: RecordSection::default(),
            runtime: RuntimeSettings::default(),
            sources: vec![SourceSettings::default()],
        }
    }
}

impl Config {
    /// Reads `path` (the defaults alone without it), then the environment, then `sets` (`key=value`), and checks the
    /// whole.
    ///
    /// # Errors
    /// When the file cannot be read, a key is unknown, or a value is of the wrong type or out of range.
    pub fn load(
        path: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
        sets: &[String],
    ) -> Result<Self, ConfigError> {
        let mut table = path.map_or_else(|| Ok(toml::Table::new()), layers::of_file)?;
        layers::environment(&mut table, environment)?;
        for argument in sets {
            layers::argument(&mut table, argument)?;
        }
        Self::from_table(table)
    }

    /// The same config with single settings changed.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn with(&self, changes: impl Iterator<Item = (String, toml::Value)>) -> Result<Self, ConfigError> {
        let mut table = toml::Table::try_from(self)
            .map_err(|error| ConfigError::Value { key: "config".to_owned(), message: error.to_string() })?;
        for (key, value) in changes {
            layers::place(&mut table, &key, value)?;
        }
        Self::from_table(table)
    }

    fn from_table(table: toml::Table) -> Result<Self, ConfigError> {
        let config: Self = serde_path_to_error::deserialize(table).map_err(|error| ConfigError::Value {
            key: error.path().to_string(),
            message: error.inner().message().to_owned(),
        })?;
        config.validate()?;
        Ok(config)
    }

    /// The config as TOML, for the log and for session files.
    ///
    /// # Errors
    /// When a value has no TOML form, which a validated config does not have.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string_pretty(self)
            .map_err(|error| ConfigError::Value { key: "config".to_owned(), message: error.to_string() })
    }

    /// Checks every value without binding or loading anything but the material.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        self.device_choice()?;
        self.material()?;
        self.preprocess.validate("preprocess")?;
        self.columns.validate("columns")?;
        self.polarization.validate("polarization")?;
        self.flags.validate("flags")?;
        self.lanes.validate("lanes")?;
        self.record.settings.validate("record.settings")?;
        self.runtime.validate("runtime")?;
        let mut names = HashSet::new();
        for (index, source) in self.sources.iter().enumerate() {
            source.validate(&format!("sources[{index}]"))?;
            if !names.insert(&source.name) {
                return Err(InvalidSetting::new(
                    format!("sources[{index}].name"),
                    &source.name,
                    "a name of its own",
                ));
            }
        }
        Ok(())
    }

    /// The device that `device` names.
    ///
    /// # Errors
    /// When it names none.
    pub fn device_choice(&self) -> Result<DeviceChoice, InvalidSetting> {
        self.device.parse().map_err(|_| {
            InvalidSetting::new("device", &self.device, "auto, cpu, vulkan[:INDEX] or wgpu[:INDEX]")
        })
    }

    /// The material that `material` names.
    ///
    /// # Errors
    /// When there is no such material, or its file cannot be used.
    pub fn material(&self) -> Result<Material, InvalidSetting> {
        Material::resolve(&self.material)
            .map_err(|error| InvalidSetting::new("material", &self.material, error.to_string()))
    }

    /// What the engine is to load.
    ///
    /// # Errors
    /// When a model cannot be found.
    pub fn engine(&self) -> Result<EngineSettings, InvalidSetting> {
        Ok(EngineSettings {
            device: self.device_choice()?,
            dcnn: find_model("models.dcnn", &self.models.dcnn)?,
            fcnn: find_model("models.fcnn", &self.models.fcnn)?,
            exact_windows: self.models.exact_windows,
            burn_layers: false,
        })
    }
}

/// The folder that `name` stands for: itself when it is one, else `configs/models/<name>` in the working directory, or
/// in a directory above the program. `None` for `none`.
///
/// # Errors
/// When there is no such folder; the error names it after `key`.
pub fn find_model(key: &str, name: &str) -> Result<Option<PathBuf>, InvalidSetting> {
    if name == "none" {
        return Ok(None);
    }
    let shipped = Path::new("configs/models").join(name);
    let program = std::env::current_exe().ok();
    let above = program.iter().flat_map(|program| program.ancestors().map(|folder| folder.join(&shipped)));
    let places: Vec<PathBuf> = [PathBuf::from(name), shipped.clone()].into_iter().chain(above).collect();
    let found = places.into_iter().find(|folder| folder.join("model.toml").is_file());
    let expected = "a folder with model.toml, the name of a model in configs/models, or none";
    found.map(Some).ok_or_else(|| InvalidSetting::new(key, name, expected))
}
