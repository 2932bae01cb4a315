"""One command from a user's own cells to a fitted population."""

from __future__ import annotations

import json

import numpy as np
import pytest

from amortnlme.cli import main
from amortnlme.core.rng import stream
from amortnlme.data.design import Design
from amortnlme.model.registry import load_model

POPULATION = """
name = "cells"

[random_effects]
on = ["delta", "gamma", "k_m0_scale", "t0"]
"""
PHI = np.array([-0.7, -2.5, 6.2, -0.16, 2.1, -3.5])


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Raw fluorescence of 8 cells in columns, times in seconds: as microscopes export it."""
    model, rng, folder = load_model("mrna_transfection_simple"), stream(5), tmp_path_factory.mktemp("cells")
    seconds = 600 * np.arange(1, 181)
    phi = PHI + 0.3 * np.array([1, 1, 0.3, 1, 0, 0]) * rng.standard_normal((8, 6))
    y = model.simulate(phi, Design.from_doses([], seconds / 3600), None, rng).y
    table = np.column_stack([seconds, np.exp(y).T])
    header = ",".join(["time_s", *(f"cell_{i}" for i in range(8))])
    np.savetxt(folder / "cells.csv", table, delimiter=",", header=header, comments="", fmt="%.8g")
    (folder / "cells.toml").write_text(POPULATION, encoding="utf-8")
    return folder


def fit_arguments(cells, *more):
    population = ["--population", str(cells / "cells.toml")]
    return ["fit", str(cells / "cells.csv"), *population, *more]


def test_fit_takes_a_wide_table_and_an_estimator_in_one_command(cells, tmp_path):
    answer = tmp_path / "fit.json"
    options = ["--estimator", "mrna_transfection_simple", "--draws", "300", "--correction", "none"]
    units = ["--time-factor", str(1 / 3600), "--log-values"]
    # Eight cells and no correction: it need not converge, but it must come to an end with an answer.
    assert main(fit_arguments(cells, *options, *units, "--json", str(answer))) in (0, 2)
    result = json.loads(answer.read_text(encoding="utf-8"))["result"]
    assert (result["n_subjects"], result["n_observations"]) == (8, 8 * 180)
    scale = next(row for row in result["estimates"] if row["name"] == "k_m0_scale")
    # Posterior SDs of ln(k m0 scale) are below 0.5, and so is the spread of the cells.
    assert abs(np.log(scale["value"]) - PHI[2]) < 0.5


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ((), "name the --estimator that makes draws"),
        (("--estimator", "mrna_transfection_simple", "--data", "theophylline"), "holds data itself"),
        (("--method", "focei", "--estimator", "mrna_transfection_simple"), "belongs to method"),
    ],
)
def test_fit_says_what_is_missing_beside_a_table(cells, capsys, more, words):
    assert main(fit_arguments(cells, *more)) == 1
    assert words in capsys.readouterr().err


def test_conversions_are_refused_for_event_tables(cells, capsys, tmp_path):
    event_table = tmp_path / "events.csv"
    event_table.write_text("ID,TIME,DV\n1,1,2\n", encoding="utf-8")
    assert main(["data", "check", str(event_table), "--log-values"]) == 1
    assert "belong to wide tables" in capsys.readouterr().err


def test_draws_are_counted_only_where_they_are_made(cells, capsys, tmp_path):
    arguments = ["fit", str(tmp_path / "draws.h5"), "--population", "theophylline_none", "--draws", "10"]
    assert main(arguments) == 1
    assert "Leave it out" in capsys.readouterr().err
