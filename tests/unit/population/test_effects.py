"""Covariate effects and random effects refuse what cannot be estimated, with stable codes."""

from __future__ import annotations

import numpy as np
import pytest

from amortnlme.core.errors import PopulationError
from amortnlme.population.effects import CovariateEffect, RandomEffects

IDS = ("a", "b", "c")


def test_log_regressor_is_the_logarithm_over_the_mean():
    values = np.array([60.0, 70.0, 95.0])
    regressor, center = CovariateEffect("V", "weight").regressor(values, IDS)
    assert center == 75.0
    np.testing.assert_allclose(regressor, np.log(values / 75.0))


def test_linear_regressor_is_centered_on_the_given_number():
    regressor, center = CovariateEffect("V", "age", "linear", 40).regressor(np.array([30.0, 40.0, 55.0]), IDS)
    assert center == 40.0
    np.testing.assert_allclose(regressor, [-10.0, 0.0, 15.0])


def test_median_center_is_the_median():
    assert CovariateEffect("V", "w", "linear", "median").regressor(np.array([1.0, 2.0, 9.0]), IDS)[1] == 2.0


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ([70.0, np.nan, 80.0], "E_POP_COVARIATE_NON_FINITE"),
        ([70.0, 0.0, 80.0], "E_POP_COVARIATE_NON_POSITIVE"),
        ([70.0, -3.0, 80.0], "E_POP_COVARIATE_NON_POSITIVE"),
        ([70.0, 70.0, 70.0], "E_POP_COVARIATE_CONSTANT"),
    ],
)
def test_regressor_refuses_unusable_values(values, code):
    with pytest.raises(PopulationError) as caught:
        CovariateEffect("V", "weight").regressor(np.array(values), IDS)
    assert caught.value.code == code


def test_refusal_names_the_subject():
    with pytest.raises(PopulationError, match="'b'"):
        CovariateEffect("V", "weight").regressor(np.array([70.0, -1.0, 80.0]), IDS)


@pytest.mark.parametrize("center", ["mode", float("nan"), 0.0, -70.0, True])
def test_effect_refuses_an_unusable_center(center):
    with pytest.raises(PopulationError) as caught:
        CovariateEffect("V", "weight", "log", center)
    assert caught.value.code == "E_POP_COVARIATE_CENTER"


def test_effect_refuses_an_unknown_transform():
    with pytest.raises(PopulationError) as caught:
        CovariateEffect("V", "weight", "power")
    assert caught.value.code == "E_POP_COVARIATE_TRANSFORM"


@pytest.mark.parametrize(
    ("on", "structure", "code"),
    [
        ((), "diagonal", "E_POP_NO_RANDOM_EFFECTS"),
        ("ka", "diagonal", "E_POP_RANDOM_EFFECTS"),
        (("ka", "ka"), "diagonal", "E_POP_RANDOM_EFFECTS"),
        (("ka", "V"), "banded", "E_POP_STRUCTURE"),
        (("ka", "V"), (("ka", "ke"),), "E_POP_STRUCTURE"),
        (("ka", "V"), (("ka", "V"), ("V",)), "E_POP_STRUCTURE"),
        (("ka", "V"), ((),), "E_POP_STRUCTURE"),
    ],
)
def test_random_effects_refuse_what_makes_no_covariance(on, structure, code):
    with pytest.raises(PopulationError) as caught:
        RandomEffects(on, structure)
    assert caught.value.code == code


def test_blocks_cover_every_effect_in_their_own_order():
    effects = RandomEffects(("ka", "ke", "V"), (("V", "ke"),))
    assert effects.blocks() == (("ka",), ("ke", "V"))
    assert RandomEffects(("ka", "V"), "full").blocks() == (("ka", "V"),)
    assert RandomEffects(("ka", "V")).blocks() == (("ka",), ("V",))
