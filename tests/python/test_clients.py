"""FerroSTEM as a Python user meets it: frames sent and results received with nothing but pyzmq, cbor2 and numpy.

    pip install -r tests/python/requirements.txt
    FERROSTEM_BIN=target/release/ferrostem FERROSTEM_DATA=... pytest tests/python

FERROSTEM_BIN names the program; without it only what needs no daemon is tested. FERROSTEM_DATA is a folder with real
images; without it a simulated one is used.
"""

import json
import os
import re
import signal
import socket as sockets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import cbor2
import h5py
import numpy as np
import pytest
import zmq

REPOSITORY = Path(__file__).resolve().parents[2]
CLIENTS = REPOSITORY / "tools" / "python"
sys.path.insert(0, str(CLIENTS))

import control  # noqa: E402
import publish_frame  # noqa: E402
import subscribe  # noqa: E402

BINARY = os.environ.get("FERROSTEM_BIN")
DATA = Path(os.environ["FERROSTEM_DATA"]) if os.environ.get("FERROSTEM_DATA") else None
DEVICE = os.environ.get("FERROSTEM_DEVICE", "cpu")
# Loading the networks and compiling their kernels; then a frame of 1024 x 1024 on a slow CPU.
READY_WITHIN_S = 300
RESULT_WITHIN_S = 180
# What is in hand at the shutdown may be several such frames.
DRAINED_WITHIN_S = 180

needs_binary = pytest.mark.skipif(
    not BINARY or not Path(BINARY).is_file(), reason="FERROSTEM_BIN does not name the ferrostem program"
)


# --- what needs no daemon -------------------------------------------------------------------------------------------


def test_typed_arrays_are_decoded_by_their_tags():
    # RFC 8746, section 3.1.1: [2, 4, 8, 4, 16, 256] as big-endian uint16, two rows of three.
    example = bytes.fromhex("d82882820203d8414c000200040008000400100100")
    array = cbor2.loads(example, tag_hook=subscribe.typed_array)
    assert array.dtype == np.dtype(">u2")
    assert array.tolist() == [[2, 4, 8], [4, 16, 256]]


@pytest.mark.parametrize(
    ("tag", "dtype"),
    [
        (64, "u1"), (65, ">u2"), (66, ">u4"), (67, ">u8"), (68, "u1"), (69, "<u2"), (70, "<u4"), (71, "<u8"),
        (72, "i1"), (73, ">i2"), (74, ">i4"), (75, ">i8"), (77, "<i2"), (78, "<i4"), (79, "<i8"),
        (80, ">f2"), (81, ">f4"), (82, ">f8"), (84, "<f2"), (85, "<f4"), (86, "<f8"),
    ],
)  # fmt: skip
def test_every_number_format_is_known(tag, dtype):
    values = np.array([0, 1, 100], dtype)
    message = cbor2.dumps({"type": "x", "v": 1, "a": cbor2.CBORTag(tag, values.tobytes())})
    decoded = subscribe.decode(message)["a"]
    assert decoded.dtype == values.dtype
    assert decoded.tolist() == [0, 1, 100]


def test_a_later_version_of_the_wire_is_refused():
    with pytest.raises(ValueError, match="version 2"):
        subscribe.decode(cbor2.dumps({"type": "result", "v": 2}))


def test_frames_follow_the_recipe():
    context = zmq.Context.instance()
    with context.socket(zmq.PUSH) as sender, context.socket(zmq.PULL) as receiver:
        port = sender.bind_to_random_port("tcp://127.0.0.1")
        receiver.connect(f"tcp://127.0.0.1:{port}")
        image = np.arange(12, dtype=np.uint16).reshape(3, 4).T  # not contiguous
        publish_frame.send_frame(sender, image, 7, pixel_size_pm=15.0)
        header, pixels = receiver.recv_multipart()
        header = json.loads(header)
        assert header == {"dtype": "uint16", "shape": [4, 3], "seq": 7, "pixel_size_pm": 15.0}
        assert np.array_equal(np.frombuffer(pixels, header["dtype"]).reshape(header["shape"]), image)


def test_control_arguments_are_json_or_text():
    assert control.argument("candidate_id=7") == ("candidate_id", 7)
    assert control.argument("path=run 3.h5") == ("path", "run 3.h5")
    assert control.argument('set={"a.b": 0.5}') == ("set", {"a.b": 0.5})


def test_the_readme_shows_the_ten_lines():
    lines = (CLIENTS / "ten_lines.py").read_text()
    assert len(lines.splitlines()) == 10
    readme = REPOSITORY / "README.md"
    blocks = re.findall(r"```python\n(.*?)```", readme.read_text(), re.DOTALL) if readme.is_file() else []
    blocks = [block for block in blocks if "my_microscope" in block]
    if not blocks:
        pytest.skip("the README does not show the ten lines")
    assert blocks == [lines]


# --- the daemon -----------------------------------------------------------------------------------------------------


def free_port():
    with sockets.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Daemon:
    """`ferrostem run`, or another command that runs the daemon, on ports of its own."""

    def __init__(self, folder, command=("run",), settings=(), **ports):
        names = ("frames", "results", "latest", "control", "http")
        self.ports = {name: ports.get(name) or free_port() for name in names}
        self.endpoints = {name: f"tcp://127.0.0.1:{port}" for name, port in self.ports.items()}
        source = f'{{name = "python", endpoint = "{self.endpoints["frames"]}", pattern = "sub"}}'
        settings = [f"runtime.drain_ms={DRAINED_WITHIN_S * 1000}", *settings]
        settings += [f"sources=[{source}]", f'lanes.http="127.0.0.1:{self.ports["http"]}"']
        settings += [f'lanes.{lane}="{self.endpoints[lane]}"' for lane in ("results", "latest", "control")]
        command = [BINARY, *command, "--config", str(REPOSITORY / "configs" / "live.toml"), "--device", DEVICE]
        for setting in settings:
            command += ["--set", setting]
        self.log = folder / f"daemon-{self.ports['http']}.log"
        self.process = subprocess.Popen(command, cwd=REPOSITORY, stdout=self.log.open("w"), stderr=subprocess.STDOUT)

    def wait_until_ready(self):
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the daemon ended with {self.process.returncode}:\n{self.tail()}"
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['http']}/readyz", timeout=5) as reply:
                    if reply.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                pass
            time.sleep(0.05)
        raise AssertionError(f"not ready within {READY_WITHIN_S} s:\n{self.tail()}")

    def tail(self):
        return self.log.read_text(errors="replace")[-4000:]

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def analyze(image_path, out, pixel_size_pm):
    command = [BINARY, "analyze", str(image_path), "--out", str(out), "--device", DEVICE]
    if pixel_size_pm is not None:
        command += ["--pixel-size-pm", str(pixel_size_pm)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=READY_WITHIN_S + RESULT_WITHIN_S)
    assert done.returncode == 0, done.stderr[-4000:]


def image_in_data(name):
    return DATA / name if DATA is not None and (DATA / name).is_file() else None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("clients")


@pytest.fixture(scope="module")
def daemon(folder):
    daemon = Daemon(folder)
    try:
        daemon.wait_until_ready()
        yield daemon
    finally:
        daemon.kill()


@pytest.fixture(scope="module")
def simulated(folder):
    """A simulated image as .npy."""
    path = folder / "simulated.npy"
    done = subprocess.run([BINARY, "simulate", "--out", str(path)], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return path


@pytest.fixture(scope="module", params=["bto_1.npy", "sto_titan.npy", "simulated"])
def image(request):
    """Path of an image and its pixel size in pm, None where the lattice has to tell."""
    if request.param == "simulated":
        return request.getfixturevalue("simulated"), None
    path = image_in_data(request.param)
    if path is None:
        pytest.skip(f"FERROSTEM_DATA has no {request.param}")
    return path, {"bto_1.npy": 29.66, "sto_titan.npy": 10.013}[request.param]


def receive(results, wanted, deadline):
    """Decoded messages by topic, as soon as one of each topic passes its test in `wanted`."""
    found = {}
    while set(found) != set(wanted):
        remaining_ms = round((deadline - time.monotonic()) * 1000)
        assert remaining_ms > 0 and results.poll(remaining_ms), f"received {sorted(found)} of {sorted(wanted)} in time"
        topic, payload = results.recv_multipart()
        topic, message = topic.decode(), subscribe.decode(payload)
        assert message["type"] == topic
        assert list(message)[:2] == ["type", "v"]
        if topic in wanted and wanted[topic](message):
            found.setdefault(topic, message)
    return found


@pytest.fixture(scope="module")
def sender(daemon):
    """The microscope's socket, once the daemon has subscribed."""
    with zmq.Context.instance().socket(zmq.XPUB) as socket:
        socket.linger = 0
        socket.bind(daemon.endpoints["frames"])
        assert socket.poll(30_000), f"the daemon did not subscribe:\n{daemon.tail()}"
        socket.recv()
        yield socket


@pytest.fixture(scope="module")
def published(daemon, sender, image):
    """What came back for one frame: the path, its pixel size, and messages by topic."""
    path, pixel_size_pm = image
    fields = {"acquisition": path.stem, "channel": "HAADF"}
    if pixel_size_pm is not None:
        fields["pixel_size_pm"] = pixel_size_pm
    results = subscribe.subscribe(daemon.endpoints["results"])
    latest = subscribe.subscribe(daemon.endpoints["latest"], [""])
    with results, latest:
        # The heartbeat tells that this subscription stands, on both sockets; only then is the frame sent, once.
        receive(results, {"status": lambda _: True}, time.monotonic() + 30)
        wait_for_subscription(daemon, latest)
        publish_frame.send_frame(sender, np.load(path), 5, **fields)
        of_frame = lambda m: m["acquisition"] == path.stem and m["seq"] == 5  # noqa: E731
        wanted = {"result": of_frame, "candidates": of_frame, "status": lambda m: m.get("last_seq") == 5}
        messages = receive(results, wanted, time.monotonic() + RESULT_WITHIN_S)
        while True:
            assert latest.poll(10_000), "nothing on the latest lane"
            messages["latest"] = subscribe.decode(latest.recv())
            if of_frame(messages["latest"]):
                return path, pixel_size_pm, messages


def wait_for_subscription(daemon, latest):
    """The latest lane has no heartbeat: its socket's monitor says when the handshake is done."""
    monitor = latest.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    with monitor:
        # Reconnecting starts the handshake anew, so that the event cannot have been missed.
        latest.disconnect(daemon.endpoints["latest"])
        latest.connect(daemon.endpoints["latest"])
        assert monitor.poll(10_000), "no connection to the latest lane"
        latest.disable_monitor()


@pytest.fixture(scope="module")
def analyzed(published, folder):
    """The same image through `analyze`: an open HDF5 session."""
    path, pixel_size_pm, _ = published
    out = folder / f"{path.stem}.h5"
    analyze(path, out, pixel_size_pm)
    with h5py.File(out) as file:
        yield file


def session_map(file, name):
    """The map `name` of the only frame of a session."""
    measurement = file["Measurement_000"]
    found = [group[name][name] for group in measurement.values() if isinstance(group, h5py.Group) and name in group]
    assert len(found) == 1, f"{name}: found {len(found)} times"
    values = found[0][()]
    return values[0] if values.ndim == 3 else values


@needs_binary
@pytest.mark.parametrize(
    "name", ["p_x", "p_y", "p_sigma", "cell_a", "cell_b", "cell_angle", "cell_area", "ood_p_value"]
)
def test_maps_match_analyze(published, analyzed, name):
    result = published[2]["result"]
    received = result["ood"]["p_value"] if name == "ood_p_value" else result[name]
    assert received.dtype == np.float32
    assert np.isfinite(received).any(), f"{name} was measured nowhere"
    np.testing.assert_allclose(received, session_map(analyzed, name), rtol=1e-4, atol=1e-4, equal_nan=True)


@needs_binary
def test_window_centres_match_analyze(published, analyzed):
    grid = published[2]["result"]["grid"]
    for axis in ("row", "col"):
        centres = grid[f"{axis}0"] + grid[f"step_{axis}"] * np.arange(grid[f"{axis}s"])
        np.testing.assert_allclose(centres, analyzed[f"Measurement_000/grid/{axis}"][()], atol=1e-4)


@needs_binary
def test_columns_match_analyze(published, analyzed):
    columns, table = published[2]["result"]["columns"], analyzed["Measurement_000/columns"][()]
    assert len(columns["row"]) == len(table) > 0
    order = np.lexsort((table["col"], table["row"]))
    received_order = np.lexsort((columns["col"], columns["row"]))
    for field in ("row", "col", "confidence"):
        np.testing.assert_allclose(columns[field][received_order], table[field][order], atol=1e-4, err_msg=field)
    assert np.array_equal(columns["class"][received_order], table["class"][order])


@needs_binary
def test_the_lanes_agree(published):
    _, pixel_size_pm, messages = published
    result, candidates, status, latest = (messages[t] for t in ("result", "candidates", "status", "latest"))
    shape = (result["grid"]["rows"], result["grid"]["cols"])
    assert result["p_x"].shape == result["ood"]["flag"].shape == shape
    np.testing.assert_array_equal(latest["p_x"], result["p_x"])
    assert [c["id"] for c in candidates["candidates"]] == [c["id"] for c in result["candidates"]]
    if pixel_size_pm is not None:
        np.testing.assert_allclose(result["calibration"]["pixel_size_pm"], pixel_size_pm)
        assert result["calibration"]["source"] == "frame"
    else:
        assert result["calibration"]["source"] == "lattice"
    assert result["timing"]["t_published_ns"] > result["timing"]["t_received_ns"] > 0
    assert status["counters"]["processed"] >= 1
    assert status["counters"]["rejected"] == 0
    assert set(result["mistilt"]["state"].ravel()) <= {0, 1, 2, 3}


@needs_binary
def test_candidates_lie_in_the_frame(published):
    path, _, messages = published
    rows, cols = np.load(path, mmap_mode="r").shape
    for candidate in messages["candidates"]["candidates"]:
        assert candidate["kind"] in {"ood", "domain_wall", "mistilt", "column", "vortex", "expression"}
        assert -0.5 <= candidate["px"]["row"] <= rows - 0.5 and -0.5 <= candidate["px"]["col"] <= cols - 0.5
        assert candidate["frac"]["y"] == pytest.approx((candidate["px"]["row"] + 0.5) / rows)
        assert candidate["frac"]["x"] == pytest.approx((candidate["px"]["col"] + 0.5) / cols)
        assert candidate["reason"]


@needs_binary
def test_summaries_are_one_line(published):
    for message in published[2].values():
        assert len(subscribe.summary(message).splitlines()) == 1


@needs_binary
def test_a_late_joiner_gets_a_snapshot_and_acknowledges(daemon, published):
    def ask(cmd, **args):
        return control.request(cmd, daemon.endpoints["control"], **args)

    assert ask("ping")["ok"]
    snapshot = ask("snapshot")
    assert snapshot["ok"] and snapshot["result"]["seq"] == 5
    refused = ask("no_such_command")
    assert not refused["ok"] and refused["error"]["code"] == "unknown_command"
    candidates = published[2]["candidates"]["candidates"]
    if candidates:
        assert ask("ack", candidate_id=candidates[0]["id"], verdict="accepted")["ok"]


# --- the scripts as programs ----------------------------------------------------------------------------------------


def start(script, *arguments, **options):
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


@needs_binary
def test_the_scripts_work_together_and_shutdown_ends_the_daemon(folder, simulated):
    daemon = Daemon(folder)
    publisher = subscriber = None
    try:
        daemon.wait_until_ready()
        subscriber = start(
            CLIENTS / "subscribe.py", "--endpoint", daemon.endpoints["results"], "--topics", "result", "--count", 1
        )
        publisher = start(CLIENTS / "publish_frame.py", simulated, "--endpoint", daemon.endpoints["frames"])
        printed, _ = subscriber.communicate(timeout=RESULT_WITHIN_S)
        assert subscriber.returncode == 0, printed
        assert re.match(r"result +python frame \d+: mean \|P\| [\d.]+ pm in \d+ of \d+ windows", printed), printed

        asked = start(CLIENTS / "control.py", "shutdown", "--endpoint", daemon.endpoints["control"])
        answer, _ = asked.communicate(timeout=30)
        assert asked.returncode == 0, answer
        assert daemon.process.wait(DRAINED_WITHIN_S) == 0, daemon.tail()
    finally:
        for process in filter(None, (publisher, subscriber)):
            process.kill()
            process.wait()
        daemon.kill()


MY_MICROSCOPE = '''
import itertools, json, os
import numpy

image = numpy.load(os.environ["IMAGE"])
steered = []

def acquire():
    if len(steered) == 2 or next(count) == 60:
        return None
    return image

def steer(candidates):
    steered.append(candidates)
    with open(os.environ["STEERED"], "w") as file:
        json.dump(steered, file)

count = itertools.count()
'''


@needs_binary
def test_the_ten_lines_run_as_printed(folder, simulated):
    defaults = {"frames": 5555, "latest": 5557}
    for port in defaults.values():
        with sockets.socket() as probe:
            probe.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                pytest.skip(f"port {port}, which the ten lines name, is taken")
    microscope = folder / "microscope"
    microscope.mkdir()
    (microscope / "my_microscope.py").write_text(MY_MICROSCOPE)
    steered = microscope / "steered.json"
    environment = {"PYTHONPATH": str(microscope), "IMAGE": str(simulated), "STEERED": str(steered)}
    daemon = Daemon(folder, **defaults)
    lines = None
    try:
        daemon.wait_until_ready()
        lines = start(CLIENTS / "ten_lines.py", env=os.environ | environment)
        printed, _ = lines.communicate(timeout=RESULT_WITHIN_S)
        assert lines.returncode == 0, printed
        for candidates in json.loads(steered.read_text()):
            assert all({"id", "kind", "px", "frac", "nm", "score", "reason"} <= set(c) for c in candidates)
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(DRAINED_WITHIN_S) == 0, daemon.tail()
    finally:
        if lines is not None:
            lines.kill()
            lines.wait()
        daemon.kill()
