"""FO, FOCE, FOCEI, Laplace and quadrature likelihoods: values against slow code, gradients against values."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from reference.quadrature import minus_two_log_likelihood, read_theophylline
from reference.slow_laplace import minus_two_log_likelihoods

from amortnlme.core.errors import CapabilityError
from amortnlme.data.bundled import load_bundled
from amortnlme.data.limits import censor
from amortnlme.methods.classical import Fo
from amortnlme.methods.first_order_likelihood import ConditionalFirstOrderLikelihood, FirstOrderLikelihood
from amortnlme.methods.fit import fit
from amortnlme.methods.laplace_likelihood import LaplaceLikelihood
from amortnlme.methods.quadrature_likelihood import QuadratureLikelihood
from amortnlme.model.error_model import Additive, Combined, LogNormal
from amortnlme.model.individual import Output
from amortnlme.model.parameters import Parameter
from amortnlme.model.prior import NormalPrior
from amortnlme.model.registry import load_model
from amortnlme.population.effects import CovariateEffect, RandomEffects
from amortnlme.population.population_model import PopulationModel

DATASET = load_bundled("theophylline")
# log ka, ke, V, a, b; then the SDs of the random effects of ka, ke, V.
POINTS = (
    (0.47, -2.45, 3.45, -0.35, -2.5, 0.6, 0.15, 0.15),
    (0.30, -2.60, 3.60, -0.50, -1.8, 0.9, 0.30, 0.10),
    (0.70, -2.30, 3.30, 0.10, -3.0, 0.4, 0.10, 0.25),
    (0.10, -2.45, 3.50, -1.00, -2.0, 1.2, 0.25, 0.20),
    (0.47, -2.80, 3.40, -0.70, -2.2, 0.3, 0.05, 0.40),
)


LLOQ = 4.0


@cache
def _bound(error: str, lloq: float = -np.inf):
    model = load_model("one_compartment_oral")
    output, parameters = model.outputs[0], list(model.parameters.parameters)
    errors = {"additive": Additive("a"), "combined": Combined("a", "b", "sd"), "lognormal": LogNormal("a")}
    if error == "combined":
        parameters.append(Parameter("b", "1", "log", 0.1, "proportional residual SD", role="error"))
    d = len(parameters)
    model = replace(
        model,
        parameters=tuple(parameters),
        outputs=(Output(output.name, output.unit, output.fn, errors[error]),),
        prior=NormalPrior(np.zeros(d), np.ones(d)),
    )
    return model.bind(censor(DATASET, lloq) if np.isfinite(lloq) else DATASET)


def _population(error: str, structure: str = "diagonal", covariates=()):
    model = PopulationModel(
        random_effects=RandomEffects(("ka", "ke", "V"), structure), covariates=tuple(covariates)
    )
    return model.bind(DATASET.covariate_table(), _bound(error).model.parameters)


def _x(point, error: str) -> np.ndarray:
    fixed = point[:5] if error == "combined" else point[:4]
    return np.array([*fixed, *point[5:]])


OBJECTIVES = {
    "fo": FirstOrderLikelihood,
    "foce": ConditionalFirstOrderLikelihood,
    "focei": LaplaceLikelihood,
    "laplace": lambda bound, population: LaplaceLikelihood(bound, population, "observed"),
    "quadrature": lambda bound, population: QuadratureLikelihood(bound, population, 3),
}


def _assert_equal_to_slow_code(kind: str, error: str, points, lloq: float = -np.inf) -> None:
    """The slow code differentiates by differences of fourth order: about 1e-8 relative."""
    data, population = read_theophylline(), _population(error)
    for point in points:
        b = np.exp(point[4]) if error == "combined" else 0.0
        slow = minus_two_log_likelihoods(
            data,
            np.tile(point[:3], (12, 1)),
            np.diag(point[5:]),
            np.exp(point[3]),
            b,
            observed=kind == "laplace",
            interaction=kind != "foce",
            lloq=lloq,
        )
        objective = OBJECTIVES[kind](_bound(error, lloq), population)
        value = objective.value_and_scores(_x(point, error))[0]
        np.testing.assert_allclose(-2.0 * value, slow, atol=1e-4 / 12)


@pytest.mark.parametrize("error", ["additive", "combined"])
@pytest.mark.parametrize("kind", ["focei", "laplace"])
def test_focei_and_laplace_equal_slow_code_at_five_points(kind, error):
    _assert_equal_to_slow_code(kind, error, POINTS)


@pytest.mark.parametrize("lloq", [-np.inf, LLOQ])
def test_foce_equals_slow_code_with_and_without_censoring(lloq):
    _assert_equal_to_slow_code("foce", "combined", POINTS[:3], lloq)


@pytest.mark.parametrize("kind", ["focei", "laplace"])
def test_focei_and_laplace_equal_slow_code_when_a_third_is_censored(kind):
    bound = _bound("combined", LLOQ)
    assert bound.censoring is not None
    assert np.mean(bound.censoring[bound.observed]) == pytest.approx(1 / 3, abs=0.1)
    _assert_equal_to_slow_code(kind, "combined", POINTS[:2], LLOQ)


def test_quadrature_equals_an_independent_quadrature():
    data, population = read_theophylline(), _population("additive")
    for point in POINTS[:3]:
        exact = minus_two_log_likelihood(
            data, np.tile(point[:3], (12, 1)), np.diag(point[5:]), np.exp(point[3]), nodes=9
        )
        objective = QuadratureLikelihood(_bound("additive"), population, 9)
        value = objective.value_and_scores(_x(point, "additive"))[0]
        # The same rule around modes that agree to 1e-6 of a conditional SD.
        assert -2.0 * value.sum() == pytest.approx(exact, abs=1e-5)


def test_foce_equals_focei_when_the_residual_sd_is_constant():
    population = _population("additive")
    x = _x(POINTS[1], "additive")
    with_interaction = LaplaceLikelihood(_bound("additive"), population).value_and_scores(x)
    without = ConditionalFirstOrderLikelihood(_bound("additive"), population).value_and_scores(x)
    np.testing.assert_allclose(without[0], with_interaction[0], atol=1e-9)
    # One differentiates the residual SD exactly, the other probes it: an error of the squared probe step.
    np.testing.assert_allclose(without[1], with_interaction[1], atol=1e-6 * np.abs(without[1]).max())


def _differences(objective, x: np.ndarray) -> np.ndarray:
    h = 1e-4
    ends = [[objective.value_and_scores(x + s * h * e)[0].sum() for s in (1, -1)] for e in np.eye(len(x))]
    return np.array([(ahead - behind) / (2 * h) for ahead, behind in ends])


@pytest.mark.parametrize("error", ["additive", "combined", "lognormal"])
@pytest.mark.parametrize("kind", OBJECTIVES)
def test_total_gradient_equals_differences_of_the_value(kind, error):
    """Differences of the value: truncation h^2 = 1e-8 of third derivatives, rounding 1e-10 / h."""
    covariates = (CovariateEffect("V", "weight"), CovariateEffect("a", "weight"))
    population = _population(error, "full", covariates)
    rng = np.random.default_rng(1)
    x = np.zeros(population.n_x)
    x[: population.d] = POINTS[0][: population.d]
    x[population.beta_slice] = (0.5, 0.2)
    x[population.chol_slice] = 0.05 * rng.standard_normal(population.n_x - population.chol_slice.start)
    x[population.chol_diagonal] = POINTS[0][5:]
    objective = OBJECTIVES[kind](_bound(error), population)
    gradient = objective.value_and_scores(x)[1].sum(axis=0)
    numeric = _differences(objective, x)
    np.testing.assert_allclose(gradient, numeric, atol=2e-5 * np.abs(numeric).max())


CENSORING = {"below": (1, np.nan), "above": (-1, np.nan), "interval": (1, 1e-3)}


@pytest.mark.parametrize("error", ["combined", "lognormal"])
@pytest.mark.parametrize("case", CENSORING)
def test_total_gradient_of_foce_equals_differences_when_data_are_censored(case, error):
    """Differences of the value as above. Low records are censored below, the peaks above."""
    side, limit = CENSORING[case]
    bound = _bound(error)
    bad = bound.y < LLOQ if side > 0 else bound.y > 8.0
    censoring = np.where(bad & bound.observed, side, 0)
    bound = replace(bound, censoring=censoring, limit=np.where(censoring != 0, limit, np.nan))
    population = _population(error, "full")
    x = np.zeros(population.n_x)
    x[: population.d] = POINTS[0][: population.d]
    x[population.chol_slice] = 0.05
    x[population.chol_diagonal] = POINTS[0][5:]
    objective = ConditionalFirstOrderLikelihood(bound, population)
    gradient = objective.value_and_scores(x)[1].sum(axis=0)
    numeric = _differences(objective, x)
    np.testing.assert_allclose(gradient, numeric, atol=2e-5 * np.abs(numeric).max())


def test_fo_refuses_censored_observations_and_says_why():
    population = PopulationModel(random_effects=RandomEffects(("ka", "ke", "V")))
    with pytest.raises(CapabilityError, match="one dimension for each") as caught:
        fit(censor(DATASET, LLOQ), population, Fo(), model=load_model("one_compartment_oral"))
    assert caught.value.code == "E_FIT_CENSORED"


def test_a_subject_that_cannot_be_solved_gets_no_support_and_no_gradient():
    population = _population("additive")
    x = _x(POINTS[0], "additive")
    x[2] = 800.0
    for make in OBJECTIVES.values():
        value, scores = make(_bound("additive"), population).value_and_scores(x)
        assert (value == -np.inf).all()
        assert np.isfinite(scores).all()
