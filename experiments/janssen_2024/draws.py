"""The skeleton on posterior draws, with no simulator in the loop, against VI on the data.

    python experiments/janssen_2024/draws.py --data FOLDER --folds 1 2 3

No estimator is shipped for this model: the draws are exact ones, by importance-corrected sampling of every
patient's posterior from a widened Laplace approximation. Their prior is wide for CL and V1; for the pooled Q,
V2 and sigma it is narrow around the estimates of FO without networks, as a surrogate has to divide by it and
a patient's three levels say little about these. The prior is divided out: it chooses where draws are made.

Differences are in standard errors of the same population without networks (VI, observed information).
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from patients import read_patients
from run import HERE, RIDGES, judged, or_infinite, plain_model

from amortnlme.core.files import make_folder, write_json_atomic
from amortnlme.core.json_values import json_values
from amortnlme.core.rng import generator
from amortnlme.data.dataset import Dataset
from amortnlme.methods.amortized import Amortized
from amortnlme.methods.classical import Fo
from amortnlme.methods.data_start import individual_moments
from amortnlme.methods.escalation import correct_draws
from amortnlme.methods.fit import fit
from amortnlme.methods.validation import with_ridge
from amortnlme.methods.vi import Vi
from amortnlme.model.individual import IndividualModel
from amortnlme.model.prior import NormalPrior
from amortnlme.population.population_model import PopulationModel
from amortnlme.population.posterior_draws import PosteriorDraws
from amortnlme.population.toml import read_population

N_DRAWS, WIDE, NARROW, WIDER = 16_000, 0.8, 0.15, 1.3
POOLED = ("Q", "V2", "sigma")


def exact_draws(
    model: IndividualModel, data: Dataset, plain: PopulationModel
) -> tuple[PosteriorDraws, float]:
    """Draws of every patient's posterior, and the largest tail index of their weights."""
    pre = fit(data, plain, Fo(referee_points=0), model=model, seed=1)
    mean, names = model.parameters.typical_phi.copy(), model.parameters.names
    sd = np.full(model.d, WIDE)
    for name in POOLED:
        k = names.index(name)
        mean[k], sd[k] = pre.theta[k], NARROW
    prior, bound = NormalPrior(mean, sd), model.bind(data)
    center, covariance = individual_moments(bound, prior, data.n_subjects)
    root = np.linalg.cholesky(WIDER**2 * covariance)
    eps = generator(1).standard_normal((data.n_subjects, N_DRAWS, model.d))
    phi = center[:, None] + eps @ np.swapaxes(root, 1, 2)
    log_det = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
    log_q = -0.5 * (eps**2).sum(axis=2) - log_det[:, None] - 0.5 * model.d * np.log(2.0 * np.pi)
    log_prior = prior.log_prob(phi.reshape(-1, model.d)).reshape(log_q.shape)
    rough = PosteriorDraws(phi, log_q, log_prior, data.ids, model.parameters, prior)
    corrected = correct_draws(rough, model, data, generator(2))
    return corrected.draws, float(corrected.pareto_k.max())


def compared(folder: Path, fold: int) -> dict[str, Any]:
    """One fold by both ways."""
    patients, model = read_patients(folder), plain_model()
    runs = json.loads((HERE / "results" / "runs.json").read_text(encoding="utf-8"))
    tried = {r: runs.get(f"skeleton/fold {fold:02d}/fo/ridge {r:g}/best of 1") for r in RIDGES["skeleton"]}
    ridge = min(tried, key=lambda r: or_infinite(tried[r] and tried[r]["validation"]))
    population = with_ridge(read_population(HERE / "populations" / "skeleton.toml"), ridge)
    plain = replace(population, networks=())
    train, _, test = patients.folds[fold - 1]
    data, row = patients.dataset(train), {"fold": fold, "ridge": ridge}
    cpu = time.process_time()
    draws, row["pareto_k"] = exact_draws(model, data, plain)
    row["cpu_s sampling"] = time.process_time() - cpu
    results, joined = {}, population.bind(data.covariate_table(), model.parameters)
    methods = {"vi": Vi(referee_points=0, n_nodes=3), "draws": Amortized(starts=1, n_components=2)}
    for name, method in methods.items():
        cpu = time.process_time()
        if name == "vi":
            results[name] = fit(data, population, method, model=model, seed=1)
        else:
            # Draws that carry no model: nothing can be simulated.
            results[name] = fit(draws, population, method, dataset=data, seed=1)
        row[f"cpu_s {name}"] = time.process_time() - cpu
        row[f"status {name}"] = results[name].status.value
        row[f"rmse {name}"] = judged(model, joined, results[name].x, patients.dataset(test))[0]
    linear = fit(data, plain, Vi(referee_points=0, n_nodes=3), model=model, seed=1)
    if linear.covariance is None:
        return row
    se = np.sqrt(np.diagonal(linear.covariance))
    place = {name: k for k, name in enumerate(results["vi"].x_names)}
    gap = results["draws"].x - results["vi"].x
    row["difference_in_se"] = {name: gap[place[name]] / se[k] for k, name in enumerate(linear.x_names)}
    shift = joined.unpack(results["draws"].x)[0] - joined.unpack(results["vi"].x)[0]
    row["typical_rms"] = {
        name: float(np.sqrt((shift[:, k] ** 2).mean())) for k, name in enumerate(model.parameters.names[:2])
    }
    return row


def main() -> None:
    """Compare and store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folds", type=int, nargs="+", default=[1, 2, 3], help="1-based")
    arguments = parser.parse_args()
    rows = [compared(arguments.data, fold) for fold in arguments.folds]
    for row in rows:
        print(json.dumps(json_values(row), indent=1))
    write_json_atomic(make_folder(HERE / "results") / "draws.json", json_values(rows))


if __name__ == "__main__":
    main()
