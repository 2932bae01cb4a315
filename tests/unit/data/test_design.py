"""Designs hold records in processing order; batches pad them without changing them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amortnlme.core.errors import DesignError
from amortnlme.data.design import FIELDS, Design, DesignBatch, Dose, EventKind, expand_dose

DOSES = st.builds(
    Dose,
    time=st.integers(0, 20).map(float),
    amount=st.integers(0, 500).map(float),
    compartment=st.integers(0, 3),
    duration=st.sampled_from([0.0, 0.5, 2.0]),
    ii=st.sampled_from([6.0, 12.0]),
    ss=st.integers(0, 2),
    addl=st.integers(0, 3),
)
DESIGNS = st.builds(
    Design.from_doses, st.lists(DOSES, max_size=3), st.lists(st.integers(0, 40).map(float), max_size=6)
)


def records(**columns: list) -> Design:
    n = len(columns["time"])
    return Design(**{name: np.array(columns.get(name, [0] * n)) for name in FIELDS})


@given(DESIGNS)
def test_time_does_not_fall_and_doses_come_first_at_one_time(design):
    assert (np.diff(design.time) >= 0).all()
    tie = np.diff(design.time) == 0
    assert not (tie & design.is_observation[:-1] & design.is_dose[1:]).any()
    assert design.n_records == design.n_doses + design.n_observations


def test_additional_doses_come_before_an_observation_at_their_time_and_are_plain_doses():
    design = Design.from_doses([Dose(0.0, 100.0, ii=12.0, ss=1, addl=2)], [0.0, 12.0, 30.0])
    assert design.time.tolist() == [0, 0, 12, 12, 24, 30]
    assert design.kind.tolist() == [1, 0, 1, 0, 1, 0]
    assert design.ss.tolist() == [1, 0, 0, 0, 0, 0]
    assert design.ii.tolist() == [12, 0, 0, 0, 0, 0]


def test_a_dose_without_additional_ones_expands_to_itself():
    assert expand_dose(Dose(3.0, 50.0, duration=1.0)) == [Dose(3.0, 50.0, duration=1.0)]


def test_what_means_nothing_for_a_record_is_cleared():
    design = records(
        time=[0, 1], kind=[1, 0], amount=[5, 7], duration=[3, 3], ii=[12, 12], ss=[0, 1], output=[4, 2]
    )
    assert design.amount.tolist() == [5, 0]
    assert not design.duration.any() and not design.ii.any() and not design.ss.any()
    assert design.output.tolist() == [0, 2]
    assert design == records(time=[0, 1], kind=[1, 0], amount=[5, 0], output=[0, 2])


def test_the_arrays_of_a_design_are_copies_and_read_only():
    time = np.array([0.0])
    design = records(time=[0.0], kind=[4])
    design_of_view = replace(design, time=time)
    time[0] = 9.0
    assert design_of_view.time[0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        design.time[0] = 1.0


def test_the_clock_may_restart_only_at_a_reset():
    assert records(time=[5, 0, 1], kind=[4, EventKind.RESET, 4]).n_records == 3
    with pytest.raises(DesignError) as refusal:
        records(time=[5, 0], kind=[4, 4])
    assert refusal.value.code == "E_DESIGN_UNSORTED"


@pytest.mark.parametrize(
    ("code", "columns"),
    [
        ("E_DESIGN_VALUE", {"time": [np.nan], "kind": [4]}),
        ("E_DESIGN_VALUE", {"time": [0], "kind": [1], "amount": [-1]}),
        ("E_DESIGN_VALUE", {"time": [0], "kind": [2], "amount": [1], "duration": [np.inf]}),
        ("E_DESIGN_KIND", {"time": [0], "kind": [5]}),
        ("E_DESIGN_SS", {"time": [0], "kind": [1], "ss": [3], "ii": [12]}),
        ("E_DESIGN_INTERVAL", {"time": [0], "kind": [1], "ss": [1]}),
        ("E_DESIGN_DURATION", {"time": [0], "kind": [2], "amount": [1]}),
        ("E_DESIGN_LABEL", {"time": [0], "kind": [0]}),
        ("E_DESIGN_LABEL", {"time": [0], "kind": [1], "compartment": [-1]}),
    ],
)
def test_impossible_records_are_refused(code, columns):
    with pytest.raises(DesignError) as refusal:
        records(**columns)
    assert refusal.value.code == code


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(DesignError) as refusal:
        replace(records(time=[0.0], kind=[4]), time=np.zeros(2))
    assert refusal.value.code == "E_DESIGN_SHAPE"


@pytest.mark.parametrize("dose", [Dose(0, 1, addl=1), Dose(0, 1, ss=1), Dose(0, 1, addl=-1, ii=12)])
def test_repeated_doses_need_an_interval(dose):
    with pytest.raises(DesignError) as refusal:
        expand_dose(dose)
    assert refusal.value.code == "E_DESIGN_INTERVAL"


@given(st.lists(DESIGNS, min_size=1, max_size=4))
def test_a_batch_holds_its_designs_unchanged(designs):
    batch = DesignBatch.from_designs(designs)
    for row, design in enumerate(designs):
        k, m = design.n_records, design.n_observations
        for name in FIELDS:
            assert np.array_equal(getattr(batch, name)[row, :k], getattr(design, name))
        assert (batch.kind[row, k:] == EventKind.OTHER).all()
        assert (np.diff(batch.time[row, max(k - 1, 0) :]) == 0).all()
        assert np.array_equal(batch.observation_times[row, :m], design.observation_times)
        assert np.array_equal(batch.observation_output[row, :m], design.observation_outputs)
        assert batch.observation_mask[row].sum() == m == batch.n_observations[row]
        slots = batch.obs_slot[row]
        assert slots[slots >= 0].tolist() == list(range(m))
        assert np.array_equal(batch.time[row][slots >= 0], design.observation_times)


def test_constant_covariates_spread_over_the_records_and_others_must_fit():
    design = Design.from_doses([Dose(0.0, 1.0)], [1.0, 2.0])
    batch = DesignBatch.from_designs([design, design], {"weight": np.array([70.0, 80.0])})
    assert batch.covariates["weight"].tolist() == [[70.0] * 3, [80.0] * 3]
    assert batch.take(np.array([1])).covariates["weight"].tolist() == [[80.0] * 3]
    with pytest.raises(DesignError) as refusal:
        DesignBatch.from_designs([design, design], {"weight": np.zeros(3)})
    assert refusal.value.code == "E_DESIGN_COVARIATE"


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(DesignError) as refusal:
        DesignBatch.from_designs([])
    assert refusal.value.code == "E_DESIGN_EMPTY"
