"""On a linear mixed model FO, FOCE, FOCEI, Laplace, quadrature, VI and importance sampling are all exact."""

from functools import cache

import numpy as np
import pytest
from contract.linear_mixed_model import exact_log_likelihood, line, linear_study
from scipy.optimize import minimize

from amortnlme.core.rng import stream
from amortnlme.core.status import FitStatus
from amortnlme.methods.classical import Fo, Foce, Focei, Laplace, Quadrature
from amortnlme.methods.ebe import find_ebe
from amortnlme.methods.first_order_likelihood import ConditionalFirstOrderLikelihood, FirstOrderLikelihood
from amortnlme.methods.fit import fit
from amortnlme.methods.laplace_likelihood import LaplaceLikelihood
from amortnlme.methods.quadrature_likelihood import QuadratureLikelihood
from amortnlme.methods.quadrature_nodes import gauss_hermite
from amortnlme.methods.referee import referee
from amortnlme.methods.saem import Saem
from amortnlme.methods.variational_likelihood import VariationalLikelihood
from amortnlme.methods.vi import Vi
from amortnlme.population.effects import CovariateEffect, RandomEffects
from amortnlme.population.population_model import PopulationModel

STUDY, MODEL = linear_study(), line()
POPULATION = PopulationModel(
    random_effects=RandomEffects(("m", "s"), "full"), covariates=(CovariateEffect("s", "w"),)
)
BOUND = MODEL.bind(STUDY.dataset)
JOINED = POPULATION.bind(STUDY.dataset.covariate_table(), MODEL.parameters)
X = np.array([1.1, 0.4, np.log(0.45), 0.6, 0.9, 0.2, 0.6])
OBJECTIVES = {
    "fo": lambda: FirstOrderLikelihood(BOUND, JOINED),
    "foce": lambda: ConditionalFirstOrderLikelihood(BOUND, JOINED),
    "focei": lambda: LaplaceLikelihood(BOUND, JOINED),
    "laplace": lambda: LaplaceLikelihood(BOUND, JOINED, "observed"),
    "quadrature": lambda: QuadratureLikelihood(BOUND, JOINED, 3),
    "vi": lambda: VariationalLikelihood(BOUND, JOINED, gauss_hermite(2, 3)),
}


def _exact(x: np.ndarray) -> np.ndarray:
    root = np.array([[x[4], 0.0], [x[5], x[6]]])
    return exact_log_likelihood(STUDY, x[:2], x[3], root @ root.T, float(np.exp(x[2])))


@cache
def _mle() -> tuple[np.ndarray, np.ndarray]:
    """Exact maximum-likelihood estimates and their standard errors."""

    def function(x: np.ndarray) -> float:
        return -float(_exact(x).sum())

    x = minimize(function, X, method="BFGS", options={"gtol": 1e-6}).x
    h, p = 1e-3, len(x)
    step = np.eye(p) * h
    hessian = np.array(
        [
            [
                sum(
                    s * q * function(x + s * step[i] + q * step[j])
                    for s, q in ((1, 1), (1, -1), (-1, 1), (-1, -1))
                )
                / (4 * h * h)
                for j in range(p)
            ]
            for i in range(p)
        ]
    )
    return x, np.sqrt(np.diagonal(np.linalg.inv(hessian)))


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_every_approximation_is_the_closed_form(kind):
    assert JOINED.names == ("theta_m", "theta_s", "theta_a", "beta_s_w", "chol_m", "chol_s_m", "chol_s")
    value = OBJECTIVES[kind]().value_and_scores(X)[0]
    np.testing.assert_allclose(value, _exact(X), atol=1e-6)


def test_importance_sampling_is_the_closed_form_within_its_error():
    """Null: no bias. The proposal is a t around the exact normal law; t with 7 df at 1e-4: 7.9 SE."""
    mu, factor = JOINED.unpack(X)
    verdict = referee(BOUND, mu, factor, find_ebe(BOUND, mu, factor), stream(1, 1), 256, 8)
    assert abs(verdict.ofv + 2.0 * _exact(X).sum()) < 7.9 * verdict.ofv_se
    assert 0 < verdict.ofv_se < 0.03


@pytest.mark.parametrize("method", [Fo(), Foce(), Focei(), Laplace(), Quadrature(n_nodes=3), Vi()])
def test_fits_are_the_exact_maximum_likelihood_estimates(method):
    result = fit(STUDY.dataset, POPULATION, method, model=MODEL)
    x, se = _mle()
    assert result.status is FitStatus.CONVERGED, result.warnings
    # The search ends at a gradient of 2e-3 SE.
    np.testing.assert_allclose(result.x / se, x / se, atol=0.01)
    assert result.covariance is not None
    np.testing.assert_allclose(np.sqrt(np.diagonal(result.covariance)), se, rtol=0.02)
    assert result.criterion == pytest.approx(-2.0 * _exact(result.x).sum(), abs=1e-5)
    assert abs(result.ofv - result.criterion) < 7.9 * result.ofv_se


def test_saem_comes_within_its_monte_carlo_error():
    """Bar: fixed effects within 0.1 SE; variances, which EM learns slowly, within 0.3."""
    result = fit(STUDY.dataset, POPULATION, Saem(), model=MODEL)
    x, se = _mle()
    distance = np.abs(result.x - x) / se
    assert result.status is FitStatus.CONVERGED, result.warnings
    assert distance[[0, 1, 3]].max() < 0.1
    assert distance[[2, 4, 5, 6]].max() < 0.3
    assert result.quality.mc_se is not None
    assert result.ofv == pytest.approx(-2.0 * _exact(result.x).sum(), abs=0.05)


def test_the_same_seed_gives_the_same_saem():
    short = Saem(n_exploration=50, max_exploration=50, n_averaging=20)
    first, again = (fit(STUDY.dataset, POPULATION, short, model=MODEL, seed=3) for _ in range(2))
    assert first.x.tobytes() == again.x.tobytes()
