"""Every verb on a small study: what it returns, writes and says as JSON."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from amortnlme.cli import main

pytestmark = pytest.mark.backend

STEPS = ["simulate", "train", "calibrate", "sample", "fit plain", "fit weight", "compare", "report"]


@pytest.mark.parametrize("step", STEPS)
def test_every_verb_of_a_study_succeeds_and_documents_itself(study, step):
    assert study.codes[step] == 0
    document = study.documents[step]
    assert document["schema"] == f"amortnlme.{step.split()[0]}"
    assert document["schema_version"] == 1
    assert (document["exit_code"], document["status"]) == (0, "fine")
    assert document["result"]


@pytest.mark.parametrize("step", STEPS)
def test_every_key_of_a_result_is_documented(study, step):
    import amortnlme.cli

    schema = (Path(amortnlme.cli.__file__).parent / "schema.md").read_text(encoding="utf-8")
    words = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]*)`", schema))))
    assert not set(study.documents[step]) - words
    if step != "calibrate":  # it is the calibration record of the artefact, described there
        assert not set(study.documents[step]["result"]) - words


def test_simulate_counts_subjects_and_failed_solves(study):
    result = study.documents["simulate"]["result"]
    assert (result["n"], result["n_shards"], result["seed"]) == (600, 2, 0)
    assert result["n_failed"] == 0


def test_simulate_resumes_to_the_same_bytes_when_a_shard_is_lost(study, tmp_path, capsys):
    shards = sorted((study.folder / "oral.training").glob("shard-*.h5"))
    before = shards[1].read_bytes()
    shards[1].unlink()
    again = ["simulate", "one_compartment_oral", "--n", "600", "--shard-size", "300"]
    assert main([*again, "--out", study.path("oral.training")]) == 0
    assert shards[1].read_bytes() == before


def test_train_reports_one_row_per_epoch(study):
    result = study.documents["train"]["result"]
    assert [row["epoch"] for row in result["history"]] == [1, 2]
    assert result["network"]["flow_depth"] == 2


def test_sample_keeps_the_origin_of_the_draws(study):
    from amortnlme import PosteriorDraws

    result = study.documents["sample"]["result"]
    draws = PosteriorDraws.load(study.path("draws.h5"))
    assert draws.phi.shape == (12, 200, 4)
    assert draws.estimator_fingerprint == result["estimator_fingerprint"]
    assert len(result["subjects"]) == len(result["n_rejected"]) == 12


def test_the_same_seed_gives_the_same_draws(study, tmp_path, capsys):
    from amortnlme import PosteriorDraws

    again = tmp_path / "again.h5"
    arguments = [study.path("oral"), "theophylline", "--draws", "200", "--seed", "3", "--out", str(again)]
    assert main(["sample", *arguments]) == 0
    assert (PosteriorDraws.load(again).phi == PosteriorDraws.load(study.path("draws.h5")).phi).all()


def test_fit_documents_estimates_objective_and_subjects(study):
    result = study.documents["fit weight"]["result"]
    assert result["schema"] == "amortnlme.population_fit"
    kinds = {row["name"]: row["kind"] for row in result["estimates"]}
    assert {"theta", "beta", "omega_sd", "sigma"} <= set(kinds.values())
    assert result["ofv"]["kind"]
    assert result["ofv"]["monte_carlo_se"] > 0
    assert len(result["subjects"]) == result["n_subjects"] == 12
    assert result["seconds"]
    assert result["provenance"]


def test_compare_puts_the_fits_side_by_side(study, capsys):
    assert main(["compare", study.path("plain.h5"), study.path("weight.h5")]) == 0
    shown = capsys.readouterr().out
    for word in ("plain", "weight", "-2LL", "MC SE", "AIC", "BIC", "BICc", "shrinkage", "seconds"):
        assert word in shown
    result = study.documents["compare"]["result"]
    assert result["fits"] == ["plain", "weight"]
    assert min(result["rows"]["ofv"]["delta"]) == 0


def test_report_is_one_file_without_outside_references(study):
    page = (study.folder / "report.html").read_text(encoding="utf-8")
    assert "<script src" not in page
    assert 'rel="stylesheet"' not in page
    assert "weight" in page


def test_a_fit_that_did_not_succeed_ends_in_exit_code_2(study, monkeypatch, capsys):
    """The exit code follows the status of the fit, whatever made it fail."""
    from dataclasses import replace

    import amortnlme.methods.fit as home
    from amortnlme.core.status import FitStatus

    fit = home.fit

    def stopped(*arguments, dataset, model, seed):
        made = fit(*arguments, dataset=dataset, model=model, seed=seed)
        return replace(made, status=FitStatus.NOT_CONVERGED)

    monkeypatch.setattr(home, "fit", stopped)
    arguments = [study.path("draws.h5"), "--population", study.path("plain.toml"), "--data", "theophylline"]
    assert main(["fit", *arguments]) == 2
    assert FitStatus.NOT_CONVERGED.sentence in capsys.readouterr().out


def test_a_verb_that_starts_the_networks_leaves_standard_error_empty(study, tmp_path):
    """The libraries' start-up notices concern nobody who asked for draws."""
    arguments = [
        "sample",
        study.path("oral"),
        "theophylline",
        "--draws",
        "20",
        "--out",
        str(tmp_path / "draws.h5"),
    ]
    command = [sys.executable, "-m", "amortnlme", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stderr) == (0, "")
