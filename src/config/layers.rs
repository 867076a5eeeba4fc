//! The layers of a config, each over the one before.

use super::{Config, ConfigError};
use std::path::Path;

/// Environment variables that override settings begin with this; `__` separates the levels.
const ENVIRONMENT_PREFIX: &str = "FERROSTEM__";

/// What a config file says.
pub(super) fn of_file(path: &Path) -> Result<toml::Table, ConfigError> {
    let syntax = |source| ConfigError::Syntax { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let table = text.parse::<toml::Table>().map_err(syntax)?;
    // Checked on its own first: an error then points at the line.
    toml::from_str::<Config>(&text).map_err(syntax)?;
    Ok(table)
}

/// Sets what the environment says, key by key in their order.
pub(super) fn environment(
    table: &mut toml::Table,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<(), ConfigError> {
    let mut variables: Vec<(String, String)> = variables
        .filter_map(|(name, value)| {
            let key = name.strip_prefix(ENVIRONMENT_PREFIX)?.to_lowercase().replace("__", ".");
            Some((key, value))
        })
        .collect();
    variables.sort();
    variables.into_iter().try_for_each(|(key, value)| set(table, &key, &value))
}

/// Sets what `KEY=VALUE` of `--set` says.
pub(super) fn argument(table: &mut toml::Table, argument: &str) -> Result<(), ConfigError> {
    let (key, value) =
        argument.split_once('=').ok_or_else(|| ConfigError::Argument { argument: argument.to_owned() })?;
    set(table, key.trim(), value.trim())
}

/// Sets a dotted key to what `text` says in TOML; text that is no TOML value is taken as a string.
fn set(table: &mut toml::Table, key: &str, text: &str) -> Result<(), ConfigError> {
    let parsed =
        format!("value = {text}").parse::<toml::Table>().ok().and_then(|mut table| table.remove("value"));
    place(table, key, parsed.unwrap_or_else(|| toml::Value::String(text.to_owned())))
}

/// Puts `value` at a dotted key; sections that are missing are made.
pub(super) fn place(table: &mut toml::Table, key: &str, value: toml::Value) -> Result<(), ConfigError> {
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
