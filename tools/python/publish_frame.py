"""Send images in .npy files to FerroSTEM as frames: a JSON header, then the raw pixels.

    python publish_frame.py image.npy --pixel-size-pm 15
    python publish_frame.py stack.npy --interval 0.5 --count 100 --pattern push

A file with three dimensions is a stack of frames. The frames are sent in turn, over and over, until --count is reached.
Needs pyzmq and numpy. Copy `send_frame` into your own program.
"""

import argparse
import itertools
import time

import numpy as np
import zmq


def send_frame(socket, image, seq, **fields):
    """Sends `image`, a 2-D array [row, col] of integers or floats, as frame number `seq`.

    `fields` are those of FerroSTEM's frame message, such as acquisition="scan-12", pixel_size_pm=15.0,
    rotation_rad=0.0, fov_nm=[y, x], center_nm=[y, x], dwell_us=2.0. What is left out comes from FerroSTEM's config.
    """
    header = {"dtype": str(image.dtype), "shape": image.shape, "seq": seq, **fields}
    socket.send_json(header, zmq.SNDMORE)
    socket.send(np.ascontiguousarray(image))


def load_frames(paths):
    for path in paths:
        array = np.load(path)
        if array.ndim not in (2, 3):
            raise SystemExit(f"{path}: expected 2 or 3 dimensions, found the shape {array.shape}")
        yield from array if array.ndim == 3 else [array]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", metavar="IMAGE.npy")
    parser.add_argument("--endpoint", default="tcp://127.0.0.1:5555", help="where to bind (default %(default)s)")
    parser.add_argument("--pattern", choices=["pub", "push"], default="pub", help="whether FerroSTEM subscribes or pulls")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between frames (default %(default)s)")
    parser.add_argument("--count", type=int, default=0, help="frames to send, 0 for no end (default)")
    parser.add_argument("--pixel-size-pm", type=float)
    parser.add_argument("--acquisition", default="python")
    parser.add_argument("--channel", default="HAADF")
    args = parser.parse_args()

    frames = list(load_frames(args.images))
    fields = {"acquisition": args.acquisition, "channel": args.channel}
    if args.pixel_size_pm is not None:
        fields["pixel_size_pm"] = args.pixel_size_pm
    # XPUB is a PUB that also tells who subscribes, so that the first frames do not go to nobody.
    socket = zmq.Context.instance().socket(zmq.PUSH if args.pattern == "push" else zmq.XPUB)
    socket.sndhwm = 2  # rather wait or drop than queue old frames
    socket.bind(args.endpoint)
    if args.pattern == "pub":
        print(f"waiting for a subscriber on {args.endpoint}", flush=True)
        socket.recv()
    for seq in itertools.count() if args.count == 0 else range(args.count):
        started = time.monotonic()
        image = frames[seq % len(frames)]
        send_frame(socket, image, seq, **fields)
        print(f"frame {seq}: {image.shape[0]} x {image.shape[1]} {image.dtype}", flush=True)
        time.sleep(max(0.0, args.interval - (time.monotonic() - started)))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
