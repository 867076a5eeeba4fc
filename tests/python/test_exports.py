"""What `ferrostem export` writes, opened with the programs that it is for.

FERROSTEM_EXPORTS names the folder, which the Rust test `exports_are_written_for_other_readers` writes:

    export FERROSTEM_EXPORTS=/tmp/exports
    cargo test --release --lib exports_are_written && python3 -m pytest tests/python/test_exports.py

Three frames of 6 x 5 pixels of 15.1 x 15.2 pm, 40 ms apart, results for the first and the last; pixel (row, col) of frame n counts
1000 n + 10 row + col, window (i, j) of p_x is 1000 n + 10 i + j at row 1.5 + i, col 1 + 2 j. Then one frame of another acquisition.
"""

import csv
import os
import pathlib

import pytest

np = pytest.importorskip("numpy")

EXPORTS = os.environ.get("FERROSTEM_EXPORTS")
pytestmark = pytest.mark.skipif(EXPORTS is None, reason="FERROSTEM_EXPORTS names no folder")

COUNTS = np.fromfunction(lambda n, row, col: 1000 * n + 10 * row + col, (3, 6, 5))
P_X = np.fromfunction(lambda n, i, j: 1000 * n + 10 * i + j, (3, 3, 2))
P_X[1] = np.nan


def path(name):
    return str(pathlib.Path(EXPORTS) / name)


def check_axes(axes, expected):
    assert [axis["name"] for axis in axes] == [name for name, *_ in expected]
    for axis, (_, units, offset, scale) in zip(axes, expected):
        assert axis["units"] == units
        assert np.allclose([axis["offset"], axis["scale"]], [offset, scale])


FRAME_AXES = [("time", "s", 0, 0.04), ("y", "nm", 0, 0.0151), ("x", "nm", 0, 0.0152)]
WINDOW_AXES = [("time", "s", 0, 0.04), ("y", "nm", 1.5 * 0.0151, 0.0151), ("x", "nm", 0.0152, 0.0304)]


def by_title(signals):
    return {signal["metadata"]["General"]["title"]: signal for signal in signals}


def test_rosettasciio_reads_hspy():
    hspy = pytest.importorskip("rsciio.hspy")
    signals = by_title(hspy.file_reader(path("session.hspy")))
    assert len(signals) == 15
    counts, p_x = signals["Measurement_000 HAADF (counts)"], signals["Measurement_000 p_x (pm)"]
    assert counts["data"].dtype == np.uint16 and np.array_equal(counts["data"], COUNTS)
    assert np.array_equal(p_x["data"], P_X, equal_nan=True)
    check_axes(counts["axes"], FRAME_AXES)
    check_axes(p_x["axes"], WINDOW_AXES)
    assert [axis["navigate"] for axis in p_x["axes"]] == [True, False, False]
    assert signals["Measurement_001 HAADF (counts)"]["data"].shape == (6, 5)
    assert p_x["metadata"]["Signal"]["quantity"] == "polar displacement, x (pm)"
    assert counts["original_metadata"]["acquisition"] == "run 1"


def test_hyperspy_navigates_the_frames():
    hyperspy = pytest.importorskip("hyperspy.api")
    signals = hyperspy.load(path("session.hspy"))
    counts = next(s for s in signals if s.metadata.General.title == "Measurement_000 HAADF (counts)")
    assert counts.axes_manager.navigation_shape == (3,) and counts.axes_manager.signal_shape == (5, 6)
    assert np.array_equal(counts.inav[1].data, COUNTS[1])


def test_rosettasciio_reads_emd():
    emd = pytest.importorskip("rsciio.emd")
    signals = by_title(emd.file_reader(path("session.emd")))
    assert len(signals) == 15
    counts, p_x = signals["Measurement_000 HAADF (counts)"], signals["Measurement_000 p_x (pm)"]
    assert np.array_equal(counts["data"], COUNTS)
    assert np.array_equal(p_x["data"], P_X, equal_nan=True)
    check_axes(counts["axes"], FRAME_AXES)
    check_axes(p_x["axes"], WINDOW_AXES)


def test_ncempy_reads_emd():
    emd = pytest.importorskip("ncempy.io.emd")
    with emd.fileEMD(path("session.emd")) as file:
        groups = {group.name.split("/")[-1]: group for group in file.list_emds}
        data, dims = file.get_emdgroup(groups["Measurement_000 HAADF (counts)"])
    assert np.array_equal(data.T, COUNTS)
    assert [(name, units) for _, name, units in dims] == [("x", "[n_m]"), ("y", "[n_m]"), ("time", "[s]")]
    assert np.allclose(dims[0][0], np.arange(5) * 0.0152) and np.allclose(dims[1][0], np.arange(6) * 0.0151)


def test_nexusformat_plots_the_frames_by_default():
    nexus = pytest.importorskip("nexusformat.nexus")
    root = nexus.nxload(path("session.nxs"))
    data = root.plottable_data
    assert data.nxname == "HAADF" and data.nxgroup.nxname == "Measurement_000"
    assert np.array_equal(data.nxsignal.nxvalue, COUNTS)
    assert [axis.nxname for axis in data.nxaxes] == ["time", "y", "x"]
    assert np.allclose(data["time"].nxvalue, [0, 0.04, 0.08]) and data["y"].attrs["units"] == "nm"
    p_x = root["Measurement_000/p_x"]
    assert np.array_equal(p_x.nxsignal.nxvalue, P_X, equal_nan=True)
    assert np.allclose(p_x["x"].nxvalue, [0.0152, 3 * 0.0152])


def test_h5py_follows_the_default_chain():
    h5py = pytest.importorskip("h5py")
    with h5py.File(path("session.nxs")) as file:
        entry = file[file.attrs["default"]]
        data = entry[entry.attrs["default"]]
        assert (entry.attrs["NX_class"], data.attrs["NX_class"]) == ("NXentry", "NXdata")
        assert np.array_equal(data[data.attrs["signal"]], COUNTS)
        assert list(data.attrs["axes"]) == ["time", "y", "x"]


def test_tables_are_csv():
    with open(path("tables/columns.csv"), newline="") as file:
        columns = list(csv.DictReader(file))
    assert [(c["frame"], c["row_px"], c["col_px"]) for c in columns[:2]] == [("0", "0.25", "0.5"), ("2", "0.25", "0.5")]
    with open(path("tables/candidates.csv"), newline="") as file:
        assert [c["kind"] for c in csv.DictReader(file)] == ["ood", "domain_wall"] * 2
