"""Doses for one patient against a bolus whose posterior and trough are closed forms.

log y_j = log D - log V - k t_j + e_j with log V ~ N(theta, omega), k and sigma known: the posterior of log V
is normal, the trough log-normal, and the dose that keeps it above x with probability p is a normal quantile.
"""

from __future__ import annotations

import time
from functools import cache

import numpy as np
import pytest
from scipy.stats import norm

from amortnlme.core.errors import AmortNlmeError, UsageError
from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design, Dose
from amortnlme.data.design_sampler import RandomDesignSampler
from amortnlme.data.subject import Subject
from amortnlme.methods.classical import Foce
from amortnlme.methods.dosing import Regimen, dose_for, predict_regimen, repeated
from amortnlme.methods.fit import fit
from amortnlme.methods.patient import LAWS, patient_posterior
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.model.dynamics import LinearCompartments
from amortnlme.model.error_model import LogNormal
from amortnlme.model.individual import IndividualModel, Output
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior
from amortnlme.population.effects import CovariateEffect, RandomEffects
from amortnlme.population.population_model import PopulationModel

K, SIGMA, TIMES = 0.1, 0.2, np.array([1.0, 4.0, 8.0])
N_DRAWS = 4000


@cache
def _model() -> IndividualModel:
    return IndividualModel(
        name="bolus",
        version="1",
        text="A bolus into one compartment.",
        source="textbook",
        parameters=ParameterSpace(
            (
                Parameter("V", "L", "log", 20.0, "volume"),
                Parameter("k", "1/h", "log", K, "elimination"),
                Parameter("sigma", "1", "log", SIGMA, "residual SD", role="error"),
            )
        ),
        states=("a",),
        dynamics=LinearCompartments(lambda t, y, p: (-p.k * y.a,), dose_state="a"),
        outputs=(Output("c", "mg/L", lambda t, y, p: y.a / p.V, LogNormal("sigma")),),
        prior=NormalPrior(np.log([20.0, K, SIGMA]), np.full(3, 0.5)),
        design_sampler=RandomDesignSampler(),
        units={"time": "h", "amount": "mg"},
    )


@cache
def _study() -> tuple[Dataset, PopulationFit]:
    rng = np.random.default_rng(3)
    subjects = []
    for i in range(30):
        weight = float(rng.uniform(50, 90))
        log_v = np.log(20.0 * weight / 70) + 0.3 * rng.standard_normal()
        y = np.exp(np.log(100.0) - log_v - K * TIMES + SIGMA * rng.standard_normal(3))
        design = Design.from_doses((Dose(0.0, 100.0),), TIMES)
        subjects.append(Subject.from_observations(str(i), design, y, {"weight": weight}))
    data = Dataset(tuple(subjects))
    population = PopulationModel(
        random_effects=RandomEffects(("V",)),
        covariates=(CovariateEffect("V", "weight"),),
        fixed={"k": K, "sigma": SIGMA},
    )
    return data, fit(data, population, Foce(referee_points=0), model=_model())


def _patient(y: np.ndarray, weight: float = 82.0) -> Subject:
    design = Design.from_doses((Dose(0.0, 100.0),), TIMES[: len(y)])
    return Subject.from_observations("new", design, y, {"weight": weight})


def _posterior(y: np.ndarray, weight: float = 82.0) -> tuple[float, float]:
    """Mean and SD of log V."""
    data, result = _study()
    center = np.mean([s.covariates["weight"] for s in data.subjects])
    x = dict(zip(result.x_names, result.x, strict=True))
    prior_mean = x["theta_V"] + x["beta_V_weight"] * np.log(weight / center)
    prior_precision, precision = 1.0 / result.omega[0, 0], len(y) / SIGMA**2
    each = np.log(100.0) - K * TIMES[: len(y)] - np.log(y)
    mean = (prior_mean * prior_precision + each.sum() / SIGMA**2) / (prior_precision + precision)
    return float(mean), float((prior_precision + precision) ** -0.5)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("n_measured", [0, 3])
def test_dose_for_a_patient_is_the_closed_form(law, n_measured):
    y = 100.0 / 31.0 * np.exp(-K * TIMES)[:n_measured]
    patient, (mean, sd) = _patient(y), _posterior(y)
    data, result = _study()
    found = patient_posterior(result, data, patient, _model(), np.random.default_rng(5), N_DRAWS, law)
    # What is left of the first dose at the trough of the second counts as well.
    start, every, above, p = 10.0, 12.0, 1.5, 0.9
    regimen = repeated(start, every, 1)
    advice = dose_for(_model(), found.phi, patient, regimen, above, p)
    z = norm.ppf(p)
    exact = above * np.exp(mean + z * sd + K * every) - 100.0 * np.exp(-K * start)
    # SD of an empirical quantile, log scale, on the total amount; 4.5 SDs; resampled draws repeat themselves.
    se = sd * np.sqrt(p * (1 - p) / N_DRAWS) / norm.pdf(z) * (1.5 if law == "importance" else 1.0)
    total = exact + 100.0 * np.exp(-K * start)
    assert abs(advice.amount - exact) < (4.5 * se + 2e-4) * total
    assert p <= advice.probability < p + 5 / N_DRAWS + 1e-3
    assert advice.levels.shape == (N_DRAWS, 1)


def test_levels_of_several_doses_are_the_sum_of_their_remainders():
    data, result = _study()
    patient = _patient(np.array([3.0, 2.4, 1.5]))
    found = patient_posterior(result, data, patient, _model(), np.random.default_rng(5), 50)
    regimen = repeated(8.0, 6.0, 3)
    levels = predict_regimen(_model(), found.phi, patient, regimen, 40.0)
    times = np.array([14.0, 20.0, 26.0])
    amount = 100.0 * np.exp(-K * times)
    for t in (8.0, 14.0, 20.0):
        # The dose given at the very time of a trough is not in it.
        amount = amount + np.where(times > t, 40.0 * np.exp(-K * (times - t)), 0.0)
    np.testing.assert_allclose(levels, amount / np.exp(found.phi[:, :1]), rtol=1e-10)


def test_nothing_is_given_to_a_patient_who_is_above_the_target():
    data, result = _study()
    patient = _patient(np.array([3.0, 2.4, 1.5]))
    found = patient_posterior(result, data, patient, _model(), np.random.default_rng(5), 100)
    advice = dose_for(_model(), found.phi, patient, repeated(8.0, 1.0, 1), 1e-3)
    assert advice.amount == 0.0 and advice.probability == 1.0


def test_dose_for_one_patient_takes_less_than_a_tenth_of_a_second():
    data, result = _study()
    patient = _patient(np.array([3.0, 2.4, 1.5]))
    seconds = []
    for seed in range(5):
        begin = time.process_time()
        found = patient_posterior(result, data, patient, _model(), np.random.default_rng(seed))
        dose_for(_model(), found.phi, patient, repeated(8.0, 12.0, 4), 1.0)
        seconds.append(time.process_time() - begin)
    # The first call may compile.
    assert min(seconds) < 0.1


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda m, f, p: dose_for(m, f.phi, p, repeated(8.0, 1.0, 1), 5.0, 1.0), "E_DOSE_TARGET"),
        (
            lambda m, f, p: dose_for(m, f.phi, p, repeated(8.0, 1.0, 1), 5.0, largest=1.0),
            "E_DOSE_OUT_OF_REACH",
        ),
        (lambda m, f, p: dose_for(m, f.phi, p, repeated(7.0, 1.0, 1), 5.0), "E_DOSE_START"),
        (lambda m, f, p: repeated(8.0, 0.0, 1), "E_DOSE_REGIMEN"),
        (lambda m, f, p: Regimen((Dose(0.0, 1.0),), ()), "E_DOSE_REGIMEN"),
    ],
)
def test_dosing_refuses_what_it_cannot_seek(call, code):
    data, result = _study()
    patient = _patient(np.array([3.0, 2.4, 1.5]))
    found = patient_posterior(result, data, patient, _model(), np.random.default_rng(5), 50)
    with pytest.raises(AmortNlmeError) as caught:
        call(_model(), found, patient)
    assert caught.value.code == code


def test_posterior_refuses_an_unknown_law():
    data, result = _study()
    with pytest.raises(UsageError) as caught:
        patient_posterior(result, data, data.subjects[0], _model(), np.random.default_rng(5), law="exact")
    assert caught.value.code == "E_PATIENT_LAW"
