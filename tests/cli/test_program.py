"""What every verb of the command line has in common: exit codes, one-line errors, JSON documents."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from amortnlme.cli import main

VERBS = [
    ["models"],
    ["model", "show"],
    ["check"],
    ["data", "check"],
    ["simulate"],
    ["train"],
    ["ensemble"],
    ["calibrate"],
    ["sample"],
    ["fit"],
    ["compare"],
    ["report"],
    ["quickstart"],
]
RANDOM_VERBS = [["simulate"], ["train"], ["calibrate"], ["sample"], ["fit"], ["report"], ["quickstart"]]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_explains_itself_and_takes_json(verb, capsys):
    assert main([*verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--json" in shown
    assert "Usage: amortnlme " + " ".join(verb) in shown


@pytest.mark.parametrize("verb", RANDOM_VERBS, ids=" ".join)
def test_every_verb_with_random_numbers_takes_a_seed(verb, capsys):
    assert main([*verb, "--help"]) == 0
    assert "--seed" in capsys.readouterr().out


def test_the_help_lists_every_verb(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert not [verb[0] for verb in VERBS if not re.search(rf"^  {verb[0]} ", shown, re.MULTILINE)]


def test_the_version_is_that_of_the_installed_package(capsys):
    from amortnlme import __version__

    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"amortnlme {__version__}"


def test_data_check_says_what_was_read_and_writes_it_as_json(tmp_path, capsys):
    target = tmp_path / "check.json"
    assert main(["data", "check", "theophylline", "--json", str(target)]) == 0
    assert "12 subjects, 12 doses, 120 observations" in capsys.readouterr().out
    document = json.loads(target.read_text(encoding="utf-8"))
    assert document["schema"] == "amortnlme.data.check"
    assert document["schema_version"] == 1
    assert (document["exit_code"], document["status"]) == (0, "fine")
    assert document["result"]["n_observations"] == 120
    assert [c["name"] for c in document["result"]["covariates"]] == ["weight", "sex"]


def test_a_named_error_is_one_line_on_stderr_and_a_json_document(tmp_path, capsys):
    target = tmp_path / "error.json"
    assert main(["data", "check", "nowhere.csv", "--json", str(target)]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    assert shown.err.startswith("UsageError: ")
    assert shown.err.rstrip().endswith("[E_INPUT_NO_FILE]")
    document = json.loads(target.read_text(encoding="utf-8"))
    assert (document["exit_code"], document["status"]) == (1, "wrong_input")
    assert document["error"]["code"] == "E_INPUT_NO_FILE"
    assert "result" not in document


def test_an_unexpected_error_keeps_its_traceback_and_its_own_exit_code(monkeypatch, capsys):
    import amortnlme.cli.inputs

    def broken(word, time_factor, *, log):
        raise ZeroDivisionError("a fault of the program")

    monkeypatch.setattr(amortnlme.cli.inputs, "read_dataset", broken)
    assert main(["data", "check", "theophylline"]) == 3
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "ZeroDivisionError: a fault of the program" in shown


def test_an_interrupted_verb_says_so_by_its_exit_code(monkeypatch, capsys):
    import amortnlme.cli.inputs

    def interrupted(word, time_factor, *, log):
        raise KeyboardInterrupt

    monkeypatch.setattr(amortnlme.cli.inputs, "read_dataset", interrupted)
    assert main(["data", "check", "theophylline"]) == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["models"], ["data", "check", "theophylline"]], ids=" ".join)
def test_light_verbs_start_no_neural_backend(arguments):
    code = (
        f"import sys; from amortnlme.cli import main; code = main({arguments!r});"
        "print([m for m in ('tensorflow', 'jax', 'keras', 'pypesto', 'matplotlib') if m in sys.modules]);"
        "sys.exit(code)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout.splitlines()[-1]) == (0, "[]"), run.stderr


def test_the_module_and_the_script_are_the_same_program():
    run = subprocess.run(
        [sys.executable, "-m", "amortnlme", "--version"], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0
    assert run.stdout.startswith("amortnlme ")
