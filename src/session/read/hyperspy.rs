//! HyperSpy's `.hspy`: `Experiments/<title>/data` with a group `axis-N` for each axis, as RosettaSciIO writes it.
//!
//! Signal axes are what one measurement gives, navigation axes where or when it was made: an image has two signal axes,
//! a stack one navigation axis before them. Two navigation axes alone are an image too: one number at each position.

use super::super::error::{At, SessionError};
use super::super::h5::{place, read_text};
use super::dataset::{Stack, image_axes};
use super::facts::{Axis, Calibration, Facts, Timing};
use super::hdf5::Found;
use super::objects::{axis_of, last_name, number};
use hdf5::{File, Group};

struct SignalAxis {
    axis: Axis,
    navigate: bool,
}

pub(in crate::session) fn find(file: &File) -> Result<Option<Vec<Found>>, SessionError> {
    if !read_text(file, "file_format").is_some_and(|said| said.eq_ignore_ascii_case("hyperspy")) {
        return Ok(None);
    }
    let experiments = file.group("Experiments").at(|| format!("{}:Experiments", file.filename()))?;
    let names = experiments.member_names().at(|| place(&experiments))?;
    let found = |name: &String| {
        let group = experiments.group(name).ok()?;
        Some(Found { dataset: group.dataset("data").ok()?, group })
    };
    Ok(Some(names.iter().filter_map(found).collect()))
}

pub(in crate::session) fn stack(found: Found) -> Result<Stack, SessionError> {
    let Found { dataset, group } = found;
    let axes: Vec<SignalAxis> =
        (0..dataset.ndim()).map(|index| signal_axis(&group, index)).collect::<Result<_, _>>()?;
    let pick = |navigate: bool| -> Vec<usize> {
        (0..axes.len()).filter(|&index| axes[index].navigate == navigate).collect()
    };
    let image = match (&pick(false)[..], &pick(true)[..]) {
        (&[row, col], _) | (&[], &[row, col]) => [row, col],
        _ => {
            let kind = |axis: &SignalAxis| if axis.navigate { "navigation" } else { "signal" };
            let kinds: Vec<String> =
                axes.iter().map(|it| format!("{} ({})", it.axis.name, kind(it))).collect();
            return Err(SessionError::unexpected(
                place(&dataset),
                "two signal axes and at most one navigation axis",
                format!("axes {}", kinds.join(", ")),
            ));
        }
    };
    let [row, col] = image;
    let image = image_axes(&dataset, image)?;
    let source = format!("axis-{row} and axis-{col} of {}", group.name());
    let calibration = Calibration::of_axes(&axes[row].axis, &axes[col].axis, &source);
    let timing = image.frame.map_or_else(Timing::default, |frame| axes[frame].axis.timing());
    let channel = channel(&group);
    Ok(Stack { dataset, axes: image, facts: Facts { channel, timing, ..Facts::new(calibration) } })
}

fn signal_axis(experiment: &Group, index: usize) -> Result<SignalAxis, SessionError> {
    let name = format!("axis-{index}");
    let group = experiment.group(&name).at(|| format!("{}/{name}", place(experiment)))?;
    let text = |name: &str| read_text(&group, name).filter(|text| text != "_None_").unwrap_or_default();
    // An axis that is not uniform lists its positions.
    let axis = match group.dataset("axis") {
        Ok(positions) => Axis { units: text("units"), ..axis_of(&positions, text("name")) },
        Err(_) => Axis { name: text("name"), units: text("units"), step: number(&group, "scale") },
    };
    Ok(SignalAxis { axis, navigate: number(&group, "navigate").is_some_and(|navigate| navigate != 0.0) })
}

/// The signal's title.
fn channel(experiment: &Group) -> Option<String> {
    let title = experiment.group("metadata/General").ok().and_then(|general| read_text(&general, "title"));
    let path = experiment.name();
    title
        .filter(|title| !title.is_empty())
        .or_else(|| Some(last_name(&path).to_owned()).filter(|name| !name.starts_with("__")))
}
