//! Where two sessions differ: the same frames, and what was found on them then and now.
//!
//! Frames are matched by acquisition, channel and sequence number (a number that comes again, by how often). Times, timings and
//! counters are no results and are left out, and so are `valid_until_ns` of a candidate and all times of a frame.

mod sites;
mod values;

pub use sites::{CandidateDifference, ColumnDifference};
pub use values::{QuantityDifference, Worst};

use super::error::SessionError;
use super::layout::{CANDIDATES, COLUMNS};
use super::maps::{tile_maps, window_maps};
use super::results::ResultReader;
use ferrostem_proto::{ModelId, ModelIds, ResultMessage};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// How much values may differ, in their own units.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tolerances {
    /// For every quantity that is not named.
    pub every: f64,
    /// By the quantity's name: `p_x`, …, `columns` (px), `candidates` (px).
    pub named: BTreeMap<String, f64>,
}

impl Tolerances {
    /// The names that [`Self::named`] may have.
    pub fn names() -> Vec<&'static str> {
        let nothing = ResultMessage::default();
        let maps = window_maps(&nothing).into_iter().chain(tile_maps(&nothing)).map(|map| map.name);
        maps.chain([COLUMNS, CANDIDATES]).collect()
    }

    pub(super) fn of(&self, name: &str) -> f64 {
        self.named.get(name).copied().unwrap_or(self.every)
    }
}

/// A frame by what it is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct FrameName {
    pub acquisition: String,
    pub channel: String,
    pub seq: u64,
    /// Which of the frames with the same name, from 0.
    pub nth: u64,
}

impl std::fmt::Display for FrameName {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} {} frame {}", self.acquisition, self.channel, self.seq)?;
        if self.nth > 0 { write!(f, " ({})", self.nth + 1) } else { Ok(()) }
    }
}

/// Something that is in both, or in one.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Presence {
    pub both: usize,
    pub only_a: Vec<FrameName>,
    pub only_b: Vec<FrameName>,
}

/// A setting or a model that differs. It makes no result different by itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Changed {
    pub key: String,
    /// `None`: not there.
    pub a: Option<String>,
    pub b: Option<String>,
}

/// What two sessions have in common and what not.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// All frames and results are in both, and nothing differs by more than its tolerance.
    pub same: bool,
    pub frames: Presence,
    /// Frames in both whose pixels, pixel type or shape differ.
    pub pixels_differ: Vec<FrameName>,
    pub results: Presence,
    /// Results whose windows or tiles sit elsewhere; their maps are not compared.
    pub grids_differ: Vec<FrameName>,
    /// Results with another calibration.
    pub calibrations_differ: Vec<FrameName>,
    pub quantities: Vec<QuantityDifference>,
    pub columns: ColumnDifference,
    pub candidates: CandidateDifference,
    pub models: Vec<Changed>,
    pub config: Vec<Changed>,
}

/// A session, with its frames by name.
struct Side {
    reader: ResultReader,
    /// Measurement and frame.
    frames: BTreeMap<FrameName, (usize, usize)>,
    /// The result of each measurement and frame.
    results: HashMap<(usize, usize), usize>,
}

impl Side {
    fn open(path: &Path) -> Result<Self, SessionError> {
        let reader = ResultReader::open(path)?;
        let mut results = HashMap::new();
        let mut listed = Vec::new();
        let mut index = 0;
        for (measurement, labels) in reader.measurements().into_iter().enumerate() {
            for frame in reader.result_frames(measurement)? {
                results.insert((measurement, frame), index);
                index += 1;
            }
            for (frame, row) in reader.frame_rows(measurement)?.iter().enumerate() {
                let (acquisition, channel) = (labels.acquisition.clone(), labels.channel.clone());
                let name = FrameName { acquisition, channel, seq: row.seq, nth: 0 };
                listed.push((row.order, name, (measurement, frame)));
            }
        }
        listed.sort_by_key(|(order, ..)| *order);
        let mut seen: HashMap<FrameName, u64> = HashMap::new();
        let mut frames = BTreeMap::new();
        for (_, name, place) in listed {
            let nth = seen.entry(name.clone()).or_default();
            frames.insert(FrameName { nth: *nth, ..name }, place);
            *nth += 1;
        }
        Ok(Self { reader, frames, results })
    }

    fn result(&self, place: (usize, usize)) -> Result<Option<ResultMessage>, SessionError> {
        let index = self.results.get(&place);
        index.map(|&index| Ok(self.reader.result(index)?.message)).transpose()
    }
}

/// Compares the sessions at `a` and `b`; `progress` is told how many frames of how many are done.
///
/// # Errors
/// When one of the two is no session of this project, or cannot be read.
pub fn compare(
    a: &Path,
    b: &Path,
    tolerances: &Tolerances,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Comparison, SessionError> {
    let (a, b) = (Side::open(a)?, Side::open(b)?);
    let mut found = Comparison {
        config: config_changes(&a.reader.config_toml()?, &b.reader.config_toml()?),
        ..Comparison::default()
    };
    let mut values = values::Quantities::new(tolerances);
    let mut models: BTreeMap<String, Changed> = BTreeMap::new();
    for (done, (name, &place_a)) in a.frames.iter().enumerate() {
        progress(done, a.frames.len());
        let Some(&place_b) = b.frames.get(name) else {
            found.frames.only_a.push(name.clone());
            continue;
        };
        found.frames.both += 1;
        if a.reader.pixels(place_a.0, place_a.1)? != b.reader.pixels(place_b.0, place_b.1)? {
            found.pixels_differ.push(name.clone());
        }
        match (a.result(place_a)?, b.result(place_b)?) {
            (Some(a), Some(b)) => {
                found.results.both += 1;
                found.result(name, (&a, &b), &mut values, tolerances);
                model_changes(&a.model, &b.model, &mut models);
            }
            (Some(_), None) => found.results.only_a.push(name.clone()),
            (None, Some(_)) => found.results.only_b.push(name.clone()),
            (None, None) => {}
        }
    }
    found.frames.only_b = b.frames.keys().filter(|name| !a.frames.contains_key(name)).cloned().collect();
    found.quantities = values.into_differences();
    found.models = models.into_values().collect();
    let is_in_both = |presence: &Presence| presence.only_a.is_empty() && presence.only_b.is_empty();
    found.same = is_in_both(&found.frames)
        && is_in_both(&found.results)
        && found.pixels_differ.is_empty()
        && found.grids_differ.is_empty()
        && found.calibrations_differ.is_empty()
        && found.quantities.iter().all(QuantityDifference::is_none)
        && found.columns.is_none()
        && found.candidates.is_none();
    Ok(found)
}

impl Comparison {
    fn result(
        &mut self,
        name: &FrameName,
        (a, b): (&ResultMessage, &ResultMessage),
        values: &mut values::Quantities,
        tolerances: &Tolerances,
    ) {
        if a.grid != b.grid || a.mistilt.tiles != b.mistilt.tiles {
            self.grids_differ.push(name.clone());
        } else {
            values.add(name, a, b);
        }
        if a.calibration != b.calibration {
            self.calibrations_differ.push(name.clone());
        }
        self.columns.add(name, &a.columns, &b.columns, tolerances.of(COLUMNS));
        self.candidates.add(name, &a.candidates, &b.candidates, tolerances.of(CANDIDATES));
    }
}

fn model_changes(a: &ModelIds, b: &ModelIds, changes: &mut BTreeMap<String, Changed>) {
    let text = |model: &Option<ModelId>| model.as_ref().map(|id| format!("{} {}", id.name, id.sha256));
    for (network, a, b) in [("dcnn", &a.dcnn, &b.dcnn), ("fcnn", &a.fcnn, &b.fcnn)] {
        if a != b {
            let changed = Changed { key: network.to_owned(), a: text(a), b: text(b) };
            changes.insert(format!("{changed:?}"), changed);
        }
    }
}

/// Settings that differ, by their dotted keys; a configuration that is no TOML is compared as one text.
fn config_changes(a: &str, b: &str) -> Vec<Changed> {
    let settings = |text: &str| {
        let mut settings = BTreeMap::new();
        match text.parse::<toml::Table>() {
            Ok(table) => flatten("", &toml::Value::Table(table), &mut settings),
            Err(_) => {
                settings.insert("config".to_owned(), text.to_owned());
            }
        }
        settings
    };
    let (a, b) = (settings(a), settings(b));
    let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter()
        .filter(|key| a.get(*key) != b.get(*key))
        .map(|key| Changed { key: key.clone(), a: a.get(key).cloned(), b: b.get(key).cloned() })
        .collect()
}

fn flatten(key: &str, value: &toml::Value, settings: &mut BTreeMap<String, String>) {
    let toml::Value::Table(table) = value else {
        settings.insert(key.to_owned(), value.to_string());
        return;
    };
    for (name, value) in table {
        let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
        flatten(&key, value, settings);
    }
}
