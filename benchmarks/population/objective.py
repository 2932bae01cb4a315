"""Time of the published objective, value and gradient, beside the time of reading the draws once.

    python benchmarks/population/objective.py

One thread, 11 parameters, 100 draws per subject, single and double precision. The floor is the minimum time
in which the same thread sums the bytes of draws and prior terms. Minima over repeats: other work only adds.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numba import njit
from threadpoolctl import threadpool_limits

from amortnlme.methods.monte_carlo_likelihood import MonteCarloLikelihood, tabulate_draws
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior
from amortnlme.population.bound_population import BoundPopulation
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel
from amortnlme.population.posterior_draws import PosteriorDraws
from amortnlme.solve.threads import using_threads

D, M = 11, 100
SPACE = ParameterSpace(tuple(Parameter(f"p{k}", "1", "identity", 0.0, f"coordinate {k}") for k in range(D)))


@njit(fastmath=True)
def _read(values: np.ndarray) -> float:
    """Sum with 256 accumulators: SIMD code that waits for memory alone."""
    total = np.zeros(256, values.dtype)
    for i in range(len(values) // 256):
        for lane in range(256):
            total[lane] += values[256 * i + lane]
    return total.sum()


def population(n: int, structure: str) -> BoundPopulation:
    """All parameters vary."""
    effects = RandomEffects(on=SPACE.names, structure=structure)
    table = pd.DataFrame(index=pd.Index([str(i) for i in range(n)]))
    return PopulationModel(random_effects=effects).bind(table, SPACE)


def draws(n: int, rng: np.random.Generator) -> PosteriorDraws:
    """Standard normal draws around subjects that differ."""
    phi = rng.standard_normal((n, 1, D)) + 0.5 * rng.standard_normal((n, M, D))
    prior = NormalPrior(np.zeros(D), np.full(D, 3.0))
    log_prior = prior.log_prob(phi.reshape(-1, D)).reshape(n, M)
    return PosteriorDraws(phi, np.zeros_like(log_prior), log_prior, tuple(map(str, range(n))), SPACE, prior)


def fastest(work: Callable[[], object], repeats: int) -> float:
    """Milliseconds of the fastest of several calls."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def measure(n: int, precision: str, repeats: int) -> dict[str, float]:
    """Milliseconds of one size: floor, and both structures with and without the information matrix."""
    table = tabulate_draws(draws(n, np.random.default_rng(n)), precision)
    floor = fastest(lambda: (_read(table.phi.ravel()), _read(table.constant.ravel())), repeats)
    found = {"n": n, "floor": floor}
    for structure in ("diagonal", "full"):
        bound = population(n, structure)
        objective = MonteCarloLikelihood(table, bound, 0.0)
        x = np.zeros(bound.n_x)
        x[bound.chol_diagonal] = 1.1
        if structure == "full":
            x[bound.chol_slice] += 0.05
        found[structure] = fastest(lambda o=objective, x=x: o.value_and_gradient(x), repeats)
        found[f"{structure} + information"] = fastest(
            lambda o=objective, x=x: o.value_gradient_information(x), max(repeats // 4, 3)
        )
    return found


def main() -> None:
    """Print the table and write results/objective.json."""
    parser = argparse.ArgumentParser(description="Time of the published objective.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10_000, 100_000])
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    rows = []
    with using_threads(1), threadpool_limits(limits=1):
        for precision in ("single", "double"):
            for n in args.sizes:
                if precision == "double" and n > 10_000:
                    continue
                row = {"precision": precision, **measure(n, precision, args.repeats)}
                rows.append(row)
                print(" ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{v}" for k, v in row.items()))
                print(*(f"{key} / floor {row[key] / row['floor']:.1f}" for key in ("diagonal", "full")))
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    machine = platform.processor() or platform.machine()
    document = {"machine": machine, "draws": M, "parameters": D, "rows": rows}
    (results / "objective.json").write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
