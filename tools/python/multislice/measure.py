"""Column shifts, peaks and widths from the line scans of `tilt.h5`, and a figure of them.

    pip install h5py numpy matplotlib scipy && python measure.py tilt.h5 tilt.png

Adds the group `measured` to the file: for each direction, depth and tilt how far the A and the B column have shifted along the tilt,
relative to no tilt with the same phonons, what is left of their peaks, and what their width has grown by in quadrature.
"""

import sys

import h5py
import matplotlib
import numpy as np
from scipy.optimize import curve_fit

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SOURCE_PM = 30.0
NEAR_PM = 110.0


def blurred(line, length_pm):
    """The periodic line under a source of 30 pm standard deviation, on 8 times as many points."""
    n = len(line)
    spectrum = np.fft.rfft(line) * np.exp(-2 * (np.pi * SOURCE_PM * np.arange(n // 2 + 1) / length_pm) ** 2)
    return np.fft.irfft(spectrum, 8 * n) * 8


def fit(line, length_pm, expected_pm):
    """Height over the floor, position and standard deviation of the column near `expected_pm`."""
    line = blurred(line, length_pm)
    x = np.arange(len(line)) * length_pm / len(line)
    off = (x - expected_pm + length_pm / 2) % length_pm - length_pm / 2
    peak = off[np.argmax(np.where(np.abs(off) < NEAR_PM, line, -1))]
    near = np.abs(off - peak) < NEAR_PM

    def gaussian(x, height, centre, width, floor):
        return height * np.exp(-0.5 * ((x - centre) / width) ** 2) + floor

    start = [line[near].max() - line[near].min(), peak, 60, line[near].min()]
    height, centre, width, _ = curve_fit(gaussian, off[near], line[near], p0=start, maxfev=20000)[0]
    return height, centre, abs(width)


def columns(group, plane):
    """{"A": (height, position, width), "B": ...}; positions relative to where the column stands without tilt."""
    length = group.attrs["length_pm"]
    if "AB" in group:
        line = group["AB"][plane]
        return {"A": fit(line, length, length / 2), "B": fit(line, length, 0.0)}
    return {name: fit(group[name][plane], length, length / 2) for name in ("A", "B")}


def measure(file):
    """One row for each run, plane and tilt: direction, seed, depth (nm), tilt (mrad), then A and B's shift, peak, width growth."""
    rows = []
    for direction in file:
        if direction == "measured":
            continue
        for run in file[direction].values():
            for seed in run.values():
                still = seed.get("0mrad")
                if still is None:
                    continue
                depths = still["exit_depth_nm"][:]
                for plane in np.flatnonzero(depths > 1.0):
                    untilted = columns(still, plane)
                    for tilted in seed.values():
                        tilt = np.hypot(*tilted.attrs["tilt_mrad"])
                        if tilt == 0:
                            continue
                        found, row = columns(tilted, plane), [direction, tilted.attrs["seed"], depths[plane], tilt]
                        for name in ("A", "B"):
                            (h0, c0, w0), (h, c, w) = untilted[name], found[name]
                            row += [c - c0, h / h0, np.sign(w - w0) * np.sqrt(abs(w * w - w0 * w0))]
                        rows.append(row)
    return rows


def write(file, rows):
    if "measured" in file:
        del file["measured"]
    names = ["depth_nm", "tilt_mrad", "a_shift_pm", "a_peak", "a_width_growth_pm", "b_shift_pm", "b_peak",
             "b_width_growth_pm"]
    group = file.create_group("measured")
    group.attrs["of"] = "one value for each run, depth and tilt, sorted; shifts are positive along the tilt as the program has it"
    group.attrs["source_pm"] = SOURCE_PM
    group["direction"] = np.array([row[0] for row in rows], dtype="S8")
    group["seed"] = np.array([row[1] for row in rows], dtype=np.int32)
    for k, name in enumerate(names):
        group[name] = np.array([row[2 + k] for row in rows], dtype=np.float64)


def figure(file, rows, path):
    deepest = file["x/100nm/seed1"]
    plane = -1
    figure, axes = plt.subplots(1, 4, figsize=(15, 3.6), layout="constrained")
    for axis, name, element in zip(axes[:2], ("A", "B"), ("Bi", "Fe")):
        for tilted in sorted(deepest.values(), key=lambda group: np.hypot(*group.attrs["tilt_mrad"])):
            line = blurred(tilted[name][plane], tilted.attrs["length_pm"])
            x = np.arange(len(line)) * tilted.attrs["length_pm"] / len(line) - tilted.attrs["length_pm"] / 2
            axis.plot(x, 100 * line, label=f"{np.hypot(*tilted.attrs['tilt_mrad']):.0f} mrad")
        axis.set(title=f"through {element} columns, 100 nm, tilt along x", xlabel="x (pm)", ylabel="beam on the detector (%)")
        axis.legend(fontsize=8)
    table = np.array([row[2:] for row in rows], dtype=float)
    where = np.array([row[0] for row in rows])
    for axis, depth in zip(axes[2:], (30, table[:, 0].max())):
        for direction, marker in (("x", "o"), ("y", "s"), ("diagonal", "^")):
            for name, column, colour in (("Bi", 2, "C0"), ("Fe", 5, "C3")):
                here = (where == direction) & (np.abs(table[:, 0] - depth) < 1)
                if here.any():
                    axis.plot(table[here, 1], table[here, column], marker, color=colour, label=f"{name}, tilt along {direction}")
        axis.set(title=f"shifts at {depth:.0f} nm", xlabel="tilt (mrad)", ylabel="shift along the tilt (pm)")
        axis.axhline(0, color="0.8", zorder=0)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=90)


def main():
    with h5py.File(sys.argv[1], "a") as file:
        rows = sorted(measure(file))
        write(file, rows)
        print("direction seed depth_nm tilt_mrad | A: shift_pm peak width_growth_pm | B: the same | B/A")
        for direction, seed, depth, tilt, *numbers in rows:
            text = " ".join(f"{number:7.2f}" for number in numbers)
            print(f"{direction:9s} {seed} {depth:5.1f} {tilt:4.0f}  {text}  {numbers[3] / numbers[0]:5.2f}")
        figure(file, rows, sys.argv[2])


if __name__ == "__main__":
    main()
