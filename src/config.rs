//! Settings: what a config file may say, checked before anything is bound or loaded.
//!
//! A config is made of layers: the built-in defaults, the file, the environment (`FERROSTEM__LANES__RESULTS=…`), and
//! `--set key=value`; each overrides the one before. Unknown keys are refused.

use crate::columns::ColumnSettings;
use crate::flags::FlagSettings;
use crate::ingest::SourceSettings;
use crate::material::Material;
use crate::networks::{DeviceChoice, EngineSettings};
use crate::polarization::ClassicalSettings;
use crate::preprocess::PreprocessSettings;
use crate::publish::LaneSettings;
use crate::session::RecordSettings;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Environment variables that override settings begin with this; `__` separates the levels.
const ENVIRONMENT_PREFIX: &str = "FERROSTEM__";

/// A setting that cannot be used, named so that its owner can mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {value}: expected {expected}")]
pub struct InvalidSetting {
    /// Dotted key, as in the file and in `--set`.
    pub key: String,
    pub value: String,
    pub expected: String,
}

impl InvalidSetting {
    /// Names `key`, shows its `value`, and says what was `expected`.
    pub fn new(key: impl Into<String>, value: impl std::fmt::Display, expected: impl Into<String>) -> Self {
        Self { key: key.into(), value: value.to_string(), expected: expected.into() }
    }

    /// Goes through `(key, value, range, what is expected)`; `prefix` stands before the keys.
    ///
    /// # Errors
    /// For the first value that is not in its range.
    pub(crate) fn check_ranges<'a>(
        prefix: &str,
        checks: impl IntoIterator<Item = (&'a str, f64, RangeInclusive<f64>, &'a str)>,
    ) -> Result<(), Self> {
        for (key, value, range, expected) in checks {
            if !range.contains(&value) {
                return Err(Self::new(format!("{prefix}.{key}"), value, expected));
            }
        }
        Ok(())
    }
}

/// A config that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {source}")]
    Syntax { path: PathBuf, source: toml::de::Error },
    #[error("--set {argument}: expected KEY=VALUE, the key as in the config file with dots between levels")]
    Argument { argument: String },
    #[error("{key}: {message}")]
    Value { key: String, message: String },
    #[error(transparent)]
    Invalid(#[from] InvalidSetting),
}

/// Whether the newest frame wins or every frame counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A frame that arrives while one is processed replaces the one that waits; the rest are counted.
    #[default]
    Live,
    /// Bounded queues that block: nothing is left out.
    Lossless,
}

impl Mode {
    /// As in the config.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Lossless => "lossless",
        }
    }
}

/// Which networks to load: a folder with `model.toml`, the name of a shipped model, or `none`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSettings {
    pub dcnn: String,
    pub fcnn: String,
    /// Run the DCNN window by window even where a shared trunk gives the same.
    pub exact_windows: bool,
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self {
            dcnn: "dcnn-perovskite-100".to_owned(),
            fcnn: "fcnn-perovskite-100".to_owned(),
            exact_windows: false,
        }
    }
}

/// Recording of live sessions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecordSection {
    /// Session file to write from the start; `{n}` in it takes the first free number. Empty: only when asked for.
    pub path: String,
    /// Go on with the file at `path` if there is one, as a new segment, instead of refusing to touch it.
    pub append: bool,
    /// How sessions are written.
    pub settings: RecordSettings,
}

/// Queues, warm-up and shutdown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuntimeSettings {
    /// Frames that may wait in lossless mode.
    pub queue_frames: usize,
    /// Shape `[rows, cols]`, model pixels, on which kernels are compiled and tuned before `/readyz` says ready.
    pub warm_up_shape: [usize; 2],
    /// How long a shutdown may take to finish what was begun, ms.
    pub drain_ms: u64,
    /// Time between heartbeats, ms.
    pub status_interval_ms: u64,
}

impl Default for RuntimeSettings {
    fn default() -> Self {
        Self { queue_frames: 4, warm_up_shape: [512, 512], drain_ms: 5000, status_interval_ms: 1000 }
    }
}

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
        let mut table = match path {
            None => toml::Table::new(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
                let table = text
                    .parse::<toml::Table>()
                    .map_err(|source| ConfigError::Syntax { path: path.to_owned(), source })?;
                // Checked on its own first: an error then points at the line.
                toml::from_str::<Self>(&text)
                    .map_err(|source| ConfigError::Syntax { path: path.to_owned(), source })?;
                table
            }
        };
        let mut variables: Vec<(String, String)> = environment
            .filter_map(|(name, value)| {
                let key = name.strip_prefix(ENVIRONMENT_PREFIX)?.to_lowercase().replace("__", ".");
                Some((key, value))
            })
            .collect();
        variables.sort();
        for (key, value) in variables {
            set(&mut table, &key, &value)?;
        }
        for argument in sets {
            let (key, value) = argument
                .split_once('=')
                .ok_or_else(|| ConfigError::Argument { argument: argument.clone() })?;
            set(&mut table, key.trim(), value.trim())?;
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
            place(&mut table, &key, value)?;
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
        let runtime = &self.runtime;
        if !(1..=1024).contains(&runtime.queue_frames) {
            return Err(InvalidSetting::new("runtime.queue_frames", runtime.queue_frames, "1 to 1024"));
        }
        if runtime.warm_up_shape.iter().any(|side| !(80..=8192).contains(side)) {
            let value = format!("{:?}", runtime.warm_up_shape);
            return Err(InvalidSetting::new("runtime.warm_up_shape", value, "two sides of 80 to 8192 px"));
        }
        if !(50..=60_000).contains(&runtime.status_interval_ms) {
            let value = runtime.status_interval_ms;
            return Err(InvalidSetting::new("runtime.status_interval_ms", value, "50 to 60000 ms"));
        }
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

/// Sets a dotted key to what `text` says in TOML; text that is no TOML value is taken as a string.
fn set(table: &mut toml::Table, key: &str, text: &str) -> Result<(), ConfigError> {
    let parsed =
        format!("value = {text}").parse::<toml::Table>().ok().and_then(|mut table| table.remove("value"));
    place(table, key, parsed.unwrap_or_else(|| toml::Value::String(text.to_owned())))
}

fn place(table: &mut toml::Table, key: &str, value: toml::Value) -> Result<(), ConfigError> {
    let no_table = |at: &str| ConfigError::Value {
        key: key.to_owned(),
        message: format!("`{at}` is a value, not a section"),
    };
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
            Ok(())
        }
        Some((section, rest)) => {
            let entry = table.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            place(entry.as_table_mut().ok_or_else(|| no_table(section))?, rest, value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(sets: &[&str]) -> Result<Config, ConfigError> {
        let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
        Config::load(None, std::iter::empty(), &sets)
    }

    #[test]
    fn layers_override_each_other_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        std::fs::write(
            &path,
            "mode = \"lossless\"\n[lanes]\nresults = \"tcp://127.0.0.1:1\"\nlatest = \"tcp://127.0.0.1:2\"\n",
        )
        .unwrap();
        let environment = [
            ("FERROSTEM__LANES__RESULTS".to_owned(), "tcp://127.0.0.1:3".to_owned()),
            ("FERROSTEM__FLAGS__OOD__ALPHA".to_owned(), "0.02".to_owned()),
            ("HOME".to_owned(), "/nowhere".to_owned()),
        ];
        let sets = ["flags.ood.alpha=0.05".to_owned()];
        let config = Config::load(Some(&path), environment.into_iter(), &sets).unwrap();
        assert_eq!(config.mode, Mode::Lossless);
        assert_eq!(config.lanes.results, "tcp://127.0.0.1:3");
        assert_eq!(config.lanes.latest, "tcp://127.0.0.1:2");
        assert_eq!(config.flags.ood.alpha, 0.05);
    }

    #[test]
    fn errors_name_the_key_the_value_and_the_range() {
        let message = |sets: &[&str]| load(sets).unwrap_err().to_string();
        assert!(message(&["flags.ood.alpha=2"]).starts_with("flags.ood.alpha = 2: expected"));
        assert!(message(&["flags.ood.alpga=0.1"]).contains("alpga"));
        assert!(message(&["device=gpu"]).starts_with("device = gpu: expected auto"));
        assert!(message(&["mode=fast"]).contains("mode"));
        assert!(message(&["runtime.queue_frames=0"]).contains("1 to 1024"));
        assert!(message(&["nonsense"]).contains("KEY=VALUE"));
        assert!(message(&["material=unobtainium"]).starts_with("material = unobtainium"));
    }

    #[test]
    fn an_expression_that_is_none_refuses_to_start_and_says_where_it_is_wrong() {
        let with = |expression: &str| {
            load(&[&format!("flags.candidates.expressions=[{{name='a',expression='{expression}'}}]")])
        };
        let message = |expression: &str| with(expression).unwrap_err().to_string();
        let open = message("p > (40");
        assert!(open.contains("flags.candidates.expressions[0].expression"), "{open}");
        assert!(open.contains("\"p > (40\", character 8: expected \")\""), "{open}");
        let unknown = message("p > 40 && q_x < 1");
        assert!(unknown.contains("character 11: expected one of p_x, p_y, p,"), "{unknown}");
        let config = with("p > 40 && ood_p_value > 0.01").unwrap();
        let table = config.to_toml().unwrap().parse::<toml::Table>().unwrap();
        assert_eq!(Config::from_table(table).unwrap(), config);
    }

    #[test]
    fn a_resolved_config_reads_back_the_same() {
        let config =
            load(&["sources=[{name=\"a\",endpoint=\"tcp://127.0.0.1:9\",pattern=\"pull\"}]"]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolved.toml");
        std::fs::write(&path, config.to_toml().unwrap()).unwrap();
        assert_eq!(Config::load(Some(&path), std::iter::empty(), &[]).unwrap(), config);
    }

    #[test]
    fn shipped_configs_load() {
        for name in ["live", "replay", "demo"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("configs/{name}.toml"));
            Config::load(Some(&path), std::iter::empty(), &[]).unwrap();
        }
    }
}
