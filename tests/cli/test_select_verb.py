"""`amortnlme select`: one command from data to covariates, and named refusals of what makes no sense."""

from __future__ import annotations

import json

import pytest
from cli.refused import refusal

from amortnlme.cli import main
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.population.toml import read_population

COMMON = ["theophylline", "--model", "one_compartment_oral", "--population", "theophylline_none"]


def test_select_goes_from_data_to_a_model_file_a_fit_and_a_page(tmp_path, capsys):
    at = {name: tmp_path / name for name in ("page.html", "fit.h5", "chosen.toml", "answer.json")}
    arguments = [
        *("select", *COMMON, "--candidates", "ka, V ~ weight", "--method", "samba", "--rank", "4"),
        *("--report", str(at["page.html"]), "--out", str(at["fit.h5"])),
        *("--population-out", str(at["chosen.toml"]), "--json", str(at["answer.json"])),
    ]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "chosen: ka~weight, V~weight" in shown
    assert "W_SELECT_TIES" in shown
    result = json.loads(at["answer.json"].read_text(encoding="utf-8"))["result"]
    # Exact quadrature: 331.92 with both effects; see experiments/rohleff_2025.
    assert result["chosen"] == ["ka~weight", "V~weight"]
    assert len(result["scores"]) == 4
    assert result["scores"][0]["ofv"] == pytest.approx(331.92, abs=0.1)
    assert PopulationFit.load(at["fit.h5"]).population == read_population(at["chosen.toml"])
    page = at["page.html"].read_text(encoding="utf-8")
    assert page.count("<svg") == 3
    assert "<script" not in page
    for word in ("Inclusion matrix", "Selection path", "Models by BICc", "W_SELECT_TIES"):
        assert word in page


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--candidates", "V weight"], "E_SELECT_SYNTAX"),
        (["--candidates", "V ~ sqrt(weight)"], "E_SELECT_SYNTAX"),
        (["--candidates", "V ~ height"], "E_POP_COVARIATE_MISSING"),
        (["--candidates", "V ~ weight, weight"], "E_SELECT_DUPLICATE"),
        (["--candidates", "V ~ log(sex)"], "E_POP_COVARIATE_NON_POSITIVE"),
        (["--candidates", "V ~ weight", "--force", "V~sex"], "E_SELECT_UNKNOWN_RELATION"),
        (
            ["--candidates", "V ~ weight, sex", "--force", "V~sex", "--forbid", "V~sex"],
            "E_SELECT_FORCED",
        ),
        (["--candidates", "V ~ weight", "--forbid", "V~weight"], "E_SELECT_NO_CANDIDATES"),
        (["--candidates", "a ~ weight"], "E_SELECT_POOLED"),
        (["--candidates", "V ~ weight", "--criterion", "bicc"], "E_USAGE_OPTION"),
        (["--candidates", "V ~ weight", "--estimator", "x"], "E_USAGE_OPTION"),
        (["--candidates", "V ~ weight", "--judge", "eye"], "E_USAGE_METHOD"),
        (["--candidates", "V ~ weight", "--rank", "0", "--out", "fit.h5"], "E_USAGE_OPTION"),
    ],
)
def test_select_refuses_what_makes_no_sense(arguments, code, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refusal(["select", *COMMON, "--method", "saem", *arguments], capsys) == code
    assert not list(tmp_path.iterdir())


def test_select_refuses_amortized_without_draws(capsys):
    assert refusal(["select", *COMMON, "--candidates", "V ~ weight"], capsys) == "E_USAGE_ESTIMATOR"


def test_select_refuses_an_unknown_method(capsys):
    arguments = ["select", *COMMON, "--candidates", "V ~ weight", "--method", "guess"]
    assert refusal(arguments, capsys) == "E_USAGE_METHOD"
