"""Rows of one design solved side by side: the same bytes as alone, wherever the lanes differ."""

from __future__ import annotations

import numpy as np
import pytest
from unit.solve.test_linear import make_solver, oral, schedule_of
from unit.solve.test_linear_entry import PARAMETERS, PSI, initial, rhs, start

from amortnlme.core.status import SolveStatus
from amortnlme.data.design import Design, Dose
from amortnlme.solve.entry import Entry, EntryFunctions
from amortnlme.solve.linear import LinearSolver, LinearSystem
from amortnlme.solve.linear_kernel import FEWEST_LANES
from amortnlme.solve.linear_lanes import LANES, is_plain
from amortnlme.solve.trace import Names, trace

GRID = np.arange(1, 181) / 6.0
DESIGNS = {
    "regular grid": Design.from_doses([], GRID),
    "boluses on and off the grid": Design.from_doses(
        [Dose(0.0, 100.0, addl=3, ii=2.5), Dose(7.1, 30.0)], GRID
    ),
    "irregular times": Design.from_doses([Dose(0.0, 10.0)], np.cumsum(GRID % 1.3 + 0.01)),
}


def _late_solver() -> LinearSolver:
    names = Names(("gut", "blood", "tissue"), PARAMETERS, ())
    traced = trace(rhs, names)
    entry = Entry.from_functions(EntryFunctions(initial=initial, start=start), names, traced.symbols)
    return LinearSolver(LinearSystem.from_trace(traced, entry))


def _same_bytes(solver, psi, design, sensitivities):
    schedule = schedule_of([design], 0)
    assert is_plain.py_func(schedule.events, 0)
    rows = np.zeros(len(psi), dtype=np.int64)
    together = solver.solve(psi, schedule, rows, sensitivities=sensitivities)
    for row in range(len(psi)):
        alone = solver.solve(psi[row : row + 1], schedule, rows[:1], sensitivities=sensitivities)
        assert alone.x.tobytes() == together.x[row : row + 1].tobytes()
        assert alone.status[0] == together.status[row]
        if sensitivities:
            assert alone.dx_dpsi.tobytes() == together.dx_dpsi[row : row + 1].tobytes()
    return together


@pytest.mark.parametrize("sensitivities", [False, True])
@pytest.mark.parametrize("design", DESIGNS.values(), ids=DESIGNS)
def test_rows_side_by_side_have_the_bytes_of_rows_alone(design, sensitivities):
    """Three groups: a full one, one cut short by a row without an eigenbasis, one below the least number."""
    assert FEWEST_LANES > 1
    rng = np.random.default_rng(3)
    psi = np.exp(rng.normal(-1, 1, (LANES + 23, 2)))
    psi[LANES + 20, 1] = psi[LANES + 20, 0]
    found = _same_bytes(make_solver(oral, 2, 2), psi, design, sensitivities)
    assert (found.status == SolveStatus.OK).all()


@pytest.mark.parametrize("sensitivities", [False, True])
def test_lanes_may_start_at_different_times_or_never(sensitivities):
    rng = np.random.default_rng(4)
    psi = np.array(list(PSI.values())) * np.exp(rng.normal(0, 0.3, (40, len(PSI))))
    # Before the first record, at an observation, between two, after all.
    psi[:, PARAMETERS.index("begin")] = np.r_[-1.0, GRID[7], GRID[30], 100.0, rng.uniform(0.0, 20.0, 36)]
    found = _same_bytes(_late_solver(), psi, DESIGNS["boluses on and off the grid"], sensitivities)
    assert (found.status == SolveStatus.OK).all()


def test_a_lane_that_overflows_is_marked_and_leaves_the_others_alone():
    psi = np.exp(np.random.default_rng(5).normal(-1, 1, (20, 2)))
    psi[6] = [-40.0, 0.1]
    found = _same_bytes(make_solver(oral, 2, 2), psi, DESIGNS["boluses on and off the grid"], True)
    assert np.flatnonzero(found.status).tolist() == [6]
