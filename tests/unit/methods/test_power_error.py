"""Residual errors that grow with a power of the prediction: the exponent is estimated like any parameter."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from contract.bolus import CL, V, bolus_model, bolus_study

from amortnlme.core.errors import ModelError
from amortnlme.core.status import FitStatus
from amortnlme.methods.classical import Focei, Quadrature
from amortnlme.methods.fit import fit
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.methods.saem import Saem
from amortnlme.model.contract import check_model
from amortnlme.model.error_model import Combined, Power
from amortnlme.model.parameters import ParameterSpace
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel

MODEL = bolus_model(Power("b", "c"), b=0.2, c=0.6)
TIMES = np.array([0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 7.0, 9.0, 12.0, 15.0])
STUDY = bolus_study(MODEL, 16, TIMES, (0.3, 0.2), seed=4)
POPULATION = PopulationModel(random_effects=RandomEffects(("CL", "V")))


@cache
def _fit(method) -> PopulationFit:
    return fit(STUDY, POPULATION, method, model=MODEL)


@pytest.mark.slow
def test_a_model_with_an_exponent_keeps_the_contract():
    model = bolus_model(Combined("a", "b", "sd", c="c"), a=0.05, b=0.2, c=0.6)
    broken = [row for row in check_model(model).rows if not row.passed]
    assert not broken


def test_an_exponent_with_a_unit_is_refused():
    *others, c = MODEL.parameters.parameters
    with pytest.raises(ModelError, match="exponent has no dimension") as caught:
        replace(MODEL, parameters=ParameterSpace((*others, replace(c, unit="mg/L"))))
    assert caught.value.code == "E_MODEL_ERROR_PARAMETER"


def test_quadrature_recovers_the_exponent_that_was_simulated():
    """Null: estimates are normal around the truth; 4.5 SE, false alarm 7e-6 each."""
    result = _fit(Quadrature())
    assert result.status is FitStatus.CONVERGED, result.warnings
    truth = np.log([CL, V, 0.2, 0.6, 0.3, 0.2])
    estimates = np.concatenate([result.x[:4], np.log(result.x[4:])])
    se = np.sqrt(np.diagonal(result.covariance)) / np.concatenate([np.ones(4), result.x[4:]])
    assert (np.abs(estimates - truth) < 4.5 * se).all()
    # An exponent that the data leave open would pass everything above.
    assert se[3] < 0.15


def test_saem_and_focei_agree_with_quadrature_on_the_exponent():
    exact = _fit(Quadrature())
    se = np.sqrt(np.diagonal(exact.covariance))
    sampled, first_order = _fit(Saem()), _fit(Focei())
    assert sampled.status is FitStatus.CONVERGED, sampled.warnings
    # Bars of the house: 0.1 SE for fixed effects, 0.3 for variances, 0.3 in -2LL.
    np.testing.assert_array_less(np.abs(sampled.x - exact.x)[:4] / se[:4], 0.1)
    np.testing.assert_array_less(np.abs(sampled.x - exact.x)[4:] / se[4:], 0.3)
    assert sampled.ofv == pytest.approx(exact.criterion, abs=0.3)
    # Nine samples per subject: what FOCEI neglects is far below the standard errors.
    np.testing.assert_array_less(np.abs(first_order.x - exact.x) / se, 0.2)


def test_an_exponent_is_reported_among_the_error_parameters_without_a_unit():
    row = next(e for e in _fit(Quadrature()).estimates if e.name == "c")
    assert (row.kind, row.unit) == ("sigma", "1")
