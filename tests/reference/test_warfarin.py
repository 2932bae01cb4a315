"""The warfarin fixture: ferx-core's quadrature and FOCEI, and NONMEM 7.5.1's LAPLACE with censoring.

Ten subjects, 110 concentrations; one-compartment oral model, log-normal CL, V and ka, proportional error. The
objectives of those programs leave out n log 2 pi, n the number of quantified records.

- Quadrature (9 nodes) and FOCEI: ferx-core's published comparison of methods on `warfarin_10`.
- Censoring: tests/nonmem/warfarin_bloq.lst of ferx-core, NONMEM 7.5.1, METHOD=1 LAPLACE INTERACTION, records
  below 2 mg/L by method M3 (10 of 110).
"""

from functools import cache

import numpy as np
import pytest
from reference.warfarin import POPULATION, warfarin_model, warfarin_study
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from amortnlme.core.status import FitStatus
from amortnlme.data.limits import censor
from amortnlme.methods.base import AbstractMethod
from amortnlme.methods.classical import Fo, Foce, Focei, Laplace, Quadrature
from amortnlme.methods.first_order_likelihood import FirstOrderLikelihood
from amortnlme.methods.fit import fit
from amortnlme.methods.laplace_likelihood import LaplaceLikelihood
from amortnlme.methods.maximize import maximize
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.methods.saem import Saem

MODEL = warfarin_model()
STUDIES = {"measured": warfarin_study(), "censored": censor(warfarin_study(), lloq=2.0)}
# CL, V, ka, residual SD, then the variances of the random effects of CL, V, ka.
AGQ = (0.132687, 7.73746, 0.81090, 0.010565, 0.028592, 0.009592, 0.336036)
FERX_FOCEI = (0.132695, 7.73771, 0.81080, 0.010565, 0.028590, 0.009592, 0.335871)
NONMEM_M3 = (0.13280, 7.7314, 0.80982, 0.010760, 0.028849, 0.0095440, 0.33577)
#: Half a unit of the last digit that NONMEM prints.
ROUNDING = np.array([5e-6, 5e-5, 5e-6, 5e-7, 5e-7, 5e-8, 5e-6])
LOG_2PI = np.log(2 * np.pi)
NONMEM_M3_OFV = -216.78754391843171 + 100 * LOG_2PI


def _pack(values) -> np.ndarray:
    return np.concatenate([np.log(values[:4]), np.sqrt(values[4:])])


@cache
def _fit(method: AbstractMethod, study: str) -> PopulationFit:
    result = fit(STUDIES[study], POPULATION, method, model=MODEL)
    assert result.status is FitStatus.CONVERGED, result.warnings
    return result


def _distance(result: PopulationFit, values) -> np.ndarray:
    """Distance in standard errors."""
    return np.abs(result.x - _pack(values)) / np.sqrt(np.diagonal(result.covariance))


def test_quadrature_reproduces_the_arbiter():
    result = _fit(Quadrature(n_nodes=9), "measured")
    assert result.criterion - 110 * LOG_2PI == pytest.approx(-285.977, abs=1e-3)
    # Both searches end within some 2e-3 standard errors of their optimum.
    assert _distance(result, AGQ).max() < 0.01


def test_focei_reproduces_another_program():
    result = _fit(Focei(), "measured")
    assert result.criterion - 110 * LOG_2PI == pytest.approx(-286.004, abs=1e-3)
    assert _distance(result, FERX_FOCEI).max() < 0.01


def _concentration(phi, times):
    CL, V, ka = np.exp(phi[:3])
    ke = CL / V
    return 100.0 * ka / (V * (ka - ke)) * (np.exp(-ke * times) - np.exp(-ka * times))


def _slow_fo(x) -> float:
    """-2 log-likelihood of the linearized model, from its definition; slopes by complex steps."""
    mu, total = x[:3], 0.0
    for subject in STUDIES["measured"].subjects:
        times = subject.design.observation_times
        mean = _concentration(mu, times)
        slope = [_concentration(mu + 1e-30j * row, times).imag / 1e-30 for row in np.eye(3)]
        spread = np.transpose(slope) * x[4:]
        covariance = spread @ spread.T + np.diag((np.exp(x[3]) * mean) ** 2)
        total -= 2.0 * multivariate_normal(mean, covariance).logpdf(subject.y)
    return total


def test_fo_finds_the_minimum_of_its_definition():
    """Tolerance: the search ends when a round moves it by less than 1e-3 SE."""
    result = _fit(Fo(), "measured")
    assert result.criterion == pytest.approx(_slow_fo(result.x), abs=1e-6)
    arbiter = minimize(_slow_fo, result.x + 0.02, method="BFGS")
    assert result.criterion == pytest.approx(arbiter.fun, abs=1e-4)
    assert np.abs(result.x - arbiter.x).max() < 0.01 * np.sqrt(np.diagonal(result.covariance)).max()


@pytest.mark.parametrize("b", [1e-3, 1.0])
def test_maximize_finds_the_fo_minimum_when_the_residual_sd_starts_far_off(b):
    """The scores of a residual SD that is 40 times too small claim a precision 1600 times too high."""
    study = STUDIES["measured"]
    population = POPULATION.bind(study.covariate_table(), MODEL.parameters)
    objective = FirstOrderLikelihood(MODEL.bind(study), population)
    start = _pack((*AGQ[:3], b, *AGQ[4:]))
    found = maximize(objective, population, start)
    assert found.status is FitStatus.CONVERGED
    assert 2.0 * found.value == pytest.approx(_fit(Fo(), "measured").criterion, abs=1e-4)


@pytest.mark.parametrize("study", [pytest.param("measured", marks=pytest.mark.slow), "censored"])
def test_saem_comes_as_high_as_quadrature(study):
    """Bar of the house: within 0.3 in -2LL, both by the same referee; fixed effects within 0.1 SE."""
    exact, sampled = _fit(Quadrature(n_nodes=9), study), _fit(Saem(), study)
    assert sampled.ofv == pytest.approx(exact.criterion, abs=0.3)
    distance = np.abs(sampled.x - exact.x) / np.sqrt(np.diagonal(exact.covariance))
    assert distance[:4].max() < 0.1


def test_laplace_with_censoring_is_nonmems_at_nonmems_estimates():
    """Tolerance: what the printed digits leave open, and the differences that give the curvature.

    Those have a remainder of h^4 / 30 sixth derivatives of the log density. With residual SDs of 1 % a probe
    of 1e-3 moves a record near its limit by h = 0.1 SD: 3e-6 in each of three directions. (In 40 digits the
    value is -32.9998370, NONMEM's -32.9998373.)
    """
    study = STUDIES["censored"]
    bound = MODEL.bind(study)
    population = POPULATION.bind(study.covariate_table(), MODEL.parameters)
    value, scores = LaplaceLikelihood(bound, population, "observed").value_and_scores(_pack(NONMEM_M3))
    covariance = _fit(Laplace(), "censored").covariance
    assert covariance is not None
    shift = np.abs(_pack(np.array(NONMEM_M3) + ROUNDING) - _pack(NONMEM_M3))
    rounding = 2.0 * np.abs(scores.sum(axis=0)) @ shift + shift @ np.abs(np.linalg.inv(covariance)) @ shift
    assert rounding < 2e-6
    assert -2.0 * value.sum() == pytest.approx(NONMEM_M3_OFV, abs=rounding + 3 * 0.1**4 / 30)


def test_foce_with_censoring_stays_near_the_exact_estimates():
    """Residual SDs that ignore how far subjects are apart move ka by 0.7 standard errors: FOCE's bias."""
    result, exact = _fit(Foce(), "censored"), _fit(Quadrature(n_nodes=9), "censored")
    wide = np.sqrt(np.diagonal(exact.covariance))
    assert (np.abs(result.x - exact.x) / wide).max() < 1.0


def test_laplace_with_censoring_finds_nonmems_optimum():
    result = _fit(Laplace(), "censored")
    assert result.criterion < NONMEM_M3_OFV + 1e-5
    assert _distance(result, NONMEM_M3).max() < 0.01
