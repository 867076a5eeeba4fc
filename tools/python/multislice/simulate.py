"""How the columns of BiFeO3 [100] shift, dim and lengthen when the crystal is tilted, by multislice: writes `tilt.h5`.

    pip install abtem==1.0.11 ase h5py && python simulate.py [--depth-nm 30] [--seed 1] [--minutes 35] tilt.h5

The undistorted perovskite, 200 kV, 30 mrad, ADF 65-250 mrad, frozen phonons; line scans over one period of the lattice through the
columns, along the tilt. Each tilt is written as it is done, and one that is in the file already is passed over: a run that was
stopped goes on, and runs of other depths, directions and seeds add to the same file. `measure.py` reads it.
"""

import argparse
import os
import time

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import abtem
import ase
import dask
import h5py
import numpy as np

abtem.config.set({"fftw.threads": 1, "diagnostics.progress_bar": False})
dask.config.set(scheduler="synchronous")

CELL_A = 3.96
CELLS = 4
GRID = 480
EXIT_EVERY = 50
ENERGY_V, CONVERGENCE_MRAD, DETECTOR_MRAD = 200e3, 30.0, (65.0, 250.0)
SITES = {"Bi": [(0, 0, 0)], "Fe": [(0.5, 0.5, 0.5)], "O": [(0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]}
PHONON_SIGMA_A = {"Bi": 0.09, "Fe": 0.07, "O": 0.085}
TILTS_MRAD = (0.0, 10.0, 20.0, 30.0)

MIDDLE = CELLS / 2 * CELL_A
HALF = CELL_A / 2
# The probe passes no more than 2 x 30 mrad / wavelength: 19 points a cell hold all there is.
DIRECTIONS = {
    "x": ((1.0, 0.0), 20, {"A": (MIDDLE - HALF, MIDDLE), "B": (MIDDLE, MIDDLE + HALF)}, CELL_A),
    "y": ((0.0, 1.0), 20, {"A": (MIDDLE, MIDDLE - HALF), "B": (MIDDLE + HALF, MIDDLE)}, CELL_A),
    # One line holds both: A in the middle, B at its ends.
    "diagonal": ((np.sqrt(0.5), np.sqrt(0.5)), 28, {"AB": (MIDDLE - HALF, MIDDLE - HALF)}, np.sqrt(2) * CELL_A),
}


def crystal(depth_cells):
    species = [element for element, sites in SITES.items() for _ in sites]
    positions = [site for sites in SITES.values() for site in sites]
    cell = ase.Atoms(species, cell=[CELL_A] * 3, pbc=True, scaled_positions=positions)
    return cell * (CELLS, CELLS, depth_cells)


def line_scan(potential, tilt_mrad, direction, points, start, length):
    """Intensity `[exit plane, point]` along a line, as a fraction of the beam."""
    probe = abtem.Probe(
        energy=ENERGY_V, semiangle_cutoff=CONVERGENCE_MRAD, defocus=0, tilt=tuple(tilt_mrad * np.array(direction))
    )
    probe.grid.match(potential)
    end = tuple(np.array(start) + length * np.array(direction))
    scan = abtem.LineScan(start=start, end=end, gpts=points, endpoint=False)
    detector = abtem.AnnularDetector(inner=DETECTOR_MRAD[0], outer=DETECTOR_MRAD[1])
    return np.asarray(probe.scan(potential, scan=scan, detectors=detector).compute().array)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth-nm", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1, help="of the phonons")
    parser.add_argument("--directions", nargs="+", choices=list(DIRECTIONS), default=list(DIRECTIONS))
    parser.add_argument("--minutes", type=float, default=35.0, help="of processor time, after which no tilt is begun")
    parser.add_argument("out")
    arguments = parser.parse_args()

    depth_cells = round(arguments.depth_nm * 10 / CELL_A)
    phonons = abtem.FrozenPhonons(
        crystal(depth_cells), num_configs=1, sigmas=PHONON_SIGMA_A, seed=arguments.seed
    )
    potential = abtem.Potential(
        phonons, gpts=(GRID, GRID), slice_thickness=CELL_A / 2, exit_planes=EXIT_EVERY, projection="infinite"
    )
    with h5py.File(arguments.out, "a") as file:
        file.attrs.update({
            "program": f"abTEM {abtem.__version__}", "crystal": "BiFeO3, undistorted perovskite along [100]",
            "cell_pm": 100 * CELL_A, "cells_lateral": CELLS, "energy_v": ENERGY_V,
            "convergence_mrad": CONVERGENCE_MRAD, "detector_mrad": DETECTOR_MRAD, "defocus_nm": 0.0,
            "grid_points": GRID, "slice_pm": 50 * CELL_A, "phonon_sigma_pm": [100 * s for s in PHONON_SIGMA_A.values()],
            "phonon_sigma_of": list(PHONON_SIGMA_A), "source": "none: a point",
        })
    for direction in arguments.directions:
        vector, points, starts, length = DIRECTIONS[direction]
        for tilt in TILTS_MRAD:
            group_name = f"{direction}/{arguments.depth_nm:g}nm/seed{arguments.seed}/{tilt:g}mrad"
            with h5py.File(arguments.out, "a") as file:
                if group_name in file:
                    continue
            if time.process_time() > 60 * arguments.minutes:
                print(f"stopped before {group_name}: {arguments.minutes} minutes are over")
                return
            began = time.process_time()
            scans = {
                name: line_scan(potential, tilt, vector, points, start, length) for name, start in starts.items()
            }
            planes = [round(t / 10, 4) for t in potential.exit_thicknesses]
            with h5py.File(arguments.out, "a") as file:
                group = file.create_group(group_name)
                group.attrs.update({
                    "tilt_mrad": tilt * np.array(vector), "direction": vector, "length_pm": 100 * length,
                    "seed": arguments.seed, "depth_nm": arguments.depth_nm,
                    "processor_s": time.process_time() - began,
                })
                group["exit_depth_nm"] = np.float32(planes)
                for name, scan in scans.items():
                    line = group.create_dataset(name, data=np.float32(scan))
                    # The column sits in the middle of the line; on the diagonal A does, and B at its ends.
                    line.attrs["start_pm"] = 100 * np.array(starts[name])
                    line.attrs["column_pm"] = 100 * (np.array(starts[name]) + length / 2 * np.array(vector))
                    line.attrs["axes"] = "[exit plane, position along the line]"
            print(f"{group_name}: {time.process_time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
