"""Rubin's rules on fits whose estimates and covariances are set by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from amortnlme.core.errors import AmortNlmeError
from amortnlme.data.bundled import load_bundled
from amortnlme.data.dataset import Dataset
from amortnlme.methods.classical import Fo
from amortnlme.methods.fit import fit
from amortnlme.methods.imputed import pool_fits
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.model.registry import load_shipped_model
from amortnlme.population.effects import CovariateEffect, RandomEffects
from amortnlme.population.population_model import PopulationModel

MODEL = load_shipped_model("one_compartment_oral")


def _shifted(study: Dataset, shift: float) -> Dataset:
    weight = study.covariate_table()["weight"] + shift
    subjects = [replace(s, covariates={"weight": weight[s.id]}) for s in study.subjects]
    return replace(study, subjects=tuple(subjects))


@cache
def _pair(center: str | float) -> tuple[list[PopulationFit], list[Dataset]]:
    study = load_bundled("theophylline")
    data = [study, _shifted(study, 1.0)]
    population = PopulationModel(
        random_effects=RandomEffects(("ka", "ke", "V")),
        covariates=(CovariateEffect("V", "weight", center=center),),
    )
    one = fit(study, population, Fo(referee_points=0), model=MODEL)
    x, covariance = np.array(one.x), np.diag(np.full(len(one.x), 0.01))
    other = replace(one, x=x + 0.2, covariance=3.0 * covariance)
    return [replace(one, covariance=covariance), other], data


def test_pooled_fit_follows_the_rules_of_rubin():
    fits, data = _pair(70.0)
    pooled = pool_fits(fits, data, MODEL)
    np.testing.assert_allclose(pooled.x, fits[0].x + 0.1)
    np.testing.assert_allclose(np.diagonal(pooled.within), 0.02)
    # Two values 0.2 apart have the variance 0.02; total 0.02 + 1.5 * 0.02.
    np.testing.assert_allclose(pooled.between, 0.02)
    np.testing.assert_allclose(np.diagonal(pooled.covariance), 0.05)
    np.testing.assert_allclose(pooled.missing_information, 0.6)
    np.testing.assert_allclose(pooled.degrees_of_freedom, 1.0 / 0.36)
    beta = {row.name: row for row in pooled.estimates}["beta_V_weight"]
    assert beta.se == pytest.approx(np.sqrt(0.05))


@pytest.mark.parametrize(
    ("center", "change", "code"),
    [
        (70.0, lambda fits: fits[:1], "E_POOL_FITS"),
        (70.0, lambda fits: [fits[0], replace(fits[1], covariance=None)], "E_POOL_NO_ERRORS"),
        ("mean", lambda fits: fits, "E_POOL_CENTER"),
    ],
)
def test_fits_that_cannot_be_pooled_are_refused(center, change, code):
    fits, data = _pair(center)
    with pytest.raises(AmortNlmeError) as caught:
        pool_fits(change(fits), data, MODEL)
    assert caught.value.code == code
