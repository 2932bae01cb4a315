"""`amortnlme join`: fits in, joint law and report out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from contract.linear_endpoints import LinearEndpoints

from amortnlme.cli import main
from amortnlme.data.event_table import to_csv
from amortnlme.methods.joint_fit import JointFit

MODEL = """
from contract.linear_mixed_model import line

MODEL = line()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("join")
    for endpoint in LinearEndpoints(n=60, seed=3).joint().endpoints:
        endpoint.fit.save(made / f"{endpoint.name}.h5")
        to_csv(endpoint.dataset, made / f"{endpoint.name}.csv")
    (made / "line_model.py").write_text(MODEL, encoding="utf-8")
    return made


def _words(folder: Path) -> list[str]:
    words = ["join"]
    for name in ("one", "two"):
        words += [f"{name}={folder / name}.h5", "--data", f"{name}={folder / name}.csv"]
        words += ["--model", f"{name}={folder / 'line_model.py'}"]
    return words


def test_join_writes_the_law_its_report_and_its_document(folder, capsys):
    out, page, document = folder / "joint.h5", folder / "joint.html", folder / "joint.json"
    words = [*_words(folder), "--primary", "one", "--also", "gaussian", "--nodes", "128"]
    assert main([*words, "-o", str(out), "--report", str(page), "--json", str(document)]) == 0
    shown = capsys.readouterr().out
    assert "split" in shown
    assert "one.m" in shown
    law = JointFit.load(out)
    assert law.family == "split"
    assert law.law.names == ("one.m", "one.s", "two.m", "two.s")
    content = json.loads(document.read_text(encoding="utf-8"))
    assert content["schema"] == "amortnlme.join"
    assert [r["family"] for r in content["result"]["results"]] == ["split", "gaussian"]
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") == 4
    assert "one.m" in text


def test_join_refuses_an_endpoint_without_data(folder, capsys):
    words = [f"one={folder}/one.h5", f"two={folder}/two.h5", "--data", f"one={folder}/one.csv"]
    assert main(["join", *words, "--model", f"one={folder}/line_model.py"]) == 1
    assert "E_USAGE_ENDPOINT" in capsys.readouterr().err
    assert main(["join", f"{folder}/one.h5", "--data", f"{folder}/one.csv"]) == 1
    assert "NAME=VALUE" in capsys.readouterr().err
