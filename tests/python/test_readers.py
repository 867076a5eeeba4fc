"""Files of every format, each written by its own Python library, read back by FerroSTEM to the pixel.

    pip install -r tests/python/requirements.txt
    FERROSTEM_BIN=target/release/ferrostem pytest tests/python/test_readers.py

FERROSTEM_BIN names the program. `ferrostem inspect --json` says what would be read, `--frame N --npy FILE` writes it.
"""

import datetime
import json
import os
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest

BINARY = os.environ.get("FERROSTEM_BIN")

pytestmark = pytest.mark.skipif(
    not BINARY or not Path(BINARY).is_file(), reason="FERROSTEM_BIN does not name the ferrostem program"
)

ROWS, COLS, FRAMES = 5, 7, 3
# Row and column steps differ, so that axes cannot be mixed up unseen.
ROW_NM, COL_NM = 0.020, 0.016


def stack(dtype=np.float32):
    """No symmetry: every pixel of every frame has a value of its own."""
    frame, row, col = np.indices((FRAMES, ROWS, COLS))
    return (1000 * frame + 10 * row + col + 1).astype(dtype)


def image(dtype=np.float32):
    return stack(dtype)[0]


def run(path, *options):
    command = [BINARY, "inspect", str(path), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def inspect(path, *options):
    done = run(path, "--json", *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def frame(path, index, *options):
    target = Path(path).parent / f"{Path(path).name}.frame{index}.npy"
    target.unlink(missing_ok=True)
    done = run(path, "--frame", index, "--npy", target, *options)
    assert done.returncode == 0, done.stderr
    return np.load(target)


def check(path, expected, file_format, size_pm=(1000 * ROW_NM, 1000 * COL_NM), options=()):
    """`expected` is an image or a stack; everything is compared, the type too."""
    said = inspect(path, *options)
    assert said["format"] == file_format
    images = expected if expected.ndim == 3 else expected[None]
    assert (said["frames"], said["shape"]) == (len(images), list(images.shape[1:]))
    assert said["dtype"] == expected.dtype.newbyteorder("=").name
    if size_pm is None:
        assert said["pixel_size_pm"] is None and said["calibration"].startswith("none: ")
    else:
        assert said["pixel_size_pm"] == pytest.approx(list(size_pm), rel=1e-6), said["calibration"]
    for index, wanted in enumerate(images):
        found = frame(path, index, *options)
        assert found.dtype == expected.dtype.newbyteorder("=")
        np.testing.assert_array_equal(found, wanted)
    return said


def refused(path, *says):
    done = run(path)
    assert done.returncode == 1
    for word in says:
        assert word in done.stderr, done.stderr



# --- HyperSpy, and EMD and NeXus as HyperSpy writes them ------------------------------------------------------------


def axis(name, size, scale, units, navigate, index):
    return {
        "_type": "UniformDataAxis", "name": name, "size": size, "scale": scale, "offset": 0.5, "units": units,
        "navigate": navigate, "is_binned": False, "index_in_array": index,
    }


def signal(data, title="HAADF", unit="nm", factor=1.0, names=("y", "x")):
    axes = []
    if data.ndim == 3:
        axes.append(axis("time", FRAMES, 0.25, "s", True, 0))
    axes.append(axis(names[0], ROWS, ROW_NM * factor, unit, False, len(axes)))
    axes.append(axis(names[1], COLS, COL_NM * factor, unit, False, len(axes)))
    return {
        "data": data, "axes": axes, "metadata": {"General": {"title": title}, "Signal": {"signal_type": ""}},
        "original_metadata": {}, "attributes": {"_lazy": False, "ragged": False}, "package_info": {"package": "hyperspy", "package_version": "2.3.0"}, "tmp_parameters": {},
        "learning_results": {}, "models": {},
    }


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<i4", "<f4", ">f8"])
def test_hspy_of_every_type(tmp_path, dtype):
    from rsciio.hspy import file_writer

    path = tmp_path / "stack.hspy"
    file_writer(path, signal((stack(np.int64) % 250).astype(dtype)))
    said = check(path, (stack(np.int64) % 250).astype(dtype), "HyperSpy")
    assert said["times_ns"] == [0, 500_000_000]
    assert said["channel"] == "HAADF"


@pytest.mark.parametrize(
    ("unit", "factor"), [("nm", 1.0), ("Å", 10.0), ("pm", 1000.0), ("µm", 1e-3), ("m", 1e-9), ("nm", -1.0)]
)
def test_hspy_units_are_told_apart(tmp_path, unit, factor):
    from rsciio.hspy import file_writer

    path = tmp_path / "image.hspy"
    file_writer(path, signal(image(), unit=unit, factor=factor))
    check(path, image(), "HyperSpy")


@pytest.mark.parametrize("unit", ["1/nm", "px", "", None])
def test_hspy_units_that_are_no_length_give_no_pixel_size(tmp_path, unit):
    from rsciio.hspy import file_writer

    path = tmp_path / "image.hspy"
    file_writer(path, signal(image(), unit=unit))
    check(path, image(), "HyperSpy", size_pm=None)


def test_hspy_complex_and_spectra_are_refused(tmp_path):
    from rsciio.hspy import file_writer

    path = tmp_path / "wave.hspy"
    file_writer(path, signal(image().astype(np.complex64)))
    refused(path, "complex")
    spectra = signal(image())
    spectra["axes"][0]["navigate"] = True
    path = tmp_path / "spectra.hspy"
    file_writer(path, spectra)
    refused(path, "two signal axes", "x (signal)")


@pytest.mark.parametrize("data", [image(), stack()], ids=["image", "stack"])
@pytest.mark.parametrize("names", [("y", "x"), ("", "")], ids=["named", "nameless"])
def test_emd_0_2_of_hyperspy_is_stored_transposed(tmp_path, data, names):
    from rsciio.emd import file_writer

    path = tmp_path / "stack.emd"
    file_writer(str(path), signal(data, names=names))
    assert h5py.File(path)["signals/HAADF/data"].shape == data.T.shape
    check(path, data, "EMD (Berkeley)")


@pytest.mark.parametrize("default", [False, True])
def test_nexus_of_hyperspy(tmp_path, default):
    from rsciio.nexus import file_writer

    path = tmp_path / "stack.nxs"
    file_writer(str(path), signal(stack()), use_default=default)
    said = check(path, stack(), "NeXus")
    assert said["times_ns"] == [0, 500_000_000]


# --- EMD by its other libraries -------------------------------------------------------------------------------------


def test_emd_0_2_of_ncempy(tmp_path):
    from ncempy.io import emd

    path = tmp_path / "stack.emd"
    dims = (
        (np.arange(FRAMES) * 0.25, "time", "[s]"),
        (np.arange(ROWS) * ROW_NM, "y", "[n_m]"),
        (np.arange(COLS) * COL_NM, "x", "[n_m]"),
    )
    with emd.fileEMD(str(path), readonly=False) as file:
        file.put_emdgroup("HAADF", stack(np.uint16), dims)
    check(path, stack(np.uint16), "EMD (Berkeley)")


def test_emd_1_0_of_emdfile(tmp_path):
    import emdfile

    path = tmp_path / "image.emd"
    array = emdfile.Array(
        image(), name="HAADF", units="counts", dims=[10 * ROW_NM, 10 * COL_NM], dim_names=["Rx", "Ry"],
        dim_units=["A", "A"],
    )
    emdfile.save(str(path), array)
    said = check(path, image(), "EMD (Berkeley)")
    assert said["channel"] == "HAADF"


def test_emd_1_0_stack_of_emdfile_has_its_frames_last(tmp_path):
    import emdfile

    path = tmp_path / "stack.emd"
    array = emdfile.Array(
        np.moveaxis(stack(), 0, -1).copy(), name="HAADF", dims=[ROW_NM, COL_NM], dim_names=["y", "x"],
        dim_units=["nm", "nm"], slicelabels=["a", "b", "c"],
    )
    emdfile.save(str(path), array)
    check(path, stack(), "EMD (Berkeley)")


def velox(path, detectors=("HAADF",), frames=FRAMES):
    """The documented layout; no public library writes it. It is read back by RosettaSciIO, below."""
    with h5py.File(path, "w") as file:
        for index, detector in enumerate(detectors):
            group = file.create_group(f"Data/Image/{index:032x}")
            group.create_dataset("Data", data=np.moveaxis(stack(np.uint16)[:frames], 0, -1), chunks=(ROWS, COLS, 1))
            metadata = {
                "Core": {"MetadataDefinitionVersion": "7.9"},
                "BinaryResult": {
                    "PixelSize": {"width": str(COL_NM * 1e-9), "height": str(ROW_NM * 1e-9)},
                    "PixelUnitX": "m", "PixelUnitY": "m", "Detector": detector, "DetectorIndex": str(index),
                    "Offset": {"x": "0", "y": "0"},
                },
                "Detectors": {f"Detector-{index}": {"DetectorName": detector, "DetectorType": "ScanningDetector"}},
                "Scan": {"ScanRotation": "0.25", "DwellTime": "2e-06", "FrameTime": "0.25"},
                "Acquisition": {"AcquisitionStartDatetime": {"DateTime": "1700000000"}},
                "Optics": {"AccelerationVoltage": "200000"}, "Instrument": {"InstrumentModel": "Titan"},
            }
            column = np.zeros((4096, frames), dtype=np.uint8)
            text = json.dumps(metadata).encode()
            column[: len(text)] = np.frombuffer(text, dtype=np.uint8)[:, None]
            group.create_dataset("Metadata", data=column)
        file.create_dataset("Version", data=[json.dumps({"format": "Velox", "version": "11"})], dtype=h5py.string_dtype())


def test_velox_emd(tmp_path):
    from rsciio.emd import file_reader

    path = tmp_path / "velox.emd"
    velox(path)
    # The file is one that RosettaSciIO takes for Velox's, with the same pixels and sizes.
    (theirs,) = file_reader(str(path))
    np.testing.assert_array_equal(theirs["data"], stack(np.uint16))
    steps = [(axis["scale"], axis["units"]) for axis in theirs["axes"]]
    assert steps == [(250.0, "ms"), (pytest.approx(1000 * ROW_NM), "pm"), (pytest.approx(1000 * COL_NM), "pm")]
    said = check(path, stack(np.uint16), "EMD (Velox)")
    assert (said["channel"], said["rotation_rad"], said["dwell_us"]) == ("HAADF", 0.25, pytest.approx(2.0))
    assert said["times_ns"] == [1_700_000_000_000_000_000, 1_700_000_000_500_000_000]


def test_velox_of_several_detectors_says_which_was_chosen(tmp_path):
    path = tmp_path / "velox.emd"
    velox(path, detectors=("BF", "HAADF", "DF2"), frames=1)
    said = check(path, stack(np.uint16)[:1], "EMD (Velox)")
    assert "image 2 of 3" in said["description"] and said["channel"] == "HAADF"
    other = inspect(path, "--dataset", f"Data/Image/{2:032x}/Data")
    assert (other["channel"], other["shape"]) == ("DF2", [ROWS, COLS])


# --- NSID -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [image(), stack()], ids=["image", "stack"])
def test_nsid_of_pynsid(tmp_path, data):
    pyNSID = pytest.importorskip("pyNSID")
    import sidpy

    dataset = sidpy.Dataset.from_array(data, title="HAADF")
    dataset.data_type = "image_stack" if data.ndim == 3 else "image"
    dataset.quantity, dataset.units, dataset.modality, dataset.source = "intensity", "counts", "STEM", "test"
    axes = [("y", ROWS, ROW_NM, "nm", "spatial"), ("x", COLS, COL_NM, "nm", "spatial")]
    if data.ndim == 3:
        axes.insert(0, ("time", FRAMES, 0.25, "s", "temporal"))
    for index, (name, size, step, units, kind) in enumerate(axes):
        values = np.arange(size) * step
        dataset.set_dimension(
            index, sidpy.Dimension(values, name=name, units=units, quantity=name, dimension_type=kind)
        )
    path = tmp_path / "file.hf5"
    with h5py.File(path, "w") as file:
        group = file.create_group("Measurement_000/Channel_000")
        pyNSID.hdf_io.write_nsid_dataset(dataset, group, main_data_name="HAADF")
    said = check(path, data, "NSID")
    if data.ndim == 3:
        assert said["times_ns"] == [0, 500_000_000]


# --- Nion Swift -----------------------------------------------------------------------------------------------------


def swift_item(data):
    """Data and properties as a data item of Nion Swift hands them to its storage."""
    data_item = pytest.importorskip("nion.swift.model.DataItem")
    from nion.data import Calibration, DataAndMetadata

    calibrations = [Calibration.Calibration(0, ROW_NM, "nm"), Calibration.Calibration(0, COL_NM, "nm")]
    descriptor = DataAndMetadata.DataDescriptor(data.ndim == 3, 0, 2)
    if data.ndim == 3:
        calibrations.insert(0, Calibration.Calibration(0, 0.25, "s"))
    metadata = {"hardware_source": {"channel_name": "HAADF", "pixel_time_us": 2.0}, "scan": {"rotation_rad": 0.25}}
    xdata = DataAndMetadata.new_data_and_metadata(
        data, dimensional_calibrations=calibrations, metadata=metadata, data_descriptor=descriptor
    )
    item = data_item.DataItem(large_format=True)
    item.set_xdata(xdata)
    properties = item.write_to_dict()
    item.close()
    return properties


@pytest.mark.parametrize("data", [image(), stack(np.uint16)], ids=["image", "stack"])
@pytest.mark.parametrize("kind", ["h5", "ndata"])
def test_nion_swift(tmp_path, data, kind):
    properties = swift_item(data)
    if kind == "h5":
        from nion.swift.model.HDF5Handler import HDF5Handler as Handler
    else:
        from nion.swift.model.NDataHandler import NDataHandler as Handler
    path = tmp_path / f"item.{kind}"
    handler = Handler(str(path))
    now = datetime.datetime.now()
    handler.write_data(data, now)
    handler.write_properties(properties, now)
    handler.close()
    said = check(path, data, "Nion Swift HDF5" if kind == "h5" else "Nion Swift ndata")
    assert (said["channel"], said["dwell_us"], said["rotation_rad"]) == ("HAADF", 2.0, 0.25)
    # Swift writes when the item was made, in UTC.
    created = datetime.datetime.fromisoformat(properties["created"]).replace(tzinfo=datetime.timezone.utc)
    assert said["t_start_ns"] == pytest.approx(created.timestamp() * 1e9, abs=2000)
    if data.ndim == 3:
        assert said["times_ns"][1] - said["times_ns"][0] == 500_000_000


# --- NeXus by its own library ---------------------------------------------------------------------------------------


def test_nexus_of_nexusformat(tmp_path):
    nexus = pytest.importorskip("nexusformat.nexus")
    axes = [
        nexus.NXfield(np.arange(FRAMES) * 250.0, name="time", units="ms"),
        nexus.NXfield(np.arange(ROWS) * 10 * ROW_NM, name="y", units="angstrom"),
        nexus.NXfield(np.arange(COLS) * 10 * COL_NM, name="x", units="angstrom"),
    ]
    data = nexus.NXdata(nexus.NXfield(stack(), name="HAADF"), axes)
    root = nexus.NXroot(nexus.NXentry(data))
    path = tmp_path / "stack.nxs"
    root["entry/data"].set_default()
    root.save(str(path))
    said = check(path, stack(), "NeXus")
    assert (said["times_ns"], said["channel"]) == ([0, 500_000_000], "HAADF")


# --- TIFF -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i2", "f4", "f8"])
def test_tiff_of_every_type(tmp_path, dtype, compression):
    tifffile = pytest.importorskip("tifffile")
    data = (stack(np.int64) % 120).astype(dtype)
    path = tmp_path / "stack.tif"
    # Pixels a centimetre.
    resolution = (1e7 / COL_NM, 1e7 / ROW_NM)
    tifffile.imwrite(
        path, data, compression=compression, resolution=resolution, resolutionunit="CENTIMETER", photometric="minisblack"
    )
    check(path, data, "TIFF")


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_tiff_of_either_byte_order_and_size_in_tiles(tmp_path, byteorder, bigtiff):
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, stack(np.uint16), byteorder=byteorder, bigtiff=bigtiff, tile=(16, 16), photometric="minisblack")
    check(path, stack(np.uint16), "TIFF", size_pm=None)


@pytest.mark.parametrize("truncate", [False, True])
@pytest.mark.parametrize(("unit", "factor"), [("nm", 1.0), ("\\u00B5m", 1e-3), ("micron", 1e-3), ("Angstrom", 10.0)])
def test_tiff_of_imagej(tmp_path, unit, factor, truncate):
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "stack.tif"
    resolution = (1 / (COL_NM * factor), 1 / (ROW_NM * factor))
    metadata = {"unit": unit, "finterval": 0.25, "axes": "TYX"}
    # ImageJ itself writes one page where the stack is large, with the other images behind it.
    tifffile.imwrite(
        path, stack(np.uint16), imagej=True, resolution=resolution, metadata=metadata, truncate=truncate
    )
    said = check(path, stack(np.uint16), "TIFF")
    assert len(said["contents"]["entries"]) == (1 if truncate else FRAMES)
    assert said["times_ns"] == [0, 500_000_000]


@pytest.mark.parametrize(("unit", "factor"), [("nm", 1.0), ("µm", 1e-3), ("Å", 10.0), ("pm", 1000.0)])
def test_tiff_of_ome(tmp_path, unit, factor):
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "stack.ome.tif"
    metadata = {
        "axes": "TYX", "PhysicalSizeX": COL_NM * factor, "PhysicalSizeXUnit": unit, "PhysicalSizeY": ROW_NM * factor,
        "PhysicalSizeYUnit": unit, "TimeIncrement": 0.25, "TimeIncrementUnit": "s", "Channel": {"Name": ["HAADF"]},
    }
    tifffile.imwrite(path, stack(np.uint16), ome=True, metadata=metadata)
    said = check(path, stack(np.uint16), "TIFF")
    assert (said["times_ns"], said["channel"]) == ([0, 500_000_000], "HAADF")


def test_tiff_resolutions_of_printers_are_no_calibration_and_colours_are_refused(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "print.tif"
    tifffile.imwrite(path, image(), resolution=(72, 72), resolutionunit="INCH")
    check(path, image(), "TIFF", size_pm=None)
    path = tmp_path / "colours.tif"
    tifffile.imwrite(path, np.zeros((ROWS, COLS, 3), np.uint8), photometric="rgb")
    refused(path, "grey pixels", "RGB")


# --- numpy, asyncroscopy, Sm-BFO, any HDF5 --------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["C", "F"])
def test_npy(tmp_path, order):
    path = tmp_path / "stack.npy"
    np.save(path, np.asarray(stack(np.int16), order=order))
    check(path, stack(np.int16), "numpy", size_pm=None)


def test_asyncroscopy(tmp_path):
    """As its data writer lays a file out: one dataset a detector, metadata in attributes."""
    path = tmp_path / "stem_image_BF-S_HAADF_20261125.h5"
    with h5py.File(path, "w", track_order=True) as file:
        group = file.create_group("image", track_order=True)
        for index, detector in enumerate(["BF-S", "HAADF"]):
            dataset = group.create_dataset(detector, data=stack(np.uint16)[1 - index])
            for name, value in {
                "acquisition_type": "stem_image", "detector": detector, "fov_m": COLS * COL_NM * 1e-9,
                "dwell_time_s": 2e-6, "PixelSize": "1", "stage": json.dumps([1, 2, 3]),
            }.items():
                dataset.attrs[name] = value
    said = check(path, image(np.uint16), "asyncroscopy", size_pm=(1000 * COL_NM, 1000 * COL_NM))
    assert (said["channel"], said["dwell_us"]) == ("HAADF", pytest.approx(2.0))


def test_smbfo(tmp_path):
    """MATLAB's layout, as the data set of the paper has it."""
    path = tmp_path / "SM_10_0_HAADF.h5"
    pixels = image(np.float64)
    pixels[0] = np.nan
    pixels[:, -1] = 0.0
    with h5py.File(path, "w") as file:
        file["MainImage"] = pixels
    assert "no *_UCParameterization.h5 beside it" in run(path).stdout
    cells = tmp_path / "Sm_10_0_UCParameterization.h5"
    with h5py.File(cells, "w") as file:
        for name in ["ab", "xy_COM", "Pxy"]:
            file[name] = np.zeros((2, 4))
        for name in ["Vol", "a", "b", "I1"]:
            file[name] = np.zeros((1, 4))
    said = check(path, pixels, "Sm-BFO", size_pm=None)
    assert said["contents"]["unit_cells"] == str(cells)
    refused(cells, "MainImage", "the cells of an Sm-BFO image")


def test_any_dataset_of_any_hdf5(tmp_path):
    path = tmp_path / "any.h5"
    with h5py.File(path, "w") as file:
        file["deep/inside/stack"] = stack(np.float16)
        file["deep/table"] = np.zeros(4, dtype=[("a", "f4"), ("b", "u1")])
        file["deep/words"] = np.array([b"a", b"b"])
        file["deep/flat"] = np.zeros(4)
        file["deep/broken"] = h5py.SoftLink("/nowhere")
        file["deep/virtual"] = h5py.ExternalLink("missing.h5", "/data")
    refused(path, "--dataset", "/deep/inside/stack ([3, 5, 7]", "expected")
    expected = stack(np.float16).astype(np.float32)
    check(path, expected, "HDF5 dataset", size_pm=None, options=("--dataset", "/deep/inside/stack"))
    for name, says in [
        ("deep/table", "found 1 of lengths [4]"), ("deep/flat", "expected 2 axes (row, col) or 3 (frame, row, col)"),
        ("deep/broken", "deep/broken"), ("deep/virtual", "deep/virtual"), ("deep/none", "deep/none"), ("deep", "deep"),
    ]:
        done = run(path, "--dataset", name)
        assert done.returncode == 1 and says in done.stderr, done.stderr
        assert "panicked" not in done.stderr
    kinds = {entry["path"]: entry["kind"] for entry in inspect_failing(path)["contents"]["entries"]}
    assert kinds["/deep/broken"] == "broken" and kinds["/deep"] == "group" and kinds["/deep/table"] == "dataset"


def inspect_failing(path):
    done = run(path, "--json")
    assert done.returncode == 1
    return json.loads(done.stdout)


def test_a_real_digitalmicrograph_image(tmp_path):
    data = os.environ.get("FERROSTEM_DATA")
    if not data:
        pytest.skip("FERROSTEM_DATA is not set")
    from ncempy.io import dm

    path = Path(data) / "BTO_crystal_1.dm4"
    theirs = dm.dmReader(str(path))
    said = inspect(path)
    assert (said["format"], said["shape"]) == ("DigitalMicrograph", list(theirs["data"].shape))
    assert theirs["pixelUnit"] == ["nm", "nm"]
    assert said["pixel_size_pm"] == pytest.approx([1000 * float(size) for size in theirs["pixelSize"]])
    target = tmp_path / "frame.npy"
    assert run(path, "--npy", target).returncode == 0
    np.testing.assert_array_equal(np.load(target), theirs["data"])


# --- what is no image -----------------------------------------------------------------------------------------------


def test_other_files_and_files_cut_short_are_refused_by_what_they_are(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not an image")
    refused(path, "notes.txt", "expected")
    path.write_bytes(b"")
    refused(path, "an empty file")
    whole = tmp_path / "stack.hspy"
    from rsciio.hspy import file_writer

    file_writer(whole, signal(stack()))
    cut = tmp_path / "cut.hspy"
    cut.write_bytes(whole.read_bytes()[:-100])
    done = run(cut)
    assert done.returncode == 1 and "cut.hspy" in done.stderr
    npy = tmp_path / "cut.npy"
    np.save(npy, stack())
    npy.write_bytes(npy.read_bytes()[:-1])
    done = run(npy)
    assert done.returncode == 1 and "420 bytes" in done.stderr and "419 bytes" in done.stderr


def test_a_file_larger_than_the_memory_allowed_is_read_frame_by_frame(tmp_path):
    import resource

    path = tmp_path / "large.h5"
    frames, side = 400, 1024
    with h5py.File(path, "w") as file:
        data = file.create_dataset("large", (frames, side, side), "f4", chunks=(1, side, side), compression=1)
        for index in range(0, frames, 133):
            data[index] = index
    # 1.6 GB of pixels with an address space of 1 GB.
    limit = 1 << 30
    done = subprocess.run(
        [BINARY, "inspect", path, "--dataset", "large", "--json", "--frame", "399"],
        capture_output=True, text=True, timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["frames"] == frames
