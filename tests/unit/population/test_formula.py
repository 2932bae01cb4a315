"""Population models written as formulas, against the objects they stand for."""

import pytest

from amortnlme.core.errors import PopulationError
from amortnlme.population.effects import CovariateEffect, RandomEffects
from amortnlme.population.formula import MOST_CHARACTERS, parse_formula
from amortnlme.population.groups import GroupEffect
from amortnlme.population.population_model import PopulationModel

BETWEEN = RandomEffects(("ka", "ke", "V"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ka + ke + V ~ (1 | id)", PopulationModel(random_effects=BETWEEN)),
        (
            "ka+ke+V~(1|id); ka~log(weight); V~log(weight/70)+sex",
            PopulationModel(
                random_effects=BETWEEN,
                covariates=(
                    CovariateEffect("ka", "weight"),
                    CovariateEffect("V", "weight", "log", 70.0),
                    CovariateEffect("V", "sex", "linear"),
                ),
            ),
        ),
        (
            "ka ~ (1 | id)\nke + V ~ (1 |p| id)\n",
            PopulationModel(random_effects=RandomEffects(("ka", "ke", "V"), (("ke", "V"),))),
        ),
        (
            "ka + ke + V ~ (1 |all| id)",
            PopulationModel(random_effects=RandomEffects(("ka", "ke", "V"), "full")),
        ),
        (
            "ka + ke + V ~ (1 | id); ke ~ (1 | occ); a = 0.3; V ~ sex + weight - 70 + log(age / median)",
            PopulationModel(
                random_effects=BETWEEN,
                covariates=(
                    CovariateEffect("V", "sex", "linear"),
                    CovariateEffect("V", "weight", "linear", 70.0),
                    CovariateEffect("V", "age", "log", "median"),
                ),
                occasion_effects=RandomEffects(("ke",)),
                fixed={"a": 0.3},
            ),
        ),
        (
            "ka ~ by(formulation) + (1 | id)",
            PopulationModel(
                random_effects=RandomEffects(("ka",)), groups=(GroupEffect("ka", "formulation"),)
            ),
        ),
        (
            # A label of one parameter is a block of one.
            "ka ~ (1 |x| id) + T - -3; ke ~ (1 | id)",
            PopulationModel(
                random_effects=RandomEffects(("ka", "ke")),
                covariates=(CovariateEffect("ka", "T", "linear", -3.0),),
            ),
        ),
    ],
)
def test_formula_is_read_as_the_objects_it_stands_for(text, expected):
    assert parse_formula(text, name="population").to_dict() == expected.to_dict()


def test_formula_names_the_population_where_no_name_is_given():
    assert parse_formula("ka ~ (1|id);;\n V ~ sex").name == "ka ~ (1|id); V ~ sex"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ka", "neither '~' nor '='"),
        ("ka ~ weight * 2 + (1|id)", "'weight * 2' is no term"),
        ("ka ~ (2 | id)", "must begin with 1"),
        ("ka ~ (True | id)", "must begin with 1"),
        ("ka ~ (1 | site)", "nothing varies between 'site'"),
        ("ka ~ (1 | id) + (1 | id)", "twice"),
        ("a = 1; a = 2", "fixed twice"),
        ("a = True", "'True' stands where a number belongs"),
        ("a = 'x'", "stands where a number belongs"),
        ("ka ~ exp(weight)", "'exp(weight)' is no term"),
        ("ka ~ log(weight, 2)", "is no term"),
        ("ka ~ log(weight / oddly)", "'oddly' stands where a number belongs"),
        ("ka ~ __import__('os').system('x')", "is no term"),
        ("ka ~ [1]", "'[1]' is no term"),
        ("ka ~ weight +", "cannot be read"),
        ("log(ka) ~ weight", "'log(ka)' stands where a name belongs"),
        ("ka ~ " + "(" * 3000 + "x", "cannot be read"),
        ("k" * (MOST_CHARACTERS + 1), "characters"),
    ],
)
def test_formula_is_refused_with_the_statement_when_it_cannot_be_read(text, told):
    with pytest.raises(PopulationError) as error:
        parse_formula(text)
    assert error.value.code == "E_POP_FORMULA"
    assert told in str(error.value)


def test_formula_without_random_effects_is_refused_like_the_object():
    with pytest.raises(PopulationError) as error:
        parse_formula("ka ~ weight")
    assert error.value.code == "E_POP_NO_RANDOM_EFFECTS"
