"""The quick studies of `ferrostem evaluate` as a user runs them, with floors under what the networks that ship reach.

    FERROSTEM_BIN=target/release/ferrostem FERROSTEM_DATA=... pytest tests/python/test_evaluate.py

A frame or two for each row of a table: the floors lie at up to three times what the full studies measured (`benches/*.md`,
`model.toml`), and say that a study works and that no network or flag has got much worse. About two minutes on one core in all.
"""

import json
import math
import subprocess

import numpy as np
import pytest
from PIL import Image
from test_clients import BINARY, DATA, DEVICE, REPOSITORY, needs_binary

# A study takes 1 to 20 s on one core that has nothing else to do.
WITHIN_S = 600

pytestmark = needs_binary


def evaluate(*args, out=None):
    """The tables, rows as dictionaries; with `out`, that each was written there too."""
    command = [BINARY, "evaluate", *args, "--quick", "--json", "--set", f'device="{DEVICE}"']
    if out:
        command += ["--out", out]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=WITHIN_S)
    assert run.returncode == 0, run.stderr
    tables = json.loads(run.stdout)
    for name in tables if out else ():
        assert {f"{name}.csv", f"{name}.md"} <= {file.name for file in out.iterdir()}
    return tables


def refused(*args):
    """What the program says of a study that cannot be made."""
    command = [BINARY, "evaluate", *args, "--quick", "--set", f'device="{DEVICE}"']
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=WITHIN_S)
    assert run.returncode == 1, run
    return run.stderr


def drawn(folder, *names):
    """That the folder's figures are these, and that there is something on each."""
    assert {file.name for file in folder.glob("*.png")} == {f"{name}.png" for name in names}
    for name in names:
        with Image.open(folder / f"{name}.png") as picture:
            colours = picture.convert("RGB").getcolors(maxcolors=1 << 24)
        assert len(colours) > 16, name


def finite(row, *columns):
    values = [row[column] for column in columns]
    assert all(value is not None and math.isfinite(value) for value in values), row
    return values


def test_columns():
    rows = evaluate("columns", "--frames", "1")["columns_by_dose"]
    assert {(row["counts"], row["class"]) for row in rows} == {(30, "A"), (30, "B"), (300, "A"), (300, "B")}
    # Over eight frames 1.30 (A) and 0.98 (B) times the bound at 30 counts, 1.42 and 1.55 at 300; A columns 3.35 and 1.16 pm off.
    beside_bound, of_a_pm = {30: 3, 300: 3.5}, {30: 8, 300: 3}
    for row in rows:
        assert row["found (%)"] >= 98 and row["spurious (%)"] <= 2, row
        assert row["position / bound"] < beside_bound[row["counts"]], row
        # How far B is off says mostly how faint the frame's are.
        assert row["class"] == "B" or row["position (pm)"] < of_a_pm[row["counts"]], row


def test_accuracy():
    tables = evaluate("accuracy", "--frames", "1")
    # Over ten frames 5.9 and 3.8 pm at 30 and 300 counts, with faults 7.6 and 4.6; classically 6.7 and 3.2, 6.9 and 6.6.
    floors = {"accuracy_by_dose": ({30: 9, 300: 8}, 9), "accuracy_by_dose_with_faults": ({30: 14, 300: 10}, 14)}
    for name, (most, classically) in floors.items():
        for row in tables[name]:
            assert row["windows"] > 100 and row["P DCNN (pm)"] < most[row["counts"]], row
            assert row["P classical (pm)"] < classically and row["cells measured classically (%)"] > 50, row
            assert row["P DCNN (pm)"] < 0.7 * row["P spread of truth (pm)"], row
    # At most 0.65 pm over ten frames; that of single frames scatters by 0.8 pm.
    for row in tables["accuracy_non_polar"]:
        assert abs(row["mean P_x (pm)"]) < 2 and abs(row["mean P_y (pm)"]) < 2, row
    # 4.9 pm over ten frames.
    for row in tables["accuracy_by_pixel_size"]:
        assert row["P DCNN (pm)"] < 10 and 40 < row["within sigma (%)"] < 95, row
    (row,) = tables["accuracy_by_crystal"]
    assert row["P (pm)"] == 40 and row["windows"] > 100 and row["P DCNN (pm)"] < 12 and row["a (pm)"] < 8, row


def test_regression(tmp_path):
    rows = evaluate("regression", "--fcnn", "none", out=tmp_path)["regression"]
    for row in rows[:2]:
        assert row["quantity"] in ("p_x", "p_y")
        # 5.4 pm on the frames that training holds back (model.toml).
        assert row["R²"] > 0.5 and row["RMS"] < 11 and 0.75 < row["slope"] < 1.3, row
    drawn(tmp_path, "predicted_against_measured", "joint_distributions", "difference_maps")


def test_regression_on_an_image(tmp_path):
    """Its truth is the classical measurement."""
    image, out = tmp_path / "image.npy", tmp_path / "out"
    subprocess.run([BINARY, "simulate", "--scene", "bifeo3", "--out", image], check=True, timeout=WITHIN_S)
    rows = evaluate("regression", image, "--pixel-size-pm", "15", "--fcnn", "none", out=out)["regression"]
    for row in rows[:2]:
        assert row["quantity"] in ("p_x", "p_y") and row["windows"] > 500 and row["RMS"] < 13, row
    drawn(out, "predicted_against_measured", "joint_distributions", "difference_maps")


def test_regression_on_labelled_frames_of_a_session(tmp_path):
    """A label file stands for those frames of its session that it has; of the session itself, all are labelled."""
    scene, session, labels = tmp_path / "scene.toml", tmp_path / "session.h5", tmp_path / "labels.h5"
    whole = (REPOSITORY / "configs" / "scenes" / "bifeo3.toml").read_text()
    scene.write_text(whole.replace("shape = [512, 512]", "shape = [256, 256]"))
    for command in (
        ["simulate", "--scene", scene, "--out", session, "--frames", "2"],
        ["label", session, "--frames", "1:2", "--out", labels],
    ):
        subprocess.run([BINARY, *command], cwd=REPOSITORY, check=True, timeout=WITHIN_S)
    labelled, everything = (
        evaluate("regression", file, "--fcnn", "none")["regression"] for file in (labels, session)
    )
    for one, both in zip(labelled[:2], everything[:2]):
        assert one["RMS"] < 13 and both["RMS"] < 13, (one, both)
        assert 50 < one["windows"] < both["windows"], (one, both)


def test_regression_names_the_file_and_what_is_wrong_with_it(tmp_path):
    noise, missing = tmp_path / "noise.npy", tmp_path / "missing.npy"
    np.save(noise, np.random.default_rng(1).poisson(100, (512, 512)).astype("float32"))
    message = refused("regression", noise, "--pixel-size-pm", "15", "--fcnn", "none")
    assert "noise.npy: frame 0: no square lattice was found" in message, message
    assert "missing.npy" in refused("regression", missing, "--pixel-size-pm", "15", "--fcnn", "none")
    message = refused("regression", noise, missing, "--pixel-size-pm", "15,10,7", "--fcnn", "none")
    assert "one for each of 2 files" in message, message
    assert "no DCNN is loaded" in refused("regression", noise, "--dcnn", "none", "--fcnn", "none")


def test_loop():
    searches = {row["search"]: row for row in evaluate("loop", "--fcnn", "none")["loop"]}
    candidates, raster = searches["candidates"], searches["raster"]
    assert candidates["found (%)"] == raster["found (%)"] == 100
    assert candidates["frames to all"] < raster["frames to all"]


def test_mistilt():
    tables = evaluate("mistilt", "--frames", "1")
    ideal = {(row["frames show"], row["offset (pm)"]): row for row in tables["mistilt_ideal"]}
    assert ideal["non-polar", 0]["suspect (%)"] == 0 and ideal["non-polar", 10]["suspect (%)"] > 90
    assert ideal["polydomain", 0]["suspect (%)"] <= 10 and ideal["polydomain", 10]["suspect (%)"] > 50
    assert len(tables["mistilt_pipeline"]) == len(ideal)
    for row in [*ideal.values(), *tables["mistilt_pipeline"]]:
        # One domain cannot tell a tilt from P.
        if row["frames show"] == "single domain":
            assert row["suspect (%)"] == 0 and row["undetermined tiles (%)"] == 100, row
        elif row["offset (pm)"] == 0:
            assert row["suspect (%)"] <= 25, row


def test_out_of_distribution():
    tables = evaluate("ood", "--frames", "1", "--fcnn", "none")
    auroc = {(row["anomaly"].split(" (")[0], row["counts"]): row["shipped"] for row in tables["ood"]}
    for anomaly in ("A vacancy", "interstitial", "amorphous patch", "probe flicker"):
        assert auroc[anomaly, 100] > 0.8, auroc
    # At most a tenth is promised; of one or two frames all windows may lie together.
    promised = [row["p < 0.1 (%)"] for row in tables["ood_promise"]]
    assert sum(promised) / len(promised) < 20, promised


def test_real_images(tmp_path):
    images = {"sto_titan": ("sto_titan.npy", 10.013), "bto_1": ("bto_1.npy", 29.66)}
    if DATA is None or not all((DATA / file).is_file() for file, _ in images.values()):
        pytest.skip("FERROSTEM_DATA does not name a folder with the real images")
    files = [DATA / file for file, _ in images.values()]
    sizes = ",".join(str(size) for _, size in images.values())
    tables = evaluate("real", *files, "--pixel-size-pm", sizes, "--fcnn", "none", out=tmp_path)
    agreement = {row["image"]: row for row in tables["real_agreement"]}
    assert agreement.keys() == images.keys()
    # 2.6 and 13.0 pm apart; 0.9 and 0.0 % flagged.
    apart_pm = {"sto_titan": 7, "bto_1": 20}
    for name, row in agreement.items():
        assert row["compared"] > 100 and row["flagged (%)"] < 3, row
        assert row["RMS difference (pm)"] < apart_pm[name], row
    blurred = [row for row in tables["real_damage"] if row["damage"] == "patch blurred"]
    assert len(blurred) == 2 and len(tables["real_damage"]) == 8
    for row in blurred:
        # All of three patches, and 0.8 % outside.
        assert row["flagged inside before (%)"] < 5 and row["flagged inside (%)"] > 70, row
        assert row["flagged outside (%)"] < 3 and row["AUROC"] > 0.95, row
        assert row["copies with a candidate on it (%)"] == 100, row
    assert {file.name for file in tmp_path.glob("*.png")} == {f"real_{name}.png" for name in images}


def test_noise(tmp_path):
    rows = evaluate("noise", out=tmp_path)["noise"]
    networks = [(row["stack"], row["window (px)"], row["trained with noise"]) for row in rows]
    trained = ("none", "100 to 300")
    assert networks == [(stack, px, noise) for stack in ("NC", "C") for px in (28, 40) for noise in trained]
    for row in rows:
        without, little, much = finite(row, "noise none (pm)", "noise 10 (pm)", "noise 2000 (pm)")
        assert min(without, little, much) > 0, row
        # After 40 steps: 22.4 and 23.0 pm, 22.6 and 27.6, 21.5 and 23.9, 10.6 and 29.1.
        if row["trained with noise"] == "none":
            assert without < much, row
    centred = rows[6]
    assert centred["noise 2000 (pm)"] > 1.5 * centred["noise none (pm)"], centred
    assert len(list(tmp_path.glob("networks/*/model.toml"))) == len(rows)
    drawn(tmp_path, "noise", "noise_in_training", "noise_windows")


def test_composition(tmp_path):
    tables = evaluate("composition", out=tmp_path)
    assert tables.keys() == {"composition_nc", "composition_c"}
    compositions = ["0 % Sm", "10 % Sm", "20 % Sm"]
    for rows in tables.values():
        assert [row["trained on"] for row in rows] == [*compositions, "spread of P"]
        for row in rows:
            assert row.keys() == {"trained on", *compositions}
            assert all(0 < value < 60 for value in finite(row, *compositions)), row
        # Each row is a network of its own.
        assert len({row[compositions[0]] for row in rows[:-1]}) == len(compositions)
    assert len(list(tmp_path.glob("networks/*/model.toml"))) == 2 * len(compositions)
    drawn(tmp_path, "composition", "composition_maps")


def test_features(tmp_path):
    rows = evaluate("features", out=tmp_path)["features"]
    assert [row["layer"] for row in rows] == [layer for layer in (1, 2, 3, 4) for _ in range(3)]
    assert len({(row["layer"], row["filter"]) for row in rows}) == len(rows)
    for row in rows:
        # A convolution without padding leaves a pixel out at each border.
        side = 80 - 2 * row["layer"]
        assert row["map (px)"] == f"{side} x {side}", row
        least, mean, largest, deviation = finite(row, "least", "mean", "largest", "standard deviation")
        assert least < mean < largest and 0 < deviation < largest - least, row
    # Those that vary most come first.
    for above, below in zip(rows, rows[1:]):
        assert above["layer"] < below["layer"] or above["standard deviation"] >= below["standard deviation"]
    drawn(tmp_path, "features")


def test_filters(tmp_path):
    rows = evaluate("filters", out=tmp_path)["filters"]
    filters = [(layer, channel) for layer in (1, 2, 3) for channel in (0, 1, 2)]
    assert [(row["layer"], row["filter"]) for row in rows] == filters
    for row in rows:
        start, reached = finite(row, "at the start", "reached")
        assert reached > start, row
        assert row["sees (px)"] == 1 + 2 * row["layer"] and row["steps"] == 8, row
    drawn(tmp_path, "filters")
