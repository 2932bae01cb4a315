"""`amortnlme model show`, `models` and `check`: a model in full, the code that computes it, its contract."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from cli.refused import refusal

import amortnlme.cli
from amortnlme.cli import main
from amortnlme.model.registry import load_model

NAME = "one_compartment_oral"


def show(arguments, folder, capsys) -> tuple[str, dict]:
    document = folder / "shown.json"
    assert main(["model", "show", NAME, *arguments, "--json", str(document)]) == 0
    return capsys.readouterr().out, json.loads(document.read_text(encoding="utf-8"))


def test_show_gives_parameters_equations_and_engine(tmp_path, capsys):
    text, document = show([], tmp_path, capsys)
    model, result = load_model(NAME), document["result"]
    assert document["schema"] == "amortnlme.model.show"
    assert result["fingerprint"] == model.fingerprint
    assert [p["name"] for p in result["parameters"]] == list(model.parameters.names)
    assert result["parameters"][0]["prior_mean"] == pytest.approx(model.prior.to_config()["mean"][0])
    assert result["engine"] == "closed form" and result["code"] is None
    assert result["derivatives"]["depot"] == "-p_ka*y_depot"
    for word in ("ka", "1/h", "log", "absorption rate", "closed form", "d central/dt", "y_central/p_V"):
        assert word in text


def test_show_says_how_states_start_and_doses_enter(tmp_path, capsys):
    document = tmp_path / "shown.json"
    assert main(["model", "show", "warfarin_pkpd", "--json", str(document)]) == 0
    entry = json.loads(document.read_text(encoding="utf-8"))["result"]["entry"]
    assert entry == ["activity at the start = p_PCA0", "lag of doses to depot = p_tlag"]
    assert "  activity at the start = p_PCA0\n" in capsys.readouterr().out
    _, plain = show([], tmp_path, capsys)
    assert plain["result"]["entry"] == []


def test_show_source_prints_the_matrices_of_a_closed_form(tmp_path, capsys):
    text, document = show(["--source"], tmp_path, capsys)
    assert "K[central, depot] = p_ka\n" in text and "K[depot, central]" not in text
    assert document["result"]["code"] in text


def test_every_key_of_the_document_is_documented(tmp_path, capsys):
    _, document = show([], tmp_path, capsys)
    schema = (Path(amortnlme.cli.__file__).parent / "schema.md").read_text(encoding="utf-8")
    words = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]*)`", schema))))
    result = document["result"]
    assert not {*result, *result["parameters"][0], *result["outputs"][0]} - words


def test_show_refuses_a_model_that_does_not_exist(capsys):
    assert refusal(["model", "show", "one_compartment_orla"], capsys) == "E_MODEL_UNKNOWN"


def test_model_without_a_verb_is_wrong_usage(capsys):
    assert refusal(["model"], capsys) == "E_USAGE"


@pytest.mark.parametrize("name", ["one_compartment_oral", "two_compartment_infusion"])
def test_check_passes_every_shipped_model(name, capsys):
    assert main(["check", name]) == 0
    assert "points of the contract are kept" in capsys.readouterr().out


def test_models_lists_what_is_shipped(capsys):
    assert main(["models"]) == 0
    assert "one_compartment_oral" in capsys.readouterr().out
