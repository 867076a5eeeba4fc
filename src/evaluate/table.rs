//! One table, written the same way as CSV, JSON and Markdown.

use super::EvaluateError;
use serde_json::{Map, Value};
use std::fmt::Write as _;
use std::path::Path;

/// A cell of a table.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    Text(String),
    Count(u64),
    /// Rounded to the column's decimals in Markdown alone; NaN is "not measured".
    Number(f64),
}

impl From<&str> for Entry {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Entry {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<f64> for Entry {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<usize> for Entry {
    fn from(count: usize) -> Self {
        Self::Count(count as u64)
    }
}

/// A column: its name, with the unit, and how many decimals Markdown shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Heading {
    pub name: String,
    pub decimals: usize,
}

/// Rows under named columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// What the rows are, one sentence; the first line of the Markdown.
    pub title: String,
    headings: Vec<Heading>,
    rows: Vec<Vec<Entry>>,
}

impl Table {
    /// `headings`: name with unit, and decimals.
    pub fn new(title: impl Into<String>, headings: &[(&str, usize)]) -> Self {
        let headings =
            headings.iter().map(|&(name, decimals)| Heading { name: name.to_owned(), decimals }).collect();
        Self { title: title.into(), headings, rows: Vec::new() }
    }

    /// Adds a row; what is missing at its end stays empty, and what is too much is left out.
    pub fn push(&mut self, row: Vec<Entry>) {
        let mut row = row;
        row.resize(self.headings.len(), Entry::Text(String::new()));
        self.rows.push(row);
    }

    pub fn rows(&self) -> &[Vec<Entry>] {
        &self.rows
    }

    /// The numbers of column `name`, NaN where it holds none; empty where there is no such column.
    pub fn numbers(&self, name: &str) -> Vec<f64> {
        let Some(column) = self.headings.iter().position(|heading| heading.name == name) else {
            return Vec::new();
        };
        let number = |row: &Vec<Entry>| match row.get(column) {
            Some(Entry::Number(number)) => *number,
            Some(Entry::Count(count)) => *count as f64,
            _ => f64::NAN,
        };
        self.rows.iter().map(number).collect()
    }

    /// As a Markdown table under its title.
    pub fn to_markdown(&self) -> String {
        let mut text = format!("{}\n\n|", self.title);
        for heading in &self.headings {
            let _ = write!(text, " {} |", heading.name);
        }
        text.push_str("\n|");
        text.push_str(&"---|".repeat(self.headings.len()));
        for row in &self.rows {
            text.push_str("\n|");
            for (entry, heading) in row.iter().zip(&self.headings) {
                let _ = write!(text, " {} |", shown(entry, heading.decimals));
            }
        }
        text.push('\n');
        text
    }

    /// An array of objects, one a row. NaN becomes `null`.
    pub fn to_json(&self) -> Value {
        let object = |row: &Vec<Entry>| {
            let pairs = row.iter().zip(&self.headings).map(|(entry, heading)| {
                let value = match entry {
                    Entry::Text(text) => Value::from(text.as_str()),
                    Entry::Count(count) => Value::from(*count),
                    Entry::Number(number) => Value::from(*number),
                };
                (heading.name.clone(), value)
            });
            Value::Object(pairs.collect::<Map<_, _>>())
        };
        Value::Array(self.rows.iter().map(object).collect())
    }

    /// Writes `<name>.csv` and `<name>.md` into `folder`, which exists.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path, name: &str) -> Result<(), EvaluateError> {
        let path = folder.join(format!("{name}.csv"));
        let failed =
            |error: csv::Error| EvaluateError::Write { path: path.clone(), reason: error.to_string() };
        let mut writer = csv::Writer::from_path(&path).map_err(failed)?;
        writer.write_record(self.headings.iter().map(|heading| heading.name.as_str())).map_err(failed)?;
        for row in &self.rows {
            writer.write_record(row.iter().map(exact)).map_err(failed)?;
        }
        writer.flush().map_err(|error| failed(error.into()))?;
        let path = folder.join(format!("{name}.md"));
        std::fs::write(&path, self.to_markdown())
            .map_err(|error| EvaluateError::Write { path, reason: error.to_string() })
    }
}

fn shown(entry: &Entry, decimals: usize) -> String {
    match entry {
        Entry::Number(number) if number.is_nan() => "–".to_owned(),
        Entry::Number(number) => format!("{number:.decimals$}"),
        _ => exact(entry),
    }
}

fn exact(entry: &Entry) -> String {
    match entry {
        Entry::Text(text) => text.clone(),
        Entry::Count(count) => count.to_string(),
        Entry::Number(number) if number.is_nan() => String::new(),
        Entry::Number(number) => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new("Errors by dose.", &[("counts", 0), ("RMS (pm)", 2)]);
        table.push(vec![30.0.into(), 4.256.into()]);
        table.push(vec!["all".into(), f64::NAN.into()]);
        table
    }

    #[test]
    fn markdown_rounds_and_shows_what_was_not_measured() {
        let expected = "Errors by dose.\n\n| counts | RMS (pm) |\n|---|---|\n| 30 | 4.26 |\n| all | – |\n";
        assert_eq!(table().to_markdown(), expected);
    }

    #[test]
    fn csv_and_json_keep_every_digit() {
        let folder = tempfile::tempdir().unwrap();
        table().write(folder.path(), "errors").unwrap();
        let csv = std::fs::read_to_string(folder.path().join("errors.csv")).unwrap();
        assert_eq!(csv, "counts,RMS (pm)\n30,4.256\nall,\n");
        assert_eq!(table().to_json()[0]["RMS (pm)"], 4.256);
        assert_eq!(table().to_json()[1]["RMS (pm)"], Value::Null);
        let numbers = table().numbers("RMS (pm)");
        assert!(numbers[0] == 4.256 && numbers[1].is_nan() && table().numbers("no such").is_empty());
    }

    #[test]
    fn a_folder_that_is_missing_is_named() {
        let error = table().write(Path::new("/nowhere/at/all"), "errors").unwrap_err().to_string();
        assert!(error.contains("/nowhere/at/all/errors.csv"), "{error}");
    }
}
