"""From cells to numbers and identifiers; what is not a number is refused with its place."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from amortnlme.data.refusals import Places

MISSING = frozenset({"", ".", "NA"})
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_WHOLE_IDENTIFIER = re.compile(r"(?:0|[1-9][0-9]*)(?:\.0*)?")
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+")
_INFINITE = frozenset({"inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"})
_CLOCK = re.compile(r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?|[0-9]{1,4}[-/.][0-9]{1,2}[-/.][0-9]{1,4}.*")
_BELOW = re.compile(r"[<>]=?\s*[0-9.]+|BLQ|BLOQ|LLOQ", re.IGNORECASE)
_FINE, _TEXT, _COMMA, _NOT_FINITE, _NAN, _TIME, _LIMIT = range(7)
_MISSING_IS = "A missing value is '.', NA or an empty cell"


def numbers(column: np.ndarray, label: str, places: Places) -> np.ndarray:
    """Read a column of numbers.

    Parameters
    ----------
    column : ndarray, shape (n,)
        Numbers, or objects (text, numbers, None).
    label : str
        Name of the column in messages.
    places : Places

    Returns
    -------
    ndarray, shape (n,)
        NaN where missing.

    Raises
    ------
    DataError
        ``E_DATA_NOT_NUMERIC``, ``E_DATA_NOT_FINITE``, ``E_DATA_NAN_TEXT``.
    """
    if column.dtype != object:
        values = column.astype(float)
        faults = np.where(np.isinf(values), _NOT_FINITE, _FINE)
    else:
        codes, cells = _distinct(column)
        parsed = [_number(cell) for cell in cells] + [(np.nan, _FINE)]
        values = np.array([value for value, _ in parsed])[codes]
        faults = np.array([fault for _, fault in parsed])[codes]
    if faults.any():
        _refuse(column, label, places, faults)
    return values


def _refuse(column: np.ndarray, label: str, places: Places, faults: np.ndarray) -> None:
    # the first faulty row decides which error is raised
    first = int(faults[np.flatnonzero(faults)[0]])
    code, problem, remedy = {
        _TEXT: (
            "E_DATA_NOT_NUMERIC",
            f"{label} is '{{}}', which is not a number",
            f"{_MISSING_IS}. Correct the cell; code categories as numbers, and leave columns that are no "
            f"covariates out with ColumnMap(ignore=...).",
        ),
        _COMMA: (
            "E_DATA_NOT_NUMERIC",
            f"{label} is '{{}}', with a decimal comma",
            "Numbers are written with a decimal point. Replace the commas.",
        ),
        _TIME: (
            "E_DATA_NOT_NUMERIC",
            f"{label} is '{{}}', a date or a time of day",
            "Times are numbers in one unit. Write the hours (or days) since the first dose.",
        ),
        _LIMIT: (
            "E_DATA_NOT_NUMERIC",
            f"{label} is '{{}}', which is not a number",
            "A measurement beyond its limit has the limit in DV and 1 (below) or -1 (above) in CENS.",
        ),
        _NOT_FINITE: (
            "E_DATA_NOT_FINITE",
            f"{label} is {{}}, which is not a finite number",
            f"{_MISSING_IS}. Correct the cell.",
        ),
        _NAN: (
            "E_DATA_NAN_TEXT",
            f"{label} is '{{}}', the result of a failed calculation",
            f"{_MISSING_IS}. Find out where it came from, and write '.' if the value is missing.",
        ),
    }[first]
    places.refuse(code, faults == first, problem, remedy, column)


def _distinct(column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    try:
        codes, cells = pd.factorize(column)
    except TypeError:  # a cell that cannot be hashed is no number either; its text will say what it is
        codes, cells = pd.factorize(np.array([str(cell) for cell in column], dtype=object))
    return codes, np.asarray(cells, dtype=object)


def _number(cell: object) -> tuple[float, int]:
    if isinstance(cell, str):
        text = cell.strip()
        if text in MISSING:
            return np.nan, _FINE
        if _NUMBER.fullmatch(text):
            value = float(text)
            return value, _FINE if np.isfinite(value) else _NOT_FINITE
        if text.lower() in _INFINITE:
            return np.nan, _NOT_FINITE
        if text.lower().lstrip("+-") == "nan":
            return np.nan, _NAN
        kinds = {_DECIMAL_COMMA: _COMMA, _CLOCK: _TIME, _BELOW: _LIMIT}
        return np.nan, next((kind for form, kind in kinds.items() if form.fullmatch(text)), _TEXT)
    if isinstance(cell, (int, float, np.integer, np.floating, np.bool_)):
        value = float(cell)
        return value, _FINE if not np.isinf(value) else _NOT_FINITE
    return np.nan, _TEXT


# why NONMEM's further values are not among those allowed
_REASONS = {
    "cmt": " Compartments cannot be turned off.",
    "ss": " NONMEM's SS = 3 is not supported.",
    "mdv": " NONMEM's values above 1 are not supported.",
    "evid": " 0 observation, 1 dose, 2 other event, 3 reset, 4 reset and dose.",
    "cens": " 0 measured, 1 below the limit in DV, -1 above it.",
    "addl": " NONMEM's negative values are not supported.",
}


def whole_numbers(
    column: np.ndarray, label: str, places: Places, *, part: str, lowest: int, highest: int
) -> np.ndarray:
    """Read a column of whole numbers.

    Parameters
    ----------
    column : ndarray, shape (n,)
        Numbers, or objects (text, numbers, None).
    label : str
        Name of the column in messages.
    places : Places
    part : str
        What the column stands for; it names the code of the error.
    lowest, highest : int
        Allowed range.

    Returns
    -------
    ndarray, shape (n,)
        Float; NaN where missing.

    Raises
    ------
    DataError
        ``E_DATA_<PART>`` if a value is not whole or out of range; as `numbers` otherwise.
    """
    values = numbers(column, label, places)
    known = ~np.isnan(values)
    bad = known & ((values != np.round(values)) | (values < lowest) | (values > highest))
    places.refuse(
        f"E_DATA_{part.upper()}",
        bad,
        f"{label} is {{}}",
        f"It must be a whole number from {lowest} to {highest}; correct the cell.{_REASONS.get(part, '')}",
        values,
    )
    return values


def identifiers(column: np.ndarray, label: str, places: Places) -> np.ndarray:
    """Read a column of identifiers: where all are whole numbers, 1.0 and 1 are the same; other text stays.

    Parameters
    ----------
    column : ndarray, shape (n,)
    label : str
        Name of the column in messages.
    places : Places

    Returns
    -------
    ndarray of str objects, shape (n,)

    Raises
    ------
    DataError
        ``E_DATA_ID_MISSING``.
    """
    codes, cells = _distinct(column)
    texts = [_identifier(cell) for cell in cells]
    found = np.array([*plain_identifiers(texts), ""], dtype=object)[codes]
    places.refuse(
        "E_DATA_ID_MISSING",
        found == "",
        f"{label} is missing",
        "Every row belongs to a subject. Fill in the identifier, or make the row a comment with '#'.",
    )
    return found


def plain_identifiers(texts: list[str]) -> list[str]:
    """Write identifiers that are all whole numbers without decimals; leave others as they are.

    Parameters
    ----------
    texts : list of str

    Returns
    -------
    list of str
        ``["1.0", "2"]`` becomes ``["1", "2"]``; ``["01", "2"]`` and ``["1.5", "2"]`` stay.
    """
    if all(_WHOLE_IDENTIFIER.fullmatch(text) for text in texts):
        return [text.split(".")[0] for text in texts]
    return texts


def _identifier(cell: object) -> str:
    if isinstance(cell, (float, np.floating)):
        value = float(cell)
        return str(int(value)) if value.is_integer() else repr(value)
    text = str(cell).strip()
    return "" if text in MISSING else text
