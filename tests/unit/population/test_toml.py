"""Population files: round trip, defaults, refusals."""

from __future__ import annotations

import pytest

from amortnlme.core.errors import PopulationError
from amortnlme.population.bundled import bundled_population_names, load_bundled_population
from amortnlme.population.effects import CovariateEffect, RandomEffects
from amortnlme.population.population_model import PopulationModel
from amortnlme.population.toml import parse_population, population_from_dict, read_population, to_toml

GOOD = '[random_effects]\non = ["ka", "V"]\n'


@pytest.mark.parametrize(
    "model",
    [
        PopulationModel(random_effects=RandomEffects(("ka",)), name='odd "name" \\ ü'),
        PopulationModel(
            random_effects=RandomEffects(("ka", "ke", "V"), (("ke", "V"),)), parameters=("ka", "ke", "V")
        ),
        PopulationModel(
            random_effects=RandomEffects(("ka", "V"), "full"),
            covariates=(CovariateEffect("V", "weight"), CovariateEffect("ka", "age", "linear", 40.0)),
        ),
        PopulationModel(
            random_effects=RandomEffects(("ka",)),
            occasion_effects=RandomEffects(("ka", "V"), (("ka", "V"),)),
            fixed={"V": 32.0, "a": 1e-3},
        ),
    ],
)
def test_toml_and_dict_round_trip_to_an_equal_model(model):
    assert parse_population(to_toml(model)) == model
    assert population_from_dict(model.to_dict()) == model


def test_file_gives_its_name_to_a_nameless_model(tmp_path):
    path = tmp_path / "plain.toml"
    path.write_text(GOOD, encoding="utf-8")
    assert read_population(path).name == "plain"
    assert read_population(path).random_effects.structure == "diagonal"


@pytest.mark.parametrize("name", bundled_population_names())
def test_shipped_models_round_trip(name):
    model = load_bundled_population(name)
    assert parse_population(to_toml(model)) == model


def test_four_theophylline_models_are_shipped():
    assert bundled_population_names() == (
        "theophylline_full",
        "theophylline_ka_v_weight",
        "theophylline_none",
        "theophylline_v_weight",
    )
    with pytest.raises(PopulationError) as caught:
        load_bundled_population("theophylline")
    assert caught.value.code == "E_POP_UNKNOWN_BUNDLED"


COVARIATE = '[[covariate]]\nparameter = "V"\ncovariate = "weight"\n'


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("random_effects = [", "E_POP_TOML"),
        ("name = 'x'\n", "E_POP_MISSING_KEY"),
        (GOOD + 'struct = "full"\n', "E_POP_UNKNOWN_KEY"),
        ("colour = 1\n" + GOOD, "E_POP_UNKNOWN_KEY"),
        (GOOD + COVARIATE + 'centre = "mean"\n', "E_POP_UNKNOWN_KEY"),
        (GOOD + '[[covariate]]\nparameter = "V"\n', "E_POP_MISSING_KEY"),
        (GOOD + COVARIATE + "center = true\n", "E_POP_TYPE"),
        (GOOD + COVARIATE + "center = -2\n", "E_POP_COVARIATE_CENTER"),
        (GOOD + COVARIATE + 'transform = "sqrt"\n', "E_POP_COVARIATE_TRANSFORM"),
        (GOOD + '[covariate]\nparameter = "V"\n', "E_POP_TYPE"),
        ('[random_effects]\non = "ka"\n', "E_POP_TYPE"),
        ("[random_effects]\non = [1]\n", "E_POP_TYPE"),
        ("[random_effects]\non = []\n", "E_POP_NO_RANDOM_EFFECTS"),
        (GOOD + "structure = 3\n", "E_POP_TYPE"),
        (GOOD + "blocks = 3\n", "E_POP_TYPE"),
        (GOOD + 'structure = "full"\nblocks = [["ka", "V"]]\n', "E_POP_STRUCTURE"),
        ("name = 3\n" + GOOD, "E_POP_TYPE"),
        ("occasion_effects = 3\n" + GOOD, "E_POP_MISSING_KEY"),
        (GOOD + "[occasion_effects]\non = []\n", "E_POP_NO_RANDOM_EFFECTS"),
        ("fixed = 3\n" + GOOD, "E_POP_TYPE"),
        (GOOD + '[fixed]\nV = "32"\n', "E_POP_FIXED"),
        (GOOD + "[fixed]\nV = nan\n", "E_POP_FIXED"),
    ],
)
def test_malformed_files_are_named_errors(text, code):
    with pytest.raises(PopulationError) as caught:
        parse_population(text, where="bad.toml")
    assert caught.value.code == code
    if code != "E_POP_COVARIATE_CENTER" and code not in (
        "E_POP_NO_RANDOM_EFFECTS",
        "E_POP_COVARIATE_TRANSFORM",
        "E_POP_FIXED",
    ):
        assert "bad.toml" in caught.value.message


def test_missing_file_is_a_named_error(tmp_path):
    with pytest.raises(PopulationError) as caught:
        read_population(tmp_path / "absent.toml")
    assert caught.value.code == "E_POP_FILE_MISSING"
