"""Tables that come with amortnlme."""

from __future__ import annotations

import io
from importlib.resources import files

import pandas as pd

from amortnlme.core.errors import DataError
from amortnlme.data.dataset import Dataset
from amortnlme.data.event_table import read_frame

_FOLDER = "tables"


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
            f"No bundled table is called {name!r}. Bundled: {', '.join(names)}. Use one of these, or read_csv(path).",
        )
    text = files("amortnlme.data").joinpath(_FOLDER, f"{name}.csv").read_text(encoding="utf-8")
    return read_frame(pd.read_csv(io.StringIO(text), na_values=["."], dtype={"ID": str}), name=name)
