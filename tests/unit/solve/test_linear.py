"""Closed-form propagation and sensitivities against dense matrix exponentials and complex steps."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from unit.solve.linear_oracle import reference_states

from amortnlme.core.errors import ModelError
from amortnlme.core.status import SolveStatus
from amortnlme.data.design import Design, DesignBatch, Dose, EventKind
from amortnlme.solve import threads
from amortnlme.solve.eigenbasis import eigenbases
from amortnlme.solve.entry import Entry, EntryFunctions
from amortnlme.solve.linear import LinearSolver, LinearSystem
from amortnlme.solve.schedule import (
    RECORD_BOLUS,
    RECORD_INFUSION,
    RECORD_OBSERVATION,
    RECORD_OTHER,
    RECORD_RESET,
    Records,
    covariate_segments,
    make_schedule,
)
from amortnlme.solve.trace import Names, trace


def oral(t, y, p):
    return (-p.k0 * y.a, p.k0 * y.a - p.k1 * y.b)


def chain_out_of_order(t, y, p):
    """Declared against the flow: the internal order has to be found."""
    return (p.k1 * y.c - p.k2 * y.a, -p.k0 * y.b, p.k0 * y.b - p.k1 * y.c)


def mammillary(t, y, p):
    exchange = p.k1 * y.b - p.k2 * y.c
    return (-p.k0 * y.a, p.k0 * y.a - exchange - p.k3 * y.b, exchange)


def loop(t, y, p):
    """A one-way cycle, which has complex eigenvalues."""
    return (p.k2 * y.c - p.k0 * y.a, p.k0 * y.a - p.k1 * y.b, p.k1 * y.b - (p.k2 + p.k3) * y.c)


def parallel(t, y, p):
    """Two uncoupled compartments may share a rate without harm."""
    return (-p.k0 * y.a, -p.k0 * y.b)


SYSTEMS = {
    "oral": (oral, 2, 2),
    "chain": (chain_out_of_order, 3, 3),
    "mammillary": (mammillary, 3, 4),
    "loop": (loop, 3, 4),
    "parallel": (parallel, 2, 1),
}


def _traced(rhs, names):
    system = trace(rhs, names)
    return system, Entry.from_functions(EntryFunctions(), names, system.symbols)


def make_solver(rhs, n, d, covariates=()):
    names = Names(tuple("abc"[:n]), tuple(f"k{i}" for i in range(d)), covariates)
    return LinearSolver(LinearSystem.from_trace(*_traced(rhs, names)))


def rate_matrix(rhs, n, psi, covariates=None):
    """K by evaluating the plain function on unit vectors, in complex arithmetic."""
    values = {f"k{i}": v for i, v in enumerate(psi)} | (covariates or {})
    p = type("P", (), values)
    columns = []
    for j in range(n):
        y = type("Y", (), {s: complex(i == j) for i, s in enumerate("abc"[:n])})
        columns.append(rhs(0.0, y, p))
    return np.array(columns, dtype=complex).T


def schedule_of(designs, default, values=None):
    batch = DesignBatch.from_designs(designs)
    k = batch.time.shape[1]
    if values is None:
        values = np.zeros((len(designs), k, 0))
    segment, distinct = covariate_segments(values, batch.n_records)
    compartment = np.where(batch.compartment > 0, batch.compartment - 1, default)
    records = Records(
        batch.time, batch.kind, compartment, batch.amount, batch.duration, batch.ii, batch.ss, batch.obs_slot,
        segment, batch.n_records,
    )  # fmt: skip
    return make_schedule(records, batch.observation_times.shape[1], distinct)


def assert_solution(rhs, n, psi, design, *, default=0, tolerance=1e-10):
    """States relative to their largest value, sensitivities to k dx/dk of the largest."""
    d = len(psi)
    solver = make_solver(rhs, n, d)
    found = solver.solve(
        np.array([psi]), schedule_of([design], default), np.zeros(1, int), sensitivities=True
    )
    assert found.status[0] == 0
    exact = reference_states(lambda i: rate_matrix(rhs, n, psi), design, default).real
    scale = np.abs(exact).max()
    assert_allclose(found.x[0], exact, rtol=0, atol=tolerance * scale)
    for q, column in enumerate(found.sensitive):
        moved = np.array(psi, dtype=complex)
        h = 1e-30 * psi[column]
        moved[column] += 1j * h
        slope = reference_states(lambda i, m=moved: rate_matrix(rhs, n, m), design, default).imag / h
        atol = tolerance * max(np.abs(slope).max(), scale / psi[column] * 1e-3)
        assert_allclose(found.dx_dpsi[0, :, q], slope, rtol=0, atol=atol)


TIMES = np.array([0.01, 0.3, 1.0, 2.5, 7.0, 11.9, 24.0, 30.0])
REGIMENS = {
    "bolus": [Dose(0.0, 100.0)],
    "boluses": [Dose(0.0, 100.0, addl=3, ii=6.0), Dose(1.0, 50.0, compartment=2)],
    "infusion": [Dose(0.5, 100.0, duration=3.0)],
    "overlapping infusions": [Dose(0.0, 100.0, duration=5.0), Dose(2.0, 30.0, duration=8.0, compartment=2)],
    "steady-state bolus": [Dose(2.0, 100.0, ii=8.0, ss=1)],
    "superposed steady state": [Dose(0.0, 70.0), Dose(2.0, 100.0, ii=8.0, ss=2)],
    "steady-state infusion": [Dose(2.0, 100.0, duration=3.0, ii=8.0, ss=1)],
    "steady-state infusion over its whole interval": [Dose(2.0, 100.0, duration=8.0, ii=8.0, ss=1)],
    "overlapping steady-state infusion": [Dose(2.0, 100.0, duration=19.0, ii=8.0, ss=1)],
    "superposed steady-state infusion": [
        Dose(0.0, 70.0, duration=4.0),
        Dose(2.0, 100.0, duration=9.0, ii=8.0, ss=2),
    ],
}


@pytest.mark.parametrize("regimen", REGIMENS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_linear_solver_agrees_with_matrix_exponentials_on_random_rates(system, regimen):
    rhs, n, d = SYSTEMS[system]
    rng = np.random.default_rng(len(regimen))
    for _ in range(5):
        psi = np.exp(rng.normal(-1.0, 1.0, d))
        assert_solution(rhs, n, psi, Design.from_doses(REGIMENS[regimen], TIMES))


@pytest.mark.parametrize(
    "regimen", ["boluses", "infusion", "steady-state bolus", "overlapping steady-state infusion"]
)
@pytest.mark.parametrize("exponent", [None, *range(1, 15)])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_linear_solver_is_accurate_when_rates_nearly_coincide(exponent, sign, regimen):
    gap = 0.0 if exponent is None else sign * 10.0**-exponent
    assert_solution(oral, 2, (0.7 * (1.0 + gap), 0.7), Design.from_doses(REGIMENS[regimen], TIMES))


@pytest.mark.parametrize("exponent", [1, 2, 3, 6, 10, 14])
def test_linear_solver_is_accurate_when_three_rates_nearly_coincide(exponent):
    gap = 10.0**-exponent
    psi = (0.7, 0.7 * (1 + gap), 0.7 * (1 - 2 * gap))
    assert_solution(
        chain_out_of_order, 3, psi, Design.from_doses(REGIMENS["overlapping infusions"], TIMES), default=1
    )


def test_linear_solver_is_accurate_when_rates_differ_by_eight_orders_of_magnitude():
    design = Design.from_doses(REGIMENS["boluses"], TIMES)
    assert_solution(oral, 2, (1e4, 1e-4), design)
    assert_solution(oral, 2, (1e-4, 1e4), design)


def test_eigenbasis_is_refused_exactly_where_it_cancels():
    close = np.array([[-1.0, 0.0], [1.0, -1.0 - 1e-6]])
    apart = np.array([[-1.0, 0.0], [1.0, -0.1]])
    uncoupled = np.array([[-1.0, 0.0], [0.0, -1.0]])
    weakly_coupled = np.array([[-1.0, 0.0], [1e-9, -1.0 - 1e-6]])
    *_, modal = eigenbases(np.array([close, apart, uncoupled, weakly_coupled]), (1, 1))
    assert_array_equal(modal, [0, 1, 1, 0])
    turning = np.array([[-1.0, -1.0], [1.0, -1.0]])
    *_, modal = eigenbases(np.array([turning, apart, np.full((2, 2), np.nan)]), (2,))
    assert_array_equal(modal, [0, 1, 0])


def records_design(rows):
    """Design from (time, kind, amount, duration, compartment) rows."""
    time, kind, amount, duration, compartment = (np.array(column) for column in zip(*rows, strict=True))
    zero = np.zeros(len(time))
    is_observation = (kind == EventKind.OBSERVATION).astype(int)
    return Design(time, kind, compartment, amount, duration, zero, zero, is_observation)


def test_reset_empties_the_system_stops_infusions_and_restarts_the_clock():
    K = EventKind
    rows = [
        (0.0, K.BOLUS, 100.0, 0.0, 0),
        (1.0, K.INFUSION, 50.0, 10.0, 2),
        (2.0, K.OBSERVATION, 0.0, 0.0, 0),
        (3.0, K.RESET, 0.0, 0.0, 0),
        (3.0, K.OBSERVATION, 0.0, 0.0, 0),
        (4.0, K.OBSERVATION, 0.0, 0.0, 0),
        (0.0, K.RESET, 0.0, 0.0, 0),
        (0.0, K.BOLUS, 20.0, 0.0, 0),
        (1.5, K.OBSERVATION, 0.0, 0.0, 0),
    ]
    design = records_design(rows)
    for psi in ((1.2, 0.3), (0.3, 0.3)):
        assert_solution(oral, 2, psi, design)
    solver = make_solver(oral, 2, 2)
    x = solver.solve(
        np.array([[1.2, 0.3]]), schedule_of([design], 0), np.zeros(1, int), sensitivities=False
    ).x
    assert_array_equal(x[0, 1:3], 0.0)


def test_row_order_decides_between_trough_and_peak_at_a_tie():
    K = EventKind
    trough_then_peak = records_design(
        [
            (0.0, K.BOLUS, 100.0, 0.0, 2),
            (5.0, K.OBSERVATION, 0.0, 0.0, 0),
            (5.0, K.BOLUS, 100.0, 0.0, 2),
            (5.0, K.OBSERVATION, 0.0, 0.0, 0),
        ]
    )
    x = make_solver(oral, 2, 2).solve(
        np.array([[1.0, 0.2]]), schedule_of([trough_then_peak], 0), np.zeros(1, int), sensitivities=False
    ).x  # fmt: skip
    assert_allclose(x[0, :, 1], [100 * np.exp(-1.0), 100 * np.exp(-1.0) + 100.0], rtol=1e-14)


def weighted(t, y, p):
    k = p.k1 * p.w
    return (-p.k0 * y.a, p.k0 * y.a - k * y.b)


def test_time_varying_covariates_act_from_their_record_on():
    design = Design.from_doses([Dose(0.0, 100.0), Dose(6.0, 40.0, duration=4.0)], TIMES)
    w = np.linspace(0.5, 2.0, design.n_records).round(1)
    w[4:] = w[3]
    psi = (1.1, 0.2)
    solver = make_solver(weighted, 2, 2, ("w",))
    schedule = schedule_of([design], 0, w[None, :, None])
    assert schedule.n_segments == 4
    found = solver.solve(np.array([psi]), schedule, np.zeros(1, int), sensitivities=True)

    def exact(values):
        return reference_states(lambda i: rate_matrix(weighted, 2, values, {"w": w[i]}), design, 0)

    assert_allclose(found.x[0], exact(psi).real, rtol=1e-11, atol=1e-11)
    for q in range(2):
        moved = np.array(psi, dtype=complex)
        moved[q] += 1e-30j
        assert_allclose(found.dx_dpsi[0, :, q], exact(moved).imag / 1e-30, rtol=1e-9, atol=1e-9)


def test_switching_between_modal_and_exponential_segments_loses_nothing():
    """The covariate makes the rates coincide in the middle segment only."""
    design = Design.from_doses([Dose(0.0, 100.0), Dose(2.0, 30.0, duration=9.0)], TIMES)
    w = np.ones(design.n_records)
    w[3:6] = 5.0
    psi = (1.0, 0.2)
    found = make_solver(weighted, 2, 2, ("w",)).solve(
        np.array([psi]), schedule_of([design], 0, w[None, :, None]), np.zeros(1, int), sensitivities=True
    )
    exact = reference_states(lambda i: rate_matrix(weighted, 2, psi, {"w": w[i]}), design, 0).real
    assert_allclose(found.x[0], exact, rtol=1e-11, atol=1e-11)


def random_batch(rng, n):
    designs = []
    for _ in range(n):
        doses = [
            Dose(rng.uniform(0, 20), rng.uniform(1, 9), duration=rng.choice([0.0, 2.0]))
            for _ in range(rng.integers(1, 5))
        ]
        designs.append(Design.from_doses(doses, rng.uniform(0, 40, rng.integers(1, 9))))
    return designs


def test_results_have_the_same_bytes_whatever_threads_order_and_company(monkeypatch):
    rng = np.random.default_rng(5)
    designs = random_batch(rng, 7)
    rows = rng.integers(0, 7, 300)
    psi = np.exp(rng.normal(-1, 1, (300, 2)))
    psi[::9, 1] = psi[::9, 0]
    solver, schedule = make_solver(oral, 2, 2), schedule_of(designs, 0)
    monkeypatch.setattr(threads, "CHUNK_ROWS", 32)
    runs = []
    for n_threads in (1, 3):
        monkeypatch.setattr(threads.config, "NUMBA_NUM_THREADS", n_threads)
        runs.append(solver.solve(psi, schedule, rows, sensitivities=True))
    order = rng.permutation(300)
    shuffled = solver.solve(psi[order], schedule, rows[order], sensitivities=True)
    alone = solver.solve(psi[17:18], schedule, rows[17:18], sensitivities=True)
    for name in ("x", "dx_dpsi"):
        first = getattr(runs[0], name)
        assert getattr(runs[1], name).tobytes() == first.tobytes()
        assert getattr(shuffled, name).tobytes() == first[order].tobytes()
        assert getattr(alone, name).tobytes() == first[17:18].tobytes()


@pytest.mark.parametrize("psi", [(np.nan, 1.0), (np.inf, 1.0), (1e305, 1e305), (-1e3, 1.0)])
def test_absurd_rates_give_a_status_and_leave_other_rows_alone(psi):
    design = Design.from_doses([Dose(0.0, 100.0)], TIMES)
    found = make_solver(oral, 2, 2).solve(
        np.array([psi, (1.0, 0.1)]), schedule_of([design], 0), np.zeros(2, int), sensitivities=True
    )
    assert_array_equal(found.status, [2, 0])


def test_many_overlapping_steady_state_infusions_keep_within_their_memory():
    """Three regimens of 41 infusions each: more ends than one regimen can ever have running."""
    doses = [Dose(60.0 * k, 100.0, duration=40.5, ii=1.0, ss=1) for k in range(3)]
    design = Design.from_doses(doses, [59.0, 121.0, 300.0])
    events = schedule_of([design], 0).events
    assert events.n_events[0] == 3 * (1 + 41) + 3
    assert_solution(oral, 2, np.array([0.9, 0.2]), design)
    superposed = [Dose(float(k), 100.0, duration=30.5, ii=1.0, ss=2) for k in range(4)]
    assert_solution(oral, 2, np.array([0.9, 0.2]), Design.from_doses(superposed, [4.0, 20.0, 60.0]))


def test_a_compartment_that_never_empties_has_no_steady_state():
    def collecting(t, y, p):
        return (-p.k0 * y.a, p.k0 * y.a)

    design = Design.from_doses([Dose(2.0, 100.0, ii=8.0, ss=1)], TIMES)
    found = make_solver(collecting, 2, 1).solve(
        np.array([[1.0]]), schedule_of([design], 0), np.zeros(1, int), sensitivities=True
    )
    assert found.status[0] == SolveStatus.NO_STEADY_STATE
    assert np.isnan(found.x).sum() == 2 * np.sum(TIMES >= 2.0)
    assert_array_equal(np.isnan(found.dx_dpsi[:, :, 0]), np.isnan(found.x))


def test_record_kinds_are_those_of_the_data_floor():
    ours = (RECORD_OBSERVATION, RECORD_BOLUS, RECORD_INFUSION, RECORD_RESET, RECORD_OTHER)
    kinds = EventKind
    assert ours == (kinds.OBSERVATION, kinds.BOLUS, kinds.INFUSION, kinds.RESET, kinds.OTHER)


def saturating(t, y, p):
    return (-p.k0 * y.a / (1.0 + y.a),)


def forced(t, y, p):
    return (-p.k0 * y.a + t,)


def ageing(t, y, p):
    return (-p.k0 * t * y.a,)


@pytest.mark.parametrize("rhs", [saturating, forced, ageing])
def test_linear_system_refuses_other_dynamics(rhs):
    with pytest.raises(ModelError) as caught:
        make_solver(rhs, 1, 1)
    assert caught.value.code == "E_MODEL_NOT_LINEAR"
    assert "da/dt" in str(caught.value)
