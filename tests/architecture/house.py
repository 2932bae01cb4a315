"""The rules of the house as data, and the parsed source tree they are checked against."""

from __future__ import annotations

import ast
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# An import goes to a strictly lower number. Floor 7 has two stories: the command line prints what
# `report` makes.
FLOORS = {
    "trained_models": -1,  # data, no code
    "core": 0,
    "data": 1,
    "solve": 1,
    "model": 2,
    "simulators": 2.5,
    "training": 3,
    "population": 3,
    "neural": 4,
    "methods": 5,
    "diagnostics": 6,
    "report": 7,
    "cli": 7.5,
    "app": 7.5,
}

ARRAYS = {"numpy", "scipy"}
TABLES = ARRAYS | {"pandas"}
# What may be imported from outside, floor by floor. pandas travels upwards from `data`, because a table
# is what a caller gets to see; kernels and models stay on plain arrays.
THIRD_PARTY = {
    "core": ARRAYS | {"h5py", "hdf5plugin"},
    "data": TABLES,
    "solve": ARRAYS | {"numba", "sympy"},
    "model": ARRAYS,
    "simulators": {"numpy"},
    "training": TABLES | {"h5py", "hdf5plugin", "tqdm"},
    "population": TABLES | {"h5py"},
    "neural": TABLES | {"h5py", "keras", "bayesflow", "tensorflow", "jax", "tqdm"},
    "methods": TABLES | {"h5py", "threadpoolctl", "tqdm"},
    "diagnostics": TABLES | {"arviz", "xarray"},
    "report": TABLES | {"matplotlib", "jinja2", "markupsafe"},
    "cli": TABLES | {"typer", "click", "rich", "tqdm"},
    "app": TABLES,
    "": set(),
}
# One file may hold what its floor may not.
THIRD_PARTY_IN_FILE = {"amortnlme/methods/_pypesto.py": {"pypesto", "fides"}}
# Heavy libraries that must not be paid for by importing the module that can use them.
INSIDE_FUNCTIONS_ONLY = {"report": {"matplotlib"}, "cli": {"pandas", "scipy"}}
# Keras layers, BayesFlow networks and pyPESTO objectives can only be written by inheritance.
FRAMEWORK_BASES = {
    "amortnlme/neural/": ("keras.", "bayesflow."),
    "amortnlme/methods/_pypesto.py": ("ObjectiveBase",),
}

FORBIDDEN_FILE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One parsed Python file of the package."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        """Path relative to the repository root, with forward slashes."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def floor(self) -> str:
        """Folder of the house the file belongs to; "" for amortnlme/__init__.py and amortnlme/__main__.py."""
        parts = self.path.relative_to(ROOT).parts
        if parts[0] == "simulators":
            return "simulators"
        return parts[1] if len(parts) > 2 else ""

    @property
    def module(self) -> str:
        """Import name of the file."""
        parts = list(self.path.relative_to(ROOT).with_suffix("").parts)
        if parts[0] != "amortnlme":
            parts.insert(0, "amortnlme")
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module: its absolute name, its line, and whether it runs when the file is imported."""

    module: str
    line: int
    at_import: bool


@cache
def tracked_files() -> tuple[Path, ...]:
    """Every file git knows or would add, so that a file is checked before it is committed."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    return tuple(path for name in listed if name and (path := ROOT / name).is_file())


@cache
def package_sources() -> tuple[SourceFile, ...]:
    """Every Python file that ships: amortnlme/ and simulators/."""
    found = []
    for folder in ("amortnlme", "simulators"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            found.append(SourceFile(path, text, ast.parse(text, filename=str(path))))
    return tuple(found)


def imports_of(source: SourceFile) -> list[Import]:
    """All imports of a file; those under `if TYPE_CHECKING:` are left out, as they never run."""
    found: list[Import] = []

    def visit(node: ast.AST, at_import: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            children: list[ast.AST] = list(node.orelse)
        else:
            children = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, at_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.extend(Import(name, node.lineno, at_import) for name in _targets(source, node))
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in children:
            visit(child, at_import and not inside)

    visit(source.tree, True)
    return found


def _targets(source: SourceFile, node: ast.ImportFrom) -> list[str]:
    base = node.module or ""
    if node.level:
        anchor = source.module.split(".")
        if source.path.name != "__init__.py":
            anchor = anchor[:-1]
        anchor = anchor[: len(anchor) - (node.level - 1)]
        base = ".".join([*anchor, base]) if base else ".".join(anchor)
    if base == "amortnlme":
        # `from amortnlme import data` names a floor only through its alias.
        return [f"amortnlme.{alias.name}" for alias in node.names]
    return [base]
