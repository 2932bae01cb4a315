"""One Rodas5P step of a right-hand side that nobody has traced: differences stand for its Jacobian."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from amortnlme.solve.lane_jit import part_jit
from amortnlme.solve.rodas5p import GAMMA, N_STAGES, NODES, TIME_WEIGHTS, A, C, H

# Rows of the scratch table of one simulation; a row holds one value per state.
STATE, NEXT, DENSE_0, DENSE_1, DENSE_2, RATE, SLOPE, BETWEEN = range(8)
# From here on only steps with a numerical Jacobian and the search for a steady state need them.
GUESS, IMAGE, PIVOT, TIME_SLOPE, ASIDE, BESIDE, RESIDUAL, STAGES = range(8, 16)
JACOBIAN = STAGES + N_STAGES  # followed by n rows each: Jacobian, its factors, the derivative of a period


def _table(rows: Sequence[Sequence[float]]) -> np.ndarray:
    return np.array([[*row, *(0.0,) * (N_STAGES - len(row))] for row in rows])


_STATE_WEIGHTS, _STAGE_WEIGHTS, _DENSE_WEIGHTS = _table(A), _table(C), _table(H)
# Widths of central differences: the cube root of the rounding error balances it against truncation.
STATE_WIDTH = 6.1e-6
TIME_WIDTH = 1e-3


def scratch_rows(n: int) -> int:
    """Count the rows of the scratch table.

    Parameters
    ----------
    n : int
        Number of states.

    Returns
    -------
    int
    """
    return JACOBIAN + 3 * n


@part_jit()
def slope(model, t, y, p, rate, out):
    """Write the derivatives of the states, running infusions included.

    Parameters
    ----------
    model : callable
        `model(t, y, p, out)` writes dy/dt.
    t : float   [time]
    y, rate, out : ndarray, shape (n,)
        States, rates of running infusions, and what is written.
    p : ndarray, shape (d + c,)
        Parameters, then covariates.
    """
    model(t, y, p, out)
    for i in range(y.shape[0]):
        out[i] += rate[i]


@part_jit()
def record(model, t, y, p, batch, row, slot, out):
    """Keep the states of an observation.

    Parameters
    ----------
    model : callable
    t : float   [time]
    y : ndarray, shape (n,)
    p : ndarray, shape (d + c,)
    batch : Batch
    row, slot : int
        Row and column of the observation.
    out : ndarray, shape (N, m, n)
    """
    for i in range(y.shape[0]):
        out[row, slot, i] = y[i]


@part_jit()
def factorize(a, pivot):
    """Overwrite a square matrix with its LU factors, rows exchanged as `pivot` says.

    Parameters
    ----------
    a : ndarray, shape (n, n)
    pivot : ndarray, shape (n,)
        Receives the row that each one was exchanged with.
    """
    n = a.shape[0]
    for c in range(n):
        best = c
        for r in range(c + 1, n):
            if abs(a[r, c]) > abs(a[best, c]):
                best = r
        pivot[c] = best
        if best != c:
            for j in range(n):
                a[c, j], a[best, j] = a[best, j], a[c, j]
        for r in range(c + 1, n):
            a[r, c] /= a[c, c]
            for j in range(c + 1, n):
                a[r, j] -= a[r, c] * a[c, j]


@part_jit()
def substitute(a, pivot, b):
    """Overwrite b with the solution of the factorized system.

    Parameters
    ----------
    a : ndarray, shape (n, n)
    pivot, b : ndarray, shape (n,)
    """
    n = a.shape[0]
    for c in range(n):
        best = int(pivot[c])
        b[c], b[best] = b[best], b[c]
    for r in range(n):
        for c in range(r):
            b[r] -= a[r, c] * b[c]
    for r in range(n - 1, -1, -1):
        for c in range(r + 1, n):
            b[r] -= a[r, c] * b[c]
        b[r] /= a[r, r]


@part_jit()
def _copy(source, target):
    for i in range(source.shape[0]):
        target[i] = source[i]


@part_jit()
def _is_finite(values):
    total = 0.0
    for i in range(values.shape[0]):
        total += 0.0 * values[i]
    return total == 0.0


@part_jit()
def _differentiate(model, t, h, p, w, floor):
    """Jacobian and time derivative by central differences, one-sided where one side cannot be evaluated.

    `w[SLOPE]` holds the derivatives at the state. A function of states that stay positive may be undefined
    next to zero, where the difference must not look.
    """
    n = w.shape[1]
    y, here, below, above, work = w[STATE], w[SLOPE], w[ASIDE], w[BESIDE], w[BETWEEN]
    for i in range(n):
        work[i] = y[i]
    for j in range(n):
        width = STATE_WIDTH * max(abs(y[j]), abs(h * here[j]), floor)
        up, down = y[j] + width, y[j] - width
        work[j] = up
        slope(model, t, work, p, w[RATE], above)
        work[j] = down
        slope(model, t, work, p, w[RATE], below)
        work[j] = y[j]
        if not _is_finite(below):
            down = y[j]
            _copy(here, below)
        elif not _is_finite(above):
            up = y[j]
            _copy(here, above)
        for i in range(n):
            w[JACOBIAN + i, j] = (above[i] - below[i]) / (up - down)
    width = max(TIME_WIDTH * h, 1e-12 * abs(t))
    up, down = t + width, t - width
    slope(model, up, y, p, w[RATE], above)
    slope(model, down, y, p, w[RATE], below)
    for i in range(n):
        w[TIME_SLOPE, i] = (above[i] - below[i]) / (up - down)


@part_jit()
def step(model, t, h, rejected, p, w, batch):
    """Try one step from `w[STATE]` to `w[NEXT]`, with the coefficients of the interpolation.

    Parameters
    ----------
    model : callable
    t, h : float   [time]
    rejected : bool
        Whether the last step was rejected: this one starts from the same state, whose Jacobian still holds.
    p : ndarray, shape (d + c,)
    w : ndarray, shape (scratch_rows(n), n)
    batch : Batch

    Returns
    -------
    float
        Norm of the scaled error, at most 1 for a step to be accepted.
    """
    n = w.shape[1]
    y, new, right, between = w[STATE], w[NEXT], w[RESIDUAL], w[BETWEEN]
    if not rejected:
        slope(model, t, y, p, w[RATE], w[SLOPE])
        _differentiate(model, t, h, p, w, batch.atol / batch.rtol)
    matrix = w[JACOBIAN + n : JACOBIAN + 2 * n]
    for i in range(n):
        for j in range(n):
            matrix[i, j] = -w[JACOBIAN + i, j]
        matrix[i, i] += 1.0 / (h * GAMMA)
    factorize(matrix, w[PIVOT])
    for s in range(N_STAGES):
        for i in range(n):
            if s >= _STATE_WEIGHTS.shape[0]:  # the last stages continue from their predecessors
                between[i] += w[STAGES + s - 1, i]
                continue
            between[i] = y[i]
            for q in range(s):
                between[i] += _STATE_WEIGHTS[s, q] * w[STAGES + q, i]
        if s > 0:
            slope(model, t + NODES[s] * h, between, p, w[RATE], right)
        else:
            _copy(w[SLOPE], right)
        for i in range(n):
            for q in range(s):
                right[i] += _STAGE_WEIGHTS[s, q] / h * w[STAGES + q, i]
            right[i] += h * TIME_WEIGHTS[s] * w[TIME_SLOPE, i]
        substitute(matrix, w[PIVOT], right)
        _copy(right, w[STAGES + s])
    total = 0.0
    for i in range(n):
        last = w[STAGES + N_STAGES - 1, i]
        new[i] = between[i] + last
        scale = batch.atol + batch.rtol * max(abs(y[i]), abs(new[i]))
        total += (last / scale) ** 2 + 0.0 * new[i]
        for q in range(3):
            w[DENSE_0 + q, i] = 0.0
            for s in range(N_STAGES):
                w[DENSE_0 + q, i] += _DENSE_WEIGHTS[q, s] * w[STAGES + s, i]
    return math.sqrt(total / n)
