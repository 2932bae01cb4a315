"""Which column of a table plays which part."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields

from amortnlme.core.errors import DataError


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """Names of the columns of an event table, matched without regard to case; the defaults are NONMEM's.

    Attributes
    ----------
    id, time, dv : str
        Subject, time and measurement; these three must be there.
    amt, evid, mdv, cmt, rate, addl, ii, ss : str
        Dose items and event types. A row without EVID column is a dose where AMT is not zero.
    tinf : str
        Duration of an infusion, an alternative to RATE.
    cens, limit, occ, dvid : str
        Censoring (1 below the limit in DV, -1 above it), other end of the interval, occasion, outcome.
    covariates : tuple of str or None
        Covariate columns, matched with regard to case; None takes every column that has no other part.
    ignore : tuple of str
        Columns to leave out, matched with regard to case.
    """

    id: str = "ID"
    time: str = "TIME"
    dv: str = "DV"
    amt: str = "AMT"
    evid: str = "EVID"
    mdv: str = "MDV"
    cmt: str = "CMT"
    rate: str = "RATE"
    tinf: str = "TINF"
    addl: str = "ADDL"
    ii: str = "II"
    ss: str = "SS"
    cens: str = "CENS"
    limit: str = "LIMIT"
    occ: str = "OCC"
    dvid: str = "DVID"
    covariates: tuple[str, ...] | None = None
    ignore: tuple[str, ...] = ()


PARTS = tuple(field.name for field in fields(ColumnMap) if field.name not in ("covariates", "ignore"))
_NEEDED = ("id", "time", "dv")
_NUMBER = re.compile(r"[-+0-9.eE]*")
# NONMEM's comment column: rows with anything in it are skipped
COMMENT_COLUMN = "C"


@dataclass(frozen=True, slots=True)
class Layout:
    """Positions of the columns in a given table.

    Attributes
    ----------
    parts : dict of str to int
        Part (``"id"``, ``"time"``...) to position.
    covariates : dict of str to int
        Covariate to position, in column order.
    comment : int or None
        Position of the comment column.
    """

    parts: dict[str, int]
    covariates: dict[str, int]
    comment: int | None


def lay_out(header: Sequence[str], columns: ColumnMap, source: str) -> Layout:
    """Find the columns of a table.

    Parameters
    ----------
    header : sequence of str
        Column names in order.
    columns : ColumnMap
        Names to look for.
    source : str
        Name of the table in messages.

    Returns
    -------
    Layout

    Raises
    ------
    DataError
        ``E_DATA_COLUMN_MAP`` (two parts of one name), ``E_DATA_NO_HEADER``, ``E_DATA_COLUMN_NAME`` (a
        column without a name), ``E_DATA_COLUMN_TWICE`` (two columns for one part),
        ``E_DATA_COLUMN_MISSING`` (a column that is needed or was asked for is not there).
    """
    names = [str(name).strip() for name in header]
    if all(_NUMBER.fullmatch(name) for name in names):
        raise DataError(
            "E_DATA_NO_HEADER",
            f"{source} has no header: the first line is {', '.join(map(repr, names[:6]))}. "
            f"Put the names of the columns there, such as ID,TIME,DV.",
        )
    _refuse_unusable(names, source)
    wanted = {getattr(columns, part).casefold(): part for part in PARTS}
    if len(wanted) != len(PARTS):
        raise DataError(
            "E_DATA_COLUMN_MAP",
            f"{columns} gives one column two parts. Every part needs a name of its own, whether the "
            f"table has it "
            f"or not.",
        )
    parts: dict[str, int] = {}
    rest: dict[str, int] = {}
    for position, name in enumerate(names):
        part = wanted.get(name.casefold())
        if part is None:
            rest[name] = position
        elif part in parts:
            raise DataError(
                "E_DATA_COLUMN_TWICE",
                f"{source}: columns {names[parts[part]]!r} and {name!r} both mean {getattr(columns, part)}; "
                f"names are matched "
                f"without regard to case. Rename or remove one of them.",
            )
        else:
            parts[part] = position
    missing = [getattr(columns, part) for part in _NEEDED if part not in parts]
    asked = [name for name in (*(columns.covariates or ()), *columns.ignore) if name not in names]
    if missing or asked:
        raise DataError(
            "E_DATA_COLUMN_MISSING",
            f"{source} has no column {', '.join(map(repr, missing + asked))}. It has "
            f"{', '.join(map(repr, names))}; "
            f"{', '.join(getattr(columns, part) for part in _NEEDED)} are needed. "
            f"Rename the column, or say what it is called with ColumnMap.",
        )
    comment = rest.pop(COMMENT_COLUMN, None)
    for name in columns.ignore:
        rest.pop(name, None)
    if columns.covariates is not None:
        rest = {name: names.index(name) for name in columns.covariates}
    return Layout(parts, rest, comment)


def _refuse_unusable(names: list[str], source: str) -> None:
    if "" in names:
        raise DataError(
            "E_DATA_COLUMN_NAME",
            f"{source}: Column {names.index('') + 1} has no name in the header "
            f"{', '.join(map(repr, names))}. "
            f"Name it, or remove the column.",
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            "E_DATA_COLUMN_TWICE",
            f"{source}: Column {', '.join(map(repr, twice))} is there more than once. Every name may "
            f"occur once; "
            f"rename or remove the others.",
        )
