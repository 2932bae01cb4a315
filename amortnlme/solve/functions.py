"""Mathematical functions for model files: the same text runs on numbers (real or complex) and on symbols."""

from __future__ import annotations

import cmath
import math
from typing import Any

import sympy


def exp(value: Any) -> Any:
    """Exponential function.

    Parameters
    ----------
    value : float, complex or traced expression

    Returns
    -------
    float, complex or traced expression
    """
    if isinstance(value, sympy.Basic):
        return sympy.exp(value)
    return cmath.exp(value) if isinstance(value, complex) else math.exp(value)


def log(value: Any) -> Any:
    """Natural logarithm.

    Parameters
    ----------
    value : float, complex or traced expression

    Returns
    -------
    float, complex or traced expression
    """
    if isinstance(value, sympy.Basic):
        return sympy.log(value)
    return cmath.log(value) if isinstance(value, complex) else math.log(value)


def sqrt(value: Any) -> Any:
    """Square root.

    Parameters
    ----------
    value : float, complex or traced expression

    Returns
    -------
    float, complex or traced expression
    """
    if isinstance(value, sympy.Basic):
        return sympy.sqrt(value)
    return cmath.sqrt(value) if isinstance(value, complex) else math.sqrt(value)


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
