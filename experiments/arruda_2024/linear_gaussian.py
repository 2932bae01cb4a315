"""Linear-Gaussian study: exact posteriors, exact maximum-likelihood estimates, error by method.

    python experiments/arruda_2024/linear_gaussian.py --n 500 --data-sets 8
    python experiments/arruda_2024/linear_gaussian.py --n 5000 --data-sets 3

y_i ~ N(phi_i, V), phi_i ~ N(theta, omega); five parameters with population SDs of 2, 1, 0.5, 0.3 and 0
(shared) measurement SDs, correlated measurements, prior N(0, I), 100 exact posterior draws. z = (estimate -
exact MLE) / SE of the exact MLE, for means and variances.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from runs import Row, Runs, rms_table
from scipy.optimize import minimize

from amortnlme.methods.amortized import Amortized
from amortnlme.methods.base import AbstractMethod, FitProblem
from amortnlme.methods.monte_carlo import MonteCarlo
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel
from amortnlme.population.posterior_draws import PosteriorDraws

SCALE, RELATIVE_SD = 0.3, np.array([2.0, 1.0, 0.5, 0.3, 0.0])
D = len(RELATIVE_SD)
NOISE = SCALE**2 * (0.4 * np.ones((D, D)) + 0.6 * np.eye(D))
PRECISION = np.linalg.inv(NOISE)
MEANS = np.array([0.5, -0.5, 0.3, -0.2, 0.4])
PRIOR = NormalPrior(np.zeros(D), np.ones(D))
NAMES = ["mean 2", "mean 1", "mean .5", "mean .3", "shared", "var 2", "var 1", "var .5", "var .3"]
POPULATION = PopulationModel(random_effects=RandomEffects(on=tuple(f"p{k}" for k in range(D - 1))))
SPACE = ParameterSpace(
    tuple(Parameter(f"p{k}", "1", "identity", 0.0, f"coordinate {k}", "structural") for k in range(D))
)


@dataclass(frozen=True)
class Measurements:
    """The individual likelihood N(y_i; phi_i, V), as methods want it."""

    y: np.ndarray

    def log_likelihood(self, phi: np.ndarray) -> np.ndarray:
        """Log density, constants included."""
        gap = self.y[:, None] - phi
        constant = 0.5 * np.linalg.slogdet(PRECISION)[1] - 0.5 * D * np.log(2 * np.pi)
        return constant - 0.5 * ((gap @ PRECISION) * gap).sum(axis=-1)

    def log_likelihood_and_gradient(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same with its gradient."""
        return self.log_likelihood(phi), (self.y[:, None] - phi) @ PRECISION

    def gauss_newton(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same at one point per subject, with the information."""
        value, gradient = self.log_likelihood_and_gradient(phi[:, None])
        return value[:, 0], gradient[:, 0], np.broadcast_to(PRECISION, (len(phi), D, D))


def exact_draws(y: np.ndarray, n_draws: int, rng: np.random.Generator, shift: float = 0.0) -> PosteriorDraws:
    """Draws from the normal posteriors, moved by `shift` posterior SDs."""
    covariance = np.linalg.inv(PRECISION + np.eye(D))
    center = y @ PRECISION @ covariance + shift * np.sqrt(np.diagonal(covariance))
    phi = center[:, None] + rng.standard_normal((len(y), n_draws, D)) @ np.linalg.cholesky(covariance).T
    log_prior = PRIOR.log_prob(phi.reshape(-1, D)).reshape(phi.shape[:2])
    ids = tuple(str(i) for i in range(len(y)))
    return PosteriorDraws(phi, np.zeros_like(log_prior), log_prior, ids, SPACE, PRIOR)


def exact_mle(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and variances that maximize the likelihood, and their standard errors.

    A variance whose MLE is zero gets the standard error it has at a true value of zero.
    """
    n, mean, scatter = len(y), y.mean(axis=0), np.cov(y.T, bias=True)

    def objective(x: np.ndarray) -> float:
        inverse = np.linalg.inv(NOISE + np.diag([*(x[D:] ** 2), 0.0]))
        gap = mean - x[:D]
        log_det = np.linalg.slogdet(inverse)[1]
        return 0.5 * n * float(np.trace(inverse @ scatter) + gap @ inverse @ gap - log_det)

    start = np.array([*mean, *(SCALE * RELATIVE_SD[:-1])])
    x = minimize(objective, start, method="BFGS", options={"gtol": 1e-8}).x
    variance = x[D:] ** 2
    inverse = np.linalg.inv(NOISE + np.diag([*variance, 0.0]))
    # Expected information of means and variances: inv(C), and inv(C)_ab^2 / 2.
    mean_se = np.sqrt(np.diagonal(np.linalg.inv(inverse)) / n)
    variance_se = np.sqrt(np.diagonal(np.linalg.inv(0.5 * inverse[:-1, :-1] ** 2)) / n)
    return np.concatenate([x[:D], variance]), np.concatenate([mean_se, variance_se])


def methods(y: np.ndarray) -> dict[str, tuple[AbstractMethod, float, bool]]:
    """Label -> method, shift of the draws in posterior SDs, whether the likelihood is given."""
    few = {"referee_points": 32, "referee_replicates": 2}
    target = Measurements(y)

    def density(phi: np.ndarray) -> np.ndarray:
        return target.log_likelihood(phi) + PRIOR.log_prob(phi.reshape(-1, D)).reshape(phi.shape[:2])

    return {
        "published, variance .001": (MonteCarlo(pooled_variance=0.001, **few), 0.0, False),
        "published, variance .01": (MonteCarlo(pooled_variance=0.01, **few), 0.0, False),
        "surrogate alone": (Amortized(correction="none", **few), 0.0, False),
        "corrected by the density": (Amortized(log_density=density, n_points=32, **few), 0.0, False),
        "corrected by the likelihood": (Amortized(n_points=32, **few), 0.0, True),
        "biased draws, surrogate alone": (Amortized(correction="none", **few), 0.1, False),
        "biased draws, likelihood": (Amortized(n_points=32, **few), 0.1, True),
    }


def one_fit(y: np.ndarray, seed: int, label: str) -> Row:
    """Fit one data set by one method."""
    method, shift, has_likelihood = methods(y)[label]
    draws = exact_draws(y, 100, np.random.default_rng([seed, len(y)]), shift)
    table = pd.DataFrame(index=pd.Index(draws.subject_ids))
    bound = POPULATION.bind(table, SPACE)
    target = Measurements(y) if has_likelihood else None
    result = method.run(FitProblem(POPULATION, bound, draws, None, None, target, seed))
    mle, se = exact_mle(y)
    estimate = np.concatenate([result.x[:D], result.x[D:] ** 2])
    codes = [text[1 : text.find("]")] for text in result.warnings]
    return {"z": (estimate - mle) / se, "status": result.status.value, "warnings": codes}


def simulate(n: int, seed: int) -> np.ndarray:
    """Measurements of n subjects."""
    rng = np.random.default_rng(1000 + seed)
    phi = MEANS + SCALE * RELATIVE_SD * rng.standard_normal((n, D))
    return phi + rng.standard_normal((n, D)) @ np.linalg.cholesky(NOISE).T


def main() -> None:
    """Run what is not stored and print the table."""
    parser = argparse.ArgumentParser(description="Linear-Gaussian study: see the head of this file.")
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--data-sets", type=int, default=8)
    parser.add_argument("--again", action="store_true", help="replace stored runs")
    parser.add_argument("--out", type=Path, help="folder of the JSON file (default results/)")
    args = parser.parse_args()
    runs = Runs(f"linear_gaussian_{args.n}", {"n": args.n, "draws": 100}, args.out, args.again)
    found: dict[str, list[Row]] = {}
    for seed in range(args.data_sets):
        y = simulate(args.n, seed)
        for label in methods(y):
            row = runs.run(f"{seed} {label}", partial(one_fit, y, seed, label))
            found.setdefault(label, []).append(row)
    print(f"\nn = {args.n}, {args.data_sets} data sets: rms z\n\n{rms_table(list(found.items()), NAMES)}\n")
    for label, rows in found.items():
        flagged = sum("W_FIT_MC_ERROR" in row["warnings"] for row in rows)
        print(f"{label}: flagged by the gate {flagged} of {len(rows)} times")


if __name__ == "__main__":
    main()
