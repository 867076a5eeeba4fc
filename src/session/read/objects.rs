//! Looking around in an HDF5 file that may hold anything.

use super::super::error::{At, SessionError};
use super::super::h5::{place, read_text};
use super::facts::Axis;
use hdf5::types::{FixedAscii, FixedUnicode, TypeDescriptor, VarLenAscii, VarLenUnicode};
use hdf5::{Attribute, Dataset, Group, Location, LocationType};
use serde_json::Value;

/// Objects looked at before a file counts as not searchable.
pub(in crate::session) const MAX_OBJECTS: usize = 20_000;
/// Groups inside groups that are looked into.
const MAX_DEPTH: usize = 8;
/// Positions along an axis that are read.
const MAX_POSITIONS: usize = 1 << 24;
/// Texts in one attribute.
const MAX_TEXTS: usize = 64;
/// Bytes of JSON that are parsed.
pub(in crate::session) const MAX_JSON: usize = 1 << 24;

/// What a name in a group stands for.
pub(in crate::session) enum Object {
    Group(Group),
    Dataset(Dataset),
    /// A link to nothing, or what cannot be opened, by its path.
    Broken(String),
}

/// Shows `visit` everything below `group`, in the order of the names, each group before what is in it. False when
/// there is more than anybody wants to look through.
pub(in crate::session) fn walk(group: &Group, visit: &mut dyn FnMut(Object)) -> Result<bool, SessionError> {
    let mut budget = MAX_OBJECTS;
    walk_within(group, MAX_DEPTH, &mut budget, visit)
}

fn walk_within(
    group: &Group,
    depth: usize,
    budget: &mut usize,
    visit: &mut dyn FnMut(Object),
) -> Result<bool, SessionError> {
    for name in group.member_names().at(|| place(group))? {
        let Some(left) = budget.checked_sub(1) else { return Ok(false) };
        *budget = left;
        let broken = || Object::Broken(format!("{}/{name}", group.name().trim_end_matches('/')));
        // What cannot be opened is no reason to give up the rest.
        match group.loc_type_by_name(&name) {
            Ok(LocationType::Dataset) => {
                visit(group.dataset(&name).map_or_else(|_| broken(), Object::Dataset))
            }
            Ok(LocationType::Group) => match group.group(&name) {
                Ok(inner) => {
                    visit(Object::Group(inner.clone()));
                    if depth > 0 && !walk_within(&inner, depth - 1, budget, visit).unwrap_or(true) {
                        return Ok(false);
                    }
                }
                Err(_) => visit(broken()),
            },
            Ok(_) => {}
            Err(_) => visit(broken()),
        }
    }
    Ok(true)
}

/// Every dataset below `group`.
///
/// # Errors
/// When there are too many objects to look through.
pub(in crate::session) fn datasets(group: &Group) -> Result<Vec<Dataset>, SessionError> {
    let mut found = Vec::new();
    let complete = walk(group, &mut |object| {
        if let Object::Dataset(dataset) = object {
            found.push(dataset);
        }
    })?;
    if complete {
        return Ok(found);
    }
    Err(SessionError::unexpected(
        group.filename(),
        format!("at most {MAX_OBJECTS} objects to search (or name a dataset with --dataset)"),
        "more",
    ))
}

/// Shape, type and path, for messages.
pub(in crate::session) fn describe(dataset: &Dataset) -> String {
    let data_type = read_text(dataset, "data_type").map_or(String::new(), |t| format!(", {t}"));
    format!("{} ({:?} {}{data_type})", dataset.name(), dataset.shape(), type_name(dataset))
}

/// The type of the elements, for messages.
pub(in crate::session) fn type_name(dataset: &Dataset) -> String {
    let descriptor = dataset.dtype().and_then(|dtype| dtype.to_descriptor());
    descriptor.map_or_else(|_| "?".to_owned(), |descriptor| descriptor.to_string())
}

/// What there is, for messages: the first few of `datasets`.
pub(in crate::session) fn describe_all(datasets: &[Dataset]) -> String {
    if datasets.is_empty() {
        return "no datasets".to_owned();
    }
    let list: Vec<String> = datasets.iter().take(8).map(describe).collect();
    let more = if datasets.len() > list.len() { ", …" } else { "" };
    format!("{}{more}", list.join(", "))
}

/// A single number in an attribute, of whatever type; numbers written as text count.
pub(in crate::session) fn number(object: &Location, name: &str) -> Option<f64> {
    if let Some(text) = read_text(object, name) {
        return text.trim().parse().ok();
    }
    let attribute = object.attr(name).ok()?;
    let numeric = matches!(
        attribute.dtype().ok()?.to_descriptor().ok()?,
        TypeDescriptor::Integer(_)
            | TypeDescriptor::Unsigned(_)
            | TypeDescriptor::Float(_)
            | TypeDescriptor::Boolean
            | TypeDescriptor::Enum(_)
    );
    (numeric && attribute.size() == 1).then(|| attribute.read_raw::<f64>().ok()?.first().copied())?
}

/// A list of texts in an attribute, or one; empty when it is missing or something else.
pub(in crate::session) fn texts(object: &Location, name: &str) -> Vec<String> {
    let Ok(attribute) = object.attr(name) else { return Vec::new() };
    if !(1..=MAX_TEXTS).contains(&attribute.size()) {
        return Vec::new();
    }
    read_texts(&attribute).unwrap_or_default()
}

fn read_texts(attribute: &Attribute) -> Option<Vec<String>> {
    const LONGEST: usize = 256;
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(match attribute.dtype().ok()?.to_descriptor().ok()? {
        TypeDescriptor::VarLenUnicode => {
            attribute.read_raw::<VarLenUnicode>().ok()?.iter().map(super::super::h5::string).collect()
        }
        TypeDescriptor::VarLenAscii => {
            let texts = attribute.read_raw::<VarLenAscii>().ok()?;
            texts
                .iter()
                .map(|text| if text.as_ptr().is_null() { String::new() } else { lossy(text.as_bytes()) })
                .collect()
        }
        TypeDescriptor::FixedAscii(_) => attribute
            .read_raw::<FixedAscii<LONGEST>>()
            .ok()?
            .iter()
            .map(|text| lossy(text.as_bytes()))
            .collect(),
        TypeDescriptor::FixedUnicode(_) => attribute
            .read_raw::<FixedUnicode<LONGEST>>()
            .ok()?
            .iter()
            .map(|text| lossy(text.as_bytes()))
            .collect(),
        _ => return None,
    })
}

/// The numbers of a one-dimensional dataset that is not too long.
pub(in crate::session) fn positions(dataset: &Dataset) -> Option<Vec<f64>> {
    let sensible = dataset.ndim() == 1 && (1..=MAX_POSITIONS).contains(&dataset.size());
    sensible.then(|| dataset.read_raw::<f64>().ok())?
}

/// An axis whose positions are a dataset, with its units beside them.
pub(in crate::session) fn axis_of(dataset: &Dataset, name: String) -> Axis {
    Axis {
        name,
        units: read_text(dataset, "units").unwrap_or_default(),
        step: positions(dataset).and_then(|positions| Axis::uniform_step(&positions)),
    }
}

/// A JSON object in `text`.
pub(in crate::session) fn json_object(text: &str, place: impl Fn() -> String) -> Result<Value, SessionError> {
    if text.len() > MAX_JSON {
        let needed = text.len() as u128;
        return Err(SessionError::TooLarge { place: place(), needed, limit: MAX_JSON as u64 });
    }
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(SessionError::unexpected(place(), "a JSON object", "another JSON value")),
        Err(error) => Err(SessionError::unexpected(place(), "a JSON object", error)),
    }
}

/// A number in JSON, as such or as text.
pub(in crate::session) fn json_number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// The path without its last name.
pub(in crate::session) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// The last name of a path.
pub(in crate::session) fn last_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
