//! A small file of each format, made as its own writers make it.

use super::dm_samples;
use hdf5::types::{FixedAscii, VarLenUnicode};
use hdf5::{Dataset, File, Group, Location};
use ndarray::{Array1, Array2, Array3, Axis, s};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use tiff::encoder::compression::DeflateLevel;
use tiff::encoder::{Compression, TiffEncoder, colortype};
use zip::write::SimpleFileOptions;

/// Pixel `(row, col)` of frame `f` is `100 f + 10 row + col`, 4 rows by 5 columns.
pub(super) fn stack() -> Array3<f32> {
    Array3::from_shape_fn((3, 4, 5), |(frame, row, col)| (100 * frame + 10 * row + col) as f32)
}

pub(super) fn image() -> Array2<f32> {
    stack().index_axis_move(Axis(0), 0)
}

/// As MATLAB and EMD 0.2 store it: the axes the other way round.
fn turned() -> Array3<f32> {
    stack().reversed_axes().as_standard_layout().into_owned()
}

pub(super) fn text(object: &Location, name: &str, value: &str) {
    let value: VarLenUnicode = value.parse().unwrap();
    object.new_attr::<VarLenUnicode>().create(name).unwrap().write_scalar(&value).unwrap();
}

pub(super) fn ascii(object: &Location, name: &str, value: &str) {
    let value: FixedAscii<16> = FixedAscii::from_ascii(value).unwrap();
    object.new_attr::<FixedAscii<16>>().create(name).unwrap().write_scalar(&value).unwrap();
}

pub(super) fn attribute<T: hdf5::H5Type>(object: &Location, name: &str, value: T) {
    object.new_attr::<T>().create(name).unwrap().write_scalar(&value).unwrap();
}

pub(super) fn dataset<T: hdf5::H5Type, D: ndarray::Dimension>(
    group: &Group,
    name: &str,
    data: &ndarray::Array<T, D>,
) -> Dataset {
    group.new_dataset_builder().with_data(data).create(name).unwrap()
}

fn positions(group: &Group, name: &str, values: &[f64], units: &str) -> Dataset {
    let positions = dataset(group, name, &Array1::from(values.to_vec()));
    text(&positions, "units", units);
    positions
}

/// One axis of a `.hspy` signal.
pub(super) fn hspy_axis(
    experiment: &Group,
    index: usize,
    name: &str,
    navigate: bool,
    (scale, units): (f64, &str),
) {
    let axis = experiment.create_group(&format!("axis-{index}")).unwrap();
    text(&axis, "_type", "UniformDataAxis");
    text(&axis, "name", name);
    text(&axis, "units", units);
    attribute(&axis, "navigate", navigate);
    attribute(&axis, "scale", scale);
    attribute(&axis, "offset", 0.0);
}

pub(super) fn hspy(path: &Path) {
    let file = File::create(path).unwrap();
    text(&file, "file_format", "HyperSpy");
    text(&file, "file_format_version", "3.3");
    let spectra = file.create_group("Experiments/EDS").unwrap();
    dataset(&spectra, "data", &stack());
    hspy_axis(&spectra, 0, "y", true, (0.02, "nm"));
    hspy_axis(&spectra, 1, "x", true, (0.02, "nm"));
    hspy_axis(&spectra, 2, "Energy", false, (10.0, "eV"));
    let bright = file.create_group("Experiments/BF").unwrap();
    dataset(&bright, "data", &image());
    hspy_axis(&bright, 0, "y", false, (0.02, "nm"));
    hspy_axis(&bright, 1, "x", false, (0.02, "nm"));
    let images = file.create_group("Experiments/HAADF").unwrap();
    dataset(&images, "data", &stack());
    hspy_axis(&images, 0, "time", true, (40.0, "ms"));
    hspy_axis(&images, 1, "y", false, (0.2, "Å"));
    hspy_axis(&images, 2, "x", false, (-0.016, "nm"));
}

fn nion_properties() -> String {
    serde_json::json!({
        "data_shape": [3, 4, 5], "is_sequence": true, "collection_dimension_count": 0, "datum_dimension_count": 2,
        "dimensional_calibrations": [
            {"offset": 0, "scale": 0.04, "units": "s"},
            {"offset": 0, "scale": 0.02, "units": "nm"},
            {"offset": 0, "scale": 0.016, "units": "nm"},
        ],
        "created": "2023-11-14T22:13:20",
        "metadata": {"hardware_source": {"channel_name": "HAADF"}},
    })
    .to_string()
}

pub(super) fn nion(path: &Path) {
    let file = File::create(path).unwrap();
    text(&dataset(&file, "data", &stack()), "properties", &nion_properties());
}

fn ndata_of(path: &Path, options: SimpleFileOptions) {
    let npy = path.with_extension("npy");
    ndarray_npy::write_npy(&npy, &stack()).unwrap();
    let mut zip = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    for (name, bytes) in
        [("data.npy", std::fs::read(&npy).unwrap()), ("metadata.json", nion_properties().into_bytes())]
    {
        zip.start_file(name, options).unwrap();
        zip.write_all(&bytes).unwrap();
    }
    zip.finish().unwrap();
    std::fs::remove_file(npy).unwrap();
}

pub(super) fn ndata(path: &Path) {
    ndata_of(path, SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored));
}

pub(super) fn packed_ndata(path: &Path) {
    ndata_of(path, SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated));
}

fn emd_dim(group: &Group, number: usize, name: &str, values: &[f64], units: &str) {
    let dim = positions(group, &format!("dim{number}"), values, units);
    text(&dim, "name", name);
}

/// Version 0.2 as HyperSpy writes it.
pub(super) fn emd_transposed(path: &Path) {
    let file = File::create(path).unwrap();
    attribute(&file, "version_major", 0u8);
    attribute(&file, "version_minor", 2u8);
    let group = file.create_group("signals/HAADF").unwrap();
    attribute(&group, "emd_group_type", 1u8);
    dataset(&group, "data", &turned());
    emd_dim(&group, 1, "", &[0.0, 0.016], "[n_m]");
    emd_dim(&group, 2, "", &[0.0, 0.02], "[n_m]");
    emd_dim(&group, 3, "", &[0.0, 0.04], "[s]");
}

/// Version 0.2 as ncempy writes it.
pub(super) fn emd_named(path: &Path) {
    let file = File::create(path).unwrap();
    attribute(&file, "version_major", 0u8);
    let group = file.create_group("data/HAADF").unwrap();
    attribute(&group, "emd_group_type", 1u8);
    dataset(&group, "data", &stack());
    emd_dim(&group, 1, "time", &[0.0, 0.04, 0.08], "[s]");
    emd_dim(&group, 2, "y", &[0.0, 0.02, 0.04, 0.06], "[n_m]");
    emd_dim(&group, 3, "x", &[0.0, 16.0, 32.0, 48.0, 64.0], "[p_m]");
}

/// Version 1.0 as emdfile writes it: a stack has its frames last.
pub(super) fn emd_labelled(path: &Path) {
    let file = File::create(path).unwrap();
    attribute(&file, "version_major", 1u8);
    text(&file, "emd_group_type", "file");
    let root = file.create_group("root").unwrap();
    text(&root, "emd_group_type", "root");
    let group = root.create_group("HAADF").unwrap();
    text(&group, "emd_group_type", "array");
    dataset(&group, "data", &stack().permuted_axes([1, 2, 0]).as_standard_layout().into_owned());
    emd_dim(&group, 0, "Rx", &[0.0, 0.2], "A");
    emd_dim(&group, 1, "Ry", &[0.0, 0.16], "A");
    let labels = dataset(&group, "dim2", &Array1::from(vec![1u8, 2, 3]));
    text(&labels, "name", "_labels_");
}

pub(super) fn velox(path: &Path) {
    let file = File::create(path).unwrap();
    for (id, detector) in [("0a", "BF"), ("0b", "HAADF")] {
        let group = file.create_group(&format!("Data/Image/{id}")).unwrap();
        let data = stack().permuted_axes([1, 2, 0]).mapv(|v| v as u16).as_standard_layout().into_owned();
        dataset(&group, "Data", &data);
        let json = serde_json::json!({
            "BinaryResult": {
                "PixelSize": {"width": "1.6e-11", "height": "2e-11"}, "PixelUnitX": "m", "PixelUnitY": "m",
                "Detector": detector,
            },
            "Scan": {"ScanRotation": "0.5", "DwellTime": "2e-06", "FrameTime": "0.04"},
            "Acquisition": {"AcquisitionStartDatetime": {"DateTime": "1700000000"}},
        })
        .to_string();
        let mut metadata = Array2::<u8>::zeros((json.len() + 7, 3));
        metadata.slice_mut(s![..json.len(), 0]).assign(&Array1::from(json.into_bytes()));
        dataset(&group, "Metadata", &metadata);
    }
}

pub(super) fn nexus(path: &Path) {
    let file = File::create(path).unwrap();
    text(&file, "default", "entry");
    let entry = file.create_group("entry").unwrap();
    text(&entry, "NX_class", "NXentry");
    text(&entry, "default", "HAADF");
    let data = entry.create_group("HAADF").unwrap();
    text(&data, "NX_class", "NXdata");
    text(&data, "signal", "counts");
    let names: [VarLenUnicode; 3] = ["time", "y", "x"].map(|name| name.parse().unwrap());
    data.new_attr_builder().with_data(&names[..]).create("axes").unwrap();
    dataset(&data, "counts", &stack());
    positions(&data, "time", &[0.0, 40.0, 80.0], "ms");
    positions(&data, "y", &[0.0, 0.02, 0.04, 0.06], "nm");
    positions(&data, "x", &[0.0, 0.16, 0.32, 0.48, 0.64], "angstrom");
    let other = entry.create_group("BF").unwrap();
    text(&other, "NX_class", "NXdata");
    text(&other, "signal", "data");
    dataset(&other, "data", &image());
}

/// From before NeXus had `@signal` on the group.
pub(super) fn old_nexus(path: &Path) {
    let file = File::create(path).unwrap();
    let data = file.create_group("entry/HAADF").unwrap();
    ascii(&file.group("entry").unwrap(), "NX_class", "NXentry");
    ascii(&data, "NX_class", "NXdata");
    let counts = dataset(&data, "counts", &stack());
    attribute(&counts, "signal", 1i32);
    for (number, name, step, units) in
        [(1, "time", 40.0, "ms"), (2, "down", 0.02, "nm"), (3, "across", 0.016, "nm")]
    {
        let axis = positions(&data, name, &[0.0, step, 2.0 * step], units);
        attribute(&axis, "axis", number);
    }
}

pub(super) fn asyncroscopy(path: &Path) {
    let file = File::create(path).unwrap();
    let group = file.create_group("image").unwrap();
    for detector in ["BF-S", "HAADF"] {
        let image = dataset(&group, detector, &image().mapv(|v| v as u16));
        text(&image, "acquisition_type", "stem_image");
        text(&image, "detector", detector);
        attribute(&image, "pixel_size_m", 2e-11);
        text(&image, "dwell_time_s", "2e-06");
    }
}

pub(super) fn smbfo(path: &Path) {
    let file = File::create(path).unwrap();
    let mut image = image().mapv(f64::from);
    image[[0, 0]] = f64::NAN;
    dataset(&file, "MainImage", &image);
}

pub(super) fn smbfo_cells(path: &Path) {
    let file = File::create(path).unwrap();
    let pair = |first: f64| Array2::from_shape_fn((2, 3), |(i, cell)| first + 100.0 * i as f64 + cell as f64);
    let single = |first: f64| Array2::from_shape_fn((1, 3), |(_, cell)| first + cell as f64);
    for (name, first) in [("xy_COM", 10.0), ("Pxy", -1.0), ("ab", 0.0), ("abdelta", 0.5)] {
        dataset(&file, name, &pair(first));
    }
    for (name, first) in [("a", 26.0), ("b", 27.0), ("alpha", 1.5), ("Vol", -670.0), ("I1", 1.0), ("I5", 5.0)]
    {
        dataset(&file, name, &single(first));
    }
}

const IMAGEJ: &str = "ImageJ=1.54f\nimages=3\nframes=3\nunit=nm\nfinterval=0.04\n";

pub(super) fn tiff(path: &Path) {
    let encoder = TiffEncoder::new(std::fs::File::create(path).unwrap()).unwrap();
    tiff_pages(encoder.with_compression(Compression::Lzw));
}

pub(super) fn big_tiff(path: &Path) {
    let encoder = TiffEncoder::new_big(std::fs::File::create(path).unwrap()).unwrap();
    tiff_pages(encoder.with_compression(Compression::Deflate(DeflateLevel::Balanced)));
}

fn tiff_pages<K: tiff::encoder::TiffKind>(mut encoder: TiffEncoder<std::fs::File, K>) {
    use tiff::encoder::Rational;
    use tiff::tags::{ResolutionUnit, Tag};
    for frame in stack().outer_iter() {
        let mut page = encoder.new_image::<colortype::Gray16>(5, 4).unwrap();
        page.resolution_unit(ResolutionUnit::None);
        page.x_resolution(Rational { n: 62_500, d: 1000 });
        page.y_resolution(Rational { n: 50, d: 1 });
        page.encoder().write_tag(Tag::ImageDescription, IMAGEJ).unwrap();
        let pixels: Vec<u16> = frame.iter().map(|&v| v as u16).collect();
        page.write_data(&pixels).unwrap();
    }
}

pub(super) fn npy(path: &Path) {
    ndarray_npy::write_npy(path, &stack()).unwrap();
}

/// Writes one sample to the path.
type Write = fn(&Path);

/// Every format by the name of its sample.
pub(super) const SAMPLES: [(&str, Write); 18] = [
    ("stack.hspy", hspy),
    ("nion.h5", nion),
    ("nion.ndata", ndata),
    ("packed.ndata", packed_ndata),
    ("transposed.emd", emd_transposed),
    ("named.emd", emd_named),
    ("labelled.emd", emd_labelled),
    ("velox.emd", velox),
    ("default.nxs", nexus),
    ("old.nxs", old_nexus),
    ("asyncroscopy.h5", asyncroscopy),
    ("Sm_0_0_HAADF.h5", smbfo),
    ("Sm_0_0_UCParameterization.h5", smbfo_cells),
    ("stack.tif", tiff),
    ("big.tif", big_tiff),
    ("stack.dm3", dm_samples::dm3),
    ("stack.dm4", dm_samples::dm4),
    ("stack.npy", npy),
];

/// The sample `name` in `folder`.
pub(super) fn sample(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    let (_, write) = SAMPLES.iter().find(|(known, _)| *known == name).unwrap();
    write(&path);
    path
}
