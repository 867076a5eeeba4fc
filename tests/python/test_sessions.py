"""Sessions recorded by FerroSTEM, opened with h5py and pyNSID.

FERROSTEM_SESSION names the file, which the Rust test `a_session_is_written_for_other_readers` writes:

    export FERROSTEM_SESSION=/tmp/session.h5
    cargo test --release --lib a_session_is_written && python3 -m pytest tests/python/test_sessions.py

Three frames of 6 x 5 pixels, results for the first and the last. Pixel (row, col) of frame n counts
1000 n + 10 row + col; window (i, j) of p_x is 1000 n + 10 i + j.
"""

import os
import re
from pathlib import Path

import pytest

h5py = pytest.importorskip("h5py")
np = pytest.importorskip("numpy")

SESSION = os.environ.get("FERROSTEM_SESSION")
pytestmark = pytest.mark.skipif(SESSION is None, reason="FERROSTEM_SESSION names no session")

FRAMES = "Measurement_000/Channel_000/HAADF/HAADF"
CHANNELS = [
    "HAADF", "p_x", "p_y", "p_sigma", "cell_a", "cell_b", "cell_angle", "cell_area", "ood_p_value", "ood_flag",
    "mistilt_offset_x", "mistilt_offset_y", "mistilt_p_value", "mistilt_state",
]


@pytest.fixture
def session():
    with h5py.File(SESSION, "r") as file:
        yield file


def test_frames_are_the_counts_that_were_received(session):
    frames = session[FRAMES]
    n, row, col = np.indices((3, 6, 5))
    assert frames.dtype == np.uint16
    assert np.array_equal(frames[()], 1000 * n + 10 * row + col)


def test_dimension_scales_are_attached_and_labelled(session):
    frames = session[FRAMES]
    assert [dim.label for dim in frames.dims] == ["time", "y", "x"]
    for dim, values in zip(frames.dims, ([0, 0.04, 0.08], np.arange(6) * 0.0151, np.arange(5) * 0.0152)):
        assert len(dim) == 1 and dim.keys() == [dim.label]
        assert dim[0].is_scale and dim[dim.label] == dim[0]
        assert np.allclose(dim[0][()], values)
        (user,) = dim[0].attrs["REFERENCE_LIST"]
        assert session[user["dataset"]] == frames and frames.dims[user["dimension"]].label == dim.label
    assert frames.dims[1][0].attrs["units"] == "nm"


def test_scales_can_be_detached_again(tmp_path):
    """The HDF5 library itself understands the attributes that the recorder wrote."""
    path = tmp_path / "copy.h5"
    path.write_bytes(open(SESSION, "rb").read())
    with h5py.File(path, "r+") as file:
        dim = file[FRAMES].dims[2]
        dim.detach_scale(dim[0])
        assert len(dim) == 0


def test_tables_have_their_fields(session):
    columns = session["Measurement_000/columns"]
    assert columns.dtype.names == ("frame", "row", "col", "class", "confidence")
    assert list(columns["frame"]) == [0, 2, 2, 2]
    assert np.allclose(columns[columns["frame"] == 2]["row"], [0.25, 1.25, 2.25])
    candidates = session["Measurement_000/candidates"]
    assert [kind.decode() for kind in candidates["kind"]] == ["ood", "domain_wall"] * 2
    assert candidates["reason"][0].decode() == 'a reason with µ and "quotes"'
    assert session["acks"]["verdict"][0] == b"accepted"
    assert list(session["Measurement_000/frames"]["seq"]) == [0, 1, 2]
    assert list(session["Measurement_000/results"]["frame"]) == [0, 2]
    assert session["metadata/config_toml"].asstr()[()] == 'mode = "live"\n'
    assert np.allclose(session["Measurement_000/grid/row"], [1.5, 2.5, 3.5])
    assert np.allclose(session["Measurement_000/grid/col"], [1, 3])


def test_pynsid_reads_every_channel(session):
    pytest.importorskip("sidpy")
    hdf_utils = pytest.importorskip("pyNSID.io.hdf_utils")
    mains = {main.name.split("/")[-1]: main for main in hdf_utils.get_all_main(session)}
    assert sorted(mains) == sorted(CHANNELS)
    datasets = {name: hdf_utils.read_h5py_dataset(main) for name, main in mains.items()}
    for name, dataset in datasets.items():
        assert dataset.data_type.name == "IMAGE_STACK", name
        assert [axis.name for _, axis in sorted(dataset._axes.items())] == ["time", "y", "x"], name
        assert [axis.units for _, axis in sorted(dataset._axes.items())] == ["s", "nm", "nm"], name
        kinds = [axis.dimension_type.name for _, axis in sorted(dataset._axes.items())]
        assert kinds == ["TEMPORAL", "SPATIAL", "SPATIAL"], name
    assert datasets["HAADF"].units == "counts"
    assert datasets["HAADF"].metadata["channel"] == "HAADF"
    p_x = datasets["p_x"]
    assert p_x.units == "pm"
    i, j = np.indices((3, 2))
    assert np.array_equal(np.asarray(p_x)[0], 10 * i + j)
    assert np.isnan(np.asarray(p_x)[1]).all()
    assert np.array_equal(np.asarray(p_x)[2], 2000 + 10 * i + j)


def test_the_nsid_reader_of_scifireaders_opens_it():
    readers = pytest.importorskip("SciFiReaders")
    datasets = readers.NSIDReader(SESSION).read()
    assert len(datasets) == len(CHANNELS)


def test_hyperspy_opens_it_as_nexus():
    """What hs.load(path, file_format="NeXus", nxdata_only=True, skip_array_metadata=True) reads."""
    nexus = pytest.importorskip("rsciio.nexus")
    loaded = nexus.file_reader(SESSION, nxdata_only=True, skip_array_metadata=True)
    signals = {signal["metadata"]["General"]["title"]: signal for signal in loaded}
    assert sorted(signals) == sorted(CHANNELS) and len(loaded) == len(CHANNELS)
    n, row, col = np.indices((3, 6, 5))
    assert np.array_equal(signals["HAADF"]["data"], 1000 * n + 10 * row + col)
    for signal in signals.values():
        axes = [(axis["name"], axis["units"], axis["navigate"]) for axis in signal["axes"]]
        assert axes == [("time", "s", True), ("y", "nm", False), ("x", "nm", False)]
    scales = [axis["scale"] for axis in signals["HAADF"]["axes"]]
    assert np.allclose(scales, [0.04, 0.0151, 0.0152])
    # Windows are centred on rows 1.5, 2.5, 3.5 and columns 1, 3.
    i, j = np.indices((3, 2))
    p_x = signals["p_x"]
    assert np.array_equal(p_x["data"][2], 2000 + 10 * i + j) and np.isnan(p_x["data"][1]).all()
    assert np.allclose([axis["scale"] for axis in p_x["axes"]], [0.04, 0.0151, 2 * 0.0152])
    assert np.allclose([axis["offset"] for axis in p_x["axes"]], [0, 1.5 * 0.0151, 0.0152])


def test_hyperspy_makes_images_of_it():
    hyperspy = pytest.importorskip("hyperspy.api")
    loaded = hyperspy.load(SESSION, file_format="NeXus", nxdata_only=True, skip_array_metadata=True)
    (frames,) = (signal for signal in loaded if signal.metadata.General.title == "HAADF")
    assert frames.axes_manager.signal_shape == (5, 6) and frames.axes_manager.navigation_shape == (3,)
    assert frames.axes_manager["x"].units == "nm"


def test_the_lines_of_the_readme_read_it(tmp_path):
    # A copy: one process cannot open a file with and without SWMR at a time.
    copy = tmp_path / "session.h5"
    copy.write_bytes(Path(SESSION).read_bytes())
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    (block,) = (block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "h5py" in block)
    assert len(block.splitlines()) <= 10
    read = {}
    exec(block.replace("session_000.h5", str(copy)), read)
    i, j = np.indices((3, 2))
    assert np.array_equal(read["newest"][0], 2000 + 10 * i + j)
    assert np.array_equal(read["newest"][1], 2100 + 10 * i + j)
    assert np.allclose(read["rows"], [1.5, 2.5, 3.5]) and len(read["candidates"]) == 4
