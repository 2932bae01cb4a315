"""What goes wrong ends in a PopulationFit whose status and warnings say why, for every classical method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from contract.linear_mixed_model import line

from amortnlme.core.errors import DataError, PopulationError
from amortnlme.core.status import FitStatus, SolveStatus
from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design, Dose
from amortnlme.data.design_sampler import RandomDesignSampler
from amortnlme.data.subject import Subject
from amortnlme.methods.classical import Fo, Foce, Focei, Laplace, Quadrature
from amortnlme.methods.fit import fit
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.methods.saem import Saem
from amortnlme.methods.vi import Vi
from amortnlme.model.dynamics import LinearCompartments, Ode
from amortnlme.model.error_model import AbstractErrorModel, Additive, Combined, LogNormal
from amortnlme.model.functions import exp, log
from amortnlme.model.individual import IndividualModel, Output
from amortnlme.model.parameters import Parameter
from amortnlme.model.prior import NormalPrior
from amortnlme.population.effects import CovariateEffect, RandomEffects
from amortnlme.population.population_model import PopulationModel

N, TIMES, SICK = 12, np.linspace(0.2, 4.0, 7), "sick"
BOTH, INTERCEPT = (PopulationModel(random_effects=RandomEffects(on)) for on in (("m", "s"), ("m",)))
METHODS = {
    "fo": Fo(referee_points=64),
    "foce": Foce(referee_points=64),
    "focei": Focei(referee_points=64),
    "laplace": Laplace(referee_points=64),
    "quadrature": Quadrature(n_nodes=3, referee_points=64),
    "vi": Vi(referee_points=64),
    "saem": Saem(n_exploration=50, max_exploration=50, n_averaging=20, referee_points=64),
}
LINE = (
    Parameter("m", "1", "identity", 1.0, "intercept"),
    Parameter("s", "1/h", "identity", 0.5, "slope"),
)
ERROR = Parameter("a", "1", "log", 0.5, "residual standard deviation", role="error")
STILL = LinearCompartments(lambda t, y, p: (0.0 * y.x,), dose_state="x")


def _model(
    name: str,
    expression: Callable,
    parameters: tuple[Parameter, ...] = LINE,
    dynamics: LinearCompartments | Ode = STILL,
    error_model: AbstractErrorModel | None = None,
) -> IndividualModel:
    return IndividualModel(
        name=name,
        version="1",
        text="A line with something wrong.",
        source="None.",
        parameters=(*parameters, ERROR),
        states=("x",),
        dynamics=dynamics,
        outputs=(Output("y", "1", expression, error_model or Additive("a")),),
        prior=NormalPrior([0.0] * (len(parameters) + 1), [3.0, *[2.0] * (len(parameters) - 1), 1.0]),
        design_sampler=RandomDesignSampler(),
        units={"time": "h", "amount": "mg"},
    )


def _subjects(slope_sd: float, scale: Callable = lambda y: y) -> tuple[Subject, ...]:
    rng = np.random.default_rng(3)
    subjects = []
    for i in range(N):
        m, s = np.array([1.0, 0.5]) + np.array([0.8, slope_sd]) * rng.standard_normal(2)
        y = scale(m + s * TIMES + 0.3 * rng.standard_normal(len(TIMES)))
        subjects.append(Subject.from_observations(f"{i + 1}", Design.from_doses((), TIMES), y, {}))
    return tuple(subjects)


def _with_sick(
    subjects: tuple[Subject, ...], y: list[float], times: list[float], doses: tuple[Dose, ...] = ()
) -> Dataset:
    sick = Subject.from_observations(SICK, Design.from_doses(doses, np.array(times)), np.array(y), {})
    return Dataset((*subjects, sick))


def _first_warning(result: PopulationFit) -> str:
    assert result.warnings
    return result.warnings[0]


@pytest.mark.parametrize("kind", METHODS)
def test_a_true_variance_of_zero_ends_on_the_boundary_and_is_named(kind):
    """Fixed seed; the maximum-likelihood variance of the slope is exactly zero for these data."""
    method = Saem(referee_points=64) if kind == "saem" else METHODS[kind]
    result = fit(Dataset(_subjects(0.0)), BOTH, method, model=line(), seed=1)
    assert result.status is FitStatus.BOUNDARY, result.warnings
    assert result.covariance is None
    assert "[W_FIT_BOUNDARY] omega has no full rank: the variance component of s " in _first_warning(result)
    assert result.correlation is None
    assert np.isnan(result.condition_number)
    assert result.to_dict()["x"]["condition_number"] is None


@pytest.mark.parametrize("kind", METHODS)
def test_an_additive_error_of_zero_ends_on_the_boundary_and_is_named(kind):
    """Fixed seed; the scatter of these values is proportional, from 2 down to 0.02."""
    rng, subjects = np.random.default_rng(5), []
    for i in range(N):
        y = np.exp(1.0 - TIMES + 0.3 * rng.standard_normal()) * (1.0 + 0.1 * rng.standard_normal(len(TIMES)))
        subjects.append(Subject.from_observations(f"{i + 1}", Design.from_doses((), TIMES), y, {}))
    share = Parameter("b", "1", "log", 0.1, "proportional residual SD", role="error")
    both = Combined("a", "b")
    model = _model("decay", lambda t, y, p: exp(p.m - p.s * t), (*LINE, share), error_model=both)
    method = Saem(referee_points=64) if kind == "saem" else METHODS[kind]
    result = fit(Dataset(tuple(subjects)), INTERCEPT, method, model=model, seed=1)
    assert result.status is FitStatus.BOUNDARY, result.warnings
    assert result.covariance is None
    assert "[W_FIT_BOUNDARY] the residual error parameter a is zero" in _first_warning(result)


@pytest.mark.parametrize("n", [N, 4], ids=["many subjects", "no more subjects than parameters"])
@pytest.mark.parametrize("kind", METHODS)
def test_parameters_that_enter_as_a_product_are_named_and_not_converged(kind, n):
    parameters = (*LINE, Parameter("k", "1", "log", 1.0, "factor of the slope"))
    model = _model("product", lambda t, y, p: p.m + p.s * p.k * t, parameters)
    result = fit(Dataset(_subjects(0.0)[:n]), INTERCEPT, METHODS[kind], model=model, seed=1)
    assert result.status is FitStatus.NOT_CONVERGED
    assert result.covariance is None
    assert "[W_FIT_INFORMATION]" in _first_warning(result)
    assert "s, k are not told apart" in _first_warning(result)


@pytest.mark.parametrize("kind", METHODS)
def test_a_parameter_without_effect_is_named_and_not_converged(kind):
    parameters = (*LINE, Parameter("k", "1", "log", 1.0, "delay of nothing"))
    model = _model("idle", lambda t, y, p: p.m + p.s * t + p.k * y.x, parameters)
    result = fit(Dataset(_subjects(0.0)), INTERCEPT, METHODS[kind], model=model, seed=1)
    assert result.status is FitStatus.NOT_CONVERGED
    assert "[W_FIT_INFORMATION]" in _first_warning(result)
    assert "k is not identified" in _first_warning(result)


def _failures() -> dict[str, tuple[IndividualModel, Dataset, str]]:
    """Model, data with one hopeless subject, and what must be said about it."""
    healthy, positive = _subjects(0.5), _subjects(0.5, lambda y: np.exp(0.2 * y))
    runaway = Ode(lambda t, y, p: (y.x * y.x,), dose_state="x", max_steps=2000)
    return {
        # x' = x^2 from x = 1000 is infinite after 1/1000 h.
        "solver": (
            _model("runaway", lambda t, y, p: p.m + p.s * t + y.x, dynamics=runaway),
            _with_sick(healthy, [1.0, 2.0], [1.0, 2.0], (Dose(0.0, 1000.0),)),
            "With typical parameters: ",
        ),
        "prediction": (
            _model("logarithm", lambda t, y, p: p.m + p.s * t + 0.01 * log(8.5 - t)),
            _with_sick(healthy, [1.0, 2.0, 3.0], [1.0, 2.0, 9.0]),
            f"With typical parameters: {SolveStatus.NON_FINITE.sentence}",
        ),
        "density": (
            _model("log_line", lambda t, y, p: exp(p.m + p.s * t), error_model=LogNormal("a")),
            _with_sick(positive, [1.0, -3.0], [1.0, 2.0]),
            "Its observation y = -3 at t = 2 is impossible",
        ),
    }


# The solver's own kernels take a minute to compile.
@pytest.mark.parametrize("what", [pytest.param("solver", marks=pytest.mark.slow), "prediction", "density"])
@pytest.mark.parametrize("kind", METHODS)
def test_a_hopeless_subject_fails_the_fit_and_is_named_with_the_reason(kind, what):
    model, dataset, reason = _failures()[what]
    result = fit(dataset, BOTH, METHODS[kind], model=model, seed=1)
    assert result.status is FitStatus.FAILED
    assert not result.status.is_success
    text = _first_warning(result)
    assert text.startswith(
        f"[W_FIT_NO_SUPPORT] the likelihood of 1 of {N + 1} subjects is zero, first {SICK!r}."
    )
    assert reason in text
    assert result.covariance is None
    assert result.to_dict()["status"]["name"] == "failed"


def test_data_that_are_not_finite_are_refused_before_any_fit():
    design = Design.from_doses((), TIMES)
    y = np.where(TIMES > 2.0, np.inf, 1.0)
    with pytest.raises(DataError, match=SICK) as caught:
        Subject.from_observations(SICK, design, y, {})
    assert caught.value.code == "E_DATA_NOT_FINITE"
    whole = Subject.from_observations(SICK, design, np.ones_like(TIMES), {})
    with pytest.raises(DataError, match=SICK) as caught:
        replace(whole, y=np.full_like(TIMES, np.nan))
    assert caught.value.code == "E_DATA_NOT_FINITE"


@pytest.mark.parametrize("kind", METHODS)
def test_a_missing_covariate_is_refused_before_the_fit(kind):
    subjects = _subjects(0.5)
    known = tuple(replace(s, covariates={"w": 1.0 + i}) for i, s in enumerate(subjects))
    lost = replace(known[3], covariates={"w": np.nan})
    population = PopulationModel(
        random_effects=RandomEffects(("m",)), covariates=(CovariateEffect("s", "w"),)
    )
    with pytest.raises(PopulationError, match="'4'"):
        fit(Dataset((*known[:3], lost, *known[4:])), population, METHODS[kind], model=line())
