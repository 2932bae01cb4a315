"""Every classical method fits every model of `simulators/` that has a likelihood.

Two structural parameters vary; the other structural ones are given, so that eight subjects identify the rest.
A maximum lies no lower than the parameters the data were drawn from, whatever approximation is maximized.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from contract.simulated_study import SPREAD, effects_of, simulated_study

from amortnlme.core.rng import stream
from amortnlme.data.dataset import Dataset
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
from amortnlme.model.individual import IndividualModel
from amortnlme.model.registry import load_model, model_names
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel
from amortnlme.solve.closed_form import ClosedFormEngine

NAMES = tuple(n for n in model_names() if {"sensitivity", "likelihood"} <= load_model(n).capabilities)
#: Models that need a solver compile for up to a minute.
SOLVED = [n for n in NAMES if not isinstance(load_model(n).program.engine, ClosedFormEngine)]
MARKED = [pytest.param(n, marks=pytest.mark.slow) if n in SOLVED else n for n in NAMES]
ALONE = {"referee_points": 0}
METHODS = {
    "fo": (Fo(**ALONE), FirstOrderLikelihood),
    "foce": (Foce(**ALONE), ConditionalFirstOrderLikelihood),
    "focei": (Focei(**ALONE), LaplaceLikelihood),
    "laplace": (Laplace(**ALONE), lambda bound, joined: LaplaceLikelihood(bound, joined, "observed")),
    "vi": (
        Vi(n_nodes=3, **ALONE),
        lambda bound, joined: VariationalLikelihood(bound, joined, gauss_hermite(2, 3)),
    ),
    "agq": (Quadrature(n_nodes=3, **ALONE), lambda bound, joined: QuadratureLikelihood(bound, joined, 3)),
}


@cache
def _study(name: str) -> tuple[IndividualModel, Dataset, np.ndarray]:
    model = load_model(name)
    return (model, *simulated_study(model, 8, 1))


def _population(model: IndividualModel) -> PopulationModel:
    on = effects_of(model)
    given = {
        p.name: p.typical for p in model.parameters.parameters if p.role == "structural" and p.name not in on
    }
    return PopulationModel(random_effects=RandomEffects(on), fixed=given)


def _truth(name: str):
    model, data, typical = _study(name)
    joined = _population(model).bind(data.covariate_table(), model.parameters)
    x = np.full(joined.n_x, SPREAD)
    x[joined.theta_slice] = typical[joined.theta_index]
    return model.bind(data), joined, x


def _check(name: str, kind: str) -> None:
    model, data, _ = _study(name)
    method, objective = METHODS[kind]
    result = fit(data, _population(model), method, model=model)
    assert result.status.is_success, result.warnings
    bound, joined, x = _truth(name)
    at_truth = -2.0 * objective(bound, joined).value_and_scores(x)[0].sum()
    assert np.isfinite(at_truth)
    assert result.criterion <= at_truth + 1e-6


@pytest.mark.parametrize("name", MARKED)
def test_focei_fits_the_model_at_least_as_well_as_the_truth(name):
    _check(name, "focei")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in METHODS if kind != "focei"])
@pytest.mark.parametrize("name", NAMES)
def test_every_maximizing_method_fits_the_model_at_least_as_well_as_the_truth(name, kind):
    _check(name, kind)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_saem_fits_the_model_at_least_as_well_as_the_truth(name):
    """Its end is a maximum up to 0.2 SE in each of the n_x directions, 0.04 n_x in -2 log-likelihood."""
    model, data, _ = _study(name)
    result = fit(data, _population(model), Saem(), model=model)
    assert result.status.is_success, result.warnings
    bound, joined, x = _truth(name)
    mu, factor = joined.unpack(x)
    verdict = referee(bound, mu, factor, find_ebe(bound, mu, factor), stream(1, 1), 512, 8)
    # 4.5 Monte-Carlo SEs of the difference.
    margin = 0.04 * joined.n_x + 4.5 * np.hypot(verdict.ofv_se, result.ofv_se)
    assert result.ofv <= verdict.ofv + margin
