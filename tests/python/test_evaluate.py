"""The quick studies of `ferrostem evaluate` as a user runs them, with floors under what the networks that ship reach.

    FERROSTEM_BIN=target/release/ferrostem FERROSTEM_DATA=... pytest tests/python/test_evaluate.py

A frame or two for each row of a table: the floors lie well below the full studies' numbers (`benches/`), and say that a study works and
that no network or flag has got much worse. About 45 s on one core in all.
"""

import json
import subprocess

import pytest
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


def test_columns():
    rows = evaluate("columns", "--frames", "1")["columns_by_dose"]
    assert {(row["counts"], row["class"]) for row in rows} == {(30, "A"), (30, "B"), (300, "A"), (300, "B")}
    for row in rows:
        assert row["found (%)"] >= 98 and row["spurious (%)"] <= 2, row
        assert row["position (pm)"] < (20 if row["counts"] == 30 else 14), row


def test_accuracy():
    tables = evaluate("accuracy", "--frames", "1")
    for name, most in [("accuracy_by_dose", 9), ("accuracy_by_dose_with_faults", 14)]:
        for row in tables[name]:
            assert row["windows"] > 100 and row["P DCNN (pm)"] < most, row
            assert row["P classical (pm)"] < most and row["cells measured classically (%)"] > 50, row
            assert row["P DCNN (pm)"] < 0.7 * row["P spread of truth (pm)"], row
    for row in tables["accuracy_non_polar"]:
        assert abs(row["mean P_x (pm)"]) < 8 and abs(row["mean P_y (pm)"]) < 8, row
    for row in tables["accuracy_by_pixel_size"]:
        assert row["P DCNN (pm)"] < 10 and 40 < row["within sigma (%)"] < 95, row


def test_regression(tmp_path):
    rows = evaluate("regression", "--fcnn", "none", out=tmp_path)["regression"]
    for row in rows[:2]:
        assert row["quantity"] in ("p_x", "p_y")
        assert row["R²"] > 0.5 and row["RMS"] < 13 and 0.7 < row["slope"] < 1.5, row
    assert len(list(tmp_path.glob("*.png"))) == 3


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
    for row in agreement.values():
        assert row["compared"] > 100 and row["flagged (%)"] < 10, row
        assert row["RMS difference (pm)"] < 20, row
    blurred = [row for row in tables["real_damage"] if row["damage"] == "patch blurred"]
    assert len(blurred) == 2 and len(tables["real_damage"]) == 8
    for row in blurred:
        assert row["flagged inside before (%)"] < 15 and 30 < row["flagged inside (%)"], row
        assert row["flagged outside (%)"] < 10 and row["AUROC"] > 0.9, row
        assert row["copies with a candidate on it (%)"] == 100, row
    assert {file.name for file in tmp_path.glob("*.png")} == {f"real_{name}.png" for name in images}
