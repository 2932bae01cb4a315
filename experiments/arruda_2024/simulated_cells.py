"""Simulated transfected cells: amortized population fits against the sample moments of the cells.

    PYTHONPATH=experiments/classical python experiments/arruda_2024/simulated_cells.py
    PYTHONPATH=experiments/classical python experiments/arruda_2024/simulated_cells.py --sizes 50 --draws 100

Up to 500 cells are those Monolix was run on (`--data`, as in experiments/classical/transfection.py); more are
simulated from the same population. Offset and residual SD are exactly shared: they have no random effects.
MSE as published: mean square over means and variances of all parameters on the log scale against the sample
moments of the very cells, variances floored at 0.001, the better of the two roles of delta and gamma.
"""

from __future__ import annotations

import argparse
import resource
import time
from functools import partial
from pathlib import Path

import numpy as np
from study import Row, Study, fit_row, markdown
from transfection import KINDS, moments_of_truth, read_cells, squared_error

from amortnlme.core.rng import stream
from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design
from amortnlme.data.subject import Subject
from amortnlme.methods.amortized import Amortized
from amortnlme.methods.base import AbstractMethod
from amortnlme.methods.fit import fit
from amortnlme.model.individual import IndividualModel
from amortnlme.model.registry import load_model
from amortnlme.neural.estimator import Estimator
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel
from amortnlme.population.posterior_draws import PosteriorDraws

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
KIND = KINDS["simple"]
#: Population of the published study: means and variances of the logarithms, in the order of the parameters.
MEAN = np.array([-0.694, -7.014, 6.217, -0.164, 2.079, -3.454])
VARIANCE = np.array([0.941, 7.014, 0.0040, 0.116, 0.0, 0.0])
STORED_CELLS = 500
POPULATION = PopulationModel(random_effects=RandomEffects(("delta", "gamma", "k_m0_scale", "t0")))
SIMULATION_SEED, DRAW_SEED = 11, 12


def simulated(model: IndividualModel, n: int) -> tuple[Dataset, tuple[np.ndarray, np.ndarray]]:
    """n cells of the published population, and their sample moments."""
    rng = stream(SIMULATION_SEED)
    phi = MEAN + np.sqrt(VARIANCE) * rng.standard_normal((n, len(MEAN)))
    design = Design.from_doses([], np.arange(1, 181) / 6.0)
    found = model.simulate(phi, design, None, rng)
    if found.status.any():
        raise SystemExit(f"{np.count_nonzero(found.status)} of {n} cells could not be simulated")
    subjects = [Subject.from_observations(f"cell_{i}", design, row) for i, row in enumerate(found.y)]
    return Dataset(tuple(subjects), name=f"{n} simulated cells"), (phi.mean(axis=0), phi.var(axis=0))


def cells(folder: Path, model: IndividualModel, n: int) -> tuple[Dataset, tuple[np.ndarray, np.ndarray]]:
    if n <= STORED_CELLS:
        return read_cells(folder, KIND, n), moments_of_truth(folder, KIND, n)
    return simulated(model, n)


def one_fit(
    draws: PosteriorDraws,
    dataset: Dataset,
    truth: tuple[np.ndarray, np.ndarray],
    method: AbstractMethod,
) -> Row:
    result = fit(draws, POPULATION, method, dataset=dataset, seed=1)
    errors = {
        "mean": result.theta - truth[0],
        "variance": np.diagonal(result.omega) - truth[1],
    }
    mse = squared_error(result.theta, np.diagonal(result.omega), truth, KIND)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    return fit_row(result) | {"mse": mse, "errors": errors, "peak_mib": peak}


def line(n: int, name: str, row: Row) -> list[str]:
    mean, variance = row["errors"]["mean"], row["errors"]["variance"]
    return [
        str(n),
        f"{name} ({row['status']})",
        f"{row['mse']:.4f}",
        " ".join(f"{value:+.3f}" for value in mean),
        " ".join(f"{value:+.4f}" for value in variance[:4]),
        "-" if row["ofv"] is None else f"{row['ofv']:.1f} +- {row['ofv_se'] or 0.0:.1f}",
        f"{row['wall_s']:.1f} ({row['cpu_s']:.1f} CPU)",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--estimator", type=Path, default=ROOT / "trained_models" / KIND.model)
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 500, 5000, 10000])
    parser.add_argument("--draws", type=int, default=1000, help="posterior draws per cell")
    parser.add_argument("--again", action="store_true", help="replace stored runs")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    args = parser.parse_args()
    estimator, model = Estimator.load(args.estimator), load_model(KIND.model)
    study = Study("simulated_cells", args.out, {"draws": args.draws}, args.again)
    methods = {
        "surrogate": Amortized(correction="none"),
        "surrogate of corrected draws": Amortized(correction="draws"),
        "corrected": Amortized(correction="likelihood"),
    }
    lines = []
    for n in args.sizes:
        dataset, truth = cells(args.data, model, n)
        start = time.perf_counter()
        draws = estimator.sample(dataset, args.draws, stream(DRAW_SEED))
        print(f"{n} cells: draws in {time.perf_counter() - start:.1f} s", flush=True)
        for name, method in methods.items():
            work = partial(one_fit, draws, dataset, truth, method)
            lines.append(line(n, name, study.run(f"n={n} {name}", work)))
    order = "delta, gamma, k m0 scale, t0"
    titles = ("cells", "fit", "MSE", f"error of the means ({order}, offset, sigma)")
    print(markdown((*titles, f"error of the variances ({order})", "-2LL", "s"), lines))


if __name__ == "__main__":
    main()
