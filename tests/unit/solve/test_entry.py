"""Entries evaluated for many rows: values, covariates in force, derivatives against complex steps."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from unit.solve.test_linear import schedule_of

from amortnlme.core.errors import ModelError
from amortnlme.data.design import Design, Dose
from amortnlme.solve.entry import Entry, EntryFunctions
from amortnlme.solve.trace import Names, make_symbols

NAMES = Names(("gut", "blood"), ("a", "b", "c"), ("w",))
FUNCTIONS = EntryFunctions(
    initial=lambda p: (0.0, p.a * p.b * p.w),
    start=lambda p: p.c**2 + p.w,
    lag={"gut": lambda p: p.a * p.w},
    bioavailability={"blood": lambda p: p.b / p.w},
)
DESIGNS = [Design.from_doses([Dose(0.0, 1.0)], np.arange(1.0, 4.0 + i)) for i in range(2)]
W = np.array([[[1.0], [2.0], [2.0], [3.0], [3.0]], [[5.0], [5.0], [4.0], [4.0], [4.0]]])


def entry(functions=FUNCTIONS):
    return Entry.from_functions(functions, NAMES, make_symbols(NAMES))


def test_entry_evaluates_every_row_under_the_covariates_of_its_segments():
    schedule = schedule_of(DESIGNS, 0, W)
    psi = np.exp(np.random.default_rng(1).normal(size=(6, 3)))
    rows = np.array([0, 1, 1, 0, 1, 0])
    sensitive = (2, 0)
    found = entry().evaluate(psi, schedule, rows, sensitive=sensitive)
    for i, design in enumerate(rows):
        first = schedule.segment_covariates[design, 0, 0]

        def p(w, moved=None, row=i):
            values = psi[row].astype(complex)
            if moved is not None:
                values[moved] += 1e-30j
            return SimpleNamespace(**dict(zip("abc", values, strict=True)), w=w)

        assert_allclose(found.start[i], FUNCTIONS.start(p(first)).real, rtol=1e-15)
        assert_allclose(found.initial[i], np.real(FUNCTIONS.initial(p(first))), rtol=1e-15)
        for q, column in enumerate(sensitive):
            moved = p(first, column)
            assert_allclose(found.d_start[i, q], FUNCTIONS.start(moved).imag / 1e-30, rtol=1e-14)
            assert_allclose(found.d_initial[i, q], np.imag(FUNCTIONS.initial(moved)) / 1e-30, rtol=1e-14)
        for g, (w,) in enumerate(schedule.segment_covariates[design]):
            assert_allclose(found.lag[i, g], [FUNCTIONS.lag["gut"](p(w)).real, 0.0], rtol=1e-15)
            share = FUNCTIONS.bioavailability["blood"](p(w)).real if w else np.inf
            assert_allclose(found.bioavailability[i, g], [1.0, share], rtol=1e-15)
            for q, column in enumerate(sensitive):
                slope = FUNCTIONS.lag["gut"](p(w, column)).imag / 1e-30
                assert_allclose(found.d_lag[i, g, q], [slope, 0.0], rtol=1e-14)
                assert_array_equal(found.d_bioavailability[i, g, q], 0.0)


def test_entry_without_functions_is_plain():
    plain = entry(EntryFunctions())
    assert plain.is_plain
    assert not plain.moves_doses
    assert plain.moving == ()
    values = plain.evaluate(np.ones((2, 3)), schedule_of(DESIGNS, 0, W), np.array([0, 1]))
    assert_array_equal(values.start, -np.inf)
    assert_array_equal(values.bioavailability, 1.0)
    assert values.d_lag is None


def test_entry_names_the_parameters_that_occur_in_it():
    assert entry().moving == (0, 1, 2)
    assert entry(EntryFunctions(lag={"gut": lambda p: p.b})).moving == (1,)
    assert entry(EntryFunctions(lag={"gut": lambda p: p.b})).has_lag
    assert not entry(EntryFunctions(bioavailability={"gut": lambda p: p.b})).has_lag


@pytest.mark.parametrize(
    "functions",
    [
        EntryFunctions(initial=lambda p: (0.0,)),
        EntryFunctions(lag={"brain": lambda p: p.a}),
        EntryFunctions(start=lambda p: (p.a, p.b)),
    ],
)
def test_entry_refuses_wrong_numbers_of_values_and_unknown_states(functions):
    with pytest.raises(ModelError) as caught:
        entry(functions)
    assert caught.value.code == "E_MODEL_ENTRY"
