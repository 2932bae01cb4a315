"""Further runs on the folds: sampled VI, early stopping, and the published network on fold 1.

    python experiments/janssen_2024/variants.py --data FOLDER PART ...

PART is one of

`sampled`: the skeleton on all folds by sampled VI, with the ridge that `run.py` picked.
`stopped`: the published network by FO; the iterate with the lowest exact -2LL of the validation patients.
`fold1`: the published network without a ridge on fold 1 from several initializations, as the published
mixed-effects runs were, whatever their label says.

Stored in results/variants.json; a rerun continues. `table.py` makes the tables.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from patients import Patients, read_patients
from run import HERE, RIDGES, Store, measures, method_of, or_infinite, plain_model, row_of
from scipy.optimize import minimize

from amortnlme.core.files import make_folder
from amortnlme.core.rng import generator
from amortnlme.methods.base import AbstractMethod
from amortnlme.methods.data_start import data_starts
from amortnlme.methods.first_order_likelihood import FirstOrderLikelihood
from amortnlme.methods.information import whitening
from amortnlme.methods.penalized_search import expected_information
from amortnlme.methods.quadrature_likelihood import QuadratureLikelihood
from amortnlme.methods.sampled_vi import SampledVi
from amortnlme.methods.validation import with_ridge
from amortnlme.population.population_model import PopulationModel
from amortnlme.population.toml import read_population

#: Published initializations of every fold label.
INITIALIZATIONS = 5
ITERATIONS, EVERY = 400, 10


def sampled_methods() -> dict[str, AbstractMethod]:
    """The four estimators of the bound."""
    return {
        f"{estimator}, {n} draw{'s' if n > 1 else ''}": SampledVi(
            estimator=estimator, n_samples=n, rate=0.02, referee_points=0
        )
        for estimator in ("path", "standard")
        for n in (3, 1)
    }


def early_stopped(patients: Patients, fold: int, population: PopulationModel, seed: int) -> dict[str, Any]:
    """Minimize the FO objective and keep the iterate that validation patients like best."""
    model, cpu = plain_model(), time.process_time()
    data, other = (patients.dataset(index) for index in patients.folds[fold][:2])
    bound, joined = model.bind(data), population.bind(data.covariate_table(), model.parameters)
    objective, penalty = FirstOrderLikelihood(bound, joined), joined.penalty
    start = data_starts(bound, model.prior, joined, 1, generator(seed))[0]
    transform = whitening(expected_information(objective, bound, joined, start))
    path = [start]

    def function(z: np.ndarray) -> tuple[float, np.ndarray]:
        x = start + transform @ z
        value, scores = objective.value_and_scores(x)
        total = -float(value.sum()) + 0.5 * float(penalty @ x**2)
        if not np.isfinite(total):
            return 1e10, np.zeros(len(z))
        return total, transform.T @ (penalty * x - scores.sum(axis=0))

    options = {"maxiter": ITERATIONS, "maxcor": 20, "maxfun": 3 * ITERATIONS}
    minimize(
        function, np.zeros(len(start)), jac=True, method="L-BFGS-B", options=options,
        callback=lambda z: path.append(start + transform @ z),
    )  # fmt: skip
    steps = [k for k in range(len(path)) if k % EVERY == 0 or k < 4 * EVERY]
    judge = QuadratureLikelihood(model.bind(other), joined.for_subjects(other.covariate_table()), 3)
    values = [or_infinite(-2.0 * float(judge.value_and_scores(path[k])[0].sum())) for k in steps]
    best = steps[int(np.argmin(values))]
    row: dict[str, Any] = {"status": "stopped", "iteration": best, "cpu_s": time.process_time() - cpu}
    row["x"] = path[best].tolist()
    return row | measures(patients, fold, model, joined, path[best], True)


def sampled(store: Store, patients: Patients, folds: list[int]) -> None:
    """Sampled VI with the ridge picked for FO."""
    runs = json.loads((HERE / "results" / "runs.json").read_text(encoding="utf-8"))
    population = read_population(HERE / "populations" / "skeleton.toml")
    for fold in folds:
        stem = f"skeleton/fold {fold:02d}"
        tried = {r: runs[f"{stem}/fo/ridge {r:g}/best of 1"]["validation"] for r in RIDGES["skeleton"]}
        ridge = min(tried, key=lambda r: or_infinite(tried[r]))
        for name, method in sampled_methods().items():
            make = partial(row_of, patients, fold - 1, plain_model(), with_ridge(population, ridge), method)
            store.run(f"sampled/{stem}/{name}/ridge {ridge:g}", make)


def stopped(store: Store, patients: Patients, folds: list[int]) -> None:
    """Early stopping of the published network."""
    population = read_population(HERE / "populations" / "published.toml")
    for fold in folds:
        for ridge in RIDGES["published"]:
            make = partial(early_stopped, patients, fold - 1, with_ridge(population, ridge), 1)
            store.run(f"stopped/published/fold {fold:02d}/fo/ridge {ridge:g}", make)


def fold1(store: Store, patients: Patients) -> None:
    """The published set, which is fold 1 whatever its labels say."""
    population = with_ridge(read_population(HERE / "populations" / "published.toml"), 0.0)
    methods = {name: method_of(name, 1) for name in ("fo", "pooled", "foce", "vi", "quadrature")}
    for seed in range(1, INITIALIZATIONS + 1):
        for name, method in {**methods, **sampled_methods()}.items():
            make = partial(row_of, patients, 0, plain_model(), population, method, seed)
            store.run(f"fold1/published/{name}/initialization {seed}", make)


def main() -> None:
    """Run what is not stored yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(1, 21)), help="1-based")
    parser.add_argument("parts", nargs="+", choices=("sampled", "stopped", "fold1"))
    arguments = parser.parse_args()
    patients = read_patients(arguments.data)
    store = Store(make_folder(HERE / "results") / "variants.json")
    for part in arguments.parts:
        if part == "sampled":
            sampled(store, patients, arguments.folds)
        elif part == "stopped":
            stopped(store, patients, arguments.folds)
        else:
            fold1(store, patients)


if __name__ == "__main__":
    main()
