"""Time the DCNN in FerroSTEM beside PyTorch and ONNX Runtime: same machine, same run, interleaved, fewest seconds of each.

    python tools/python/peer_bench.py --bench target/release/deps/convolution-HASH --model configs/models/dcnn-perovskite-100

`--bench` is the program that `cargo bench --bench convolution --no-run` names. Needs numpy, torch, onnx and onnxruntime.
The networks of the peers have the shape of the model's (weights at random: they do not change the time). PyTorch window by
window, as AtomAI predicts, is timed on `--windows` windows and scaled to all. Peak: the fastest float32 matrix product.
"""

import argparse
import json
import subprocess
import tempfile
import time
import tomllib
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

STRIDE = 8


def network(deep: bool) -> tuple[nn.Sequential, nn.Sequential]:
    """Trunk and head."""
    layers, channels = [], 1
    for filters, pool in [([32] * 5, False), ([64] * 2, True), ([128] * 2, False)]:
        for out in filters:
            layers += [nn.Conv2d(channels, out, 3), nn.LeakyReLU(0.01)]
            channels = out
        if pool:
            layers.append(nn.MaxPool2d(2))
    head = [nn.BatchNorm2d(128), nn.Conv2d(128, 7, 29, stride=STRIDE // 2)]
    if deep:
        head = [nn.MaxPool2d(2)]
        for _ in range(3):
            head += [nn.Conv2d(128, 128, 3), nn.LeakyReLU(0.01)]
        head += [nn.MaxPool2d(2), nn.Conv2d(128, 256, 4, stride=STRIDE // 8), nn.LeakyReLU(0.01), nn.Conv2d(256, 7, 1)]
    return nn.Sequential(*layers).eval(), nn.Sequential(*head).eval()


def multiply_additions(modules, shape) -> int:
    """Of all convolutions, on an image of that shape."""
    total, x = 0, torch.zeros(1, 1, *shape)
    with torch.no_grad():
        for module in modules:
            x = module(x)
            if isinstance(module, nn.Conv2d):
                total += x.numel() * module.weight[0].numel()
    return total


def seconds(run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peak_flops() -> float:
    n, best = 3072, 0.0
    a, b = torch.randn(n, n), torch.randn(n, n)
    for _ in range(6):
        best = max(best, 2 * n**3 / seconds(lambda: a @ b))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--windows", type=int, default=128, help="windows timed one after the other, 32 a batch")
    args = parser.parse_args()
    manifest = tomllib.loads((args.model / "model.toml").read_text())
    deep = manifest["architecture"].get("head", "linear") == "deep"
    window = manifest["architecture"]["window_px"]
    side = args.side
    torch.manual_seed(0)
    trunk, head = network(deep)
    whole = nn.Sequential(trunk, head).eval()
    image = torch.randn(1, 1, side, side)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = f"{folder}/dcnn.onnx"
        torch.onnx.export(whole, (image,), path, dynamo=False, input_names=["x"], output_names=["y"])
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        cl, cl_image = whole.to(memory_format=torch.channels_last), image.to(memory_format=torch.channels_last)
        half = nn.Sequential(*[*network(deep)]).eval().to(torch.bfloat16).to(memory_format=torch.channels_last)
        half_image = cl_image.to(torch.bfloat16)
        count = ((side - window) // STRIDE + 1) ** 2
        batch = torch.randn(32, 1, window, window)
        best: dict[str, float] = {}
        own: dict = {}
        for index in range(args.repeats):
            runs = {
                "PyTorch dense, channels last": lambda: cl(cl_image),
                "ONNX Runtime dense": lambda: session.run(None, {"x": image.numpy()}),
            }
            if index == 0:
                runs["PyTorch dense, channels last, bf16"] = lambda: half(half_image)
                batches = max(args.windows // 32, 1)
                runs["PyTorch window by window"] = lambda: [whole(batch) for _ in range(batches)]
            for name, run in runs.items():
                taken = seconds(run)
                if name.endswith("by window"):
                    taken *= count / (32 * batches)
                best[name] = min(best.get(name, np.inf), taken)
            command = [args.bench, args.model, str(side), "1"] + (["windows"] if index == 0 else [])
            report = json.loads(subprocess.check_output(command))
            own = {**own, **report, **{k: min(own.get(k, np.inf), report[k]) for k in ("own_s", "burn_s")}}
        best["FerroSTEM"] = own["own_s"]
        best["burn's layers"] = own["burn_s"]
        best["FerroSTEM window by window (burn)"] = own["windows_s"]
        flops = 2 * multiply_additions([*trunk, *head], (side, side))
        peak = peak_flops()
    print(f"{side}² px, stride {STRIDE}, {torch.get_num_threads()} threads, {flops / 1e9:.1f} GFLOP as defined,"
          f" matrix product at {peak / 1e9:.0f} GFLOP/s\n")
    print("| | s | ÷ FerroSTEM | of the matrix product's FLOP/s |\n|---|---|---|---|")
    for name, taken in sorted(best.items(), key=lambda item: item[1]):
        dense = f"{flops / taken / peak:.0%}" if "window" not in name else ""
        print(f"| {name} | {taken:.3f} | {taken / best['FerroSTEM']:.2f} | {dense} |")
    print(f"\nDifferences of P from FerroSTEM's, relative: burn's layers {own['difference_burn']:.1e},"
          f" window by window {own['difference_windows']:.1e}")


if __name__ == "__main__":
    main()
