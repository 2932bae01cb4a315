"""Everything needed at run time is in the wheel: subpackages, simulators, estimators, tables, templates."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from architecture.house import ROOT, tracked_files

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = {
    "amortnlme": "amortnlme",
    "simulators": "amortnlme.simulators",
    "trained_models": "amortnlme.trained_models",
}
PACKAGED = [path for path in tracked_files() if path.relative_to(ROOT).parts[0] in FOLDERS]


def test_every_folder_with_python_files_is_a_package():
    folders = {path.parent for path in PACKAGED if path.suffix == ".py"}
    assert not [str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").is_file()]


def test_every_other_file_is_declared_as_package_data():
    declared = SETTINGS["tool"]["setuptools"]["package-data"]
    kept: set[Path] = set()
    for folder, package in FOLDERS.items():
        for pattern in declared.get(package, []):
            kept.update((ROOT / folder).glob(pattern))
    assert not [str(path.relative_to(ROOT)) for path in PACKAGED if path.suffix != ".py" and path not in kept]


@pytest.mark.parametrize("package", FOLDERS.values())
def test_the_mapped_packages_are_found_where_they_are_installed(package):
    assert importlib.util.find_spec(package) is not None


@pytest.mark.parametrize("name", ["simulators", "trained_models"])
def test_no_generic_name_is_installed(name):
    """Asked outside the checkout, as in a user's environment."""
    run = subprocess.run(
        [sys.executable, "-c", f"import {name}"], cwd="/", capture_output=True, text=True, timeout=60
    )
    assert "ModuleNotFoundError" in run.stderr


# Extras that no job of CI installs; of the GPU there is a simulator in Numba itself.
NOT_LOCKED = {"bench", "gpu"}


def test_the_locked_versions_satisfy_the_declared_dependencies():
    packaging = pytest.importorskip("packaging.requirements")
    utils = pytest.importorskip("packaging.utils")
    project = SETTINGS["project"]
    groups = project["optional-dependencies"]
    extras = [item for name, group in groups.items() if name not in NOT_LOCKED for item in group]
    for lock, wanted in (
        ("lock.txt", project["dependencies"]),
        ("lock-dev.txt", [*project["dependencies"], *extras]),
    ):
        lines = (ROOT / "requirements" / lock).read_text(encoding="utf-8").splitlines()
        pins = dict(line.split("==") for line in lines if "==" in line)
        versions = {utils.canonicalize_name(name): version for name, version in pins.items()}
        for text in wanted:
            requirement = packaging.Requirement(text)
            version = versions.get(utils.canonicalize_name(requirement.name))
            assert version is not None, f"{lock} does not pin {requirement.name}"
            assert requirement.specifier.contains(version), (
                f"{lock}: {requirement.name}=={version} is not {text}"
            )
