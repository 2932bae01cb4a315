"""Parameters with a distribution of their own in every group of subjects."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from unit.population.spaces import IDS, SPACE, TABLE

from amortnlme.core.errors import PopulationError
from amortnlme.population.effects import CovariateEffect, RandomEffects
from amortnlme.population.groups import GroupEffect
from amortnlme.population.population_model import PopulationModel
from amortnlme.population.toml import parse_population, population_from_dict, to_toml

ARM = TABLE.assign(arm=[0.0, 1.0, 0.0, 1.0, 2.5, 0.0])


BY_ARM = (GroupEffect("ke", "arm"),)
GROUP = "[random_effects]\non=['a']\n"


def _model(structure="full", groups=BY_ARM, **options):
    effects = RandomEffects(("ke", "ka", "V"), structure)
    return PopulationModel(random_effects=effects, groups=groups, **options)


def test_grouped_parameter_has_a_name_a_mean_and_a_variance_for_every_value_of_the_covariate():
    bound = _model("diagonal").bind(ARM, SPACE)
    assert bound.parameters.names == ("ka", "ke_0", "V", "a", "ke_1", "ke_2p5")
    assert bound.names == (
        *("theta_ka", "theta_ke_0", "theta_V", "theta_a", "theta_ke_1", "theta_ke_2p5"),
        *("chol_ka", "chol_V", "chol_ke_0", "chol_ke_1", "chol_ke_2p5"),
    )
    assert bound.grouped.columns[:, 1].tolist() == [1, 4, 1, 4, 5, 1]
    assert bound.has_occasion[:, 2].tolist() == [True, False, True, False, False, True]
    assert {e.name for e in bound.describe(np.zeros(bound.n_x), None)} >= {"ke_2p5", "omega_ke_2p5"}


def test_covariance_of_what_all_share_is_the_same_in_every_group_when_omega_is_full():
    bound = _model("full").bind(ARM, SPACE)
    x = np.random.default_rng(0).normal(size=bound.n_x)
    omega = bound.omega(x)
    index = {name: k for k, name in enumerate(bound.parameters.names)}
    assert not any({"ke_0", "ke_1"} <= set(name.split("chol_")[1:]) for name in bound.names)
    assert "chol_ke_1_ke_0" not in bound.names and "chol_ke_1_ka" in bound.names
    # Changing one group's entries moves that group's row only.
    moved = x.copy()
    moved[bound.names.index("chol_ke_1_ka")] += 1.0
    change = np.abs(bound.omega(moved) - omega) > 1e-12
    change[index["ke_1"]] = change[:, index["ke_1"]] = False
    assert not change.any()


def test_grouped_parameter_without_a_random_effect_has_typical_values_only():
    effects = RandomEffects(("ka",))
    bound = PopulationModel(random_effects=effects, groups=(GroupEffect("a", "arm"),)).bind(ARM, SPACE)
    assert "theta_a_1" in bound.names and not any(name.startswith("chol_a") for name in bound.names)


def test_groups_survive_toml_and_plain_values():
    model = _model("diagonal", name="arms")
    assert parse_population(to_toml(model)) == model
    assert population_from_dict(model.to_dict()) == model


@pytest.mark.parametrize(
    ("code", "make"),
    [
        ("E_POP_GROUP", lambda: _model(covariates=(CovariateEffect("ke", "weight"),))),
        ("E_POP_GROUP", lambda: _model(fixed={"ke": 0.1})),
        ("E_POP_GROUP", lambda: _model(groups=(GroupEffect("ke", "arm"), GroupEffect("ke", "age")))),
        ("E_POP_GROUP", lambda: _model(occasion_effects=RandomEffects(("ka",)))),
        ("E_POP_UNKNOWN_PARAMETER", lambda: _model(groups=(GroupEffect("k", "arm"),)).bind(ARM, SPACE)),
        ("E_POP_COVARIATE_MISSING", lambda: _model(groups=(GroupEffect("ke", "sex"),)).bind(ARM, SPACE)),
        ("E_POP_GROUP_LEVELS", lambda: _model().bind(ARM.assign(arm=1.0), SPACE)),
        ("E_POP_UNKNOWN_KEY", lambda: parse_population(GROUP + "[[group]]\nby='b'\n")),
        ("E_POP_MISSING_KEY", lambda: parse_population(GROUP + "[[group]]\nparameter='b'\n")),
        ("E_POP_TYPE", lambda: parse_population(GROUP + "[group]\nparameter='b'\n")),
    ],
)
def test_groups_that_cannot_be_are_refused(code, make):
    with pytest.raises(PopulationError) as caught:
        make()
    assert caught.value.code == code


def test_missing_value_of_the_grouping_covariate_is_refused():
    table = pd.DataFrame({"arm": [0.0, 1.0, np.nan, 0.0, 1.0, 1.0]}, index=pd.Index(IDS))
    with pytest.raises(PopulationError, match="finite"):
        _model().bind(table, SPACE)
