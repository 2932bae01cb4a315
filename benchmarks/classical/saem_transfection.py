"""Seconds and likelihoods of SAEM on single-cell transfection data, from random starts.

    python benchmarks/classical/saem_transfection.py --cells 50 --starts 20

Simulated cells of the simple transfection model (Arruda et al. 2024) from ../shared/data, which this script
needs. The two rates can swap roles, so a cell alone does not say which is which, and a run can end with some
cells swapped and others not. A run in which all are swapped has the same likelihood; it is relabeled. A start
counts as successful when its -2 log-likelihood comes within 10 units, plus 3 Monte-Carlo SEs, of the best: a
population in which every cell chooses its roles pays about one bit per cell, 69 units for 50 cells.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from amortnlme.core.rng import stream
from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design
from amortnlme.data.subject import Subject
from amortnlme.methods.data_start import data_starts
from amortnlme.methods.ebe import better_modes, find_ebe
from amortnlme.methods.other_modes import other_modes
from amortnlme.methods.referee import referee
from amortnlme.methods.saem import Saem
from amortnlme.methods.saem_search import run_saem
from amortnlme.model.bound import BoundModel
from amortnlme.model.registry import load_model
from amortnlme.population.bound_population import BoundPopulation
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel

DATA = Path(__file__).parents[3] / "shared/data/synthetic_transfection/simple_v1_n500_monolix.csv.gz"
EFFECTS = ("delta", "gamma", "k_m0_scale", "t0")
MARGIN = 10.0


def cells(path: Path, n: int) -> Dataset:
    """The first n cells."""
    groups = pd.read_csv(path).groupby("variable", sort=False)
    subjects = [
        Subject.from_observations(
            str(name), Design.from_doses([], part["time"].to_numpy()), part["value"].to_numpy()
        )
        for name, part in groups
    ]
    return Dataset(tuple(subjects[:n]), name=f"{n} transfected cells")


def relabel(x: np.ndarray, population: BoundPopulation) -> tuple[np.ndarray, bool]:
    """Swap the rates where delta is the slower one on average."""
    if x[0] >= x[1]:
        return x, False
    swapped, chol = x.copy(), population.chol_diagonal
    swapped[[0, 1]] = x[[1, 0]]
    swapped[chol[[0, 1]]] = x[chol[[1, 0]]]
    return swapped, True


def one_start(
    bound: BoundModel, population: BoundPopulation, start: np.ndarray, number: int, n_points: int
) -> dict[str, Any]:
    """Search from one start and evaluate the likelihood at its end."""
    options = Saem()
    wall, cpu = time.perf_counter(), time.process_time()
    path = run_saem(
        bound,
        population,
        start,
        stream(1, number),
        options.n_exploration,
        options.max_exploration,
        options.n_averaging,
        None,
    )
    searched = time.perf_counter() - wall
    mu, factor = population.unpack(path.x)
    first = find_ebe(bound, mu, factor, max_iterations=20, tolerance=1e-2)
    second, _ = other_modes(bound, mu, factor, first, 4, stream(2, number))
    verdict = referee(bound, mu, factor, better_modes(first, second), stream(3, number), n_points, 8)
    x, swapped = relabel(path.x, population)
    return {
        "search_wall_s": searched,
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "ofv": verdict.ofv,
        "ofv_se": verdict.ofv_se,
        "iterations": len(path.iterates),
        "settled": path.settled,
        "swapped": swapped,
        "x": x.tolist(),
    }


def main() -> None:
    """Print a line per start and write results/saem_transfection_<cells>.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=50)
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--points", type=int, default=256, help="importance nodes per cell and replicate")
    arguments = parser.parse_args()
    if not DATA.exists():
        print(f"skipped: the data are not there ({DATA.name} is shared apart from this repository)")
        return
    model, dataset = load_model("mrna_transfection_simple"), cells(DATA, arguments.cells)
    bound = model.bind(dataset)
    population = PopulationModel(random_effects=RandomEffects(on=EFFECTS)).bind(
        dataset.covariate_table(), model.parameters
    )
    bound.expansions(np.tile(model.prior.mean, (bound.n_subjects, 1, 1)))  # loads the kernels
    with threadpool_limits(limits=1, user_api="blas"):
        clock = time.perf_counter()
        # The first start is the moment estimate; the others are spread around it.
        starts = data_starts(bound, model.prior, population, arguments.starts + 1, stream(0, 0))[1:]
        preparing = time.perf_counter() - clock
        runs = []
        for number, start in enumerate(starts):
            runs.append(one_start(bound, population, start, number, arguments.points))
            run = runs[-1]
            print(
                f"start {number:2d}: {run['wall_s']:6.1f} s wall {run['cpu_s']:6.1f} s CPU, "
                f"{run['iterations']} iterations, -2LL {run['ofv']:.2f} (SE {run['ofv_se']:.2f})"
                f"{', swapped' if run['swapped'] else ''}",
                flush=True,
            )
    best = min(run["ofv"] for run in runs)
    for run in runs:
        run["best_mode"] = bool(run["ofv"] <= best + MARGIN + 3.0 * run["ofv_se"])
    summary = {
        "cells": arguments.cells,
        "preparing_s": preparing,
        "median_wall_s": statistics.median(run["wall_s"] for run in runs),
        "median_cpu_s": statistics.median(run["cpu_s"] for run in runs),
        "best_ofv": best,
        "median_ofv": statistics.median(run["ofv"] for run in runs),
        "share_in_best_mode": sum(run["best_mode"] for run in runs) / len(runs),
    }
    print("  ".join(f"{name} {value:.2f}" for name, value in summary.items()))
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    table = json.dumps({**summary, "names": population.names, "runs": runs}, indent=2)
    (results / f"saem_transfection_{arguments.cells}.json").write_text(table + "\n")


if __name__ == "__main__":
    main()
