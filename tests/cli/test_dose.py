"""The verb `dose` on theophylline: the dose it names keeps the troughs above the level."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from amortnlme.cli import main


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("dose") / "fit.h5"
    words = ["theophylline", "--population", "theophylline_none", "--model", "one_compartment_oral"]
    assert main(["fit", *words, "--method", "fo", "--out", str(path)]) == 0
    return path


def test_dose_names_an_amount_and_documents_every_key(fitted, tmp_path, capsys):
    import amortnlme.cli

    words = ["--data", "theophylline", "--subject", "3", "--above", "2", "--every", "12", "--doses", "3"]
    document = tmp_path / "dose.json"
    assert main(["dose", str(fitted), *words, "--law", "laplace", "--json", str(document)]) == 0
    result = json.loads(document.read_text(encoding="utf-8"))["result"]
    assert 0.9 <= result["probability"] < 0.92 and result["amount"] > 0
    assert len(result["troughs"]) == 3
    # The first trough is the lowest: later doses add to what is left.
    assert result["troughs"][0]["quantiles"]["0.05"] < 2 < result["troughs"][0]["quantiles"]["0.5"]
    assert "stays above" in capsys.readouterr().out
    schema = (Path(amortnlme.cli.__file__).parent / "schema.md").read_text(encoding="utf-8")
    (row,) = [line for line in schema.splitlines() if line.startswith("| `dose`")]
    assert set(result) <= set(re.findall(r"\w+", row))


def test_dose_asks_which_patient_where_there_are_several(fitted, capsys):
    assert main(["dose", str(fitted), "--data", "theophylline", "--above", "2", "--every", "12"]) == 1
    assert "E_USAGE_SUBJECT" in capsys.readouterr().err
