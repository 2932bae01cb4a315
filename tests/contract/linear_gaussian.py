"""The linear-Gaussian mixed model: y_i = phi_i + e_i, e_i ~ N(0, V); everything has a closed form.

phi_i = mu + L u_i, so y_i ~ N(mu, L L' + V) exactly, and the individual posterior under a normal prior is
normal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from amortnlme.methods.base import FitProblem
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel
from amortnlme.population.posterior_draws import PosteriorDraws


@dataclass(frozen=True)
class LinearGaussianTarget:
    """The individual likelihood N(y_i; phi_i, V)."""

    y: np.ndarray  # (n, d)
    precision: np.ndarray  # (d, d)

    def log_likelihood(self, phi):
        gap = self.y[:, None] - phi
        d = self.y.shape[1]
        constant = 0.5 * np.linalg.slogdet(self.precision)[1] - 0.5 * d * np.log(2 * np.pi)
        return constant - 0.5 * ((gap @ self.precision) * gap).sum(axis=-1)

    def log_likelihood_and_gradient(self, phi):
        return self.log_likelihood(phi), (self.y[:, None] - phi) @ self.precision

    def gauss_newton(self, phi):
        value, gradient = self.log_likelihood_and_gradient(phi[:, None])
        return value[:, 0], gradient[:, 0], np.broadcast_to(self.precision, (len(phi), *self.precision.shape))


@dataclass(frozen=True)
class LinearGaussian:
    """One simulated study: d parameters, the last one pooled."""

    n: int
    relative_sd: tuple[float, ...]  # random-effect SDs in units of the measurement SD, without the pooled one
    seed: int
    scale: float = 0.3

    @property
    def d(self):
        return len(self.relative_sd) + 1

    @property
    def noise(self):
        return self.scale**2 * (0.4 * np.ones((self.d, self.d)) + 0.6 * np.eye(self.d))

    @property
    def truth(self):
        return np.linspace(0.5, -0.5, self.d)

    def y(self):
        rng = np.random.default_rng([self.seed, self.n])
        sd = self.scale * np.array([*self.relative_sd, 0.0])
        phi = self.truth + sd * rng.standard_normal((self.n, self.d))
        return phi + rng.standard_normal((self.n, self.d)) @ np.linalg.cholesky(self.noise).T

    def space(self):
        return ParameterSpace(
            tuple(
                Parameter(f"p{k}", "1", "identity", 0.0, f"coordinate {k}", "structural")
                for k in range(self.d)
            )
        )

    def target(self):
        return LinearGaussianTarget(self.y(), np.linalg.inv(self.noise))

    def draws(self, n_draws, rng, shift=0.0):
        """Exact posterior draws under N(0, I), shifted by `shift` posterior SDs."""
        covariance = np.linalg.inv(np.linalg.inv(self.noise) + np.eye(self.d))
        mean = self.y() @ np.linalg.inv(self.noise) @ covariance
        root = np.linalg.cholesky(covariance)
        phi = mean[:, None] + rng.standard_normal((self.n, n_draws, self.d)) @ root.T
        phi = phi + shift * np.sqrt(np.diagonal(covariance))
        prior = NormalPrior(np.zeros(self.d), np.ones(self.d))
        log_prior = prior.log_prob(phi.reshape(-1, self.d)).reshape(phi.shape[:2])
        return PosteriorDraws(
            phi=phi,
            log_q=np.zeros(phi.shape[:2]),
            log_prior=log_prior,
            subject_ids=tuple(str(i) for i in range(self.n)),
            parameters=self.space(),
            prior=prior,
        )

    def population(self, structure="diagonal"):
        on = tuple(f"p{k}" for k in range(self.d - 1))
        return PopulationModel(
            random_effects=RandomEffects(on=on, structure=structure), name="linear-Gaussian"
        )

    def problem(self, draws, seed=0, structure="diagonal", with_likelihood=True):
        population = self.population(structure)
        table = pd.DataFrame(index=pd.Index(draws.subject_ids))
        return FitProblem(
            population=population,
            bound_population=population.bind(table, draws.parameters),
            draws=draws,
            dataset=None,
            model=None,
            bound_model=self.target() if with_likelihood else None,
            seed=seed,
        )

    def minus_two_log_likelihood(self, x):
        """Closed form at x = (theta, omega SDs)."""
        covariance = self.noise + np.diag([*(x[self.d :] ** 2), 0.0])
        gap = self.y() - x[: self.d]
        quadratic = ((gap @ np.linalg.inv(covariance)) * gap).sum()
        return float(quadratic + self.n * (np.linalg.slogdet(covariance)[1] + self.d * np.log(2 * np.pi)))

    def exact_mle(self):
        """Maximum-likelihood x, its standard errors and the minimum of -2LL, from sufficient statistics."""
        y, d, n = self.y(), self.d, self.n
        mean, scatter = y.mean(axis=0), np.cov(y.T, bias=True)

        def objective(x):
            covariance = self.noise + np.diag([*(x[d:] ** 2), 0.0])
            inverse = np.linalg.inv(covariance)
            gap = mean - x[:d]
            return (
                0.5
                * n
                * (np.linalg.slogdet(covariance)[1] + np.trace(inverse @ scatter) + gap @ inverse @ gap)
            )

        start = np.array([*mean, *(self.scale * np.array(self.relative_sd))])
        best = minimize(objective, start, method="BFGS", options={"gtol": 1e-7})
        x, h, p = best.x.copy(), 1e-4, len(best.x)
        x[d:] = np.abs(x[d:])
        step = h * np.eye(p)
        hessian = np.empty((p, p))
        for i in range(p):
            for j in range(p):
                corners = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
                hessian[i, j] = sum(a * b * objective(x + a * step[i] + b * step[j]) for a, b in corners) / (
                    4 * h * h
                )
        return x, np.sqrt(np.diagonal(np.linalg.inv(hessian))), self.minus_two_log_likelihood(x)
