"""Population models shipped with the package, by name."""

from __future__ import annotations

from importlib.resources import files

from amortnlme.core.errors import PopulationError
from amortnlme.population.population_model import PopulationModel
from amortnlme.population.toml import parse_population

_FOLDER = "bundled_populations"


def bundled_population_names() -> tuple[str, ...]:
    """Return the names of the population models shipped with the package, sorted."""
    folder = files("amortnlme.population").joinpath(_FOLDER)
    return tuple(
        sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
    )


def load_bundled_population(name: str) -> PopulationModel:
    """Return one of the shipped population models.

    Parameters
    ----------
    name : str
        One of `bundled_population_names()`, e.g. "theophylline_none".

    Returns
    -------
    PopulationModel

    Raises
    ------
    PopulationError
        E_POP_UNKNOWN_BUNDLED.
    """
    names = bundled_population_names()
    if name not in names:
        raise PopulationError(
            "E_POP_UNKNOWN_BUNDLED", f"no shipped population model {name!r}. Shipped: {', '.join(names)}."
        )
    text = files("amortnlme.population").joinpath(_FOLDER, f"{name}.toml").read_text(encoding="utf-8")
    return parse_population(text, where=f"shipped population {name!r}", default_name=name)
