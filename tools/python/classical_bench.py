"""Precision of the classical measurement beside atomap's, on the same simulated frames.

    python classical_bench.py path/to/ferrostem [--frames 3] [--out ../../benches/classical.md]

Needs atomap (0.4), numpy and h5py. For each peak count FerroSTEM simulates frames of a lattice with one known P; `ferrostem label` and atomap
measure every cell. P is wrong by what it differs from the planted one; positions by what they differ from the lattice that fits them best.
atomap: its documented way: A sublattice by get_atom_positions at the lattice's separation, centre of mass then 2-D Gaussian; A subtracted from the
image; B sublattice where its columns must be, the same two steps on what is left; refined twice. It is told the separation and where B
stands; `ferrostem label` is told nothing.
"""

import argparse
import contextlib
import io
import json
import math
import platform
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

warnings.filterwarnings("ignore")

PIXEL_PM = 15.0
CELL_PM = 393.7
ROTATION = 0.12
P = (24.0, -11.0)
COUNTS = (10, 30, 100, 300, 1000)
SIZE = 256

SCENE = """
material = "srtio3"
[specimen]
cell_a_pm = {cell}
cell_b_pm = {cell}
rotation_rad = {rotation}
static_displacement_pm = 0.0
roughness = 0.0
background = {{ level = 0.1 }}
columns.a = {{ intensity = 1.0, sigma_pm = 70.0 }}
columns.b = {{ intensity = 0.4, sigma_pm = 65.0 }}
columns.o = {{ intensity = 0.0, sigma_pm = 60.0 }}
columns.tail_fraction = {tails}
columns.tail_ratio = 2.5
polarization = {{ kind = "uniform", p_pm = [{px}, {py}] }}
[microscope]
shape = [{size}, {size}]
pixel_size_pm = {pixel}
probe_sigma_pm = 30.0
peak_counts = {counts}
center_nm = [{y}, {x}]
[server]
seed = {seed}
"""


def planted():
    """P along the image's axes: turned counter-clockwise as displayed, y down."""
    cos, sin = math.cos(ROTATION), math.sin(ROTATION)
    return np.array([P[0] * cos + P[1] * sin, -P[0] * sin + P[1] * cos])


def simulate(ferrostem, folder, counts, tails, seed):
    rng = np.random.default_rng(seed)
    y, x = rng.uniform(0, CELL_PM * 1e-3, 2)
    # No dot in the name: with_suffix would take what follows it for a suffix.
    name = Path(folder) / f"{counts}_{100 * tails:.0f}_{seed}"
    scene = SCENE.format(cell=CELL_PM, rotation=ROTATION, tails=tails, px=P[0], py=P[1], size=SIZE, pixel=PIXEL_PM,
                         counts=float(counts), seed=seed, x=x, y=y)
    name.with_suffix(".toml").write_text(scene)
    image = name.with_suffix(".npy")
    subprocess.run([ferrostem, "simulate", "--scene", name.with_suffix(".toml"), "--out", image], check=True,
                   capture_output=True)
    return image


def ferrostem_label(ferrostem, image):
    command = [ferrostem, "label", image, "--pixel-size-pm", str(PIXEL_PM), "--json", "--all"]
    result = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    columns = np.array(result["all_columns"])
    cells = np.array(result["all_cells"])
    return {"a": columns[columns[:, 2] == 1][:, :2], "b": columns[columns[:, 2] == 0][:, :2],
            "cells": cells[:, :4], "sigma": cells[:, 4:6], "seconds": result["seconds"]}


def atomap_label(image):
    import atomap.api as am
    from atomap.tools import remove_atoms_from_image_using_2d_gaussian
    import hyperspy.api as hs

    start = time.perf_counter()
    pixels = np.load(image).astype(float)
    cell_px = CELL_PM / PIXEL_PM
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        # The noise would be found as atoms: atomap's manual smooths the image that positions are first looked for in.
        from scipy.ndimage import gaussian_filter
        smooth = gaussian_filter(pixels, 0.1 * cell_px)
        first = am.get_atom_positions(hs.signals.Signal2D(smooth), separation=int(0.75 * cell_px))
        a = am.Sublattice(first, image=pixels, original_image=pixels)
        a.find_nearest_neighbors()
        a.refine_atom_positions_using_center_of_mass(image_data=smooth, percent_to_nn=0.3, show_progressbar=False)
        a.refine_atom_positions_using_2d_gaussian(image_data=pixels, percent_to_nn=0.3, rotation_enabled=False,
                                                  show_progressbar=False)
        rest = remove_atoms_from_image_using_2d_gaussian(pixels, a, percent_to_nn=0.45, show_progressbar=False)
        cos, sin = math.cos(ROTATION), math.sin(ROTATION)
        half = 0.5 * cell_px * np.array([cos + sin, cos - sin])
        start_b = np.array([[x + half[0], y + half[1]] for x, y in zip(a.x_position, a.y_position)])
        inside = ((start_b > 6) & (start_b < SIZE - 7)).all(axis=1)
        b = am.Sublattice(start_b[inside].tolist(), image=rest, original_image=pixels)
        b.find_nearest_neighbors()
        b.refine_atom_positions_using_center_of_mass(image_data=gaussian_filter(rest, 0.1 * cell_px), percent_to_nn=0.25,
                                                     show_progressbar=False)
        b.refine_atom_positions_using_2d_gaussian(image_data=rest, percent_to_nn=0.3, rotation_enabled=False,
                                                  show_progressbar=False)
        # And A again, with B taken away.
        rest = remove_atoms_from_image_using_2d_gaussian(pixels, b, percent_to_nn=0.45, show_progressbar=False)
        a.refine_atom_positions_using_2d_gaussian(image_data=rest, percent_to_nn=0.3, rotation_enabled=False,
                                                  show_progressbar=False)
    a_at = np.column_stack([a.y_position, a.x_position])
    b_at = np.column_stack([b.y_position, b.x_position])
    cells = []
    for at in b_at:
        distance = np.hypot(*(a_at - at).T)
        nearest = np.argsort(distance)[:4]
        if distance[nearest].max() < 0.9 * cell_px:
            p = (at - a_at[nearest].mean(axis=0)) * PIXEL_PM
            cells.append([*at, p[1], p[0]])
    return {"a": a_at, "b": b_at, "cells": np.array(cells), "seconds": time.perf_counter() - start}


def lattice_residual(at):
    """Scatter of positions around the lattice that fits them best, one component, pm."""
    cell_px = CELL_PM / PIXEL_PM
    cos, sin = math.cos(ROTATION), math.sin(ROTATION)
    basis = cell_px * np.array([[-sin, cos], [cos, sin]])
    at = at[((at > 20) & (at < SIZE - 21)).all(axis=1)]
    index = np.round((at - at[len(at) // 2]) @ np.linalg.inv(basis))
    design = np.column_stack([index, np.ones(len(at))])
    error = at - design @ np.linalg.lstsq(design, at, rcond=None)[0]
    return error[np.hypot(*error.T) < 4] * PIXEL_PM


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ferrostem")
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--out")
    args = parser.parse_args()
    lines = ["| tails | counts | cells | **P, `ferrostem label`** | P, atomap | A | A, atomap | B | B, atomap | 68 % interval holds | s a frame | s, atomap |",
             "|---|---|---|---|---|---|---|---|---|---|---|---|"]
    rms = lambda values: float(np.sqrt(np.mean(np.square(np.concatenate(values)))))
    with tempfile.TemporaryDirectory() as folder:
        for tails in (0.0, 0.15):
            for counts in COUNTS:
                found = {"ferrostem": [], "atomap": []}
                for seed in range(args.frames):
                    image = simulate(args.ferrostem, folder, counts, tails, seed)
                    found["ferrostem"].append(ferrostem_label(args.ferrostem, image))
                    found["atomap"].append(atomap_label(image))
                row = {}
                for name, frames in found.items():
                    inner = lambda c: c[((c[:, :2] > 40) & (c[:, :2] < SIZE - 41)).all(axis=1)]
                    errors = [(inner(f["cells"])[:, 2:4] - planted()) for f in frames]
                    # What a tool gets wrong by more than 60 pm, it did not find.
                    kept = [e[np.hypot(*e.T) < 60] for e in errors]
                    row[name] = {"p": rms(kept), "cells": sum(map(len, kept)), "lost": sum(map(len, errors)) - sum(map(len, kept)),
                                 "a": rms([lattice_residual(f["a"]) for f in frames]),
                                 "b": rms([lattice_residual(f["b"]) for f in frames]),
                                 "seconds": float(np.mean([f["seconds"] for f in frames]))}
                inside = np.concatenate([np.abs(f["cells"][:, 2:4] - planted()) < f["sigma"] for f in found["ferrostem"]]).mean()
                f, a = row["ferrostem"], row["atomap"]
                lines.append(f"| {tails} | {counts} | {f['cells']} ({a['cells']}, {a['lost']} lost) | **{f['p']:.2f}** | {a['p']:.2f} | {f['a']:.2f} | {a['a']:.2f} "
                             f"| {f['b']:.2f} | {a['b']:.2f} | {100 * inside:.0f} % | {f['seconds']:.2f} | {a['seconds']:.1f} |")
                print(lines[-1], flush=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    import atomap
    text = f"""# The classical measurement beside atomap

    python tools/python/classical_bench.py path/to/ferrostem --frames {args.frames}

Commit {commit}, {platform.machine()}, atomap {getattr(atomap, '__version__', '0.4')}, {args.frames} frames of {SIZE} x {SIZE} px at {PIXEL_PM} pm a count, cells of {CELL_PM} pm, B 0.4 of A,
background 0.1 of A, planted P ({P[0]}, {P[1]}) pm. Errors are RMS, one component, pm; `tails` is the part of a column's height that is tail (2.5 times
as wide), `counts` the electrons at the peak of an A column. Cells within 40 px of the edge are left out for both; atomap's own
number of cells is in parentheses. Seconds on a shared machine; atomap's without its import.

"""
    text += "\n".join(lines) + "\n"
    if args.out:
        Path(args.out).write_text(text)


main()
