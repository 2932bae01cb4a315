"""Candidate relations are read from short lines, and become regressors and population models."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from amortnlme.core.errors import PopulationError
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.population.candidates import Candidates, parse_candidates
from amortnlme.population.effects import CovariateEffect, RandomEffects
from amortnlme.population.population_model import PopulationModel
from amortnlme.population.toml import parse_population, to_toml

TABLE = pd.DataFrame(
    {
        "weight": [50.0, 60.0, 70.0, 80.0],
        "score": [-1.0, 0.0, 2.0, 5.0],
        "sex": [0.0, 1.0, 1.0, 0.0],
        "race": [1.0, 2.0, 3.0, 2.0],
    },
    index=["a", "b", "c", "d"],
)
SPACE = ParameterSpace(tuple(Parameter(name, "1", "log", 1.0, name) for name in ("ka", "V", "a")))
BASE = PopulationModel(random_effects=RandomEffects(("ka", "V")))


def test_candidates_take_their_transform_from_the_values():
    relations = parse_candidates(["V ~ weight, score, sex, level(race)"], TABLE).relations
    kinds = [[(e.transform, e.center) for e in relation.effects] for relation in relations]
    assert kinds == [
        [("log", "mean")],
        [("linear", "mean")],
        [("level", 1.0)],
        [("level", 2.0), ("level", 3.0)],
    ]


def test_candidates_cross_all_parameters_with_all_covariates_but_the_forbidden_ones():
    found = parse_candidates(["ka, V ~ weight, linear(sex)"], TABLE, forbidden=["ka ~ sex"])
    assert found.names == ("ka~weight", "V~weight", "V~sex")
    assert found.relations[2].effects[0].transform == "linear"


def test_a_category_enters_with_all_its_levels_and_survives_toml():
    candidates = parse_candidates(["V ~ level(race), weight"], TABLE)
    population = candidates.population(BASE, ["V~race"])
    assert [e.name for e in population.covariates] == ["beta_V_race_2", "beta_V_race_3"]
    assert parse_population(to_toml(population)) == population
    regressors = population.bind(TABLE, SPACE).regressors
    np.testing.assert_array_equal(regressors, [[0, 0], [1, 0], [0, 1], [1, 0]])


def test_bound_candidates_count_effects_of_the_population_among_the_forced_ones():
    base = PopulationModel(
        random_effects=RandomEffects(("ka", "V")), covariates=(CovariateEffect("ka", "weight"),)
    )
    bound = parse_candidates(["V ~ level(race), weight"], TABLE).bind(base, TABLE, SPACE)
    assert bound.names == ("V~race", "V~weight", "ka~weight")
    assert bound.forced.tolist() == [False, False, True]
    assert bound.owner.tolist() == [1, 1, 0]
    assert bound.first.tolist() == [0, 2, 3, 4]
    only = bound.only(["V~weight"])
    assert only.names == ("V~weight", "ka~weight")
    np.testing.assert_array_equal(only.regressors, bound.regressors[:, 2:])


@pytest.mark.parametrize(
    ("values", "center", "code"),
    [
        ([1.0, 1.0, 2.0], 3.0, "E_POP_COVARIATE_CONSTANT"),
        ([1.0, 1.0, 1.0], 1.0, "E_POP_COVARIATE_CONSTANT"),
        ([1.0, np.nan, 2.0], 1.0, "E_POP_COVARIATE_NON_FINITE"),
    ],
)
def test_a_level_must_divide_the_subjects(values, center, code):
    with pytest.raises(PopulationError) as caught:
        CovariateEffect("V", "race", "level", center).regressor(np.array(values), ("a", "b", "c"))
    assert caught.value.code == code


def test_a_level_needs_a_number():
    with pytest.raises(PopulationError) as caught:
        CovariateEffect("V", "race", "level")
    assert caught.value.code == "E_POP_COVARIATE_CENTER"


def test_candidates_refuse_a_category_of_one_value():
    with pytest.raises(PopulationError) as caught:
        parse_candidates(["V ~ level(one)"], TABLE.assign(one=1.0))
    assert caught.value.code == "E_SELECT_LEVELS"


def test_candidates_refuse_populations_with_more_than_linear_effects():
    occasions = PopulationModel(
        random_effects=RandomEffects(("ka", "V")), occasion_effects=RandomEffects(("V",))
    )
    with pytest.raises(PopulationError) as caught:
        Candidates(parse_candidates(["V ~ weight"], TABLE).relations).bind(occasions, TABLE, SPACE)
    assert caught.value.code == "E_SELECT_POPULATION"
