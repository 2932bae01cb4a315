"""Numbers as text, the same way everywhere on a page."""

from __future__ import annotations

import math

MISSING = "–"


def significant(value: float | None, digits: int = 3) -> str:
    """Write a number with a number of significant digits and no exponent where avoidable.

    Parameters
    ----------
    value : float or None
        None and nan give an en dash.
    digits : int

    Returns
    -------
    str
    """
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0.0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -4 or exponent >= 6:
        return f"{value:.{digits - 1}e}"
    return f"{value:.{max(0, digits - 1 - exponent)}f}"


def fixed(value: float | None, decimals: int = 2) -> str:
    """Write a number with a fixed number of decimals; None and nan give an en dash.

    Parameters
    ----------
    value : float or None
    decimals : int

    Returns
    -------
    str
    """
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    text = f"{value:.{decimals}f}"
    return text[1:] if text.startswith("-") and float(text) == 0.0 else text


def percent(value: float | None, decimals: int = 0) -> str:
    """Write a number that is already in percent.

    Parameters
    ----------
    value : float or None
    decimals : int

    Returns
    -------
    str
    """
    text = fixed(value, decimals)
    return text if text == MISSING else f"{text} %"


def interval(low: float | None, high: float | None, digits: int = 3) -> str:
    """Write an interval.

    Parameters
    ----------
    low, high : float or None
    digits : int

    Returns
    -------
    str
    """
    if low is None or high is None:
        return MISSING
    return f"{significant(low, digits)} to {significant(high, digits)}"


def seconds(value: float) -> str:
    """Write a duration in seconds with two significant digits.

    Parameters
    ----------
    value : float

    Returns
    -------
    str
    """
    return f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


def count(n: int, noun: str) -> str:
    """Write a count with its noun in the right number.

    Parameters
    ----------
    n : int
    noun : str
        Singular, with a regular plural.

    Returns
    -------
    str
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
