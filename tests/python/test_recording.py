"""A session while it is recorded, and after the daemon was killed, as h5py sees it."""

import time

import h5py
import numpy as np
import zmq
from test_clients import Daemon, needs_binary
from publish_frame import send_frame

SETTINGS = ['models.dcnn="none"', 'models.fcnn="none"', 'mode="lossless"', "record.settings.flush_interval_ms=20"]
FRAMES = "Measurement_000/Channel_000/HAADF/HAADF"


def image(seq):
    return np.random.default_rng(seq).poisson(30, (48, 64)).astype(np.uint16)


def until(what, done, within_s=120):
    deadline = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


@needs_binary
def test_a_session_can_be_followed_and_outlives_its_writer(tmp_path):
    path = tmp_path / "session.h5"
    daemon = Daemon(tmp_path, command=["record", "--out", str(path)], settings=SETTINGS)
    try:
        daemon.wait_until_ready()
        with zmq.Context.instance().socket(zmq.XPUB) as microscope:
            microscope.bind(daemon.endpoints["frames"])
            assert microscope.poll(30_000), "nobody subscribed"
            sent = 0

            def send():
                nonlocal sent
                send_frame(microscope, image(sent), sent, pixel_size_pm=15.0)
                sent += 1

            def recorded():
                send()
                try:
                    with h5py.File(path, "r", swmr=True) as session:
                        return FRAMES in session
                except OSError:  # in the milliseconds in which a measurement begins
                    return False

            until("the first frame is recorded", recorded)
            with h5py.File(path, "r", swmr=True) as session:
                frames = session[FRAMES]

                def followed():
                    send()
                    frames.refresh()
                    return len(frames) > 25

                until("the reader sees new frames", followed)
                seen = len(frames)
                assert np.array_equal(frames[seen - 1], image(seen - 1))
                # Others need not ask for SWMR.
                with h5py.File(path, "r") as plain:
                    assert len(plain[FRAMES]) >= seen
            daemon.kill()
    finally:
        daemon.kill()
    with h5py.File(path, "r") as session:
        frames = session[FRAMES]
        assert len(frames) >= seen
        for seq in range(len(frames)):
            assert np.array_equal(frames[seq], image(seq))
        assert list(session["Measurement_000/frames"]["seq"][:seen]) == list(range(seen))
