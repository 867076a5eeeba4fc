"""The simulated microscope as a Python user meets it: pyzmq, cbor2, numpy and h5py alone.

    pip install -r tests/python/requirements.txt
    FERROSTEM_BIN=target/release/ferrostem pytest tests/python/test_simulator.py

FERROSTEM_BIN names the program; without it these tests are skipped.
"""

import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import zmq

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tools" / "python"))

import control  # noqa: E402
import subscribe  # noqa: E402

BINARY = os.environ.get("FERROSTEM_BIN")
PATIENCE_S = 60
pytestmark = pytest.mark.skipif(
    not BINARY or not Path(BINARY).is_file(), reason="FERROSTEM_BIN does not name the ferrostem program"
)

# An A column that is four times as bright as the others, 3 cells below and 2 left of the origin; no noise.
SCENE = """
material = "srtio3"
[specimen]
cell_a_pm = 390.0
cell_b_pm = 390.0
defects = [{ kind = "substitution_a", at_nm = [1.17, -0.78], intensity_ratio = 4.0 }]
[microscope]
shape = [96, 128]
pixel_size_pm = 15.0
center_nm = [0.9, -0.5]
rotation_rad = 0.4
shot_noise = false
[server]
acquisition = "python"
drift_nm_per_s = [0.0, 0.0]
"""


class Microscope:
    """`ferrostem simulate --serve`, stopped, on free ports."""

    def __init__(self, folder, *options):
        scene = folder / "scene.toml"
        scene.write_text(SCENE)
        free = ["--endpoint", "tcp://127.0.0.1:0", "--control", "tcp://127.0.0.1:0"]
        command = [BINARY, "simulate", "--serve", "--stopped", "--max", "--scene", scene, *free, *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        self.frames, self.control = re.findall(r"tcp://[0-9.]+:[0-9]+", line)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(timeout=PATIENCE_S)
        self.process.stdout.close()
        assert kind is not None or code == 0

    def ask(self, cmd, **args):
        reply = control.request(cmd, self.control, PATIENCE_S, **args)
        assert reply["ok"], reply
        return reply["result"]

    def subscriber(self, topic=b""):
        """A socket whose subscription is known to have arrived, which is not acknowledged."""
        socket = zmq.Context.instance().socket(zmq.SUB)
        socket.linger = 0
        socket.rcvtimeo = 1000 * PATIENCE_S
        socket.connect(self.frames)
        socket.subscribe(topic)
        for _ in range(PATIENCE_S * 10):
            control.request("single", self.control, PATIENCE_S)
            if socket.poll(100):
                return socket
        raise TimeoutError("no frame")

    def begin(self, cmd):
        """The name of a new acquisition, once the one before, whose last frame may have come already, is over."""
        while not (reply := control.request(cmd, self.control, PATIENCE_S))["ok"]:
            assert reply["error"]["code"] == "unavailable", reply
        return reply["result"]["acquisition"]

    def frame(self, socket):
        """A single frame, by the pyzmq recipe, of the scan as it is set now."""
        acquisition = self.begin("single")
        while True:
            header, image = pyzmq_frame(socket.recv_multipart())
            if header["acquisition"] == acquisition:
                return header, image


def pyzmq_frame(parts):
    header, pixels = json.loads(parts[-2]), parts[-1]
    return header, np.frombuffer(pixels, header["dtype"]).reshape(header["shape"])


def brightest(image):
    return np.array(np.unravel_index(np.argmax(image), image.shape))


def off_centre(image):
    return np.abs(brightest(image) - (np.array(image.shape) - 1) / 2).max()


def test_both_encodings_say_the_same(tmp_path):
    with Microscope(tmp_path) as microscope, microscope.subscriber() as socket:
        acquisition, messages = microscope.begin("single"), []
        while not messages or messages[-1]["type"] != "end":
            message = subscribe.decode(socket.recv())
            messages += [message] if message["acquisition"] == acquisition else []
    assert [message["type"] for message in messages] == ["begin", "frame", "end"]
    native = messages[1]

    with Microscope(tmp_path, "--encoding", "pyzmq", "--topic", "haadf") as microscope:
        with microscope.subscriber(b"haadf") as socket:
            microscope.begin("single")
            parts = socket.recv_multipart()
    assert [len(parts), parts[0]] == [3, b"haadf"]
    header, image = pyzmq_frame(parts)

    assert np.array_equal(image, native["data"])
    assert header["dtype"] == "float32" and header["state"] == native["state"] == "complete"
    for key in ["pixel_size_pm", "rotation_rad", "center_nm", "fov_nm", "dwell_us", "channel", "valid_rows"]:
        assert header[key] == native[key], key
    assert header["rotation_rad"] == 0.4 and np.allclose(header["fov_nm"], [1.44, 1.92])
    assert header["seq"] == native["seq"] == 0
    assert header["t_start_ns"] <= header["t_end_ns"]
    assert header["acquisition"].startswith("python-")


@pytest.mark.parametrize("rotation_rad", [0.0, 0.4, -2.0])
def test_the_bright_site_comes_into_the_middle(tmp_path, rotation_rad):
    with Microscope(tmp_path, "--encoding", "pyzmq") as microscope, microscope.subscriber() as socket:
        microscope.ask("set_scan", rotation_rad=rotation_rad)
        header, image = microscope.frame(socket)
        row, col = brightest(image)
        assert off_centre(image) > 5, "it is not there yet"
        rows, cols = image.shape
        frac = {"y": (row + 0.5) / rows, "x": (col + 0.5) / cols}
        down, right = (row - (rows - 1) / 2) * 0.015, (col - (cols - 1) / 2) * 0.015
        sin, cos = math.sin(rotation_rad), math.cos(rotation_rad)
        nm = {"x": cos * right + sin * down, "y": cos * down - sin * right}
        of = {"acquisition": header["acquisition"], "seq": header["seq"]}

        # By what a candidate says, of the frame it was found in.
        for place in [{"frac": frac}, {"nm": nm}, {"px": {"row": int(row), "col": int(col)}}]:
            microscope.ask("go_to", **place, **of, rotation_rad=1.0)
            assert off_centre(microscope.frame(socket)[1]) <= 1.5, place
            microscope.ask("set_scan", center_nm=header["center_nm"], rotation_rad=rotation_rad)
        # By the centre of the field of view.
        y, x = header["center_nm"]
        microscope.ask("set_scan", center_nm=[y + nm["y"], x + nm["x"]])
        assert off_centre(microscope.frame(socket)[1]) <= 1.5
        microscope.ask("set_scan", center_nm=header["center_nm"])

        # By a sub-scan around it, turned against the full scan.
        status = microscope.ask(
            "set_scan",
            subscan_fractional_size=[0.3, 0.3],
            subscan_fractional_center=[frac["y"], frac["x"]],
            subscan_rotation_rad=0.5,
        )
        header, part = microscope.frame(socket)
        assert part.shape == (29, 38)
        assert off_centre(part) <= 1.5
        assert header["rotation_rad"] == pytest.approx(rotation_rad + 0.5)
        assert header["center_nm"] == pytest.approx(status["frame"]["center_nm"])
        assert header["user_data"]["simulated"]["subscan"]["fractional_size"] == [0.3, 0.3]
        # Finer, and then the whole again.
        microscope.ask("set_scan", subscan_shape=[96, 128])
        header, part = microscope.frame(socket)
        assert part.shape == (96, 128) and header["pixel_size_pm"] == pytest.approx([4.5, 4.5])
        assert off_centre(part) <= 4
        status = microscope.ask("set_scan", subscan_fractional_size=None)
        assert status["subscan"] is None
        assert microscope.frame(socket)[1].shape == (96, 128)


def test_start_stop_and_mistakes(tmp_path):
    with Microscope(tmp_path, "--encoding", "pyzmq") as microscope, microscope.subscriber() as socket:
        microscope.frame(socket)
        acquisition = microscope.begin("start")
        running = [pyzmq_frame(socket.recv_multipart())[0] for _ in range(8)]
        # Frames that wait for a slow subscriber make room for newer ones, so some may be missing.
        numbers = [header["seq"] for header in running if header["acquisition"] == acquisition]
        assert len(numbers) == 8 and numbers == sorted(set(numbers))
        refused = control.request("single", microscope.control, PATIENCE_S)
        assert refused["error"]["code"] == "unavailable"
        microscope.ask("stop")
        for cmd, args, code in [
            ("set_scan", {"fov_nm": -1}, "bad_args"),
            ("set_scan", {"fow_nm": 5}, "bad_args"),
            ("go_to", {"nm": {"x": 1, "y": 1}, "seq": 10**9}, "not_found"),
            ("levitate", {}, "unknown_command"),
        ]:
            assert control.request(cmd, microscope.control, PATIENCE_S, **args)["error"]["code"] == code


def test_a_session_has_its_truth_beside_it(tmp_path):
    scene = tmp_path / "scene.toml"
    scene.write_text(SCENE.replace("drift_nm_per_s = [0.0, 0.0]", "drift_nm_per_s = [0.5, 0.0]"))
    session = tmp_path / "run.h5"
    command = [BINARY, "simulate", "--scene", scene, "--out", session, "--frames", "3", "--seed", "5"]
    subprocess.run(command, check=True, timeout=PATIENCE_S)

    with h5py.File(session) as frames, h5py.File(tmp_path / "run_truth.h5") as file:
        images = frames["Measurement_000/Channel_000/HAADF/HAADF"][()]
        truth = file["Measurement_000"]
        assert file.attrs["format"] == "FerroSTEM truth" and file["metadata"].attrs["session"] == "run.h5"
        assert "cell_a_pm = 390.0" in file["metadata/scene_toml"].asstr()[()]
        assert list(truth["frames"]["seq"]) == [0, 1, 2]
        # 96 x 128 pixels of 4 microseconds at 0.5 nm/s, in mid-frame.
        frame_s = 96 * 128 * 4e-6
        assert np.allclose(truth["frames"]["drift_y_nm"], 0.5 * frame_s * (np.arange(3) + 0.5))
        assert truth["cells"].attrs["units_p_x"] == "pm" and truth["cells"].attrs["units_row"] == "px"

        mask = truth["Channel_000/defect_mask/defect_mask"]
        assert mask.shape == images.shape and [dim.label for dim in mask.dims] == ["time", "y", "x"]
        for frame, image in enumerate(images):
            columns = truth["columns"][truth["columns"]["frame"] == frame]
            bright = columns[np.argmax(columns["intensity"])]
            assert bright["class"] == 1
            assert np.allclose([bright["row"], bright["col"]], brightest(image), atol=1)
            (defect,) = truth["defects"][truth["defects"]["frame"] == frame]
            assert defect["kind"] == b"substitution_a"
            assert mask[frame][tuple(brightest(image))] == 1
            # Half a cell of 26 pixels around it: 530 pixels.
            assert 480 < (mask[frame] == 1).sum() < 580
            cells = truth["cells"][truth["cells"]["frame"] == frame]
            assert len(cells) > 10 and np.allclose(cells["p_x"], 0) and np.allclose(cells["p_y"], 0)
            assert np.allclose(cells["cell_angle"], math.pi / 2, atol=0.03)
            assert cells["disturbed"].sum() == 4

    again = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert again.returncode != 0 and "exists already" in again.stderr


def test_the_truth_file_opens_in_pynsid(tmp_path):
    hdf_utils = pytest.importorskip("pyNSID.io.hdf_utils")
    session = tmp_path / "run.h5"
    command = [BINARY, "simulate", "--out", session, "--frames", "2"]
    subprocess.run(command, check=True, timeout=PATIENCE_S)
    with h5py.File(tmp_path / "run_truth.h5") as file:
        (main,) = hdf_utils.get_all_main(file)
        dataset = hdf_utils.read_h5py_dataset(main)
        assert dataset.data_type.name == "IMAGE_STACK" and np.asarray(dataset).shape == (2, 512, 512)


def test_a_preview_is_pictures(tmp_path):
    scene = tmp_path / "scene.toml"
    scene.write_text(SCENE)
    command = [BINARY, "simulate", "--scene", scene, "--preview", tmp_path / "pictures"]
    subprocess.run(command, check=True, timeout=PATIENCE_S)
    for name in ["frame", "truth", "spectrum"]:
        assert (tmp_path / "pictures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
