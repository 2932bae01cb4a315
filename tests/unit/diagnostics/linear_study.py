"""A linear-Gaussian study whose fit is known exactly: f = b0 + b1 t, y = f + a e.

It offers what diagnostics and the report use of an individual model, with closed forms instead of a solver.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from amortnlme.core.status import FitStatus
from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design, Dose
from amortnlme.data.subject import Subject
from amortnlme.methods.population_fit import FitQuality, Individuals, PopulationFit
from amortnlme.model.error_model import Additive
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior
from amortnlme.population.effects import CovariateEffect, RandomEffects
from amortnlme.population.population_model import PopulationModel
from amortnlme.population.posterior_draws import PosteriorDraws

SPACE = ParameterSpace(
    (
        Parameter("b0", "mg/L", "identity", 5.0, "level at time zero"),
        Parameter("b1", "mg/L/h", "identity", -0.5, "slope"),
        Parameter("a", "mg/L", "log", 0.5, "residual SD", role="error"),
    )
)
TIMES = np.array([0.5, 1.0, 2.0, 4.0, 6.0, 8.0])


@dataclass(frozen=True)
class LinearBound:
    """The linear model joined with a dataset."""

    dataset: Dataset

    def predict(self, phi):
        t = self.dataset.design_batch().observation_times
        return phi[:, :, :1] + phi[:, :, 1:2] * t[:, None, :], np.zeros(phi.shape[:2], int)

    def predict_with_sensitivity(self, phi):
        f, status = self.predict(phi)
        slope = np.zeros((*f.shape, 3))
        slope[..., 0] = 1.0
        slope[..., 1] = self.dataset.design_batch().observation_times[:, None, :]
        return f, slope, status

    def log_likelihood(self, phi):
        y, observed, _, _ = self.dataset.y_padded()
        f, _ = self.predict(phi)
        log_sd = phi[:, :, 2:3]
        terms = -0.5 * ((y[:, None] - f) / np.exp(log_sd)) ** 2 - log_sd - 0.5 * np.log(2 * np.pi)
        return np.where(observed[:, None], terms, 0.0).sum(axis=2)

    def gauss_newton(self, phi):
        y, observed, _, _ = self.dataset.y_padded()
        f, slope, _ = self.predict_with_sensitivity(phi[:, None])
        sd = np.exp(phi[:, 2])
        scaled = np.where(observed[:, :, None], slope[:, 0], 0.0) / sd[:, None, None]
        residual = np.where(observed, (y - f[:, 0]) / sd[:, None], 0.0)
        gradient = np.einsum("smd,sm->sd", scaled, residual)
        gradient[:, 2] = (residual**2).sum(axis=1) - observed.sum(axis=1)
        information = np.einsum("smd,sme->sde", scaled, scaled)
        information[:, 2, 2] = 2.0 * observed.sum(axis=1)
        return self.log_likelihood(phi[:, None])[:, 0], gradient, information


class LinearModel:
    """What diagnostics and the report read from an individual model."""

    name, version, text, source = "straight_line", "1", "A straight line with <noise>", "made up"
    fingerprint = "sha256:0"
    parameters = SPACE
    d = 3
    outputs = (SimpleNamespace(name="conc", unit="mg/L", error_model=Additive("a")),)
    units = {"time": "h", "amount": "mg"}  # noqa: RUF012
    capabilities = frozenset({"simulate", "predict", "sensitivity", "likelihood"})

    def bind(self, dataset):
        return LinearBound(dataset)

    def simulate_batch(self, phi, batch, rng):
        f = phi[:, :1] + phi[:, 1:2] * batch.observation_times
        y = f + np.exp(phi[:, 2:3]) * rng.standard_normal(f.shape)
        return SimpleNamespace(
            y=np.where(batch.observation_mask, y, np.nan), status=np.zeros(len(phi), np.int64)
        )


def make_study(rng, n_subjects=16, name="with weight", covariate=True):
    """Simulate a study and the fit that holds its true population parameters.

    Returns
    -------
    fit : PopulationFit
    model : LinearModel
    dataset : Dataset
    """
    effects = (CovariateEffect("b0", "weight"),) if covariate else ()
    population = PopulationModel(name=name, random_effects=RandomEffects(("b0", "b1")), covariates=effects)
    weight = rng.uniform(50.0, 90.0, n_subjects)
    sex = rng.integers(0, 2, n_subjects).astype(float)
    blank = _dataset([np.zeros(len(TIMES))] * n_subjects, weight, sex)
    bound = population.bind(blank.covariate_table(), SPACE)
    x = np.array([5.0, -0.3, np.log(0.4), *([2.0] if covariate else []), 0.8, 0.1])
    mu, factor = bound.unpack(x)
    eta = rng.standard_normal((n_subjects, 2)) @ factor.T
    f = (mu + eta)[:, :1] + (mu + eta)[:, 1:2] * TIMES
    dataset = _dataset(list(f + 0.4 * rng.standard_normal(f.shape)), weight, sex)
    return make_fit(population, dataset, x), LinearModel(), dataset


def _dataset(rows, weight, sex):
    design = Design.from_doses([Dose(0.0, 100.0)], TIMES)
    m = len(TIMES)
    subjects = tuple(
        Subject(
            id=f"S{i + 1}",
            design=design,
            y=y,
            observed=np.ones(m, bool),
            censoring=np.zeros(m, np.int8),
            limit=np.full(m, np.nan),
            occasion=np.zeros(m + 1, np.int32),
            covariates={"weight": float(weight[i]), "sex": float(sex[i])},
        )
        for i, y in enumerate(rows)
    )
    return Dataset(subjects, name="line <study>", units={"weight": "kg"})


def make_fit(population, dataset, x, *, ofv_kind="importance_sampling", status=FitStatus.CONVERGED):
    """Build the fit that has the given population parameters, with exact conditional modes and -2LL."""
    bound = population.bind(dataset.covariate_table(), SPACE)
    mu, factor = bound.unpack(x)
    y = dataset.y_padded()[0]
    design = np.stack([np.ones(len(TIMES)), TIMES], axis=1)
    sd = np.exp(mu[0, 2])
    root = factor[:2]
    omega = root @ root.T
    covariance = design @ omega @ design.T + sd**2 * np.eye(len(TIMES))
    residual = y - mu[:, :2] @ design.T
    weighted = np.linalg.solve(covariance, residual.T).T
    eta = weighted @ design @ omega
    individual = (residual * weighted).sum(axis=1) + np.linalg.slogdet(2 * np.pi * covariance)[1]
    phi = mu.copy()
    phi[:, :2] += eta
    conditional = omega - omega @ design.T @ np.linalg.solve(covariance, design @ omega)
    cov_x = np.diag(np.full(len(x), 0.01))
    full = np.zeros((3, 3))
    full[:2, :2] = omega
    n = dataset.n_subjects
    return PopulationFit(
        method="amortized",
        model_name="straight_line",
        population=population,
        status=status,
        estimates=bound.describe(x, cov_x),
        theta=x[:3],
        omega=full,
        sigma={"a": float(sd)},
        parameter_names=SPACE.names,
        random_effects=population.random_effects.on,
        x=x,
        x_names=bound.names,
        covariance=cov_x,
        ofv=float(individual.sum()),
        ofv_kind=ofv_kind,
        ofv_se=0.02,
        ofv_individual=individual,
        individuals=Individuals(
            ids=dataset.ids,
            ebe_phi=phi,
            ebe_eta=eta,
            conditional_mean_phi=phi,
            conditional_sd_phi=np.tile(
                np.append(np.sqrt(np.maximum(np.diagonal(conditional), 0.0)), 0.0), (n, 1)
            ),
        ),
        eta_shrinkage=1.0 - eta.std(axis=0, ddof=1) / np.sqrt(np.diagonal(omega)),
        eps_shrinkage=0.1,
        quality=FitQuality(np.full(n, 480.0), np.full(n, 0.1), 512, 1e-4, 0.01, None, 0.3, 0),
        warnings=("[W_EXAMPLE] a warning with <angle> brackets.",),
        trace=(
            {
                "stage": "surrogate",
                "x": (x + 0.05).tolist(),
                "n_evaluations": 40,
                "start_objectives": [3.0, 1.0, 2.0],
            },
            {"stage": "correction 1", "x": x.tolist(), "n_evaluations": 8},
        ),
        provenance={
            "seed": 1,
            "versions": {"amortnlme": "0.1.0"},
            "dataset_fingerprint": dataset.fingerprint,
        },
        seconds={"surrogate": 0.1, "correction": 0.2},
        n_subjects=n,
        n_observations=dataset.n_observations,
        n_parameters_random=len(x) - 1,
    )


def make_draws(dataset, rng, n_draws=400):
    """Draw from every subject's exact posterior of (b0, b1) under a wide prior, with log a near its value."""
    prior = NormalPrior(np.array([5.0, -0.3, np.log(0.4)]), np.array([2.0, 0.5, 0.2]))
    y = dataset.y_padded()[0]
    design = np.stack([np.ones(len(TIMES)), TIMES], axis=1)
    precision = design.T @ design / 0.4**2 + np.diag([1 / 2.0**2, 1 / 0.5**2])
    covariance = np.linalg.inv(precision)
    mean = (y @ design / 0.4**2 + np.array([5.0 / 4.0, -0.3 / 0.25])) @ covariance
    root = np.linalg.cholesky(covariance)
    z = rng.standard_normal((len(y), n_draws, 2))
    log_a = np.log(0.4) + 0.2 * rng.standard_normal((len(y), n_draws, 1))
    phi = np.concatenate([mean[:, None] + z @ root.T, log_a], axis=2)
    log_q = -0.5 * (z**2).sum(axis=2) - np.log(2 * np.pi) - np.log(np.diagonal(root)).sum()
    log_q += -0.5 * ((log_a[..., 0] - np.log(0.4)) / 0.2) ** 2 - np.log(0.2) - 0.5 * np.log(2 * np.pi)
    rejected = np.zeros(len(y), np.int64)
    rejected[0] = 12
    domain = [()] * len(y)
    domain[1] = ("25 observations; the estimator saw at most 20",)
    return PosteriorDraws(
        phi=phi,
        log_q=log_q,
        log_prior=prior.log_prob(phi),
        subject_ids=dataset.ids,
        parameters=SPACE,
        prior=prior,
        model_name="straight_line",
        model_fingerprint="sha256:0",
        estimator_fingerprint="sha256:1",
        dataset_fingerprint=dataset.fingerprint,
        n_rejected=rejected,
        out_of_domain=tuple(domain),
    )
