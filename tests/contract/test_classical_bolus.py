"""On a bolus study every classical method is what its definition says, and the exact ones are exact.

Arbiter: the marginal likelihood on a dense tensor grid over both random effects, in plain NumPy. The
trapezoidal rule on a smooth function that vanishes at both ends has an error of exp(-2 (pi s / h)^2), s the
narrowest conditional SD and h the step; a test halves the step.
"""

from functools import cache

import numpy as np
import pytest
from contract.bolus import DOSE, bolus_model, bolus_study
from reference.slow_laplace import first_order_value, laplace_value
from scipy.optimize import minimize

from amortnlme.core.rng import stream
from amortnlme.core.status import FitStatus
from amortnlme.methods.base import AbstractMethod
from amortnlme.methods.classical import Fo, Foce, Focei, Laplace, Quadrature
from amortnlme.methods.ebe import find_ebe
from amortnlme.methods.first_order_likelihood import ConditionalFirstOrderLikelihood, FirstOrderLikelihood
from amortnlme.methods.fit import fit
from amortnlme.methods.laplace_likelihood import LaplaceLikelihood
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.methods.quadrature_likelihood import QuadratureLikelihood
from amortnlme.methods.referee import referee
from amortnlme.methods.saem import Saem
from amortnlme.model.error_model import Proportional
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel

TIMES = np.array([0.5, 2.0, 5.0, 10.0])
MODEL = bolus_model(Proportional("b"), b=0.1)
STUDY = bolus_study(MODEL, 14, TIMES, (0.3, 0.25), seed=2)
POPULATION = PopulationModel(random_effects=RandomEffects(("CL", "V"), "full"))
BOUND = MODEL.bind(STUDY)
JOINED = POPULATION.bind(STUDY.covariate_table(), MODEL.parameters)
# theta of CL, V and b; then L of (CL, V).
POINTS = np.array(
    [
        [1.6, 3.0, np.log(0.10), 0.3, 0.1, 0.25],
        [1.4, 3.2, np.log(0.12), 0.5, -0.15, 0.35],
        [1.8, 2.9, np.log(0.08), 0.15, 0.05, 0.1],
    ]
)
OBJECTIVES = {
    "fo": lambda: FirstOrderLikelihood(BOUND, JOINED),
    "foce": lambda: ConditionalFirstOrderLikelihood(BOUND, JOINED),
    "focei": lambda: LaplaceLikelihood(BOUND, JOINED),
    "laplace": lambda: LaplaceLikelihood(BOUND, JOINED, "observed"),
    "quadrature": lambda: QuadratureLikelihood(BOUND, JOINED, 15),
}
METHODS = {
    "fo": Fo(),
    "foce": Foce(),
    "focei": Focei(),
    "laplace": Laplace(),
    "quadrature": Quadrature(n_nodes=9),
    "saem": Saem(),
}
STEP, COARSE = 0.07, 0.14


@cache
def _grid(step: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes (k, 2) within 7 SDs of both standardized random effects, and the logarithms of their weights."""
    line = np.arange(-7.0, 7.0 + 0.5 * step, step)
    u = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    return u, -0.5 * (u**2).sum(axis=1) - np.log(2 * np.pi) + 2.0 * np.log(step)


def _log_concentration(phi: np.ndarray, t: np.ndarray) -> np.ndarray:
    return np.log(DOSE) - phi[..., 1:] - np.exp(phi[..., :1] - phi[..., 1:]) * t


def _factor(x: np.ndarray) -> np.ndarray:
    return np.array([[x[3], 0.0], [x[4], x[5]]])


def _exact(x: np.ndarray, step: float = STEP) -> np.ndarray:
    """Log-likelihood of every subject on the grid."""
    u, log_weight = _grid(step)
    log_f = _log_concentration(x[:2] + u @ _factor(x).T, TIMES)
    values = []
    for subject in STUDY.subjects:
        seen = subject.observed
        # (y - f) / (b f); the bound keeps corners of the grid, where nothing contributes, from overflowing.
        z = np.expm1(np.minimum(np.log(subject.y[seen]) - log_f[:, seen], 50.0)) / np.exp(x[2])
        joint = log_weight - (0.5 * z**2 + log_f[:, seen] + x[2] + 0.5 * np.log(2 * np.pi)).sum(axis=1)
        top = joint.max()
        values.append(top + np.log(np.exp(joint - top).sum()))
    return np.array(values)


def _slow(kind: str, x: np.ndarray) -> np.ndarray:
    values = []
    for subject in STUDY.subjects:
        seen = subject.observed

        def prediction(u: np.ndarray, seen: np.ndarray = seen) -> np.ndarray:
            return np.exp(_log_concentration(x[:2] + _factor(x) @ u, TIMES[seen]))

        y, b = subject.y[seen], float(np.exp(x[2]))
        values.append(
            first_order_value(prediction, y, 2, 0.0, b)
            if kind == "fo"
            else laplace_value(prediction, y, 2, 0.0, b, kind == "laplace", interaction=kind != "foce")
        )
    return np.array(values)


@cache
def _mle() -> tuple[np.ndarray, np.ndarray]:
    """Maximum of the arbiter and its standard errors; on the coarse grid, right to 1e-5 there."""

    def function(x: np.ndarray) -> float:
        return -float(_exact(x, COARSE).sum())

    def gradient(x: np.ndarray) -> np.ndarray:
        h = 1e-4
        return np.array([(function(x + h * e) - function(x - h * e)) / (2 * h) for e in np.eye(6)])

    x = minimize(
        function,
        POINTS[0],
        jac=gradient,
        method="BFGS",
        options={"gtol": 1e-4, "hess_inv0": 0.01 * np.eye(6)},
    ).x
    h = 1e-3
    hessian = np.array([(gradient(x + h * e) - gradient(x - h * e)) / (2 * h) for e in np.eye(6)])
    return x, np.sqrt(np.diagonal(np.linalg.inv(0.5 * (hessian + hessian.T))))


@cache
def _fit(kind: str) -> PopulationFit:
    method: AbstractMethod = METHODS[kind]
    return fit(STUDY, POPULATION, method, model=MODEL)


@pytest.mark.parametrize("x", POINTS, ids=["near", "wide", "narrow"])
def test_the_arbiter_does_not_depend_on_its_grid(x):
    np.testing.assert_allclose(_exact(x), _exact(x, STEP / 2), atol=1e-9)


@pytest.mark.parametrize(
    ("x", "tolerance"), list(zip(POINTS, (1e-6, 3e-4, 1e-6), strict=True)), ids=["near", "wide", "narrow"]
)
def test_quadrature_converges_to_the_exact_value(x, tolerance):
    """Under proportional errors (y - f) / (b f) is never below -1 / b: a heavy side of the integrand.

    Hermite's rule gains a factor of 7 to 200 with ten more nodes, the less the wider the random effects: what
    25 nodes leave is what was gained last, divided by it.
    """

    def distance(n_nodes: int) -> float:
        value = QuadratureLikelihood(BOUND, JOINED, n_nodes).value_and_scores(x)[0]
        return float(np.abs(value - _exact(x)).max())

    assert distance(15) < 0.1 * distance(5)
    assert distance(25) < 0.2 * distance(15)
    assert distance(25) < tolerance


@pytest.mark.parametrize("x", POINTS, ids=["near", "wide", "narrow"])
def test_importance_sampling_is_exact_within_its_error(x):
    """Null: no bias; t with 7 df at 1e-4: 7.9 SE."""
    mu, factor = JOINED.unpack(x)
    verdict = referee(BOUND, mu, factor, find_ebe(BOUND, mu, factor), stream(1, 1), 512, 8)
    assert abs(verdict.ofv + 2.0 * _exact(x).sum()) < 7.9 * verdict.ofv_se
    assert 0 < verdict.ofv_se < 0.05


@pytest.mark.parametrize("kind", ["fo", "foce", "focei", "laplace"])
def test_every_approximation_is_its_definition(kind):
    """The slow code differentiates by differences of fourth order: about 1e-8 relative."""
    for x in POINTS[1:]:
        value = OBJECTIVES[kind]().value_and_scores(x)[0]
        np.testing.assert_allclose(-2.0 * value, _slow(kind, x), atol=1e-5)


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_total_gradients_are_those_of_the_value(kind):
    """Differences of the value: truncation 1e-8 of third derivatives, rounding 1e-10 / h."""
    for x in POINTS:
        objective = OBJECTIVES[kind]()
        gradient = objective.value_and_scores(x)[1].sum(axis=0)
        h = 1e-4
        ends = [[objective.value_and_scores(x + s * h * e)[0].sum() for s in (1, -1)] for e in np.eye(6)]
        numeric = np.array([(ahead - behind) / (2 * h) for ahead, behind in ends])
        np.testing.assert_allclose(gradient, numeric, atol=2e-5 * np.abs(numeric).max())


@pytest.mark.parametrize("kind", METHODS)
def test_every_fit_reports_the_exact_likelihood_of_its_estimates(kind):
    result = _fit(kind)
    assert result.status is FitStatus.CONVERGED, result.warnings
    assert abs(result.ofv + 2.0 * _exact(result.x).sum()) < 7.9 * result.ofv_se
    assert result.ofv > -2.0 * _exact(_mle()[0]).sum() - 7.9 * result.ofv_se


def test_the_fit_by_quadrature_is_the_exact_maximum():
    result, (x, se) = _fit("quadrature"), _mle()
    np.testing.assert_allclose(result.x / se, x / se, atol=0.01)
    np.testing.assert_allclose(np.sqrt(np.diagonal(result.covariance)), se, rtol=0.02)


def test_saem_comes_within_its_monte_carlo_error():
    """Bar: fixed effects within 0.1 SE; variances, which EM learns slowly, within 0.3."""
    result, (x, se) = _fit("saem"), _mle()
    distance = np.abs(result.x - x) / se
    assert distance[:2].max() < 0.1
    assert distance[2:].max() < 0.3


@pytest.mark.parametrize("kind", ["fo", "foce", "focei", "laplace"])
def test_an_approximate_fit_is_a_maximum_of_its_own_criterion(kind):
    result = _fit(kind)
    assert result.criterion == pytest.approx(_slow(kind, result.x).sum(), abs=1e-4)
    assert result.criterion <= _slow(kind, _mle()[0]).sum() + 1e-4
