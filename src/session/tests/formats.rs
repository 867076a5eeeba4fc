//! Every format read back from a file as its own writers make it.

use super::reading::{frames, read, refusal};
use super::samples::{self, attribute, dataset, hspy_axis, image, sample, stack, text};
use crate::session::*;
use ferrostem_proto::Dtype;
use hdf5::File;
use ndarray::Array2;
use std::path::Path;

fn size_pm(reader: &mut dyn FrameReader) -> Option<[f64; 2]> {
    let size = reader.frame(0).unwrap().message.pixel_size_pm?;
    Some(size.map(|pm| (pm * 1e5).round() / 1e5))
}

#[test]
fn each_format_gives_its_stack_with_pixel_size_and_times() {
    let folder = tempfile::tempdir().unwrap();
    let relative = [Some(0), Some(40_000_000), Some(80_000_000)];
    let absolute = relative.map(|ns: Option<u64>| Some(ns.unwrap() + 1_700_000_000_000_000_000));
    for (name, format, times, channel) in [
        ("stack.hspy", SessionFormat::HyperSpy, relative, Some("HAADF")),
        ("nion.h5", SessionFormat::NionH5, absolute, Some("HAADF")),
        ("nion.ndata", SessionFormat::Ndata, absolute, Some("HAADF")),
        ("packed.ndata", SessionFormat::Ndata, absolute, Some("HAADF")),
        ("transposed.emd", SessionFormat::Emd, relative, Some("HAADF")),
        ("named.emd", SessionFormat::Emd, relative, Some("HAADF")),
        ("labelled.emd", SessionFormat::Emd, [None; 3], Some("HAADF")),
        ("velox.emd", SessionFormat::Velox, absolute, Some("HAADF")),
        ("default.nxs", SessionFormat::Nexus, relative, Some("HAADF")),
        ("old.nxs", SessionFormat::Nexus, relative, Some("HAADF")),
        ("stack.tif", SessionFormat::Tiff, relative, None),
        ("big.tif", SessionFormat::Tiff, relative, None),
        ("stack.dm3", SessionFormat::DigitalMicrograph, relative, Some("HAADF")),
        ("stack.dm4", SessionFormat::DigitalMicrograph, relative, Some("HAADF")),
    ] {
        let mut reader = read(&sample(folder.path(), name), None).unwrap();
        let reader = reader.as_mut();
        assert_eq!((reader.format(), reader.len()), (format, 3), "{name}");
        assert_eq!(frames(reader), stack(), "{name}");
        assert_eq!(size_pm(reader), Some([20.0, 16.0]), "{name}: {}", reader.calibration());
        // DigitalMicrograph keeps its calibrations in single precision.
        let apart = |index: usize| reader.time_ns(index).zip(times[index]).map(|(a, b)| a.abs_diff(b));
        assert!([0, 1, 2].iter().all(|&i| apart(i).is_none_or(|ns| ns < 5)), "{name}");
        assert_eq!(reader.time_ns(1).is_some(), times[1].is_some(), "{name}");
        assert_eq!(reader.time_ns(3), None, "{name}");
        let frame = reader.frame(1).unwrap();
        assert_eq!(frame.t_ns, reader.time_ns(1), "{name}");
        assert_eq!(frame.message.channel.as_deref(), channel, "{name}");
        let stem = Path::new(name).file_stem().unwrap().to_str();
        assert_eq!((frame.message.seq, frame.message.acquisition.as_deref()), (1, stem), "{name}");
        assert!(matches!(reader.frame(3), Err(SessionError::NoSuchFrame { index: 3, len: 3, .. })), "{name}");
    }
}

#[test]
fn of_several_images_the_one_called_haadf_is_chosen_and_the_others_can_be_named() {
    let folder = tempfile::tempdir().unwrap();
    for (name, says, other, count) in [
        ("stack.hspy", "Experiments/HAADF/data (image 2 of 2;", "Experiments/BF/data", 1),
        ("velox.emd", "/Data/Image/0b/Data (image 2 of 2;", "Data/Image/0a/Data", 3),
        ("default.nxs", "/entry/HAADF/counts (image 1 of 2;", "entry/BF/data", 1),
        ("asyncroscopy.h5", "/image/HAADF (image 2 of 2;", "image/BF-S", 1),
    ] {
        let path = sample(folder.path(), name);
        let reader = read(&path, None).unwrap();
        assert!(reader.description().contains(says), "{}", reader.description());
        let mut named = read(&path, Some(other)).unwrap();
        assert_eq!((named.format(), named.len()), (reader.format(), count), "{name}");
        assert_eq!(frames(named.as_mut()).index_axis(ndarray::Axis(0), 0), image(), "{name}");
    }
    // Spectra are no images, even where they are asked for.
    let message = refusal(&folder.path().join("stack.hspy"), Some("Experiments/EDS/data"));
    assert!(message.contains("Energy (signal)"), "{message}");
}

#[test]
fn what_the_microscope_said_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let message = read(&sample(folder.path(), "velox.emd"), None).unwrap().frame(2).unwrap().message;
    assert_eq!(
        (message.data.dtype(), message.rotation_rad, message.dwell_us),
        (Dtype::U16, Some(0.5), Some(2.0))
    );
    assert_eq!(message.t_start_ns, Some(1_700_000_000_080_000_000));
    let mut reader = read(&sample(folder.path(), "asyncroscopy.h5"), None).unwrap();
    let message = reader.frame(0).unwrap().message;
    assert_eq!((message.pixel_size_pm, message.dwell_us), (Some([20.0; 2]), Some(2.0)));
    assert_eq!(reader.calibration(), "attribute pixel_size_m = 0.00000000002");
    assert_eq!(frames(reader.as_mut()).index_axis(ndarray::Axis(0), 0), image());
}

#[test]
fn an_smbfo_image_keeps_its_border_and_has_its_cells_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = sample(folder.path(), "Sm_0_0_HAADF.h5");
    assert_eq!(UnitCellParameterization::beside(&path), None);
    let cells_path = sample(folder.path(), "Sm_0_0_UCParameterization.h5");
    let mut reader = read(&path, None).unwrap();
    assert_eq!((reader.format(), reader.len()), (SessionFormat::SmBfo, 1));
    let data = reader.frame(0).unwrap().message.data;
    assert_eq!((data.shape(), data.to_f32()[0].is_nan(), data.to_f32()[7]), ([4, 5], true, 12.0));
    assert_eq!(reader.calibration(), "none: Sm-BFO files state no pixel size");
    for spelling in [path, folder.path().join("SM_0_0_haadf.h5")] {
        assert_eq!(UnitCellParameterization::beside(&spelling), Some(cells_path.clone()));
    }
    let cells = UnitCellParameterization::open(&cells_path).unwrap().cells;
    assert_eq!(cells.len(), 3);
    let cell = cells[2];
    assert_eq!([cell.row_px, cell.col_px], [12.0, 112.0]);
    assert_eq!([cell.p_y_px, cell.p_x_px], [1.0, 101.0]);
    assert_eq!([cell.cell_a_px, cell.cell_b_px, cell.cell_angle, cell.area_px2], [28.0, 29.0, 3.5, -668.0]);
    assert_eq!([cell.lattice_a, cell.lattice_b, cell.delta_a_px, cell.delta_b_px], [2.0, 102.0, 2.5, 102.5]);
    assert_eq!([cell.intensities[0], cell.intensities[4]], [3.0, 7.0]);
    assert!(cell.intensities[1..4].iter().all(|intensity| intensity.is_nan()));
    let message = refusal(&cells_path, None);
    assert!(message.contains("MainImage") && message.contains("xy_COM"), "{message}");
}

#[test]
fn unit_cells_of_another_shape_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (name, shape, says) in [
        ("xy_COM", (3, 2), "expected (2, N), found shape [3, 2]"),
        ("Pxy", (2, 4), "expected (2, 3), found shape [2, 4]"),
        ("Vol", (3, 1), "expected (1, 3), found shape [3, 1]"),
    ] {
        let path = sample(folder.path(), "Sm_0_0_UCParameterization.h5");
        let file = File::open_rw(&path).unwrap();
        file.unlink(name).unwrap();
        dataset(&file, name, &Array2::<f64>::zeros(shape));
        drop(file);
        let message = UnitCellParameterization::open(&path).unwrap_err().to_string();
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn images_of_colours_and_of_too_many_axes_are_refused_with_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cube.hspy");
    let file = File::create(&path).unwrap();
    text(&file, "file_format", "HyperSpy");
    let group = file.create_group("Experiments/4D").unwrap();
    dataset(&group, "data", &ndarray::Array4::<f32>::zeros((2, 3, 4, 5)));
    for (index, navigate) in [true, true, false, false].into_iter().enumerate() {
        hspy_axis(&group, index, "q", navigate, (1.0, "1/nm"));
    }
    drop((file, group));
    assert!(refusal(&path, None).contains("4 of lengths [2, 3, 4, 5]"));

    let path = folder.path().join("colours.tif");
    let mut encoder = tiff::encoder::TiffEncoder::new(std::fs::File::create(&path).unwrap()).unwrap();
    encoder.write_image::<tiff::encoder::colortype::RGB8>(2, 2, &[0; 12]).unwrap();
    assert!(refusal(&path, None).contains("expected grey pixels, found RGB(8)"));
    assert!(refusal(&path, Some("data")).contains("a TIFF file, which has no datasets"));

    let path = folder.path().join("other.zip");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    zip.start_file("notes.txt", zip::write::SimpleFileOptions::default()).unwrap();
    zip.finish().unwrap();
    assert!(refusal(&path, None).contains("an archive of notes.txt"));
}

#[test]
fn an_image_without_units_has_no_pixel_size_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bare.hspy");
    let file = File::create(&path).unwrap();
    text(&file, "file_format", "HyperSpy");
    let group = file.create_group("Experiments/__unnamed__").unwrap();
    dataset(&group, "data", &image());
    hspy_axis(&group, 0, "", false, (1.0, "_None_"));
    hspy_axis(&group, 1, "", false, (0.1, "1/nm"));
    drop((file, group));
    let mut reader = read(&path, None).unwrap();
    assert_eq!((size_pm(reader.as_mut()), reader.frame(0).unwrap().message.channel), (None, None));
    let says = "none: axis-0 and axis-1 of /Experiments/__unnamed__: row 1 (no units), col 0.1 1/nm, not two lengths";
    assert_eq!(reader.calibration(), says);
}

#[test]
fn tiff_pages_unlike_the_first_are_passed_over() {
    use tiff::encoder::{TiffEncoder, colortype};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mixed.tif");
    let mut encoder = TiffEncoder::new(std::fs::File::create(&path).unwrap()).unwrap();
    encoder.write_image::<colortype::Gray32Float>(3, 2, &[0.5, 1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
    encoder.write_image::<colortype::RGB8>(1, 1, &[0; 3]).unwrap();
    encoder.write_image::<colortype::Gray32Float>(3, 2, &[6.5; 6]).unwrap();
    drop(encoder);
    let mut reader = read(&path, None).unwrap();
    assert!(reader.description().ends_with("mixed.tif (2 of 3 pages, those like the first)"));
    let data = reader.frame(0).unwrap().message.data;
    assert_eq!(
        (data.dtype(), data.shape(), data.to_f32()),
        (Dtype::F32, [2, 3], vec![0.5, 1.0, 2.0, 3.0, 4.0, 5.0])
    );
    assert_eq!(reader.frame(1).unwrap().message.data.to_f32(), [6.5; 6]);
    assert!(reader.calibration().starts_with("none: "), "{}", reader.calibration());
}

/// ImageJ's own layout: the directory first, then all images in one piece, of which the directory knows one.
fn imagej_stack(path: &Path, big_endian: bool, images: &[[u16; 2]]) {
    let short = |value: u16| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let long = |value: u32| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let description = b"ImageJ=1.54f\nimages=3\n\0";
    let described_at = 8 + 2 + 9 * 12 + 4;
    let pixels_at = described_at + description.len() as u32;
    let mut bytes = if big_endian { b"MM\0\x2a".to_vec() } else { b"II\x2a\0".to_vec() };
    bytes.extend(long(8));
    bytes.extend(short(9));
    for (tag, kind, count, value) in [
        (256, 3, 1, 2),
        (257, 3, 1, 1),
        (258, 3, 1, 16),
        (262, 3, 1, 1),
        (270, 2, description.len() as u32, described_at),
        (273, 4, 1, pixels_at),
        (277, 3, 1, 1),
        (278, 3, 1, 1),
        (279, 4, 1, 4),
    ] {
        bytes.extend([short(tag), short(kind)].concat());
        bytes.extend(long(count));
        if kind == 3 {
            bytes.extend([short(value as u16), [0, 0]].concat());
        } else {
            bytes.extend(long(value));
        }
    }
    bytes.extend(long(0));
    bytes.extend(description);
    bytes.extend(images.iter().flatten().flat_map(|&pixel| short(pixel)));
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn images_behind_one_imagej_page_are_read_or_found_cut_short() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("imagej.tif");
    for big_endian in [false, true] {
        imagej_stack(&path, big_endian, &[[1, 2], [258, 4], [5, 65535]]);
        let mut reader = read(&path, None).unwrap();
        let expected = ndarray::arr3(&[[[1.0, 2.0]], [[258.0, 4.0]], [[5.0, 65535.0]]]);
        assert_eq!((reader.len(), frames(reader.as_mut())), (3, expected));
        imagej_stack(&path, big_endian, &[[1, 2], [258, 4]]);
        let message = refusal(&path, None);
        assert!(message.contains("expected 3 images up to byte 157, found a file of 153 bytes"), "{message}");
    }
}

#[test]
fn a_zip_bomb_is_refused() {
    use std::io::Write as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.ndata");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    let packed =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    zip.start_file("data.npy", packed).unwrap();
    zip.write_all(&vec![0; 3 << 20]).unwrap();
    zip.finish().unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() < 10_000);
    let options = OpenOptions { max_frame_bytes: 1 << 20, ..OpenOptions::default() };
    let error = open(&path, &options).unwrap_err();
    assert!(matches!(error, SessionError::TooLarge { needed: 0x10_0001, .. }), "{error}");
}

#[test]
fn links_to_nothing_are_no_reason_to_give_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = sample(folder.path(), "default.nxs");
    let file = File::open_rw(&path).unwrap();
    file.link_soft("/nowhere", "/entry/AAA").unwrap();
    file.link_external("missing.h5", "/x", "/entry/BBB").unwrap();
    file.unlink("/entry/HAADF/counts").unwrap();
    drop(file);
    // The default has lost its data: the other is read.
    let reader = read(&path, None).unwrap();
    assert!(reader.description().ends_with("/entry/BF/data"), "{}", reader.description());
    let contents = contents(&path).unwrap();
    let broken: Vec<&str> = contents
        .entries
        .iter()
        .filter(|it| it.kind == EntryKind::Broken)
        .map(|it| it.path.as_str())
        .collect();
    assert_eq!(broken, ["/entry/AAA", "/entry/BBB"]);
}

#[test]
fn what_is_in_a_file_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let listed = contents(&sample(folder.path(), "named.emd")).unwrap();
    assert_eq!((listed.container.as_str(), listed.complete), ("HDF5", true));
    let dim = listed.entries.iter().find(|entry| entry.path == "/data/HAADF/dim3").unwrap();
    assert_eq!((&dim.shape[..], dim.dtype.as_str(), dim.units.as_str()), (&[5][..], "float64", "[p_m]"));
    let pages = contents(&sample(folder.path(), "stack.tif")).unwrap().entries;
    assert_eq!(
        (pages.len(), &pages[2].shape[..], pages[2].dtype.as_str()),
        (3, &[4, 5][..], "U16, Gray(16)")
    );
    let files = contents(&sample(folder.path(), "nion.ndata")).unwrap().entries;
    assert_eq!(files.iter().map(|it| it.path.as_str()).collect::<Vec<_>>(), ["data.npy", "metadata.json"]);
    let path = folder.path().join("session.h5");
    let mut recorder = super::support::recorder(&path);
    for seq in 0..3 {
        recorder.frame(&super::support::frame(seq)).unwrap();
        recorder.result(&super::support::result(seq)).unwrap();
    }
    recorder.finish().unwrap();
    let recorded = contents(&path).unwrap().recorded.unwrap();
    assert_eq!((recorded.measurements, recorded.frames, recorded.results, recorded.candidates), (1, 3, 3, 6));
    assert!(recorded.metadata.contains(&("dcnn_name".to_owned(), "dcnn-first".to_owned())));
}

#[test]
fn a_frame_written_as_numpy_is_read_back_bit_by_bit() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["velox.emd", "stack.hspy", "Sm_0_0_HAADF.h5"] {
        let data = read(&sample(folder.path(), name), None).unwrap().frame(0).unwrap().message.data;
        let path = folder.path().join(format!("{name}.npy"));
        write_npy(&path, &data).unwrap();
        assert_eq!(read(&path, None).unwrap().frame(0).unwrap().message.data, data, "{name}");
        assert_eq!(std::fs::metadata(&path).unwrap().len() % 64, data.bytes().len() as u64 % 64, "{name}");
        assert!(write_npy(&path, &data).is_err(), "{name} was overwritten");
    }
}

/// A real file, from `FERROSTEM_DATA`; the array beside it holds the same image.
#[test]
fn a_real_digitalmicrograph_image_is_read_with_its_pixel_size() {
    let Ok(data) = std::env::var("FERROSTEM_DATA") else {
        eprintln!("skipped: FERROSTEM_DATA is not set");
        return;
    };
    let mut reader = read(&Path::new(&data).join("BTO_crystal_1.dm4"), None).unwrap();
    let message = reader.frame(0).unwrap().message;
    let [row, col] = message.pixel_size_pm.unwrap();
    assert!((row - 29.66).abs() < 0.01 && (col - 29.66).abs() < 0.01, "{row} {col}");
    let array = read(&Path::new(&data).join("bto_1.npy"), None).unwrap().frame(0).unwrap().message.data;
    assert_eq!((message.data.shape(), message.data.to_f32()), (array.shape(), array.to_f32()));
}

#[test]
fn a_large_dataset_in_a_small_file_is_refused_before_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge.emd");
    samples::emd_named(&path);
    let file = File::open_rw(&path).unwrap();
    let group = file.group("data/HAADF").unwrap();
    group.unlink("data").unwrap();
    group.new_dataset::<f64>().shape([1 << 30, 1 << 20, 1 << 20]).chunk([1, 64, 64]).create("data").unwrap();
    attribute(&group, "extra", 1u8);
    drop((file, group));
    assert!(refusal(&path, None).contains("8796093022208 bytes wanted, the limit is 1073741824"));
}
