#!/usr/bin/env python3
"""Times a DCNN of FerroSTEM beside PyTorch and ONNX Runtime: same weights, same image, same run, taking turns.

    python3 -m venv venv && venv/bin/pip install numpy torch onnx onnxruntime
    bench=$(cargo bench --bench convolution --no-run --message-format json | tools/python/peer_bench.py --find)
    venv/bin/python tools/python/peer_bench.py --bench $bench --model configs/models/dcnn-perovskite-100

Every way is run once to warm up and then `--repeats` times; what is printed is the fewest seconds, of the clock and of the
processors. On a machine that others use too, compare the processors' seconds, and best with `--threads 1`, where
no library waits in a loop for another thread. Window by window, and where once takes over five seconds (bfloat16 on processors
without instructions for it), a way is run once.

- "of the peak" counts the network's FLOP as it is defined (two for each multiplication and addition of a convolution over
  the whole image), against the processor's FLOP/s in the fastest large matrix product. Winograd's algorithm needs fewer.
- "error" is the largest one of P, relative to the largest P, against PyTorch in double precision.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path


def find_bench() -> None:
    """Prints the program that cargo names on standard input."""
    for line in sys.stdin:
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == "convolution":
            print(message["executable"])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--find", action="store_true", help="only print the bench's program, from cargo's messages")
    parser.add_argument("--bench", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--stride", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--windows", type=int, help="PyTorch: only so many, scaled to all; 0: none")
    arguments = parser.parse_args()
    if not arguments.find and not (arguments.bench and arguments.model):
        parser.error("--bench and --model are needed")
    return arguments


def read_safetensors(path: Path) -> dict:
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for name, entry in json.loads(data[8:end]).items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            values = np.frombuffer(data[end + first : end + last], np.float32)
            tensors[name] = torch.from_numpy(values.reshape(entry["shape"]).copy())
    return tensors


def dense(weights: dict, stride: int) -> nn.Sequential:
    """The network over a whole image; over one window it gives the window's outputs."""
    def convolution(name: str, stride: int = 1) -> nn.Conv2d:
        weight = weights[f"{name}.weight"]
        layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], stride=stride)
        layer.weight.data, layer.bias.data = weight, weights[f"{name}.bias"]
        return layer

    layers = []
    for name in [*(f"block1.{i}" for i in range(5)), "block2.0", "block2.1", None, "block3.0", "block3.1"]:
        layers += [convolution(name), nn.LeakyReLU(0.01)] if name else [nn.MaxPool2d(2)]
    if "deep.hidden.weight" in weights:
        layers.append(nn.MaxPool2d(2))
        for i in range(sum(key.startswith("deep.context.") for key in weights) // 2):
            layers += [convolution(f"deep.context.{i}"), nn.LeakyReLU(0.01)]
        layers += [convolution("deep.hidden", stride // 4), nn.LeakyReLU(0.01), convolution("head")]
    else:
        norm = nn.BatchNorm2d(128)
        norm.weight.data, norm.bias.data = weights["norm.gamma"], weights["norm.beta"]
        norm.running_mean, norm.running_var = weights["norm.running_mean"], weights["norm.running_var"]
        layers += [norm, convolution("head", stride // 2)]
    return nn.Sequential(*layers).eval()


def flop(network: nn.Sequential, image: torch.Tensor) -> int:
    total, x = 0, image
    for layer in network:
        x = layer(x)
        if isinstance(layer, nn.Conv2d):
            total += 2 * x.numel() * layer.weight[0].numel()
    return total


def crystal(side: int) -> np.ndarray:
    """A noisy lattice of cells that are not all the same, normalised."""
    row, col = np.mgrid[:side, :side]
    image = np.cos(0.235 * (row + 3 * np.sin(col / 30))) + np.cos(0.235 * (col + 3 * np.sin(row / 25)))
    image += 0.3 * np.random.default_rng(1).standard_normal(image.shape)
    return ((image - image.mean()) / image.std()).astype(np.float32)


def seconds(run) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


class Fewest:
    """The fewest seconds of the clock and of the processors."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = float("inf")
        self.answer = None

    def keep(self, wall_s: float, cpu_s: float) -> None:
        self.wall_s, self.cpu_s = min(self.wall_s, wall_s), min(self.cpu_s, cpu_s)

    def time(self, run, scale: float = 1.0) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        self.answer = run()
        self.keep((time.perf_counter() - wall) * scale, (time.process_time() - cpu) * scale)


def main(arguments: argparse.Namespace) -> None:
    side, stride = arguments.side, arguments.stride
    torch.set_num_threads(arguments.threads)
    manifest = tomllib.loads((arguments.model / "model.toml").read_text())
    window = manifest["architecture"]["window_px"]
    names = [output["name"] for output in manifest["outputs"]]
    weights = read_safetensors(arguments.model / manifest["weights"]["file"])
    count = ((side - window) // stride + 1) ** 2
    # Only what belongs to a window, as FerroSTEM cuts it too.
    used = (side - window) // stride * stride + window
    frame = crystal(side)
    image = torch.from_numpy(frame[None, None, :used, :used].copy())
    network = dense(weights, stride)
    last = dense(weights, stride).to(memory_format=torch.channels_last)
    half = dense(weights, stride).to(torch.bfloat16, memory_format=torch.channels_last)
    last_image = image.to(memory_format=torch.channels_last)
    half_image = last_image.to(torch.bfloat16)

    def p(outputs) -> np.ndarray:
        """P_x, and behind it P_y, from outputs `[..., channel, row, col]`."""
        outputs = np.asarray(outputs, np.float64).reshape(len(names), -1)
        specs = {output["name"]: output for output in manifest["outputs"]}
        rows = [outputs[names.index(name)] * specs[name]["scale"] + specs[name]["mean"] for name in ("p_x", "p_y")]
        return np.concatenate(rows)

    def by_window(some: int) -> np.ndarray:
        corners = [(i, j) for i in range(0, used - window + 1, stride) for j in range(0, used - window + 1, stride)]
        outputs = []
        for start in range(0, some, 32):
            batch = [image[0, :, i : i + window, j : j + window] for i, j in corners[start : min(start + 32, some)]]
            outputs.append(network(torch.stack(batch)).flatten(1))
        return torch.cat(outputs).T.numpy()

    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        onnx_path, frame_path, answer_path = f"{folder}/dcnn.onnx", f"{folder}/frame.npy", f"{folder}/answer.npy"
        np.save(frame_path, frame)
        torch.onnx.export(network, (image,), onnx_path, dynamo=False, input_names=["x"], output_names=["y"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = arguments.threads
        session = onnxruntime.InferenceSession(onnx_path, options, providers=["CPUExecutionProvider"])
        pixels = {"x": image.numpy()}
        peers = {
            "PyTorch, dense": lambda: p(network(image)),
            "PyTorch, dense, channels last": lambda: p(last(last_image)),
            "PyTorch, dense, channels last, bf16": lambda: p(half(half_image).float()),
            "ONNX Runtime, dense": lambda: p(session.run(None, pixels)[0]),
        }
        a = torch.randn(3072, 3072)
        product = Fewest()
        ways = {name: Fewest() for name in [*peers, "FerroSTEM", "FerroSTEM, burn's layers"]}

        def ferrostem(**own) -> None:
            command = [arguments.bench, "--model", arguments.model, "--frame", frame_path, "--answer", answer_path]
            command += ["--stride", str(stride), "--repeats", "1", "--ways", ",".join(own)]
            environment = {**os.environ, "RAYON_NUM_THREADS": str(arguments.threads)}
            report = json.loads(subprocess.check_output(command, env=environment))
            for way, name in own.items():
                ways.setdefault(name, Fewest()).keep(report[way]["wall_s"], report[way]["cpu_s"])
            ways[next(iter(own.values()))].answer = np.load(answer_path).astype(np.float64)

        for name, run in peers.items():
            ways[name].warm_s = seconds(run)
        for repeat in range(arguments.repeats):
            for name, run in peers.items():
                if repeat == 0 or ways[name].warm_s < 5.0:
                    ways[name].time(run)
            product.time(lambda: a @ a)
            ferrostem(own="FerroSTEM", burn="FerroSTEM, burn's layers")
        some = count if arguments.windows is None else arguments.windows
        if some:
            ways["PyTorch, window by window"] = Fewest()
            ways["PyTorch, window by window"].time(lambda: p(by_window(some)), count / some)
            ferrostem(**{"own-windows": "FerroSTEM, window by window"})
            ferrostem(**{"burn-windows": "FerroSTEM, window by window, burn's layers"})
        exact = p(dense({k: v.double() for k, v in weights.items()}, stride).double()(image.double()))
        work, peak = flop(network, image), 2 * len(a) ** 3 / product.cpu_s

    flags = Path("/proc/cpuinfo").read_text()
    vectors = next((name for flag, name in [("avx512f", "AVX-512"), ("avx2", "AVX2")] if flag in flags), "neither AVX2 nor AVX-512")
    print(
        f"{side}² px, stride {stride}, {count} windows, {arguments.threads} threads of {os.cpu_count()} cores, {vectors},"
        f" PyTorch {torch.__version__}, ONNX Runtime {onnxruntime.__version__}; {work / 1e9:.1f} GFLOP as defined,"
        f" matrix product {peak / 1e9:.0f} GFLOP a processor's second\n"
    )
    print("| | clock s | processors' s | ÷ FerroSTEM | of the peak | error |\n|---|---:|---:|---:|---:|---:|")
    own = ways["FerroSTEM"].cpu_s
    for name, way in sorted(ways.items(), key=lambda item: item[1].cpu_s):
        of_peak = "" if "window" in name else f"{work / way.cpu_s / peak:.0%}"
        error = ""
        if way.answer is not None and way.answer.shape == exact.shape:
            error = f"{np.abs(way.answer - exact).max() / np.abs(exact).max():.1e}"
        print(f"| {name} | {way.wall_s:.3f} | {way.cpu_s:.3f} | {way.cpu_s / own:.2f} | {of_peak} | {error} |")


if __name__ == "__main__":
    arguments = parse()
    if arguments.find:
        find_bench()
    else:
        import numpy as np
        import onnxruntime
        import torch
        from torch import nn

        main(arguments)
