//! NeXus: an `NXdata` group whose `@signal` names the data and whose `@axes` name what lies along its dimensions.
//!
//! The file's choice is the chain of `@default` from the root; where it does not end at an `NXdata`, every `NXdata` of
//! the file counts. Files from before 2014 mark the data with `signal = 1` and the axes with `axis = 1, 2, …`, or name
//! the axes in an attribute of the data, `y:x`.

use super::super::error::SessionError;
use super::super::h5::{place, read_text};
use super::dataset::{Stack, image_axes, leading_frame_axis};
use super::facts::{Axis, Calibration, Facts, Timing, named_rows_and_cols};
use super::hdf5::Found;
use super::objects::{Object, axis_of, last_name, number, texts, walk};
use hdf5::{Dataset, File, Group};

/// Groups that `@default` may lead through.
const MAX_CHAIN: usize = 8;

pub(in crate::session) fn find(file: &File) -> Result<Option<Vec<Found>>, SessionError> {
    let root_groups = file.groups().unwrap_or_default();
    let is_nexus = read_text(file, "NX_class").is_some()
        || read_text(file, "default").is_some()
        || root_groups.iter().any(|group| read_text(group, "NX_class").is_some());
    if !is_nexus {
        return Ok(None);
    }
    let mut found: Vec<Found> = default_data(file).and_then(signal).into_iter().collect();
    walk(file, &mut |object| {
        if let Object::Group(group) = object
            && is_data(&group)
            && let Some(other) = signal(group)
            && found.iter().all(|known| known.dataset.name() != other.dataset.name())
        {
            found.push(other);
        }
    })?;
    Ok(Some(found))
}

fn is_data(group: &Group) -> bool {
    read_text(group, "NX_class").is_some_and(|class| class == "NXdata")
}

/// The end of the chain of `@default`.
fn default_data(file: &File) -> Option<Group> {
    let mut group = file.group("/").ok()?;
    for _ in 0..MAX_CHAIN {
        if is_data(&group) {
            return Some(group);
        }
        group = group.group(&read_text(&group, "default")?).ok()?;
    }
    None
}

/// The data of an `NXdata` group.
fn signal(group: Group) -> Option<Found> {
    let marked = |dataset: &Dataset| number(dataset, "signal") == Some(1.0);
    let dataset = match read_text(&group, "signal") {
        Some(name) => group.dataset(&name).ok()?,
        None => group.datasets().ok()?.into_iter().find(marked)?,
    };
    Some(Found { dataset, group })
}

pub(in crate::session) fn stack(found: Found) -> Result<Stack, SessionError> {
    let Found { dataset, group } = found;
    if let Some(said) = read_text(&dataset, "interpretation")
        && said.ends_with("-image")
    {
        return Err(SessionError::unexpected(
            place(&dataset),
            "grey pixels",
            format!("interpretation {said}"),
        ));
    }
    let axes = axes(&dataset, &group);
    let image = match named_rows_and_cols(&axes) {
        Some(image) => image_axes(&dataset, image)?,
        None => leading_frame_axis(&dataset)?,
    };
    let (row, col) = (&axes[image.row], &axes[image.col]);
    let source = format!("axes {} and {} of {}", name_of(row), name_of(col), group.name());
    let calibration = Calibration::of_axes(row, col, &source);
    let timing = image.frame.map_or_else(Timing::default, |frame| axes[frame].timing());
    let channel = channel(&dataset, &group);
    Ok(Stack { dataset, axes: image, facts: Facts { channel, timing, ..Facts::new(calibration) } })
}

fn name_of(axis: &Axis) -> &str {
    if axis.name.is_empty() { "(none)" } else { &axis.name }
}

/// One a dimension of the data; nameless where nothing is said.
fn axes(dataset: &Dataset, group: &Group) -> Vec<Axis> {
    let mut names = texts(group, "axes");
    if names.is_empty() {
        names = texts(dataset, "axes");
    }
    if let [one] = &names[..] {
        names = one.trim_matches(['[', ']']).split([':', ',']).map(|name| name.trim().to_owned()).collect();
    }
    let marked: Vec<Dataset> =
        if names.is_empty() { group.datasets().unwrap_or_default() } else { Vec::new() };
    let axis = |dimension: usize| {
        let named = names.get(dimension).filter(|name| !name.is_empty() && *name != ".");
        let numbered =
            || marked.iter().find(|axis| number(axis, "axis") == Some((dimension + 1) as f64)).cloned();
        let positions = match named {
            Some(name) => group.dataset(name).ok(),
            None => numbered(),
        };
        let name =
            |positions: &Dataset| named.cloned().unwrap_or_else(|| last_name(&positions.name()).to_owned());
        match positions {
            Some(positions) => axis_of(&positions, name(&positions)),
            None => Axis { name: named.cloned().unwrap_or_default(), ..Axis::default() },
        }
    };
    (0..dataset.ndim()).map(axis).collect()
}

/// The first name that says more than that it is data.
fn channel(dataset: &Dataset, group: &Group) -> Option<String> {
    let says_nothing =
        |name: &str| matches!(name.to_ascii_lowercase().as_str(), "" | "data" | "signal" | "counts");
    let long_name = read_text(dataset, "long_name").unwrap_or_default();
    let (path, within) = (dataset.name(), group.name());
    [long_name.as_str(), last_name(&path), last_name(&within)]
        .into_iter()
        .find(|name| !says_nothing(name))
        .map(str::to_owned)
}
