"""Any value as strict JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from amortnlme.core.json_values import json_values
from amortnlme.core.status import FitStatus, SolveStatus


def test_json_values_holds_arrays_enums_and_paths_as_json_does():
    value = {
        "array": np.arange(4.0).reshape(2, 2),
        "scalar": np.float32(0.5),
        "count": np.int64(3),
        "claim": np.bool_(True),
        "status": FitStatus.BOUNDARY,
        "code": SolveStatus.NON_FINITE,
        "set": {"b", "a"},
        "path": Path("a") / "b",
        3: (1, None),
    }
    assert json_values(value) == {
        "array": [[0.0, 1.0], [2.0, 3.0]],
        "scalar": 0.5,
        "count": 3,
        "claim": True,
        "status": "boundary",
        "code": 2,
        "set": ["a", "b"],
        "path": "a/b",
        "3": [1, None],
    }


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), np.float64("nan")])
def test_json_values_knows_no_number_that_json_does_not_know(number):
    assert json_values([number]) == [None]
    assert json.dumps(json_values({"x": np.array([number])}), allow_nan=False) == '{"x": [null]}'


def test_json_values_refuses_what_a_reader_could_not_make_sense_of():
    with pytest.raises(TypeError, match="object has no place"):
        json_values({"x": object()})
