"""The contract notices engines that break their promises, and says so where a promise means nothing."""

from dataclasses import replace

import numpy as np
import pytest
from unit.model.example_models import one_state

from amortnlme.data.design_sampler import RandomDesignSampler
from amortnlme.model.contract import CHECKS, check_model
from amortnlme.model.contract_world import largest_error
from amortnlme.solve.engine import AbstractEngine


class Bent(AbstractEngine):
    """An engine whose answers are bent on their way out."""

    def __init__(self, straight, values=None, slopes=None):
        self.straight, self.values, self.slopes = straight, values, slopes

    @property
    def has_sensitivities(self):
        return True

    def predict(self, rows):
        f, status = self.straight.predict(rows)
        return (f if self.values is None else self.values(f, rows)), status

    def predict_with_sensitivity(self, rows):
        f, slopes, status = self.straight.predict_with_sensitivity(rows)
        f = f if self.values is None else self.values(f, rows)
        return f, (slopes if self.slopes is None else self.slopes(slopes)), status


def bent(values=None, slopes=None):
    model = one_state(design_sampler=RandomDesignSampler(doses=(2, 4)))
    program = model.program
    object.__setattr__(model, "_program", replace(program, engine=Bent(program.engine, values, slopes)))
    return model


def position(f, rows):
    """Rows that feel where they stand."""
    return f * (1.0 + 1e-12 * np.arange(f.shape[0])[:, None])


def forgetful(f, rows):
    """Steady states that are 1e-5 too low."""
    return (
        f * np.where((rows.schedule.events.ss[rows.design_index] > 0).any(axis=1), 1.0 - 1e-5, 1.0)[:, None]
    )


def raising(f, rows):
    """An exception where a status is due."""
    if not np.isfinite(rows.psi).all():
        raise FloatingPointError("overflow")
    return f


FAULTS = {
    "bytes do not depend on order, neighbors or threads": {"values": position},
    "predictions agree with an independent ODE solver": {"values": lambda f, rows: f * (1.0 + 1e-7)},
    "no dose gives the baseline": {"values": lambda f, rows: f + 1e-6},
    "a steady state is the limit of a long series of doses": {"values": forgetful},
    "absurd parameters give a status, not an error": {"values": raising},
    "sensitivities agree with the complex step": {"slopes": lambda slopes: slopes * (1.0 + 2e-6)},
    "sensitivities agree with extrapolated differences": {"slopes": lambda slopes: slopes * (1.0 + 2e-6)},
}


@pytest.mark.parametrize("promise", FAULTS)
def test_contract_notices_an_engine_that_breaks_a_promise(promise):
    check = dict(CHECKS)[promise]
    assert _row(bent(), promise, check).passed
    row = _row(bent(**FAULTS[promise]), promise, check)
    assert not row.passed, row.detail


def _row(model, promise, check):
    (row,) = (row for row in check_model(model, only=(promise,)).rows)
    assert row.name == promise
    return row


def test_every_promise_has_a_row_and_those_that_mean_nothing_say_why():
    report = check_model(one_state())
    assert [row.name for row in report.rows] == [name for name, _ in CHECKS]
    assert report.passed, [row for row in report.rows if not row.passed]
    idle = {row.name for row in report.rows if row.detail.startswith("does not apply: ")}
    assert idle == {
        "errors follow the solver's tolerance",
        "a random path belongs to its key and number",
        "the mean path follows the drift",
        "predictions of random dynamics are refused",
    }


def test_largest_error_is_relative_to_each_output_and_infinite_where_a_value_is_missing():
    exact, output = np.array([[100.0, 200.0, 1.0]]), np.array([1, 1, 2])
    assert largest_error(exact + np.array([0.0, 2.0, 0.005]), exact, output) == pytest.approx(0.01)
    assert largest_error(exact + np.array([0.0, np.nan, 0.0]), exact, output) == np.inf
