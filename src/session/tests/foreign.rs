use super::reading::{frames, read, refusal};
use crate::session::*;
use ferrostem_proto::Dtype;
use hdf5::types::VarLenUnicode;
use hdf5::{Dataset, File, H5Type};
use ndarray::{Array, Array3, ShapeBuilder};
use std::path::{Path, PathBuf};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn numbers() -> Array3<f32> {
    Array3::from_shape_fn((3, 4, 5), |(frame, row, col)| (100 * frame + 10 * row + col) as f32)
}

#[test]
fn numpy_stacks_of_either_memory_order_are_read() {
    let folder = folder();
    let expected = numbers();
    let mut fortran = Array::zeros(expected.dim().f());
    fortran.assign(&expected);
    for (name, array) in [("c", &expected), ("fortran", &fortran)] {
        let path = folder.path().join(format!("{name}.npy"));
        ndarray_npy::write_npy(&path, array).unwrap();
        let mut reader = read(&path, None).unwrap();
        assert_eq!((reader.format(), reader.len(), reader.time_ns(0)), (SessionFormat::Npy, 3, None));
        assert_eq!(frames(&mut *reader), expected, "{name}");
        let message = reader.frame(2).unwrap().message;
        assert_eq!((message.seq, message.acquisition.as_deref()), (2, Some(name)));
        assert!(matches!(reader.frame(3), Err(SessionError::NoSuchFrame { index: 3, len: 3, .. })));
    }
    let image = expected.index_axis(ndarray::Axis(0), 1).to_owned();
    let mut fortran = Array::zeros(image.dim().f());
    fortran.assign(&image);
    let path = folder.path().join("image.npy");
    ndarray_npy::write_npy(&path, &fortran).unwrap();
    let mut reader = read(&path, None).unwrap();
    assert_eq!(reader.len(), 1);
    assert_eq!(frames(&mut *reader).index_axis(ndarray::Axis(0), 0), image);
}

#[test]
fn a_fortran_stack_of_very_many_frames_is_read_pixel_by_pixel() {
    let folder = folder();
    let frames = (1 << 20) + 7;
    let mut array = Array3::<u8>::zeros((frames, 1, 2).f());
    array[[frames - 1, 0, 0]] = 5;
    array[[frames - 1, 0, 1]] = 6;
    let path = folder.path().join("many.npy");
    ndarray_npy::write_npy(&path, &array).unwrap();
    let mut reader = read(&path, None).unwrap();
    assert_eq!(reader.frame(frames - 1).unwrap().message.data.to_f32(), [5.0, 6.0]);
    assert_eq!(reader.frame(0).unwrap().message.data.to_f32(), [0.0, 0.0]);
}

fn npy(folder: &Path, descr: &str, shape: &str, data: &[u8]) -> PathBuf {
    let mut header = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    let path = folder.join("array.npy");
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn numpy_numbers_of_either_byte_order_are_read_in_their_own_type() {
    let folder = folder();
    macro_rules! check {
        ($type:ty, $kind:literal, $dtype:expr) => {
            let values = [1 as $type, 2 as $type, 100 as $type, 3 as $type];
            let little: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let big: Vec<u8> = values.iter().flat_map(|v| v.to_be_bytes()).collect();
            for (order, bytes) in [("<", &little), (">", &big)] {
                let path = npy(folder.path(), &format!("'{order}{}'", $kind), "(2, 2)", bytes);
                let data = read(&path, None).unwrap().frame(0).unwrap().message.data;
                assert_eq!(data.dtype(), $dtype);
                assert_eq!(data.bytes()[..], little[..], "{order}{}", $kind);
            }
        };
    }
    check!(u8, "u1", Dtype::U8);
    check!(u16, "u2", Dtype::U16);
    check!(u32, "u4", Dtype::U32);
    check!(u64, "u8", Dtype::U64);
    check!(i8, "i1", Dtype::I8);
    check!(i16, "i2", Dtype::I16);
    check!(i32, "i4", Dtype::I32);
    check!(i64, "i8", Dtype::I64);
    check!(f32, "f4", Dtype::F32);
    check!(f64, "f8", Dtype::F64);
    let halves = npy(folder.path(), "'>f2'", "(1, 2)", &[0x3c, 0, 0xc0, 0]);
    let data = read(&halves, None).unwrap().frame(0).unwrap().message.data;
    assert_eq!((data.dtype(), data.to_f32()), (Dtype::F32, vec![1.0, -2.0]));
}

#[test]
fn numpy_files_that_are_no_images_are_refused_with_what_they_are() {
    let folder = folder();
    let nested = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    for (descr, shape, data, says) in [
        ("'<c8'", "(2, 2)", &[0; 32][..], "dtype <c8"),
        ("'|b1'", "(2, 2)", &[0; 4], "dtype |b1"),
        ("[('a', '<f4'), ('b', '<f4')]", "(2, 2)", &[0; 32], "structured"),
        (&nested, "(2, 2)", &[0; 32], "structured"),
        ("'<f4'", "(4,)", &[0; 16], "1 of lengths [4]"),
        ("'<f4'", "(1, 1, 2, 2)", &[0; 16], "4 of lengths"),
        ("'<f4'", "(0, 2)", &[], "at least one pixel"),
        ("'<f4'", "(2, 2)", &[0; 15], "15 bytes"),
        ("'<f4'", "(18446744073709551615, 2)", &[0; 16], "limit is"),
        ("'<f4'", "(9999999999, 2, 2)", &[0; 16], "159999999984 bytes"),
        ("'<f4'", "(-1, 2)", &[0; 16], "numpy header"),
    ] {
        let path = npy(folder.path(), descr, shape, data);
        let message = refusal(&path, None);
        assert!(message.contains(says) && message.contains("array.npy"), "{descr} {shape}: {message}");
    }
    let path = npy(folder.path(), "'<f4'", "(2, 2)", &[0; 16]);
    assert!(refusal(&path, Some("/data")).contains("no datasets"));
    std::fs::write(&path, b"\x93NUMPY\x02\x00\xff\xff\xff\xff").unwrap();
    assert!(refusal(&path, None).contains("4294967295 bytes"));
    std::fs::write(&path, b"\x93NUMPY").unwrap();
    assert!(refusal(&path, None).contains("array.npy"));
}

#[test]
fn other_files_are_refused_with_how_they_begin() {
    let folder = folder();
    let path = folder.path().join("image.ser");
    std::fs::write(&path, [0x49, 0x49, 0x97, 1, 9]).unwrap();
    let message = refusal(&path, None);
    assert!(message.contains("image.ser") && message.contains("[49, 49, 97, 01, 09]"), "{message}");
    let missing = refusal(&folder.path().join("missing.h5"), None);
    assert!(missing.contains("missing.h5"), "{missing}");
    // HDF5 by its first bytes only.
    std::fs::write(&path, b"\x89HDF\r\n\x1a\nnot really").unwrap();
    assert!(refusal(&path, None).contains("image.ser"));
}

fn h5(folder: &Path) -> (PathBuf, File) {
    let path = folder.join("file.h5");
    let file = File::create(&path).unwrap();
    (path, file)
}

#[test]
fn any_dataset_of_two_or_three_axes_can_be_named() {
    let folder = folder();
    let (path, file) = h5(folder.path());
    let expected = numbers();
    let group = file.create_group("a").unwrap();
    group.new_dataset_builder().with_data(&expected).create("stack").unwrap();
    let image = expected.index_axis(ndarray::Axis(0), 2).mapv(|v| v as u8);
    file.new_dataset_builder().with_data(&image).create("image").unwrap();
    group.new_dataset::<f32>().shape([4]).create("line").unwrap();
    group.new_dataset::<bool>().shape([4, 4]).create("mask").unwrap();
    group.new_dataset::<f32>().shape([0, 4]).create("empty").unwrap();
    group.new_dataset::<f64>().shape([1 << 20, 1 << 20]).chunk([1, 1 << 10]).create("huge").unwrap();
    let big_endian = expected.mapv(|v| v as i16);
    group.new_dataset_builder().with_data(&big_endian).create("i16").unwrap();
    drop((file, group));
    let mut reader = read(&path, Some("a/stack")).unwrap();
    assert_eq!((reader.format(), reader.len()), (SessionFormat::Hdf5Dataset, 3));
    assert_eq!(frames(&mut *reader), expected);
    let mut reader = read(&path, Some("/image")).unwrap();
    let data = reader.frame(0).unwrap().message.data;
    assert_eq!((reader.len(), data.dtype(), data.shape()), (1, Dtype::U8, [4, 5]));
    assert_eq!(data.bytes()[..], *image.as_slice().unwrap());
    let data = read(&path, Some("a/i16")).unwrap().frame(1).unwrap().message.data;
    assert_eq!((data.dtype(), data.to_f32()[7]), (Dtype::I16, 112.0));
    for (name, says) in [
        ("a/line", "1 of lengths [4]"),
        ("a/mask", "bool"),
        ("a/empty", "0 x 4"),
        ("a/huge", "8796093022208 bytes wanted"),
        ("a/none", "a/none"),
        ("a", "file.h5:a"),
    ] {
        let message = refusal(&path, Some(name));
        assert!(message.contains(says), "{name}: {message}");
    }
    // What there is to name.
    let message = refusal(&path, None);
    assert!(message.contains("--dataset") && message.contains("/a/stack ([3, 4, 5] float32)"), "{message}");
}

#[derive(H5Type, Clone, Copy)]
#[repr(C)]
struct Complex {
    r: f32,
    i: f32,
}

#[derive(H5Type, Clone, Copy)]
#[repr(C)]
struct Pair {
    left: f32,
    right: u8,
}

#[test]
fn complex_and_compound_datasets_are_refused_by_name() {
    let folder = folder();
    let (path, file) = h5(folder.path());
    file.new_dataset::<Complex>().shape([4, 4]).create("wave").unwrap();
    file.new_dataset::<Pair>().shape([4, 4]).create("pairs").unwrap();
    drop(file);
    assert!(refusal(&path, Some("wave")).contains("complex"));
    assert!(refusal(&path, Some("pairs")).contains("left, right"));
}

/// An NSID main dataset with labelled dimensions: name, type, units, values.
fn nsid(file: &File, name: &str, data: &Array3<f32>, axes: [(&str, &str, &str, Vec<f64>); 3]) -> Dataset {
    let group = file.create_group(&format!("Measurement_000/Channel_000/{name}")).unwrap();
    let main = group.new_dataset_builder().with_data(data).create(name).unwrap();
    let write = |dataset: &Dataset, attribute: &str, value: &str| {
        let value: VarLenUnicode = value.parse().unwrap();
        dataset.new_attr::<VarLenUnicode>().create(attribute).unwrap().write_scalar(&value).unwrap();
    };
    write(&main, "data_type", "IMAGE_STACK");
    write(&main, "main_data_name", name);
    let labels: Vec<VarLenUnicode> = axes.iter().map(|axis| axis.0.parse().unwrap()).collect();
    main.new_attr_builder().with_data(&labels[..]).create("DIMENSION_LABELS").unwrap();
    for (label, dimension_type, units, values) in axes {
        let scale = group.new_dataset_builder().with_data(&values[..]).create(label).unwrap();
        write(&scale, "dimension_type", dimension_type);
        write(&scale, "units", units);
    }
    main
}

fn steps(n: usize, step: f64) -> Vec<f64> {
    (0..n).map(|i| i as f64 * step).collect()
}

#[test]
fn nsid_dimensions_say_which_axis_is_which_and_how_large_a_pixel_is() {
    let folder = folder();
    let (path, file) = h5(folder.path());
    let expected = numbers();
    nsid(
        &file,
        "stack",
        &expected,
        [
            ("time", "TEMPORAL", "ms", vec![100.0, 140.0, 190.0]),
            ("y", "SPATIAL", "Å", steps(4, 0.15)),
            ("x", "SPATIAL", "pm", steps(5, -16.0)),
        ],
    );
    drop(file);
    let mut reader = read(&path, None).unwrap();
    assert_eq!((reader.format(), reader.len()), (SessionFormat::Nsid, 3));
    assert_eq!(frames(&mut *reader), expected);
    let times: Vec<_> = (0..4).map(|index| reader.time_ns(index)).collect();
    assert_eq!(times, [Some(0), Some(40_000_000), Some(90_000_000), None]);
    let message = reader.frame(1).unwrap().message;
    let [row, col] = message.pixel_size_pm.unwrap();
    assert!((row - 15.0).abs() < 1e-9 && (col - 16.0).abs() < 1e-9, "{row} {col}");
    assert_eq!(message.channel.as_deref(), Some("stack"));
}

#[test]
fn an_nsid_stack_stored_x_y_frame_is_turned_round() {
    let folder = folder();
    let (path, file) = h5(folder.path());
    let expected = numbers();
    let stored = expected.view().permuted_axes([2, 1, 0]).as_standard_layout().into_owned();
    nsid(
        &file,
        "stack",
        &stored,
        [
            ("x", "SPATIAL", "nm", steps(5, 0.016)),
            ("y", "SPATIAL", "nm", vec![0.0, 1.0, 2.0, 4.0]),
            ("frame", "UNKNOWN", "generic", steps(3, 1.0)),
        ],
    );
    drop(file);
    let mut reader = read(&path, None).unwrap();
    assert_eq!(frames(&mut *reader), expected);
    // The steps of y differ: no pixel size rather than a wrong one.
    assert_eq!(reader.frame(0).unwrap().message.pixel_size_pm, None);
    assert_eq!(reader.time_ns(0), None);
}

#[test]
fn nsid_data_without_an_image_are_refused() {
    let folder = folder();
    let (path, file) = h5(folder.path());
    let axis = |name| (name, "SPATIAL", "nm", steps(2, 1.0));
    nsid(&file, "volume", &Array3::zeros((2, 2, 2)), [axis("z"), axis("y"), axis("x")]);
    drop(file);
    let message = refusal(&path, None);
    assert!(message.contains("two SPATIAL") && message.contains("z (SPATIAL)"), "{message}");
}

#[test]
fn a_channel_of_an_own_session_can_be_named() {
    let folder = folder();
    let path = folder.path().join("session.h5");
    let mut recorder = super::support::recorder(&path);
    for seq in 0..2 {
        recorder.frame(&super::support::frame(seq)).unwrap();
        recorder.result(&super::support::result(seq)).unwrap();
    }
    recorder.finish().unwrap();
    let mut reader = read(&path, Some("Measurement_000/Channel_001/p_x/p_x")).unwrap();
    assert_eq!((reader.len(), reader.time_ns(1)), (2, Some(40_000_000)));
    assert_eq!(reader.frame(1).unwrap().message.data.to_f32()[0], 1000.0);
    let [row, col] = read(&path, Some("Measurement_000/Channel_000/HAADF/HAADF"))
        .unwrap()
        .frame(0)
        .unwrap()
        .message
        .pixel_size_pm
        .unwrap();
    assert!((row - 15.1).abs() < 1e-9 && (col - 15.2).abs() < 1e-9);
}

/// A real file of pyNSID 0.0.2, from `FERROSTEM_DATA`.
#[test]
fn a_real_nsid_image_is_read_with_its_pixel_size() {
    let Ok(data) = std::env::var("FERROSTEM_DATA") else {
        eprintln!("skipped: FERROSTEM_DATA is not set");
        return;
    };
    let mut reader = read(&Path::new(&data).join("pynsid_STO_test_image.hf5"), None).unwrap();
    assert_eq!((reader.format(), reader.len()), (SessionFormat::Nsid, 1));
    let message = reader.frame(0).unwrap().message;
    assert_eq!((message.data.dtype(), message.data.shape()), (Dtype::F64, [470, 453]));
    let [row, col] = message.pixel_size_pm.unwrap();
    assert!((row - 14.559).abs() < 5e-4 && (col - 14.559).abs() < 5e-4, "{row} {col}");
    for (name, dtype) in [("bto_1.npy", None), ("sto_titan.npy", None::<Dtype>)] {
        let mut reader = read(&Path::new(&data).join(name), None).unwrap();
        let data = reader.frame(0).unwrap().message.data;
        assert!(dtype.is_none_or(|dtype| dtype == data.dtype()));
        assert!(data.to_f32().iter().all(|value| value.is_finite()), "{name}");
    }
}
