"""How the columns of BiFeO3 [100] shift, dim and lengthen when the crystal is tilted: the numbers behind `simulate::Tilt`.

    pip install abtem==1.0.11 ase scipy && python tilt.py

4 x 4 x 76 cells (30 nm) of the undistorted perovskite, 200 kV, 30 mrad, HAADF 65-140 mrad, frozen phonons; line scans through
the A and the B columns along the tilt, convolved with a source of 30 pm standard deviation, and fitted with a Gaussian.
Half a minute for each tilt and phonon configuration on one core.
"""

import abtem
import ase
import numpy as np
from scipy.optimize import curve_fit

CELL_A = 3.96
CELLS, DEPTH = 4, 76
POINTS = 20
SOURCE_PM = 30.0
TILTS_MRAD = (0, 10, 20, 30)
SEEDS = (1, 2, 3)


def line_scans(tilt_mrad, seed):
    """Intensity over one cell along x: {"A": [depth, point], "B": ...}, after about 10, 20, 30 nm."""
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    cell = ase.Atoms("BiFeO3", cell=[CELL_A] * 3, pbc=True, scaled_positions=sites)
    sigmas = {"Bi": 0.09, "Fe": 0.07, "O": 0.085}
    phonons = abtem.FrozenPhonons(cell * (CELLS, CELLS, DEPTH), num_configs=1, sigmas=sigmas, seed=seed)
    potential = abtem.Potential(
        phonons, gpts=(320, 320), slice_thickness=CELL_A / 2, exit_planes=50, projection="infinite"
    )
    probe = abtem.Probe(energy=200e3, semiangle_cutoff=30, defocus=0, tilt=(tilt_mrad, 0.0))
    probe.grid.match(potential)
    detector = abtem.AnnularDetector(inner=65, outer=140)
    middle = 2 * CELL_A
    scans = {}
    for name, x, y in (("A", middle - CELL_A / 2, middle), ("B", middle, middle + CELL_A / 2)):
        scan = abtem.LineScan(start=(x, y), end=(x + CELL_A, y), gpts=POINTS, endpoint=False)
        measured = probe.scan(potential, scan=scan, detectors=detector).compute()
        scans[name] = np.asarray(measured.array)[1:4]
    return scans


def fit(line):
    """Height, position (pm) and width (pm) of the column in the middle of `line`."""
    wave_numbers = np.fft.rfftfreq(POINTS, 100 * CELL_A / POINTS)
    source = np.exp(-2 * (np.pi * wave_numbers * SOURCE_PM) ** 2)
    line = np.fft.irfft(np.fft.rfft(line) * source, POINTS)
    x = (np.arange(POINTS) / POINTS - 0.5) * 100 * CELL_A
    near = np.abs(x - x[np.argmax(line)]) < 120

    def gaussian(x, height, center, width, floor):
        return height * np.exp(-0.5 * ((x - center) / width) ** 2) + floor

    start = [line.max(), x[np.argmax(line)], 60, line.min()]
    height, center, width, _ = curve_fit(gaussian, x[near], line[near], p0=start)[0]
    return height, center, abs(width)


if __name__ == "__main__":
    runs = {tilt: [line_scans(tilt, seed) for seed in SEEDS] for tilt in TILTS_MRAD}
    print("depth_nm column tilt_mrad shift_pm peak width_growth_pm")
    for depth in range(3):
        for name in ("A", "B"):
            mean = {tilt: np.mean([run[name][depth] for run in runs[tilt]], axis=0) for tilt in TILTS_MRAD}
            height, center, width = fit(mean[0])
            for tilt in TILTS_MRAD[1:]:
                h, c, w = fit(mean[tilt])
                growth = np.sqrt(max(w * w - width * width, 0))
                print(f"{10 * (depth + 1)} {name} {tilt} {abs(c - center):.1f} {h / height:.2f} {growth:.1f}")
