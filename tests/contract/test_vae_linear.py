"""The variational autoencoder on a linear mixed model, where the best Gaussian law is the exact posterior."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from contract.linear_mixed_model import exact_log_likelihood, line, linear_study
from scipy.optimize import minimize

from amortnlme.core.errors import UsageError
from amortnlme.core.status import FitStatus
from amortnlme.methods.classical import Focei
from amortnlme.methods.fit import fit, problem_of
from amortnlme.methods.quadrature_nodes import gauss_hermite
from amortnlme.methods.selection import SelectionProblem
from amortnlme.methods.vae import Vae
from amortnlme.methods.vae_search import VaeSchedule
from amortnlme.methods.vae_selection import VaeSelection
from amortnlme.methods.variational_posterior import VariationalProblem
from amortnlme.neural.recognition_model import RecognitionModel
from amortnlme.population.candidates import parse_candidates
from amortnlme.population.effects import CovariateEffect, RandomEffects
from amortnlme.population.population_model import PopulationModel

pytestmark = pytest.mark.backend

STUDY, MODEL = linear_study(), line()
POPULATION = PopulationModel(
    random_effects=RandomEffects(("m", "s"), "full"), covariates=(CovariateEffect("s", "w"),)
)
SHORT = VaeSchedule(10, 10, 10, 10)
X = np.array([1.1, 0.4, np.log(0.45), 0.6, 0.9, 0.2, 0.6])


def _exact(x: np.ndarray) -> np.ndarray:
    root = np.array([[x[4], 0.0], [x[5], x[6]]])
    return exact_log_likelihood(STUDY, x[:2], x[3], root @ root.T, float(np.exp(x[2])))


@cache
def _mle() -> tuple[np.ndarray, np.ndarray]:
    """Exact maximum-likelihood estimates and their standard errors, from differences of the closed form."""
    x = minimize(lambda x: -float(_exact(x).sum()), X, method="BFGS", options={"gtol": 1e-6}).x
    h, p = 1e-3, len(x)
    step, signs = np.eye(p) * h, ((1, 1), (1, -1), (-1, 1), (-1, -1))
    hessian = np.empty((p, p))
    for i in range(p):
        for j in range(p):
            corners = [-s * q * _exact(x + s * step[i] + q * step[j]).sum() for s, q in signs]
            hessian[i, j] = sum(corners) / (4 * h * h)
    return x, np.sqrt(np.diagonal(np.linalg.inv(hessian)))


def _posterior(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exact conditional means and roots of u."""
    factor, mu = np.array([[x[4], 0.0], [x[5], x[6]]]), x[:2]
    means, roots = [], []
    for t, y, w in zip(STUDY.times, STUDY.y, STUDY.weight, strict=True):
        design = np.column_stack([np.ones_like(t), t])
        center = design @ (mu + np.array([0.0, x[3] * np.log(w / STUDY.weight.mean())]))
        pull = design @ factor / np.exp(x[2])
        covariance = np.linalg.inv(np.eye(2) + pull.T @ pull)
        means.append(covariance @ pull.T @ (y - center) / np.exp(x[2]))
        roots.append(np.linalg.cholesky(covariance))
    return np.array(means), np.array(roots)


def test_bound_at_the_exact_posterior_is_the_exact_log_likelihood():
    problem = problem_of(STUDY.dataset, POPULATION, MODEL, 0)
    unpacked = problem.bound_population.unpack(X)
    laws = VariationalProblem(problem.bound_model, *unpacked, gauss_hermite(2, 3))
    everyone = np.ones(len(STUDY.y), dtype=bool)
    np.testing.assert_allclose(laws.expand(*_posterior(X), everyone).bound, _exact(X), atol=1e-8)


def test_refined_fit_is_the_exact_maximum_likelihood_estimate():
    result = fit(STUDY.dataset, POPULATION, Vae(schedule=SHORT), model=MODEL)
    x, se = _mle()
    assert result.status is FitStatus.CONVERGED, result.warnings
    # The search ends at a gradient of 2e-3 SE.
    np.testing.assert_allclose(result.x / se, x / se, atol=0.01)
    assert result.covariance is not None
    np.testing.assert_allclose(np.sqrt(np.diagonal(result.covariance)), se, rtol=0.02)
    assert result.criterion_kind == "elbo"
    assert result.criterion == pytest.approx(-2.0 * _exact(result.x).sum(), abs=1e-5)
    assert abs(result.ofv - result.criterion) < 7.9 * result.ofv_se
    refined = next(stage for stage in result.trace if stage["stage"] == "laws refined")
    # One network for all subjects cannot beat a law of its own for each.
    assert refined["amortization_gap"] >= 0.0


def test_encoder_alone_gives_a_bound_that_is_one_and_rises():
    result = fit(STUDY.dataset, POPULATION, Vae(schedule=SHORT, finish="none"), model=MODEL)
    # What the law of the encoder is worth, never above the exact likelihood.
    assert result.criterion >= -2.0 * _exact(result.x).sum() - 1e-6
    assert result.trace[-1]["objective"] < result.trace[0]["objective"]
    assert result.covariance is None
    assert any(text.startswith("[W_FIT_SAMPLED]") for text in result.warnings)


def test_same_seed_gives_the_same_bytes_and_another_seed_the_same_estimates():
    method = Vae(schedule=replace(SHORT, n_steps=1))
    first, again, other = (fit(STUDY.dataset, POPULATION, method, model=MODEL, seed=s) for s in (1, 1, 2))
    assert first.x.tobytes() == again.x.tobytes()
    assert first.trace[0] != other.trace[0]
    np.testing.assert_allclose(first.x, other.x, atol=0.01 * _mle()[1].min())


def test_saved_encoder_predicts_subjects_that_were_left_out(tmp_path):
    """Bar: closer to the exact conditional means than the typical values, which know the covariate alone."""
    seen, new = (STUDY.dataset.select(STUDY.dataset.ids[part]) for part in (slice(24), slice(24, None)))
    path = tmp_path / "encoder.h5"
    schedule = VaeSchedule(10, 10, 30, 10, n_steps=4)
    x = fit(seen, POPULATION, Vae(schedule=schedule, encoder_file=str(path)), model=MODEL).x
    mean, covariance = RecognitionModel.load(path).law(MODEL, new)
    assert mean.shape == (6, 2) and (np.linalg.eigvalsh(covariance) > 0).all()
    omega = np.array([[x[4], 0.0], [x[5], x[6]]]) @ np.array([[x[4], x[5]], [0.0, x[6]]])
    typical, exact = np.empty((6, 2)), np.empty((6, 2))
    for row, k in enumerate(range(24, 30)):
        design = np.column_stack([np.ones_like(STUDY.times[k]), STUDY.times[k]])
        typical[row] = x[:2]
        typical[row, 1] += x[3] * np.log(STUDY.weight[k] / STUDY.weight[:24].mean())
        total = design @ omega @ design.T + np.exp(2 * x[2]) * np.eye(len(design))
        gain = omega @ design.T @ np.linalg.inv(total)
        exact[row] = typical[row] + gain @ (STUDY.y[k] - design @ typical[row])
    np.testing.assert_array_less(((mean - exact) ** 2).mean(axis=0), ((typical - exact) ** 2).mean(axis=0))


def test_selection_finds_the_model_of_smallest_bicc():
    """The covariate is the mean of a subject's own data: 40 units of BICc above all other models."""
    subjects = [
        replace(subject, covariates={"own": float(y.mean())})
        for subject, y in zip(STUDY.dataset.subjects, STUDY.y, strict=True)
    ]
    dataset = replace(STUDY.dataset, subjects=tuple(subjects))
    candidates = parse_candidates(["m, s ~ linear(own)"], dataset.covariate_table())
    base = PopulationModel(random_effects=RandomEffects(("m", "s")))
    problem = SelectionProblem.of(dataset, base, candidates, MODEL, None, 0)
    method = VaeSelection(Vae(schedule=SHORT, referee_points=32, referee_replicates=2))
    result, fitted = method.search_and_fit(problem)
    exact = Focei(referee_points=0)
    models = [(), ("m~own",), ("s~own",), ("m~own", "s~own")]
    assert result.chosen == min(models, key=lambda chosen: problem.fit(chosen, exact).bicc)
    assert result.runs == 1
    assert fitted.population.name == ", ".join(result.chosen)


@pytest.mark.parametrize(
    "options",
    [{"encoder": "transformer"}, {"finish": "mcmc"}, {"width": 0}, {"n_nodes": 1}, {"n_quasi": 33}],
)
def test_vae_refuses_options_outside_their_range(options):
    with pytest.raises(UsageError) as caught:
        Vae(**options)
    assert caught.value.code == "E_FIT_OPTION"


@pytest.mark.parametrize("options", [{"n_steps": 0}, {"rate": 0.0}, {"n_main": -1}])
def test_schedule_refuses_values_outside_their_range(options):
    with pytest.raises(UsageError) as caught:
        VaeSchedule(**options)
    assert caught.value.code == "E_FIT_OPTION"
