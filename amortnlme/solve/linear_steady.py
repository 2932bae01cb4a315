"""Periodic solutions of linear systems under an endlessly repeated dose, with sensitivities."""

from __future__ import annotations

import math

import numpy as np

from amortnlme.solve.expm import expm_frechet, solve_in_place
from amortnlme.solve.lane_jit import lane_jit as kernel


# Loops, because Numba compiles a slice assignment with its error messages: seconds each.
@kernel
def _copy(source, target, factor):
    for q in range(source.shape[0]):
        for i in range(source.shape[1]):
            target[q, i] = source[q, i] * factor


@kernel
def _give(rates, r, regimen, work):
    """Add a bolus to the periodic state."""
    P, W, slopes = work.periodic, rates.W, work.amount_slopes
    for q in range(P.shape[0]):
        given = regimen.amount if q == 0 else slopes[q - 1]
        for i in range(P.shape[1]):
            P[q, i] += W[r, i, regimen.compartment] * given


@kernel
def _set_input(rates, r, regimen, copies, has_base, work):
    """Set the input of a number of infusions and, where asked, of the constant inputs; return if any acts."""
    U, W, inputs, slopes = work.input, rates.W, rates.inputs, work.amount_slopes
    n = U.shape[1]
    for q in range(U.shape[0]):
        rate = (regimen.amount if q == 0 else slopes[q - 1]) * copies
        for i in range(n):
            total = W[r, i, regimen.compartment] * rate if copies > 0 else 0.0
            if has_base:
                for j in range(n):
                    total += W[r, i, j] * inputs[r, q, j]
            U[q, i] = total
    return copies > 0 or has_base


@kernel
def _respond(rates, r, regimen, until, work, advance):
    """Apply a dose and advance by `until`, at most a period; the input left is that of this time."""
    P, U = work.periodic, work.input
    given = 0 if regimen.is_bolus else 1
    if regimen.is_bolus:
        _give(rates, r, regimen, work)
    # The oldest infusion ends within the period; a bolus has none.
    first = regimen.duration - regimen.running * regimen.period if given else until
    has_input = _set_input(rates, r, regimen, given * (regimen.running + 1), regimen.with_inputs, work)
    advance(rates, r, min(first, until), has_input, P, U, work)
    if until >= first and given:
        has_input = _set_input(rates, r, regimen, regimen.running, regimen.with_inputs, work)
        advance(rates, r, until - first, has_input, P, U, work)


@kernel
def _solve_period(rates, r, period, first, last, work):
    """right[first:last] <- (1 - E)^-1 right[first:last]; return whether everything fed decays."""
    right = work.right
    n = right.shape[1]
    if rates.modal[r]:
        decays = True
        for k in range(first, last):
            for i in range(n):
                # An idle mode that never decays stays idle.
                if right[k, i] != 0.0:
                    decays = decays and rates.eigenvalues[r, i] < 0.0
                    right[k, i] /= -math.expm1(rates.eigenvalues[r, i] * period)
        return decays
    a, value, small = work.big[0], work.big[1], work.small
    work.tag[0] = -1.0
    for i in range(n):
        for j in range(n):
            a[i, j] = rates.K[r, i, j] * period
    found = expm_frechet(a, work.dbig[0], n, np.int64(0), value, work.dbig[1], work.big[2:], work.dbig[2])
    for i in range(n):
        for j in range(n):
            small[i, j] = (1.0 if i == j else 0.0) - value[i, j]
    solve_in_place(small, right[first:last])
    return found


@kernel
def _move_with_phase(rates, r, work):
    """Add what the phase, which moves with the lag, contributes: dx = f dphase, with f = K x + u."""
    P, U, slopes = work.periodic, work.input, work.phase_slopes
    n = P.shape[1]
    for i in range(n):
        f = U[0, i]
        if rates.modal[r]:
            f += rates.eigenvalues[r, i] * P[0, i]
        else:
            for j in range(n):
                f += rates.K[r, i, j] * P[0, j]
        for q in range(slopes.shape[0]):
            P[q + 1, i] += f * slopes[q]


@kernel
def steady_state(rates, r, regimen, work, advance):
    """Leave in `work.periodic` the state of an endlessly repeated regimen, with sensitivities.

    One period maps x to E x + q, with q the response to the regimen from rest; the fixed point just before an
    arrival is (1 - E)^-1 q, and its derivative (1 - E)^-1 (dq + dE x).

    Parameters
    ----------
    rates : Rates
    r : int
        Row of `rates`.
    regimen : Regimen
        `is_lagged`: the state is the one `phase` after an arrival, whose dose is in.
    work : Work
        With `A`, `amount_slopes` and `phase_slopes` set.
    advance : first-class function
        See `amortnlme.solve.linear_advance`.

    Returns
    -------
    bool
        False when something that never decays is fed, so that there is no such state.
    """
    P, right = work.periodic, work.right
    p, n = P.shape[0] - 1, P.shape[1]
    period = regimen.period
    _copy(P, P, 0.0)
    _respond(rates, r, regimen, period, work, advance)
    _copy(P, right, 1.0)
    _copy(P, P, 0.0)
    settles = _solve_period(rates, r, period, np.int64(0), np.int64(1), work)
    for i in range(n):
        P[0, i] = right[0, i]
    if p > 0:
        advance(rates, r, period, np.bool_(False), P, work.input, work)
        for q in range(1, p + 1):
            for i in range(n):
                right[q, i] += P[q, i]
        _solve_period(rates, r, period, np.int64(1), np.int64(p + 1), work)
        _copy(right, P, 1.0)
    if regimen.is_lagged:
        _respond(rates, r, regimen, regimen.phase, work, advance)
        _move_with_phase(rates, r, work)
    for i in range(n):
        settles = settles and math.isfinite(P[0, i])
    return settles
