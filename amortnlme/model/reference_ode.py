"""A slow, independent evaluation of a model: its untraced functions, integrated step by step on numbers."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
from scipy.integrate import solve_ivp

from amortnlme.core.errors import DesignError, SolveError
from amortnlme.data.design import Design, EventKind
from amortnlme.model.dynamics import Deterministic

if TYPE_CHECKING:
    from amortnlme.model.individual import IndividualModel

# Periods simulated to reach a steady state; exact to rounding once every mode has decayed.
MAX_PERIODS = 20_000
# A few thousand suffice for an ordinary model and design.
MAX_CALLS = 200_000


class _Integrator:
    """One individual on numbers: untraced functions, one event after the other."""

    def __init__(self, model: IndividualModel, phi: np.ndarray, rtol: float) -> None:
        assert isinstance(model.dynamics, Deterministic), "random dynamics have no prediction"
        self.model = model
        self.rhs = model.dynamics.rhs
        psi = model.parameters.to_psi(phi)
        self.values = dict(zip(model.parameters.names, psi.tolist(), strict=True))
        self.rtol = rtol
        self.n = len(model.states)
        self.n_calls = 0

    def parameters(self, covariates: Mapping[str, float]) -> SimpleNamespace:
        return SimpleNamespace(**self.values, **{name: covariates[name] for name in self.model.covariates})

    def derivative(self, t: float, x: np.ndarray, p: SimpleNamespace, rate: np.ndarray) -> np.ndarray:
        self.n_calls += 1
        if self.n_calls > MAX_CALLS:
            raise SolveError(
                "E_SOLVE_REFERENCE",
                f"the reference integrator gave up after {MAX_CALLS} evaluations of the right-hand side at "
                f"{self.values}. The rates are too extreme for it; narrow the prior.",
            )
        y = SimpleNamespace(**dict(zip(self.model.states, x.tolist(), strict=True)))
        found = self.rhs(t, y, p)
        return np.atleast_1d(np.asarray(found, dtype=float)) + rate

    def advance(
        self, x: np.ndarray, start: float, stop: float, p: SimpleNamespace, rate: np.ndarray
    ) -> np.ndarray:
        if stop <= start or not (x.any() or rate.any()):
            return x
        size = max(float(np.abs(x).max()), float(np.abs(rate).max()) * (stop - start), 1e-30)
        found = solve_ivp(
            self.derivative,
            (start, stop),
            x,
            method="LSODA",
            rtol=self.rtol,
            atol=self.rtol * 1e-2 * size,
            args=(p, rate),
        )
        return found.y[:, -1]


def reference_prediction(
    model: IndividualModel,
    phi: np.ndarray,
    design: Design,
    covariates: Mapping[str, np.ndarray] | None = None,
    *,
    rtol: float = 1e-11,
) -> np.ndarray:
    """Predict one individual by numerical integration of the untraced model functions.

    Parameters
    ----------
    model : IndividualModel
    phi : ndarray, shape (d,)
    design : Design
        Steady-state doses are reached by repeating the regimen until nothing changes.
    covariates : mapping of str to ndarray of shape (k,), optional
        Values in force from each record on.
    rtol : float
        Relative tolerance of the integrator.

    Returns
    -------
    ndarray, shape (m,)   [observation units]

    Raises
    ------
    DesignError
        E_DESIGN_STEADY_STATE when a steady state is not reached.
    SolveError
        E_SOLVE_REFERENCE when the integration takes too many steps.
    """
    integrator = _Integrator(model, np.asarray(phi, dtype=float), rtol)
    k = design.n_records
    table = {name: np.broadcast_to(v, (k,)) for name, v in (covariates or {}).items()}
    x = np.zeros(integrator.n)
    running: list[tuple[float, int, float]] = []  # end, state, rate
    clock = float(design.time[0]) if k else 0.0
    p = integrator.parameters({name: float(v[0]) for name, v in table.items()})
    found = []
    for i in range(k):
        time, kind = float(design.time[i]), int(design.kind[i])
        if kind == EventKind.RESET:
            x, running = np.zeros(integrator.n), []
        else:
            x, running = _advance_to(integrator, x, clock, time, p, running)
        clock = time
        p = integrator.parameters({name: float(v[i]) for name, v in table.items()})
        if kind == EventKind.OBSERVATION:
            y = SimpleNamespace(**dict(zip(model.states, x.tolist(), strict=True)))
            found.append(float(model.outputs[max(int(design.output[i]) - 1, 0)].fn(time, y, p)))
        elif kind in (EventKind.BOLUS, EventKind.INFUSION):
            x, running = _give(integrator, design, i, x, p, running)
    return np.array(found)


def _advance_to(
    integrator: _Integrator,
    x: np.ndarray,
    start: float,
    stop: float,
    p: SimpleNamespace,
    running: list[tuple[float, int, float]],
) -> tuple[np.ndarray, list[tuple[float, int, float]]]:
    for end in [*sorted({e for e, _, _ in running if start < e < stop}), stop]:
        rate = np.zeros(integrator.n)
        for until, state, value in running:
            if until > start + 1e-12:
                rate[state] += value
        x = integrator.advance(x, start, end, p, rate)
        start = end
    return x, [entry for entry in running if entry[0] > stop]


def _give(
    integrator: _Integrator,
    design: Design,
    i: int,
    x: np.ndarray,
    p: SimpleNamespace,
    running: list[tuple[float, int, float]],
) -> tuple[np.ndarray, list[tuple[float, int, float]]]:
    model = integrator.model
    state = (
        int(design.compartment[i]) - 1
        if design.compartment[i]
        else model.states.index(model.dynamics.dose_state)
    )
    time, ss = float(design.time[i]), int(design.ss[i])
    if ss == 1:
        x, running = np.zeros(integrator.n), []
    if ss:
        steady, still = _steady_state(integrator, design, i, state, p)
        x = x + steady
        running = running + [(time + left, state, rate) for left, state, rate in still]
    if design.kind[i] == EventKind.BOLUS:
        x = x.copy()
        x[state] += design.amount[i]
    else:
        duration = float(design.duration[i])
        running = [*running, (time + duration, state, float(design.amount[i]) / duration)]
    return x, running


def _steady_state(
    integrator: _Integrator, design: Design, i: int, state: int, p: SimpleNamespace
) -> tuple[np.ndarray, list[tuple[float, int, float]]]:
    """Repeat a regimen until nothing changes.

    Returns the state just before a dose and the infusions still running then, as (time left, state, rate).
    """
    ii, amount, duration = float(design.ii[i]), float(design.amount[i]), float(design.duration[i])
    x = np.zeros(integrator.n)
    running: list[tuple[float, int, float]] = []
    for period in range(MAX_PERIODS):
        before = x
        start = period * ii
        if design.kind[i] == EventKind.BOLUS:
            x = x.copy()
            x[state] += amount
        else:
            running = [*running, (start + duration, state, amount / duration)]
        x, running = _advance_to(integrator, x, start, start + ii, p, running)
        if start > duration and np.abs(x - before).max() <= 1e-14 * np.abs(x).max():
            return x, [(end - start - ii, s, rate) for end, s, rate in running]
    raise DesignError(
        "E_DESIGN_STEADY_STATE",
        f"no steady state was reached after {MAX_PERIODS} doses. Check that everything is eliminated.",
    )
