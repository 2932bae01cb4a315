"""An import goes down only, and every third-party library stays behind its fence (DESIGN, "Floors")."""

from __future__ import annotations

import sys

import pytest
from architecture.house import (
    FLOORS,
    INSIDE_FUNCTIONS_ONLY,
    THIRD_PARTY,
    THIRD_PARTY_IN_FILE,
    SourceFile,
    imports_of,
    package_sources,
)

SOURCES = package_sources()


def _id(source: SourceFile) -> str:
    return source.name


@pytest.mark.parametrize("source", SOURCES, ids=_id)
def test_every_file_stands_on_a_named_floor(source):
    assert source.floor == "" or source.floor in FLOORS, (
        f"{source.name}: {source.floor!r} is no floor of the house"
    )


@pytest.mark.parametrize("source", SOURCES, ids=_id)
def test_an_import_goes_down_only(source):
    if source.floor == "":
        pytest.skip("the list of public names refers to every floor, lazily")
    here = FLOORS[source.floor]
    up = []
    for item in imports_of(source):
        parts = item.module.split(".")
        if parts[0] != "amortnlme":
            continue
        target = parts[1] if len(parts) > 1 else ""
        if target == source.floor:
            continue
        if FLOORS.get(target, float("inf")) >= here:
            up.append(f"{source.name}:{item.line} imports {item.module}")
    assert not up, "\n".join(up)


@pytest.mark.parametrize("source", SOURCES, ids=_id)
def test_third_party_libraries_stay_behind_their_fence(source):
    allowed = THIRD_PARTY[source.floor] | THIRD_PARTY_IN_FILE.get(source.name, set())
    outside = []
    for item in imports_of(source):
        library = item.module.split(".")[0]
        if library == "amortnlme" or library in sys.stdlib_module_names or library == "__future__":
            continue
        if library not in allowed:
            outside.append(
                f"{source.name}:{item.line} imports {item.module}; floor {source.floor!r} may use {allowed}"
            )
    assert not outside, "\n".join(outside)


@pytest.mark.parametrize("source", SOURCES, ids=_id)
def test_heavy_libraries_are_imported_inside_functions_only(source):
    fenced = INSIDE_FUNCTIONS_ONLY.get(source.floor, set())
    paid = [
        f"{source.name}:{item.line} imports {item.module} when it is itself imported"
        for item in imports_of(source)
        if item.at_import and item.module.split(".")[0] in fenced
    ]
    assert not paid, "\n".join(paid)


@pytest.mark.parametrize("source", SOURCES, ids=_id)
def test_nobody_imports_the_simulators_folder_by_its_bare_name(source):
    """A bare `import simulators` would load every model a second time beside amortnlme.simulators."""
    bare = [
        item for item in imports_of(source) if item.module.split(".")[0] in {"simulators", "trained_models"}
    ]
    assert not bare, [f"{source.name}:{item.line}" for item in bare]


def test_posterior_draws_and_the_amortized_method_never_reach_the_networks():
    """Swapping a population model must not need a neural backend (DESIGN, below the floor table)."""
    reaching = [
        f"{source.name}:{item.line}"
        for source in SOURCES
        if source.floor in {"training", "population", "diagnostics"}
        or source.name.startswith("amortnlme/methods/")
        for item in imports_of(source)
        if item.module.startswith("amortnlme.neural") and source.path.stem not in {"vi", "vae", "flow_join"}
    ]
    assert not reaching, "\n".join(reaching)
