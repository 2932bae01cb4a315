"""Values of any kind as strict JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np


def json_values(value: Any) -> Any:
    """Turn a value into what strict JSON can hold: arrays as lists, enums as their values, no number as null.

    Parameters
    ----------
    value : object
        Mappings, sequences, sets, numpy arrays and scalars, enums, paths, numbers, texts, None.

    Returns
    -------
    object
        Of dict, list, str, int, float, bool and None only; NaN and infinities have become None.

    Raises
    ------
    TypeError
        For anything else: a document must not hold what its reader cannot make sense of.
    """
    if isinstance(value, Enum):
        return json_values(value.value)
    if isinstance(value, np.ndarray | np.generic):
        return json_values(value.tolist())
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): json_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_values(item) for item in value]
    if isinstance(value, set | frozenset):
        return [json_values(item) for item in sorted(value)]
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a {type(value).__name__} has no place in a JSON document")
