"""Tables that come with amortnlme."""

from __future__ import annotations

from importlib.resources import as_file, files

from amortnlme.core.errors import DataError
from amortnlme.data.dataset import Dataset
from amortnlme.data.event_table import read_csv

_FOLDER = "tables"
_UNITS = {"theophylline": {"TIME": "h", "AMT": "mg", "DV": "mg/L", "weight": "kg"}}


def bundled_names() -> tuple[str, ...]:
    """Return the names of the bundled tables.

    Returns
    -------
    tuple of str
        In alphabetical order.
    """
    entries = files("amortnlme.data").joinpath(_FOLDER).iterdir()
    return tuple(sorted(e.name.removesuffix(".csv") for e in entries if e.name.endswith(".csv")))


def load_bundled(name: str) -> Dataset:
    """Read a bundled table.

    Parameters
    ----------
    name : str
        One of `bundled_names`.

    Returns
    -------
    Dataset
        Columns and units are described in ``amortnlme/data/tables/README.md``.

    Raises
    ------
    DataError
        If there is no table of that name (``E_DATA_UNKNOWN_BUNDLED``).
    """
    names = bundled_names()
    if name not in names:
        raise DataError(
            "E_DATA_UNKNOWN_BUNDLED",
            f"No bundled table is called {name!r}. Bundled: {', '.join(names)}. Use one of these, or "
            f"read_csv(path).",
        )
    with as_file(files("amortnlme.data").joinpath(_FOLDER, f"{name}.csv")) as path:
        return read_csv(path, units=_UNITS.get(name))
