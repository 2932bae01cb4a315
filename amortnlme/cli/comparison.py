"""The comparison table of several fits, for people and as a document."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from amortnlme.cli.tables import cell_text, show_table

if TYPE_CHECKING:
    import pandas as pd

_TITLES = {"ofv": "-2LL", "aic": "AIC", "bic": "BIC", "bicc": "BICc", "n_parameters": "parameters"}


def comparison_document(table: pd.DataFrame) -> dict[str, Any]:
    """Turn a comparison into plain values.

    Parameters
    ----------
    table : pandas.DataFrame
        What `amortnlme.compare` returns: one column per fit, index (row, quantity).

    Returns
    -------
    dict
        "fits", the labels in order, and "rows": row name -> quantity -> one value per fit.
    """
    rows: dict[str, dict[str, list[object]]] = {}
    for key, *values in table.itertuples(name=None):
        row, quantity = key
        rows.setdefault(row, {})[quantity] = values
    return {"fits": [str(label) for label in table.columns], "rows": rows}


def show_comparison(table: pd.DataFrame) -> None:
    """Print a comparison, one line per estimate and criterion.

    Parameters
    ----------
    table : pandas.DataFrame
        What `amortnlme.compare` returns.
    """
    document = comparison_document(table)
    labels = document["fits"]
    lines = []
    for row, quantities in document["rows"].items():
        by_fit = [{q: values[i] for q, values in quantities.items()} for i in range(len(labels))]
        lines.append([_title(row), *(_cell(row, cells) for cells in by_fit)])
        if "method" in quantities:
            lines.append(["  computed by", *(cells["method"] for cells in by_fit)])
        if "delta" in quantities:
            lines.append(["  above the best", *(cell_text(cells["delta"]) for cells in by_fit)])
    show_table(["", *labels], lines, title="value (SE, RSE %)")


def _title(row: str) -> str:
    if row.startswith("shrinkage_"):
        return f"shrinkage {row.removeprefix('shrinkage_')} %"
    return _TITLES.get(row, row)


def _cell(row: str, cells: dict[Hashable, Any]) -> str:
    if row.startswith("shrinkage_"):
        return cell_text(cells["percent"])
    text = cell_text(cells["value"])
    if row == "ofv":
        return f"{text} (MC SE {cell_text(cells['mc_se'])})"
    if cells.get("se") is None:
        return text
    return f"{text} ({cell_text(cells['se'])}, {cells['rse_percent']:.0f} %)"
