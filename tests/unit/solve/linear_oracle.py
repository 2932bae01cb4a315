"""Slow reference for dx/dt = K x + input: plain matrix exponentials that allow complex steps."""

from __future__ import annotations

import numpy as np

from amortnlme.data.design import Design, EventKind


def expm(A):
    """Taylor series with scaling and squaring.

    SciPy's function switches to a formula for triangular matrices that loses the imaginary part of a complex
    step when two diagonal entries nearly coincide.
    """
    squarings = max(0, int(np.ceil(np.log2(max(np.abs(A).sum(axis=0).max(), 1e-300)))) + 2)
    A = A / 2.0**squarings
    term = total = np.eye(len(A), dtype=A.dtype)
    for k in range(1, 16):
        term = term @ A / k
        total = total + term
    for _ in range(squarings):
        total = total @ total
    return total


def step(K, x, rate, dt):
    """One interval under a constant input, by the exponential of the augmented matrix."""
    n = len(x)
    big = np.zeros((n + 1, n + 1), dtype=K.dtype)
    big[:n, :n] = K * dt
    big[:n, n] = rate * dt
    E = expm(big)
    return E[:n, :n] @ x + E[:n, n]


def steady_state(K, compartment, amount, duration, ii, bolus):
    """State just before a dose of an endless regimen; (time left, rate) of the infusions still running."""
    n = K.shape[0]
    E = expm(K * ii)
    x = np.zeros(n, dtype=K.dtype)
    unit = np.zeros(n)
    unit[compartment] = 1.0
    still = []
    if bolus:
        q = E @ (unit * amount)
    else:
        rate = amount / duration
        still = [(duration - k * ii, rate) for k in range(1, 200) if duration - k * ii > 0]
        first = duration - len(still) * ii
        q = step(K, x, unit * rate * (len(still) + 1), first)
        q = step(K, q, unit * rate * len(still), ii - first)
    return np.linalg.solve(np.eye(n) - E, q), still


def reference_states(rate_matrix, design: Design, default: int) -> np.ndarray:
    """States at the observations; `rate_matrix(i)` is K in force from record i on."""
    K = rate_matrix(0)
    x = np.zeros(K.shape[0], dtype=K.dtype)
    running: list[tuple[float, int, float]] = []
    clock, found = float(design.time[0]), []
    for i in range(design.n_records):
        time, kind, ss = float(design.time[i]), int(design.kind[i]), int(design.ss[i])
        if kind == EventKind.RESET:
            x, running = x * 0, []
        else:
            while clock < time:
                stop = min([end for end, _, _ in running if end > clock] + [time])
                rate = np.zeros(len(x))
                for end, into, value in running:
                    rate[into] += value if end > clock else 0.0
                x, clock = step(K, x, rate, stop - clock), stop
        clock = time
        running = [r for r in running if r[0] > clock]
        K = rate_matrix(i)
        into = int(design.compartment[i]) - 1 if design.compartment[i] else default
        if kind == EventKind.OBSERVATION:
            found.append(x.copy())
        elif kind in (EventKind.BOLUS, EventKind.INFUSION):
            bolus, duration = kind == EventKind.BOLUS, float(design.duration[i])
            if ss == 1:
                x, running = x * 0, []
            if ss:
                steady, still = steady_state(K, into, design.amount[i], duration, design.ii[i], bolus)
                x = x + steady
                running += [(time + left, into, rate) for left, rate in still]
            if bolus:
                x = x.copy()
                x[into] += design.amount[i]
            else:
                running.append((time + duration, into, design.amount[i] / duration))
    return np.array(found)
