"""Fingerprints name contents, not objects, processes or machines."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from amortnlme.core.errors import UsageError
from amortnlme.core.fingerprint import fingerprint_arrays, fingerprint_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, max_side=4)))
def test_memory_layout_and_byte_order_do_not_matter(array):
    name = fingerprint_arrays(array)
    assert fingerprint_arrays(np.asfortranarray(array)) == name
    assert fingerprint_arrays(array.astype(">f8")) == name
    assert fingerprint_arrays(np.repeat(array, 2, axis=-1)[..., ::2]) == name


def test_dtype_shape_order_and_values_matter():
    base = np.arange(6.0)
    others = [base.astype("f4"), base.reshape(2, 3), base[::-1], base + 1e-15, base[:5]]
    names = {fingerprint_arrays(array) for array in [base, *others]}
    assert len(names) == 6
    assert fingerprint_arrays(base, base[:1]) != fingerprint_arrays(base[:1], base)
    assert fingerprint_arrays(np.array(1.0)) != fingerprint_arrays(np.array([1.0]))


@given(JSON)
def test_equal_json_values_have_equal_fingerprints(value):
    assert fingerprint_json(value) == fingerprint_json(value)


def test_the_order_of_keys_does_not_matter_but_that_of_items_does():
    assert fingerprint_json({"a": 1, "b": [1, 2]}) == fingerprint_json({"b": [1, 2], "a": 1})
    assert fingerprint_json([1, 2]) != fingerprint_json([2, 1])


def test_fingerprints_are_the_same_in_another_process_whatever_its_hash_seed():
    program = (
        "import numpy as np; from amortnlme.core.fingerprint import *;"
        "print(fingerprint_json({'b': {'x', }.pop(), 'a': 1.5}), fingerprint_arrays(np.arange(5.0)))"
    )
    here = f"{fingerprint_json({'a': 1.5, 'b': 'x'})} {fingerprint_arrays(np.arange(5.0))}"
    for seed in ("0", "1"):
        told = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        )
        assert told.stdout.strip() == here


def test_objects_and_text_have_no_array_fingerprint():
    for array in (np.array(["a"]), np.array([None])):
        with pytest.raises(UsageError) as refusal:
            fingerprint_arrays(array)
        assert refusal.value.code == "E_FINGERPRINT"


def test_nan_has_no_json_fingerprint():
    with pytest.raises(ValueError, match="JSON"):
        fingerprint_json(float("nan"))
