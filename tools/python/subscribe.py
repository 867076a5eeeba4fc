"""Print what FerroSTEM publishes.

    python subscribe.py
    python subscribe.py --topics candidates --count 10

Needs pyzmq, cbor2 and numpy. Copy `typed_array` into your own program and pass it to cbor2 as tag_hook: the
results' arrays then come out as numpy arrays.
"""

import argparse

import cbor2
import numpy as np
import zmq


def typed_array(*hook_arguments):
    """Typed arrays of RFC 8746: tag 40 gives an array its shape, tags 64 to 87 name the numbers in its bytes."""
    tag = next(argument for argument in hook_arguments if isinstance(argument, cbor2.CBORTag))
    if tag.tag == 40:
        shape, values = tag.value
        return values.reshape(shape)
    if not 64 <= tag.tag <= 87:
        return tag
    is_float, is_signed, is_little, size = tag.tag >> 4 & 1, tag.tag >> 3 & 1, tag.tag >> 2 & 1, tag.tag & 3
    kind = f"f{2 << size}" if is_float else f"{'ui'[is_signed]}{1 << size}"
    return np.frombuffer(tag.value, ("<" if is_little else ">") + kind)


def decode(payload):
    """The message in `payload` as a dict, its arrays as numpy arrays."""
    message = cbor2.loads(payload, tag_hook=typed_array)
    if message["v"] != 1:
        raise ValueError(f"version {message['v']} of the wire, this client speaks version 1")
    return message


def subscribe(endpoint="tcp://127.0.0.1:5556", topics=("result", "candidates", "status")):
    """A socket that receives two parts a message: topic and payload."""
    socket = zmq.Context.instance().socket(zmq.SUB)
    for topic in topics:
        socket.subscribe(topic)
    socket.connect(endpoint)
    return socket


def summary(message):
    """One line about a message."""
    if message["type"] == "result":
        length = np.hypot(message["p_x"], message["p_y"])
        measured = np.isfinite(length)
        mean = f"mean |P| {length[measured].mean():.1f} pm" if measured.any() else "P not measured"
        latency_ms = (message["timing"]["t_published_ns"] - message["timing"]["t_received_ns"]) / 1e6
        return (
            f"{message['acquisition']} frame {message['seq']}: {mean} in {measured.sum()} of {length.size} windows, "
            f"{int(message['ood']['flag'].sum())} flagged, {len(message['columns']['row'])} columns, "
            f"{latency_ms:.1f} ms"
        )
    if message["type"] == "candidates":
        sites = [f"{c['id']} {c['kind']} at ({c['px']['row']:.0f}, {c['px']['col']:.0f})" for c in message["candidates"]]
        return f"frame {message['seq']}: " + (", ".join(sites) or "no candidates")
    if message["type"] == "status":
        counters = message["counters"]
        return f"{message['state']}: {counters['received']} received, {counters['processed']} processed"
    return str(message)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoint", default="tcp://127.0.0.1:5556", help="(default %(default)s)")
    parser.add_argument("--topics", nargs="+", default=["result", "candidates", "status"])
    parser.add_argument("--count", type=int, default=0, help="messages to print, 0 for no end (default)")
    args = parser.parse_args()

    socket = subscribe(args.endpoint, args.topics)
    printed = 0
    while args.count == 0 or printed < args.count:
        topic, payload = socket.recv_multipart()
        print(f"{topic.decode():10} {summary(decode(payload))}", flush=True)
        printed += 1


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
