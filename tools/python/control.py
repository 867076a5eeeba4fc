"""Ask a running FerroSTEM something, or tell it to do something.

    python control.py status
    python control.py snapshot
    python control.py ack candidate_id=7 verdict=accepted
    python control.py configure set='{"flags.ood.alpha": 0.001}'
    python control.py record_start path=session.h5
    python control.py --endpoint tcp://127.0.0.1:5559 go_to nm='{"x": 1.2, "y": -0.4}' seq=7   (the simulated microscope)

Prints the reply's result as JSON; the exit status is 1 where the request failed. Needs pyzmq.
"""

import argparse
import json
import sys

import zmq


def request(cmd, endpoint="tcp://127.0.0.1:5558", timeout_s=5.0, **args):
    """Sends one command and returns the reply, a dict with `ok` and either `result` or `error`."""
    with zmq.Context.instance().socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.connect(endpoint)
        socket.send_json({"id": 1, "cmd": cmd, "args": args})
        if not socket.poll(round(timeout_s * 1000)):
            raise TimeoutError(f"no reply from {endpoint} within {timeout_s} s")
        return socket.recv_json()


def argument(text):
    """`key=value`; the value is JSON where it can be read as such, else text."""
    key, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text}: expected key=value")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cmd")
    parser.add_argument("args", nargs="*", type=argument, metavar="key=value")
    parser.add_argument("--endpoint", default="tcp://127.0.0.1:5558", help="(default %(default)s)")
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds (default %(default)s)")
    options = parser.parse_args()

    reply = request(options.cmd, options.endpoint, options.timeout, **dict(options.args))
    if not reply["ok"]:
        sys.exit(f"{reply['error']['code']}: {reply['error']['message']}")
    print(json.dumps(reply["result"], indent=2))


if __name__ == "__main__":
    main()
