"""Variational posteriors of 60 patients against two-dimensional quadrature, at known population parameters.

    python experiments/janssen_2024/posteriors.py --data FOLDER

Training set 1, true typical values, omega and sigma at their exact maximum-likelihood estimates. Measures:
squared 2-Wasserstein distance (mean over patients), on the scale of eta, between q and the Gaussian with the
exact posterior's moments, and -2 ELBO minus the exact -2LL.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from patients import read_patients
from run import HERE, TRUE_TYPICAL
from scipy.linalg import sqrtm

from amortnlme.core.files import make_folder, write_json_atomic
from amortnlme.core.json_values import json_values
from amortnlme.core.rng import stream
from amortnlme.methods.classical import Quadrature
from amortnlme.methods.ebe import find_ebe
from amortnlme.methods.fit import fit
from amortnlme.methods.quadrature_nodes import gauss_hermite
from amortnlme.methods.stochastic_bound import StochasticOptions, climb
from amortnlme.methods.variational_posterior import VariationalProblem, find_posteriors
from amortnlme.model.bound import BoundModel
from amortnlme.model.registry import load_model
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel

N_EXACT = 25
SAMPLED = {
    "path, 3 draws": StochasticOptions(),
    "standard, 3 draws": StochasticOptions(estimator="standard"),
    "path, 1 draw": StochasticOptions(n_samples=1),
    "standard, 1 draw": StochasticOptions(estimator="standard", n_samples=1),
}


def exact_moments(bound: BoundModel, mu: np.ndarray, factor: np.ndarray) -> tuple[np.ndarray, ...]:
    """Mean and covariance of u given the data, and log p(y), by a rule around the mode, widened by 1.3."""
    modes = find_ebe(bound, mu, factor, tolerance=1e-9)
    root = 1.3 * np.linalg.cholesky(np.linalg.inv(modes.precision))
    rule = gauss_hermite(2, N_EXACT)
    u = modes.u[:, None] + rule.z @ np.swapaxes(root, 1, 2)
    log_w = bound.log_likelihood(mu[:, None] + u @ factor.T) - 0.5 * (u**2).sum(axis=2)
    log_w += np.log(rule.weight) + 0.5 * (rule.z**2).sum(axis=1)
    top = log_w.max(axis=1, keepdims=True)
    w = np.exp(log_w - top)
    log_p = top[:, 0] + np.log(w.sum(axis=1)) + np.linalg.slogdet(root)[1]
    w /= w.sum(axis=1, keepdims=True)
    mean = (w[..., None] * u).sum(axis=1)
    centered = u - mean[:, None]
    return mean, np.swapaxes(centered, 1, 2) @ (w[..., None] * centered), log_p


def wasserstein2(
    mean: np.ndarray, cov: np.ndarray, other_mean: np.ndarray, other_cov: np.ndarray
) -> np.ndarray:
    """Squared 2-Wasserstein distance of Gaussians, subject by subject."""
    out = []
    for m, C, m2, C2 in zip(mean, cov, other_mean, other_cov, strict=True):
        root = np.real(sqrtm(C2))
        cross = np.real(sqrtm(root @ C @ root))
        out.append(((m - m2) ** 2).sum() + np.trace(C + C2 - 2.0 * cross))
    return np.array(out)


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    patients, model = read_patients(parser.parse_args().data), load_model("factor_viii")
    data = patients.dataset(patients.folds[0][0])
    population = PopulationModel(random_effects=RandomEffects(("CL", "V1"), "full"), fixed=TRUE_TYPICAL)
    x = fit(data, population, Quadrature(n_nodes=11, referee_points=0), model=model).x
    bound, joined = model.bind(data), population.bind(data.covariate_table(), model.parameters)
    mu, factor = joined.unpack(x)
    exact_mean, exact_cov, log_p = exact_moments(bound, mu, factor)
    square = factor[:2]

    def measured(mean: np.ndarray, cov: np.ndarray, elbo: np.ndarray, seconds: float) -> dict[str, Any]:
        """Distances on the scale of eta = L u."""
        distance = wasserstein2(
            mean @ square.T, square @ cov @ square.T, exact_mean @ square.T, square @ exact_cov @ square.T
        )
        sd = np.sqrt(np.diagonal(exact_cov, axis1=1, axis2=2))
        return {
            "w2_squared_mean": float(distance.mean()),
            "w2_squared_max": float(distance.max()),
            "gap": float(-2.0 * elbo.sum() + 2.0 * log_p.sum()),
            "mean_error_in_sd": float(np.abs((mean - exact_mean) / sd).max()),
            "sd_ratio": [
                float(f(np.sqrt(np.diagonal(cov, axis1=1, axis2=2)) / sd)) for f in (np.min, np.max)
            ],
            "cpu_s": seconds,
        }

    rows: dict[str, Any] = {"exact -2LL": float(-2.0 * log_p.sum())}
    fine = gauss_hermite(2, 9)
    for n in (3, 5, 9):
        cpu = time.process_time()
        found = find_posteriors(VariationalProblem(bound, mu, factor, gauss_hermite(2, n)))
        cpu = time.process_time() - cpu
        judge = VariationalProblem(bound, mu, factor, fine).expand(found.mean, found.root, found.converged)
        rows[f"deterministic, {n} x {n} nodes"] = measured(found.mean, found.covariance, judge.bound, cpu)
    for k, (name, options) in enumerate(SAMPLED.items()):
        cpu = time.process_time()
        settings = StochasticOptions(
            estimator=options.estimator, n_samples=options.n_samples, rate=0.05, moves_population=False
        )
        end = climb(bound, joined, x, settings, stream(1, k))
        cpu = time.process_time() - cpu
        judge = VariationalProblem(bound, mu, factor, fine).expand(
            end.mean, end.root, np.ones(60, dtype=bool)
        )
        rows[name] = measured(end.mean, judge.covariance, judge.bound, cpu)
    for name, row in rows.items():
        print(name, json.dumps(json_values(row)))
    write_json_atomic(make_folder(HERE / "results") / "posteriors.json", json_values(rows))


if __name__ == "__main__":
    main()
