"""Mathematical functions for model files: the same text runs on numbers and on traced symbols."""

from __future__ import annotations

import math
from typing import Any

import sympy


def exp(value: Any) -> Any:
    """Exponential function.

    Parameters
    ----------
    value : float or traced expression

    Returns
    -------
    float or traced expression
    """
    return sympy.exp(value) if isinstance(value, sympy.Basic) else math.exp(value)


def log(value: Any) -> Any:
    """Natural logarithm.

    Parameters
    ----------
    value : float or traced expression

    Returns
    -------
    float or traced expression
    """
    return sympy.log(value) if isinstance(value, sympy.Basic) else math.log(value)


def sqrt(value: Any) -> Any:
    """Square root.

    Parameters
    ----------
    value : float or traced expression

    Returns
    -------
    float or traced expression
    """
    return sympy.sqrt(value) if isinstance(value, sympy.Basic) else math.sqrt(value)


def where(condition: Any, if_true: Any, if_false: Any) -> Any:
    """Branch between two values; both are evaluated, as a trace has to see both.

    Parameters
    ----------
    condition : bool or traced relation
    if_true, if_false : float or traced expression

    Returns
    -------
    float or traced expression
    """
    if isinstance(condition, sympy.Basic):
        return sympy.Piecewise((if_true, condition), (if_false, True))
    return if_true if condition else if_false
