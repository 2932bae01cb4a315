"""One small study carried through every verb; the tests look at what each verb left behind."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from amortnlme.cli import main

SPEC = """
[network]
summary_width = 16
summary_rounds = 1
summary_size = 8
flow_depth = 2
flow_width = 16

[training]
epochs = 2
batch_size = 64
validation_rows = 100
pilot_rows = 200
warmup_steps = 2
"""
POPULATIONS = {
    "plain": '[random_effects]\non = ["ka", "ke", "V"]\n',
    "weight": '[random_effects]\non = ["ka", "ke", "V"]\n[[covariate]]\nparameter="V"\ncovariate="weight"\n',
}


@dataclass(frozen=True)
class Study:
    """Folder of the study, and the exit code and JSON document of each verb that was run in it."""

    folder: Path
    codes: dict[str, int]
    documents: dict[str, dict]

    def path(self, name: str) -> str:
        """Path of a file of the study, as typed on a command line."""
        return str(self.folder / name)


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> Study:
    """Simulate, train, calibrate, sample, fit, compare and report, with the smallest network that runs."""
    made = Study(tmp_path_factory.mktemp("study"), {}, {})
    (made.folder / "spec.toml").write_text(SPEC, encoding="utf-8")
    for name, text in POPULATIONS.items():
        (made.folder / f"{name}.toml").write_text(text, encoding="utf-8")
    at = made.path
    fitted = ["--data", "theophylline", "--seed", "3"]
    steps = {
        "simulate": [
            "one_compartment_oral",
            "--n",
            "600",
            "--shard-size",
            "300",
            "--out",
            at("oral.training"),
        ],
        "train": [at("oral.training"), "--spec", at("spec.toml"), "--out", at("oral")],
        "calibrate": [at("oral"), "--n", "100"],
        "sample": [at("oral"), "theophylline", "--draws", "200", "--seed", "3", "--out", at("draws.h5")],
        "fit plain": [at("draws.h5"), "--population", at("plain.toml"), "--out", at("plain.h5"), *fitted],
        "fit weight": [at("draws.h5"), "--population", at("weight.toml"), "--out", at("weight.h5"), *fitted],
        "compare": [at("plain.h5"), at("weight.h5")],
        "uncertainty": [
            at("weight.h5"),
            *("--data", "theophylline", "--parameters", "ke,omega_V", "--levels", "0.8,0.95"),
            *("--bootstrap", "3", "--posterior", "5", "--figure", at("profiles.png")),
        ],
        "report": [
            at("plain.h5"),
            at("weight.h5"),
            *("--data", "theophylline", "--draws", at("draws.h5"), "--estimator", at("oral")),
            *("--out", at("report.html")),
        ],
    }
    for step, arguments in steps.items():
        document = made.folder / f"{step}.json"
        made.codes[step] = main([step.split()[0], *arguments, "--json", str(document)])
        if document.exists():
            made.documents[step] = json.loads(document.read_text(encoding="utf-8"))
    return made
