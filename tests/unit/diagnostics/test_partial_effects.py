"""Covariate effects as curves: against the power law they come from."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from unit.population.spaces import SPACE, TABLE

from amortnlme.core.errors import PopulationError
from amortnlme.diagnostics.partial_effects import OUTER, partial_effect
from amortnlme.population.effects import CovariateEffect, RandomEffects
from amortnlme.population.population_model import PopulationModel
from amortnlme.report.figures import to_png
from amortnlme.report.plots_partial_effects import partial_effect_curves

POPULATION = PopulationModel(
    random_effects=RandomEffects(("ke",)),
    covariates=(CovariateEffect("V", "weight", center=70.0), CovariateEffect("V", "age", "linear", 40.0)),
)


def _members(powers):
    bound = POPULATION.bind(TABLE, SPACE)
    members = []
    for power in powers:
        x = np.zeros(bound.n_x)
        x[bound.theta_slice] = np.log([1.5, 0.08, 32.0, 0.6])
        x[bound.beta_slice] = [power, 0.01]
        members.append((bound, x))
    return members


def test_curve_is_the_power_law_with_the_other_covariate_at_its_reference():
    found = partial_effect(_members([0.75]), TABLE, "V", "weight", reference={"age": 50.0})
    np.testing.assert_allclose(found.median, 32.0 * (found.grid / 70.0) ** 0.75 * np.exp(0.1), rtol=1e-12)
    assert (found.unit, found.grid[0], found.grid[-1]) == ("L", 55.0, 91.0)


def test_band_spans_the_fits():
    found = partial_effect(_members([0.5, 0.75, 1.0]), TABLE, "V", "weight", grid=np.array([140.0]))
    low, high = found.band(OUTER)
    at_median_age = 32.0 * np.exp(0.01 * (TABLE["age"].median() - 40.0))
    assert at_median_age * 2**0.5 < low[0] < found.median[0] < high[0] < at_median_age * 2**1.0


def test_unknown_covariate_is_refused():
    with pytest.raises(PopulationError, match="E_POP_COVARIATE_MISSING"):
        partial_effect(_members([1.0]), TABLE, "V", "height")


def test_figure_has_a_panel_for_every_effect():
    effects = [partial_effect(_members([0.5, 1.0]), TABLE, "V", name) for name in ("weight", "age")]
    figure = partial_effect_curves(effects, {("V", "weight"): lambda w: 32.0 * w / 70.0})
    assert len(figure.axes) == 2
    assert to_png(figure)[:4] == b"\x89PNG"


def test_curve_is_flat_for_a_covariate_nobody_uses():
    table = TABLE.assign(sex=[0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    found = partial_effect(_members([0.75]), pd.DataFrame(table), "V", "sex")
    assert np.ptp(found.curves) == 0.0
