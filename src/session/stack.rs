//! One NSID main dataset that grows by a frame at a time, with its dimension scales.

use super::error::{At, SessionError};
use super::h5::{place, text, write_attribute, write_text};
use hdf5::types::{FixedAscii, OwnedDynValue, TypeDescriptor, VarLenArray, VarLenUnicode};
use hdf5::{Dataset, Datatype, Extent, File, Group, H5Type, ObjectReference1};
use ndarray::ArrayView1;

/// The version of pyNSID whose reader the files are tested with.
const PYNSID_VERSION: &str = "0.0.7.2";
/// `CLASS` and `NAME` of a dimension scale hold 16 bytes of null-terminated ASCII ("DIMENSION_SCALE" and its NUL).
const SCALE_TEXT: usize = 16;
/// An HDF5 file with nothing in it but a scalar root attribute `dimension_scale_string` of that type, and room in its root group.
///
/// The HDF5 library takes only null-terminated text for the class of a dimension scale, and this binding makes only
/// null-padded text; reading the type from a file is the way to it without `unsafe`. Nor does it let the root group say how its links
/// are kept: here about 110 of them have room in the group's header, which lies in the first 4096 bytes of the file, so that another
/// one is a single write (see [`SessionFile::link`](super::file::SessionFile::link)). Made in C with libhdf5 1.10.8:
/// `H5Pset_link_phase_change(fcpl, 65535, 0); H5Pset_est_link_info(fcpl, 125, 15); H5Pset_obj_track_times(fcpl, 0);
/// H5Pset_libver_bounds(fapl, H5F_LIBVER_V110, H5F_LIBVER_V110); t = H5Tcopy(H5T_C_S1); H5Tset_size(t, 16);
/// H5Tset_strpad(t, H5T_STR_NULLTERM); H5Acreate2(f, "dimension_scale_string", t, H5Screate(H5S_SCALAR), …)`.
pub(super) const TEMPLATE: &[u8] = include_bytes!("template.h5");
const TEMPLATE_ATTRIBUTE: &str = "dimension_scale_string";

/// The dimensions of a stack.
const AXES: [&str; 3] = ["time", "y", "x"];

/// How datasets are written.
pub(super) struct Filing {
    compression_level: u8,
    shuffle: bool,
    scale_text: Datatype,
}

/// What a stack holds.
pub(super) struct StackSpec<'a> {
    pub(super) name: &'a str,
    pub(super) quantity: &'a str,
    pub(super) units: &'a str,
    /// What made it.
    pub(super) source: &'a str,
    pub(super) dtype: TypeDescriptor,
    /// What unwritten images are full of.
    pub(super) fill: Option<OwnedDynValue>,
    pub(super) y: SpatialAxis,
    pub(super) x: SpatialAxis,
}

/// Positions along an axis of an image.
pub(super) struct SpatialAxis {
    pub(super) values: Vec<f64>,
    /// `nm`, or `px` where the pixel size is not known.
    pub(super) units: &'static str,
}

/// The stack `[time, y, x]`.
pub(super) struct Stack {
    pub(super) data: Dataset,
    /// Seconds since the measurement's first frame.
    pub(super) time: Dataset,
    /// The group that both are in, from the measurement.
    path: String,
    name: String,
    len: usize,
    image: [usize; 2],
}

#[derive(H5Type, Clone, Copy)]
#[repr(C)]
struct ScaleUse {
    dataset: ObjectReference1,
    dimension: i32,
}

impl Filing {
    /// What `file`, which was just made from [`TEMPLATE`], lends; nothing of that stays in it.
    pub(super) fn new(file: &File, compression_level: u8, shuffle: bool) -> Result<Self, SessionError> {
        let scale_text = file
            .attr(TEMPLATE_ATTRIBUTE)
            .and_then(|attribute| attribute.dtype())
            .at(|| format!("{}@{TEMPLATE_ATTRIBUTE}", place(file)))?;
        file.delete_attr(TEMPLATE_ATTRIBUTE).at(|| place(file))?;
        Ok(Self { compression_level, shuffle, scale_text })
    }
}

impl SpatialAxis {
    /// `centres` in frame pixels, as nm where the pixel size is known.
    pub(super) fn new(centres: impl Iterator<Item = f64>, pixel_size_pm: Option<f64>) -> Self {
        match pixel_size_pm {
            Some(pm) => Self { values: centres.map(|centre| centre * pm / 1000.0).collect(), units: "nm" },
            None => Self { values: centres.collect(), units: "px" },
        }
    }
}

impl Stack {
    /// An empty stack at `channel/<name>/<name>`.
    pub(super) fn create(
        measurement: &Group,
        channel: usize,
        spec: &StackSpec,
        filing: &Filing,
    ) -> Result<Self, SessionError> {
        let name = spec.name;
        let path = format!("Channel_{channel:03}/{name}");
        let group = measurement
            .create_group(&format!("Channel_{channel:03}"))
            .and_then(|channel| channel.create_group(name))
            .at(|| format!("{}/{path}", place(measurement)))?;
        let image = [spec.y.values.len(), spec.x.values.len()];
        let mut builder = group.new_dataset_builder().chunk([1, image[0], image[1]]);
        if filing.compression_level > 0 {
            if filing.shuffle {
                builder = builder.shuffle();
            }
            builder = builder.deflate(filing.compression_level);
        }
        if let Some(fill) = &spec.fill {
            builder = builder.fill_value(fill.clone());
        }
        let data = builder
            .empty_as(&spec.dtype)
            .shape([Extent::resizable(0), image[0].into(), image[1].into()])
            .create(name)
            .at(|| format!("{}/{name}", place(&group)))?;
        for (attribute, value) in [
            ("quantity", spec.quantity),
            ("units", spec.units),
            ("main_data_name", name),
            ("title", name),
            ("pyNSID_version", PYNSID_VERSION),
            ("data_type", "IMAGE_STACK"),
            ("modality", "STEM"),
            ("source", spec.source),
        ] {
            write_text(&data, attribute, value)?;
        }
        let time = group
            .new_dataset::<f64>()
            .shape([Extent::resizable(0)])
            .chunk([256])
            .create("time")
            .at(|| format!("{}/time", place(&group)))?;
        describe(&time, "time", &[("quantity", "time"), ("units", "s"), ("dimension_type", "TEMPORAL")])?;
        for (name, axis) in [("y", &spec.y), ("x", &spec.x)] {
            let scale = group
                .new_dataset_builder()
                .with_data(&axis.values[..])
                .create(name)
                .at(|| format!("{}/{name}", place(&group)))?;
            describe(
                &scale,
                name,
                &[("quantity", "distance"), ("units", axis.units), ("dimension_type", "SPATIAL")],
            )?;
        }
        attach_scales(&group, name, &AXES, filing)?;
        label_nexus(&group, name)?;
        Ok(Self { data, time, path, name: name.to_owned(), len: 0, image })
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Takes the stack up again in `measurement`, in which it was created.
    pub(super) fn reopen(&mut self, measurement: &Group) -> Result<(), SessionError> {
        let open = |name: &str| {
            let path = format!("{}/{name}", self.path);
            measurement.dataset(&path).at(|| format!("{}/{path}", place(measurement)))
        };
        self.data = open(&self.name)?;
        self.time = open("time")?;
        Ok(())
    }

    /// Adds images for the frames at `times`, s; they are to be written, or stay what the stack is filled with.
    pub(super) fn grow(&mut self, times: &[f64]) -> Result<(), SessionError> {
        if times.is_empty() {
            return Ok(());
        }
        let len = self.len + times.len();
        self.data.resize([len, self.image[0], self.image[1]]).at(|| place(&self.data))?;
        self.time
            .resize([len])
            .and_then(|()| self.time.write_slice(ArrayView1::from(times), self.len..len))
            .at(|| place(&self.time))?;
        self.len = len;
        Ok(())
    }
}

/// The attributes that NSID wants on a dimension; `name` is the dataset's own.
fn describe(scale: &Dataset, name: &str, attributes: &[(&str, &str)]) -> Result<(), SessionError> {
    write_text(scale, "name", name)?;
    attributes.iter().try_for_each(|(attribute, value)| write_text(scale, attribute, value))
}

/// Makes the datasets `names` of `group` the dimension scales of its dataset `name`, axis by axis, as the HDF5 Dimension Scale
/// Specification stores them; the binding has no call for it.
fn attach_scales(group: &Group, name: &str, names: &[&str], filing: &Filing) -> Result<(), SessionError> {
    let data = group.dataset(name).at(|| format!("{}/{name}", place(group)))?;
    let mut lists: Vec<VarLenArray<ObjectReference1>> = Vec::new();
    for (dimension, axis) in (0_i32..).zip(names) {
        let scale = group.dataset(axis).at(|| format!("{}/{axis}", place(group)))?;
        for (attribute, value) in [("CLASS", "DIMENSION_SCALE"), ("NAME", *axis)] {
            let value = FixedAscii::<SCALE_TEXT>::from_ascii(value).unwrap_or_default();
            scale
                .new_attr_builder()
                .empty_as(&filing.scale_text)
                .create(attribute)
                .and_then(|attribute| attribute.write_scalar(&value))
                .at(|| format!("{}@{attribute}", place(&scale)))?;
        }
        let dataset = group.reference(name).at(|| place(&data))?;
        scale
            .new_attr_builder()
            .with_data(&[ScaleUse { dataset, dimension }])
            .create("REFERENCE_LIST")
            .at(|| format!("{}@REFERENCE_LIST", place(&scale)))?;
        lists.push(VarLenArray::from_slice(&[group.reference(axis).at(|| place(&scale))?]));
    }
    let labels: Vec<VarLenUnicode> = names.iter().map(|name| text(name)).collect();
    data.new_attr_builder()
        .with_data(&lists[..])
        .create("DIMENSION_LIST")
        .and_then(|_| data.new_attr_builder().with_data(&labels[..]).create("DIMENSION_LABELS"))
        .at(|| format!("{}@DIMENSION_LIST", place(&data)))?;
    Ok(())
}

/// Makes `group` an NXdata group of NeXus as well, which HyperSpy reads.
fn label_nexus(group: &Group, signal: &str) -> Result<(), SessionError> {
    write_text(group, "NX_class", "NXdata")?;
    write_text(group, "signal", signal)?;
    write_text(group, "interpretation", "image")?;
    let axes: Vec<VarLenUnicode> = AXES.iter().map(|name| text(name)).collect();
    group
        .new_attr_builder()
        .with_data(&axes[..])
        .create("axes")
        .map(drop)
        .at(|| format!("{}@axes", place(group)))
}

/// A group of attributes, as NSID keeps metadata.
pub(super) struct Metadata(Group);

impl Metadata {
    pub(super) fn create(parent: &Group, name: &str) -> Result<Self, SessionError> {
        Ok(Self(parent.create_group(name).at(|| format!("{}/{name}", place(parent)))?))
    }

    pub(super) fn text(&self, name: &str, value: &str) -> Result<&Self, SessionError> {
        write_text(&self.0, name, value)?;
        Ok(self)
    }

    pub(super) fn number<T: H5Type>(&self, name: &str, value: T) -> Result<&Self, SessionError> {
        write_attribute(&self.0, name, &value)?;
        Ok(self)
    }
}
