"""Simulated transfected cells: amortized population fits against the sample moments of the cells.

    PYTHONPATH=experiments/classical python experiments/arruda_2024/simulated_cells.py
    PYTHONPATH=experiments/classical python experiments/arruda_2024/simulated_cells.py --sizes 50 --draws 100
    PYTHONPATH=experiments/classical python experiments/arruda_2024/simulated_cells.py --model detailed

Up to 500 cells are those Monolix was run on (`--data`, as in experiments/classical/transfection.py); more are
simulated from the same population. Offset, residual SD and, in the detailed model, the shared scale are
exactly shared: they have no random effects.
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
from transfection import KINDS, Cells, moments_of_truth, read_cells, squared_error

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
#: Populations of the published study: means and variances of the logarithms, in the order of the parameters.
POPULATIONS = {
    "simple": (
        np.array([-0.694, -7.014, 6.217, -0.164, 2.079, -3.454]),
        np.array([0.941, 7.014, 0.0040, 0.116, 0.0, 0.0]),
    ),
    "detailed": (
        np.array(
            [
                *(-0.10144, -0.88443, -0.42549, 13.81551, 0.42143, 0.97477, -3.50153, -6.91273, -0.34573),
                *(2.07944, -3.45388),
            ]
        ),
        np.array([0.56752, 0.74721, 0.52594, 0.0, 0.44084, 1.45996, 2.3979, 4.61512, 0.48075, 0.0, 0.0]),
    ),
}  # fmt: skip
STORED_CELLS = 500
SIMULATION_SEED, DRAW_SEED = 11, 12


def population(model: IndividualModel, name: str) -> PopulationModel:
    """Random effects on what varies in the published population."""
    varies = POPULATIONS[name][1] > 0.0
    names = [word for word, is_random in zip(model.parameters.names, varies, strict=True) if is_random]
    return PopulationModel(random_effects=RandomEffects(tuple(names)))


def simulated(model: IndividualModel, name: str, n: int) -> tuple[Dataset, tuple[np.ndarray, np.ndarray]]:
    """n cells of the published population, and their sample moments."""
    rng = stream(SIMULATION_SEED)
    mean, variance = POPULATIONS[name]
    phi = mean + np.sqrt(variance) * rng.standard_normal((n, len(mean)))
    design = Design.from_doses([], np.arange(1, 181) / 6.0)
    found = model.simulate(phi, design, None, rng)
    if found.status.any():
        raise SystemExit(f"{np.count_nonzero(found.status)} of {n} cells could not be simulated")
    subjects = [Subject.from_observations(f"cell_{i}", design, row) for i, row in enumerate(found.y)]
    return Dataset(tuple(subjects), name=f"{n} simulated cells"), (phi.mean(axis=0), phi.var(axis=0))


def cells(
    folder: Path, model: IndividualModel, name: str, n: int
) -> tuple[Dataset, tuple[np.ndarray, np.ndarray]]:
    if n <= STORED_CELLS:
        kind = KINDS[name]
        return read_cells(folder, kind, n), moments_of_truth(folder, kind, n)
    return simulated(model, name, n)


def one_fit(
    draws: PosteriorDraws,
    dataset: Dataset,
    described: PopulationModel,
    truth: tuple[np.ndarray, np.ndarray],
    kind: Cells,
    method: AbstractMethod,
) -> Row:
    result = fit(draws, described, method, dataset=dataset, seed=1)
    errors = {
        "mean": result.theta - truth[0],
        "variance": np.diagonal(result.omega) - truth[1],
    }
    mse = squared_error(result.theta, np.diagonal(result.omega), truth, kind)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    return fit_row(result) | {"mse": mse, "errors": errors, "peak_mib": peak}


def line(n: int, name: str, row: Row, varies: np.ndarray) -> list[str]:
    mean, variance = row["errors"]["mean"], np.array(row["errors"]["variance"])[varies]
    return [
        str(n),
        f"{name} ({row['status']})",
        f"{row['mse']:.4f}",
        " ".join(f"{value:+.3f}" for value in mean),
        " ".join(f"{value:+.4f}" for value in variance),
        "-" if row["ofv"] is None else f"{row['ofv']:.1f} +- {row['ofv_se'] or 0.0:.1f}",
        f"{row['wall_s']:.1f} ({row['cpu_s']:.1f} CPU)",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--model", choices=sorted(POPULATIONS), default="simple")
    parser.add_argument("--estimator", type=Path, help="by default the shipped one")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 500, 5000, 10000])
    parser.add_argument("--draws", type=int, default=1000, help="posterior draws per cell")
    parser.add_argument("--again", action="store_true", help="replace stored runs")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    args = parser.parse_args()
    kind = KINDS[args.model]
    model = load_model(kind.model)
    estimator = Estimator.load(args.estimator or ROOT / "trained_models" / kind.model)
    described = population(model, args.model)
    name_of_study = "simulated_cells" if args.model == "simple" else f"simulated_cells_{args.model}"
    study = Study(name_of_study, args.out, {"draws": args.draws}, args.again)
    methods = {
        "surrogate": Amortized(correction="none"),
        "surrogate of corrected draws": Amortized(correction="draws"),
        "corrected": Amortized(correction="likelihood"),
    }
    lines = []
    for n in args.sizes:
        dataset, truth = cells(args.data, model, args.model, n)
        start = time.perf_counter()
        draws = estimator.sample(dataset, args.draws, stream(DRAW_SEED))
        print(f"{n} cells: draws in {time.perf_counter() - start:.1f} s", flush=True)
        for name, method in methods.items():
            work = partial(one_fit, draws, dataset, described, truth, kind, method)
            row = study.run(f"n={n} {name}", work)
            lines.append(line(n, name, row, POPULATIONS[args.model][1] > 0.0))
    titles = ("cells", "fit", "MSE", f"error of the means ({', '.join(model.parameters.names)})")
    order = ", ".join(described.random_effects.on)
    print(markdown((*titles, f"error of the variances ({order})", "-2LL", "s"), lines))


if __name__ == "__main__":
    main()
