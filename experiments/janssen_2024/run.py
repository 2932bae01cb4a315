"""Mixed-effects deep compartment models on 20 genuine folds of 500 virtual patients (Janssen et al. 2024).

    python experiments/janssen_2024/run.py --data FOLDER

FOLDER holds `fviii_medcm_simulation.csv.gz` and `fviii_medcm_folds.csv` of the published repository. Every
run is stored in results/runs.json as soon as it is done; a rerun continues. `table.py` makes the tables.

For every fold: FO with every ridge, from one start; every method with the ridge whose FO fit has the lowest
exact -2LL on the validation subjects; and the true typical values, known, by exact maximum likelihood.
`variants.py` has sampled VI, early stopping and the runs on fold 1.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from patients import Patients, divergence_of_omega, read_patients
from scipy.optimize import minimize

from amortnlme.core.files import make_folder, write_json_atomic
from amortnlme.core.json_values import json_values
from amortnlme.data.dataset import Dataset
from amortnlme.methods.base import AbstractMethod
from amortnlme.methods.classical import Fo, Foce, Focei, Quadrature
from amortnlme.methods.fit import fit
from amortnlme.methods.pooled import Pooled
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.methods.quadrature_likelihood import QuadratureLikelihood
from amortnlme.methods.validation import with_ridge
from amortnlme.methods.vi import Vi
from amortnlme.model.individual import IndividualModel
from amortnlme.model.registry import load_model
from amortnlme.population.bound_population import BoundPopulation
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel
from amortnlme.population.toml import read_population

HERE = Path(__file__).parent
RIDGES = {"skeleton": (0.5, 1.0, 2.0, 4.0, 8.0, 32.0), "published": (0.0, 0.3, 1.0, 3.0)}
METHODS = ("fo", "pooled", "foce", "focei", "vi", "quadrature")
TRUE_TYPICAL = {"CL": 0.1, "V1": 2.0, "Q": 0.15, "V2": 0.75}
NODES = 5


def method_of(name: str, starts: int) -> AbstractMethod:
    """The method object of a name; judged below by quadrature, so that no referee is needed."""
    kinds: dict[str, AbstractMethod] = {
        "fo": Fo(starts=starts, referee_points=0),
        "foce": Foce(starts=starts, referee_points=0),
        "focei": Focei(starts=starts, referee_points=0),
        "vi": Vi(starts=starts, referee_points=0, n_nodes=3),
        "quadrature": Quadrature(starts=starts, referee_points=0, n_nodes=5),
        "pooled": Pooled(starts=starts, referee_points=0),
    }
    return kinds[name]


@cache
def plain_model() -> IndividualModel:
    """The individual model without covariates."""
    return load_model(str(HERE / "models" / "factor_viii_plain.py"))


def judged(
    model: IndividualModel, joined: BoundPopulation, x: np.ndarray, data: Dataset
) -> tuple[float, float]:
    """RMSE x100 of the typical predictions, and the exact -2LL per 60 subjects."""
    bound, here = model.bind(data), joined.for_subjects(data.covariate_table())
    predicted = bound.predict(here.unpack(x)[0][:, None])[0][:, 0]
    rmse = 100.0 * float(np.sqrt(np.mean((predicted - bound.y) ** 2)))
    value = QuadratureLikelihood(bound, here, NODES).value_and_scores(x)[0]
    return rmse, -120.0 * float(value.mean())


def refitted(model: IndividualModel, joined: BoundPopulation, x: np.ndarray, data: Dataset) -> np.ndarray:
    """x with omega and sigma from these subjects by exact maximum likelihood, everything else as it is."""
    bound, here = model.bind(data), joined.for_subjects(data.covariate_table())
    objective = QuadratureLikelihood(bound, here, NODES)
    free = [joined.names.index("theta_sigma"), *range(joined.chol_slice.start, joined.n_x)]

    def function(part: np.ndarray) -> tuple[float, np.ndarray]:
        moved = np.array(out)
        moved[free] = part
        value, scores = objective.value_and_scores(moved)
        return -float(value.sum()), -scores.sum(axis=0)[free]

    out = np.array(x)
    for _ in range(3):
        objective.recenter(out)
        out[free] = minimize(function, out[free], jac=True, method="L-BFGS-B", options={"maxiter": 15}).x
    return out


def variances(joined: BoundPopulation, x: np.ndarray) -> dict[str, float]:
    """The measures of omega and sigma."""
    omega = joined.omega(x)[:2, :2]
    sd = np.sqrt(np.diagonal(omega))
    sigma = float(np.exp(joined.typical_phi(x)[joined.parameters.index("sigma")]))
    rho = float(omega[0, 1] / max(sd.prod(), 1e-300))
    kl = divergence_of_omega(omega)
    return {"kl": kl, "sigma": 100.0 * sigma, "omega1": float(sd[0]), "omega2": float(sd[1]), "rho": rho}


def row_of(
    patients: Patients,
    fold: int,
    model: IndividualModel,
    population: PopulationModel,
    method: AbstractMethod,
    seed: int = 1,
) -> dict[str, Any]:
    """Fit one fold and measure."""
    data = patients.dataset(patients.folds[fold][0])
    cpu = time.process_time()
    result: PopulationFit = fit(data, population, method, model=model, seed=seed)
    cpu = time.process_time() - cpu
    joined, x = population.bind(data.covariate_table(), model.parameters), result.x
    row: dict[str, Any] = {
        "status": result.status.value,
        "criterion": result.criterion,
        "penalty": float(joined.penalty @ x**2),
        "cpu_s": cpu,
        "evaluations": sum(stage.get("n_evaluations", 0) for stage in result.trace),
        "starts": next((s["start_objectives"] for s in result.trace if s["stage"] == "starts"), []),
        "x": x.tolist(),
    }
    return row | measures(patients, fold, model, joined, x, method.name != "pooled")


def measures(
    patients: Patients,
    fold: int,
    model: IndividualModel,
    joined: BoundPopulation,
    x: np.ndarray,
    has_omega: bool,
) -> dict[str, Any]:
    """Judge estimates on training, validation and test patients of a fold."""
    train, validation, test = patients.folds[fold]
    data = patients.dataset(train)
    row: dict[str, Any] = {}
    row["rmse"], row["test"] = judged(model, joined, x, patients.dataset(test))
    row["train"] = judged(model, joined, x, data)[1]
    row["validation"] = judged(model, joined, x, patients.dataset(validation))[1]
    row |= variances(joined, x)
    if has_omega:
        both = patients.dataset(np.concatenate([train, validation]))
        row["refit"] = variances(joined, refitted(model, joined, x, both))
    return row


class Store:
    """Runs in one JSON file, renewed after each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def run(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The row of a run, made now where it is not stored."""
        if key not in self.runs:
            row = make()
            self.runs[key] = json_values(row)
            write_json_atomic(self.path, self.runs)
            print(
                f"{key}: {row['status']} rmse {row['rmse']:.3f} kl {row['kl']:.3f} validation "
                f"{row['validation']:.1f} {row['cpu_s']:.1f} s",
                flush=True,
            )
        return self.runs[key]


def main() -> None:
    """Run what is not stored yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(1, 21)), help="1-based")
    parser.add_argument("--populations", nargs="+", default=list(RIDGES), choices=list(RIDGES))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--ridges", type=float, nargs="+", help="FO with these only, and no other method")
    arguments = parser.parse_args()
    patients = read_patients(arguments.data)
    store = Store(make_folder(HERE / "results") / "runs.json")
    known = PopulationModel(random_effects=RandomEffects(("CL", "V1"), "full"), fixed=TRUE_TYPICAL)
    for fold in arguments.folds:
        exact = method_of("quadrature", 1)
        make = partial(row_of, patients, fold - 1, load_model("factor_viii"), known, exact)
        store.run(f"known typical values/fold {fold:02d}/quadrature", make)
    for name in arguments.populations:
        population = read_population(HERE / "populations" / f"{name}.toml")
        for fold in arguments.folds:
            stem, rows = f"{name}/fold {fold:02d}", {}
            for ridge in arguments.ridges or RIDGES[name]:
                penalized = with_ridge(population, ridge)
                make = partial(row_of, patients, fold - 1, plain_model(), penalized, method_of("fo", 1))
                rows[ridge] = store.run(f"{stem}/fo/ridge {ridge:g}/best of 1", make)
            if arguments.ridges:
                continue
            best = min(rows, key=lambda ridge: or_infinite(rows[ridge]["validation"]))
            penalized = with_ridge(population, best)
            for name_of_method in arguments.methods:
                method = method_of(name_of_method, arguments.starts)
                make = partial(row_of, patients, fold - 1, plain_model(), penalized, method)
                store.run(f"{stem}/{name_of_method}/ridge {best:g}/best of {arguments.starts}", make)


def or_infinite(value: float | None) -> float:
    """JSON holds no infinities."""
    return float("inf") if value is None or not np.isfinite(value) else value


if __name__ == "__main__":
    main()
