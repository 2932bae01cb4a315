"""What importing the package, and asking for light things, must not pay for (measured in fresh processes)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

HEAVY = [
    "tensorflow",
    "keras",
    "bayesflow",
    "jax",
    "pypesto",
    "fides",
    "matplotlib",
    "pandas",
    "arviz",
    "numba",
    "sympy",
    "h5py",
    "scipy",
]
NEURAL = ["tensorflow", "keras", "bayesflow", "jax"]


def _modules_after(statement: str) -> set[str]:
    code = f"import sys, json\n{statement}\njson.dump(sorted(sys.modules), sys.stdout)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout.splitlines()[-1]))


def test_importing_the_package_loads_no_heavy_library():
    assert not _modules_after("import amortnlme") & set(HEAVY)


@pytest.mark.parametrize(
    "statement",
    [
        "import amortnlme.data",
        "import amortnlme.model",
        "import amortnlme.population",
        "import amortnlme.methods",
        "import amortnlme.diagnostics",
        "from amortnlme import fit, Amortized, PopulationModel, load_model, load_bundled",
    ],
)
def test_fitting_needs_no_neural_backend(statement):
    assert not _modules_after(statement) & set(NEURAL)


def test_importing_the_report_does_not_import_matplotlib():
    assert not _modules_after("import amortnlme.report") & {"matplotlib", *NEURAL}


def test_every_public_name_resolves():
    """The list of public names and what type checkers see are the same list, and each name can be fetched."""
    statement = "import amortnlme\nfor name in amortnlme.__all__: getattr(amortnlme, name)"
    assert "amortnlme" in _modules_after(statement)


def test_help_answers_at_once():
    """Half a second of processor time on one core; the margin covers a busy machine, not a heavy import."""
    environment = dict(os.environ, COLUMNS="100")
    command = [sys.executable, "-m", "amortnlme", "--help"]
    seconds = []
    for _ in range(3):
        before = os.times()
        subprocess.run(command, check=True, capture_output=True, env=environment, timeout=60)
        after = os.times()
        seconds.append(
            after.children_user + after.children_system - before.children_user - before.children_system
        )
        if seconds[-1] < 0.5:
            break
        time.sleep(0.2)
    assert min(seconds) < 0.5, f"amortnlme --help took {min(seconds):.2f} s of processor time"
