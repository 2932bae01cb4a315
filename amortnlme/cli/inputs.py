"""Turning a word of the command line into an object: a path where there is one, else a shipped name."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from amortnlme.core.errors import TrainingError, UsageError

if TYPE_CHECKING:
    from amortnlme.data.dataset import Dataset
    from amortnlme.neural.spec import NetworkSpec, TrainingSpec
    from amortnlme.population.population_model import PopulationModel


_SPEC_TABLES = ("network", "training")


def read_dataset(word: str, time_factor: float | None = None, *, log: bool = False) -> Dataset:
    """Read an event table or a wide table from a CSV file, or a bundled dataset by name.

    Parameters
    ----------
    word : str
        Path of a CSV file in NONMEM conventions or of a wide table (see `read_wide`), or one of
        `bundled_names()`.
    time_factor : float, optional
    log : bool
        As in `read_wide`; refused for other tables.

    Returns
    -------
    Dataset

    Raises
    ------
    UsageError
        E_INPUT_NO_FILE, E_USAGE_OPTION.
    DataError
        Whatever is wrong with the table.
    """
    from amortnlme.data.bundled import bundled_names, load_bundled
    from amortnlme.data.event_table import read_csv
    from amortnlme.data.wide_table import is_wide, read_wide

    path = Path(word)
    if os.path.isfile(path) and is_wide(_header(path)):
        return read_wide(path, time_factor=1.0 if time_factor is None else time_factor, log=log)
    if time_factor is not None or log:
        raise UsageError(
            "E_USAGE_OPTION",
            f"--time-factor and --log-values belong to wide tables, but '{word}' is none. Convert its "
            "columns TIME and DV instead.",
        )
    if os.path.isfile(path):
        return read_csv(path)
    if word in bundled_names():
        return load_bundled(word)
    raise _no_file(word, "data file", "Bundled datasets", bundled_names())


def read_population_model(word: str) -> PopulationModel:
    """Read a population model from a TOML file or a formula, or a shipped one by name.

    Parameters
    ----------
    word : str
        Path of a TOML file, a formula (with `~`, see `parse_formula`) or one of `bundled_population_names()`.

    Returns
    -------
    PopulationModel

    Raises
    ------
    UsageError
        E_INPUT_NO_FILE.
    PopulationError
        Whatever is wrong with the file or the formula.
    """
    from amortnlme.population.bundled import bundled_population_names, load_bundled_population
    from amortnlme.population.formula import parse_formula
    from amortnlme.population.toml import read_population

    path = Path(word)
    if os.path.isfile(path):
        return read_population(path)
    if word in bundled_population_names():
        return load_bundled_population(word)
    if "~" in word:
        return parse_formula(word)
    raise _no_file(word, "population file", "Shipped population models", bundled_population_names())


def read_specs(path: Path | None) -> tuple[NetworkSpec, TrainingSpec]:
    """Read the options of a training run from a TOML file with the tables [network] and [training].

    Parameters
    ----------
    path : Path or None
        None gives the defaults.

    Returns
    -------
    network, training : NetworkSpec, TrainingSpec

    Raises
    ------
    UsageError
        E_INPUT_NO_FILE.
    TrainingError
        E_SPEC_TOML, E_SPEC_UNKNOWN_KEY, E_SPEC_VALUE.
    """
    from amortnlme.neural.spec import NetworkSpec, TrainingSpec

    if path is None:
        return NetworkSpec(), TrainingSpec()
    if not os.path.isfile(path):
        raise UsageError(
            "E_INPUT_NO_FILE", f"the options file '{path}' does not exist. Give the path of a TOML file."
        )
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as cause:
        raise TrainingError("E_SPEC_TOML", f"'{path}' is not valid TOML: {cause}.") from cause
    unknown = [name for name in tables if name not in _SPEC_TABLES or not isinstance(tables[name], dict)]
    if unknown:
        raise TrainingError(
            "E_SPEC_UNKNOWN_KEY",
            f"'{path}' holds {unknown[0]!r}. Allowed are the tables [network] and [training].",
        )
    return NetworkSpec.from_config(tables.get("network", {})), TrainingSpec.from_config(
        tables.get("training", {})
    )


def shipped_estimators() -> dict[str, Path]:
    """Name and folder of every estimator shipped with the package, sorted by name."""
    from importlib.resources import files

    root = Path(str(files("amortnlme.trained_models")))
    return {path.parent.name: path.parent for path in sorted(root.glob("*/config.json"))}


def _header(path: Path) -> list[str]:
    """Split the header roughly: enough to tell a wide table; the reader complains about everything else."""
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        for line in lines:
            if line.strip() and not line.lstrip().startswith("#"):
                return [cell.strip().strip('"') for cell in re.split(r"[,;\t]", line)]
    return []


def _no_file(word: str, what: str, shelf: str, names: tuple[str, ...]) -> UsageError:
    kind = "is a folder, not a file" if os.path.isdir(word) else "does not exist"
    return UsageError("E_INPUT_NO_FILE", f"the {what} '{word}' {kind}. {shelf}: {', '.join(names)}.")
