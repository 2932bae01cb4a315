"""Initial states, start, lags, bioavailability and constant inputs of linear systems, with derivatives."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from unit.solve.entry_oracle import System, entry_states
from unit.solve.test_linear import records_design, schedule_of

from amortnlme.core.status import SolveStatus
from amortnlme.data.design import Design, Dose, EventKind
from amortnlme.solve import threads
from amortnlme.solve.entry import Entry, EntryFunctions
from amortnlme.solve.linear import LinearSolver, LinearSystem
from amortnlme.solve.trace import Names, trace

PARAMETERS = ("ka", "k1", "k2", "ke", "kin", "base", "late", "latef", "share", "begin")
PSI = dict(ka=1.1, k1=0.4, k2=0.3, ke=0.5, kin=2.0, base=7.0, late=1.7, latef=0.6, share=0.8, begin=1.3)
STATES = ("gut", "blood", "tissue")


def rhs(t, y, p):
    exchange = p.k1 * y.blood - p.k2 * y.tissue
    return (-p.ka * y.gut, p.ka * y.gut - exchange - p.ke * y.blood, exchange)


def fed_rhs(t, y, p):
    gut, blood, tissue = rhs(t, y, p)
    return (gut, blood + p.kin, tissue + p.kin * p.k2)


def initial(p):
    return (0.0, p.base, p.base * p.k1 / p.k2)


def start(p):
    return p.begin


LAG = {"gut": lambda p: p.late, "blood": lambda p: p.latef * p.ke}
FRACTION = {"gut": lambda p: p.share, "blood": lambda p: p.share**2}
ENTRIES = {
    "initial": (rhs, EntryFunctions(initial=initial)),
    "inputs": (fed_rhs, EntryFunctions()),
    "start": (fed_rhs, EntryFunctions(initial=initial, start=start)),
    "lag": (rhs, EntryFunctions(lag=LAG)),
    "bioavailability": (rhs, EntryFunctions(bioavailability=FRACTION)),
    "all": (fed_rhs, EntryFunctions(initial, start, LAG, FRACTION)),
}
TIMES = np.array([0.2, 1.0, 1.5, 2.5, 4.1, 7.0, 11.9, 24.0, 30.0])
REGIMENS = {
    "boluses": [Dose(0.0, 100.0, addl=3, ii=1.0), Dose(1.0, 50.0, compartment=2)],
    "infusions": [Dose(0.0, 100.0, duration=5.0), Dose(2.0, 30.0, duration=8.0, compartment=2)],
    "steady-state bolus": [Dose(2.0, 100.0, ii=8.0, ss=1)],
    "superposed steady state": [Dose(0.0, 70.0), Dose(2.0, 100.0, ii=6.0, ss=2, compartment=2)],
    "steady-state infusion": [Dose(0.0, 9.0), Dose(2.0, 100.0, duration=3.0, ii=8.0, ss=1, compartment=2)],
    "overlapping steady-state infusion": [Dose(2.0, 100.0, duration=19.0, ii=8.0, ss=1)],
    "superposed steady-state infusion": [
        Dose(0.0, 70.0, duration=4.0),
        Dose(2.0, 100.0, duration=9.0, ii=8.0, ss=2),
    ],
}


def make(entry):
    names = Names(STATES, PARAMETERS)
    dynamics, functions = ENTRIES[entry]
    system = trace(dynamics, names)
    return LinearSolver(
        LinearSystem.from_trace(system, Entry.from_functions(functions, names, system.symbols))
    )


SOLVERS = {name: make(name) for name in ENTRIES}


def exact_states(entry, values, design):
    """The oracle, on the plain functions."""
    dynamics, functions = ENTRIES[entry]
    p = SimpleNamespace(**values)

    def flow(x):
        return np.array(dynamics(0.0, SimpleNamespace(**dict(zip(STATES, x, strict=True))), p), dtype=complex)

    b = flow(np.zeros(3))
    K = np.array([flow(unit) - b for unit in np.eye(3)]).T
    each = [
        np.array([(table or {}).get(state, lambda p, v=default: v)(p) for state in STATES], dtype=complex)
        for table, default in ((functions.lag, 0.0), (functions.bioavailability, 1.0))
    ]
    system = System(K, b, *each)
    first = functions.initial(p) if functions.initial else (0.0, 0.0, 0.0)
    begin = complex(functions.start(p)) if functions.start else None
    return entry_states(lambda i: system, first, begin, design)


def solve(entry, psi, design):
    values = np.array([list(psi.values())])
    return SOLVERS[entry].solve(values, schedule_of([design], 0), np.zeros(1, int), sensitivities=True)


def assert_entry(entry, psi, design, tolerance=1e-9):
    """Relative to the largest state; derivatives to the largest of p dx/dp, or to the state where it is 0.

    Sensitivities lose at most the cube of the cancellation allowed in a basis, 7e-12, at each of a dozen
    events.
    """
    solver = SOLVERS[entry]
    schedule = schedule_of([design], 0)
    values = np.array([list(psi.values())])
    found = solver.solve(values, schedule, np.zeros(1, int), sensitivities=True)
    plain = solver.solve(values, schedule, np.zeros(1, int), sensitivities=False)
    assert found.status[0] == 0
    exact = exact_states(entry, psi, design)
    scale = np.abs(exact).max()
    assert_allclose(plain.x[0], exact.real, rtol=0, atol=1e-11 * scale)
    assert_allclose(found.x[0], exact.real, rtol=0, atol=tolerance * scale)
    for q, column in enumerate(found.sensitive):
        name = PARAMETERS[column]
        slope = exact_states(entry, psi | {name: psi[name] + 1e-30j}, design).imag / 1e-30
        atol = tolerance * max(np.abs(slope).max(), scale / psi[name])
        assert_allclose(found.dx_dpsi[0, :, q], slope, rtol=0, atol=atol, err_msg=name)
    untouched = [name for i, name in enumerate(PARAMETERS) if i not in found.sensitive]
    for name in untouched:
        moved = exact_states(entry, psi | {name: psi[name] + 1e-30j}, design)
        assert np.all(moved.imag == 0.0), name


@pytest.mark.parametrize("regimen", REGIMENS)
@pytest.mark.parametrize("entry", ENTRIES)
def test_linear_solver_agrees_with_a_written_out_regimen_for_every_entry(entry, regimen):
    assert_entry(entry, PSI, Design.from_doses(REGIMENS[regimen], TIMES))


LATE = ("lag", "all")


@pytest.mark.parametrize("regimen", REGIMENS)
@pytest.mark.parametrize("late", [0.0, 7.3, 16.0, 40.0])
def test_linear_solver_agrees_when_the_lag_is_nothing_or_lasts_several_intervals(late, regimen):
    """A regimen is not differentiable at a lag of whole intervals: the solution alone is compared there."""
    psi = PSI | {"late": late, "latef": 2.0 * late}
    design = Design.from_doses(REGIMENS[regimen], TIMES)
    for entry in LATE:
        if late in (7.3, 40.0):
            assert_entry(entry, psi, design)
            continue
        found = solve(entry, psi, design)
        exact = exact_states(entry, psi, design).real
        assert_allclose(found.x[0], exact, rtol=0, atol=1e-11 * np.abs(exact).max())


@pytest.mark.parametrize("entry", ENTRIES)
def test_matrix_exponentials_agree_where_rates_coincide(entry):
    """k1 = 0 and ka = ke: two coupled states share an eigenvalue, the basis is refused."""
    psi = PSI | {"k1": 1e-9, "ka": 0.5, "k2": 0.5}
    for regimen in ("boluses", "superposed steady-state infusion"):
        assert_entry(entry, psi, Design.from_doses(REGIMENS[regimen], TIMES))


def test_a_reset_restores_the_initial_state_and_cancels_doses_on_their_way():
    K = EventKind
    design = records_design(
        [
            (0.0, K.BOLUS, 100.0, 0.0, 1),
            (1.0, K.INFUSION, 50.0, 10.0, 2),
            (2.0, K.OBSERVATION, 0.0, 0.0, 0),
            (2.5, K.BOLUS, 100.0, 0.0, 1),
            (3.0, K.RESET, 0.0, 0.0, 0),
            (3.0, K.OBSERVATION, 0.0, 0.0, 0),
            (6.0, K.OBSERVATION, 0.0, 0.0, 0),
            (0.0, K.RESET, 0.0, 0.0, 0),
            (0.0, K.BOLUS, 20.0, 0.0, 1),
            (1.0, K.OBSERVATION, 0.0, 0.0, 0),
            (5.0, K.OBSERVATION, 0.0, 0.0, 0),
        ]
    )
    for entry in ENTRIES:
        assert_entry(entry, PSI, design)
    assert_array_equal(solve("initial", PSI, design).x[0, 1], [0.0, 7.0, 7.0 * 0.4 / 0.3])


def test_a_lag_uses_the_covariates_at_the_dose_and_rates_those_at_the_time():
    names = Names(("gut", "blood"), ("ka", "ke", "late"), ("w",))
    system = trace(lambda t, y, p: (-p.ka * y.gut, p.ka * y.gut - p.ke * p.w * y.blood), names)
    lag = EntryFunctions(lag={"gut": lambda p: p.late * p.w}, bioavailability={"gut": lambda p: 1.0 / p.w})
    solver = LinearSolver(LinearSystem.from_trace(system, Entry.from_functions(lag, names, system.symbols)))
    design = Design.from_doses([Dose(0.0, 100.0), Dose(3.0, 40.0), Dose(4.5, 60.0, duration=4.0)], TIMES)
    w = 1.0 + 0.25 * (np.arange(design.n_records) % 3)
    psi = np.array([1.1, 0.2, 1.7])
    found = solver.solve(
        psi[None], schedule_of([design], 0, w[None, :, None]), np.zeros(1, int), sensitivities=True
    )

    def exact(ka, ke, late):
        def system_at(i):
            K = np.array([[-ka, 0.0], [ka, -ke * w[i]]], dtype=complex)
            return System(K, np.zeros(2), np.array([late * w[i], 0.0]), np.array([1.0 / w[i], 1.0]))

        return entry_states(system_at, np.zeros(2), None, design)

    assert_allclose(found.x[0], exact(*psi).real, rtol=0, atol=1e-10)
    for q in range(3):
        slope = exact(*(psi + 1e-30j * np.eye(3)[q])).imag / 1e-30
        assert_allclose(found.dx_dpsi[0, :, q], slope, rtol=0, atol=1e-9 * np.abs(slope).max())


@pytest.mark.parametrize(
    ("entry", "change"),
    [
        ("lag", {"late": -0.1}),
        ("lag", {"late": np.nan}),
        ("lag", {"late": np.inf}),
        ("start", {"begin": np.nan}),
        ("start", {"begin": np.inf}),
    ],
)
def test_an_impossible_entry_gives_a_status_and_no_numbers(entry, change):
    found = solve(entry, PSI | change, Design.from_doses(REGIMENS["boluses"], TIMES))
    assert found.status[0] == SolveStatus.INVALID_ENTRY
    assert np.isnan(found.x).all()
    assert np.isnan(found.dx_dpsi).all()


def test_states_wait_for_a_start_that_is_never_reached():
    x = solve("start", PSI | {"begin": 100.0}, Design.from_doses(REGIMENS["boluses"], TIMES)).x[0]
    assert_array_equal(x[-1], [400.0, 57.0, 7.0 * 0.4 / 0.3])


def test_entries_have_the_same_bytes_whatever_threads_order_and_company(monkeypatch):
    rng = np.random.default_rng(5)
    designs = [Design.from_doses(doses, TIMES[: 3 + i]) for i, doses in enumerate(REGIMENS.values())]
    rows = rng.integers(0, len(designs), 200)
    psi = np.array(list(PSI.values())) * np.exp(rng.normal(0, 0.3, (200, len(PSI))))
    psi[::7, PARAMETERS.index("late")] *= 20.0
    schedule = schedule_of(designs, 0)
    monkeypatch.setattr(threads, "CHUNK_ROWS", 32)
    runs = []
    for n_threads in (1, 3):
        monkeypatch.setattr(threads.config, "NUMBA_NUM_THREADS", n_threads)
        runs.append(SOLVERS["all"].solve(psi, schedule, rows, sensitivities=True))
    order = rng.permutation(200)
    shuffled = SOLVERS["all"].solve(psi[order], schedule, rows[order], sensitivities=True)
    for name in ("x", "dx_dpsi"):
        first, second = (getattr(run, name) for run in runs)
        assert first.tobytes() == second.tobytes()
        assert getattr(shuffled, name).tobytes() == first[order].tobytes()
    alone = SOLVERS["all"].solve(psi[9:10], schedule, rows[9:10], sensitivities=True)
    assert alone.x.tobytes() == runs[0].x[9:10].tobytes()
