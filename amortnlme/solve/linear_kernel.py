"""Event-to-event propagation of dx/dt = K x + r and its sensitivities, compiled once for all models.

Within one covariate segment a row is kept in *basis coordinates* z = W x. With a well-conditioned eigenbasis
(`modal`) the coordinates decouple; otherwise the basis is the identity and every interval takes a matrix
exponential.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from amortnlme.solve.expm import (
    divided_difference,
    divided_difference_with_zero,
    expm_frechet,
    solve_in_place,
)
from amortnlme.solve.schedule import BOLUS, INFUSION_END, INFUSION_START, OBSERVE, RESET

STATUS_OK = 0
STATUS_NON_FINITE = 2


class Rates(NamedTuple):
    """Rate matrices and their eigenbases, one per row and covariate segment (R = rows x segments).

    Attributes
    ----------
    K : ndarray, shape (R, n, n)   [1/time]
    dK : ndarray, shape (R, p, n, n)
        Derivatives with respect to the p parameters that enter the rates.
    eigenvalues : ndarray, shape (R, n)   [1/time]
    V, W : ndarray, shape (R, n, n)
        Eigenvectors and their inverse; identities where `modal` is 0.
    modal : ndarray of int, shape (R,)
    """

    K: np.ndarray
    dK: np.ndarray
    eigenvalues: np.ndarray
    V: np.ndarray
    W: np.ndarray
    modal: np.ndarray


class Work(NamedTuple):
    """Scratch memory of one thread; `z`, `S`, `rate` are state, sensitivities and running input."""

    z: np.ndarray
    S: np.ndarray
    rate: np.ndarray
    u: np.ndarray
    A: np.ndarray
    e: np.ndarray
    z0: np.ndarray
    S0: np.ndarray
    right: np.ndarray
    small: np.ndarray
    big: np.ndarray
    dbig: np.ndarray


def make_work(n: int, p: int) -> Work:
    """Allocate the scratch memory of one thread.

    Parameters
    ----------
    n, p : int
        Number of states and of rate parameters.

    Returns
    -------
    Work
    """
    return Work(
        z=np.zeros(n),
        S=np.zeros((p, n)),
        rate=np.zeros(n),
        u=np.zeros(n),
        A=np.zeros((p, n, n)),
        e=np.zeros(n),
        z0=np.zeros(n),
        S0=np.zeros((p, n)),
        right=np.zeros((p + 1, n)),
        small=np.zeros((n, n)),
        big=np.zeros((4, n + 1, n + 1)),
        dbig=np.zeros((3, p, n + 1, n + 1)),
    )


# Hot functions take plain arrays: extracting an array from a named tuple counts references at every use.
# Literal arguments are wrapped (np.int64(0), np.bool_(False)), because Numba compiles a function again for
# each literal.
@njit(cache=True, nogil=True, error_model="numpy")
def _apply(matrix, vector, scratch):
    """Overwrite vector with matrix @ vector."""
    n = vector.shape[0]
    for i in range(n):
        total = 0.0
        for j in range(n):
            total += matrix[i, j] * vector[j]
        scratch[i] = total
    for i in range(n):
        vector[i] = scratch[i]


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _modal_sensitivity(eigenvalues, r, dt, has_input, z, S, u, A, e):
    """S_i <- e_i S_i + sum_j A_ij (exp[l_i, l_j] z_j + exp[l_i, l_j, 0] u_j), before z is advanced."""
    n = z.shape[0]
    p = S.shape[0]
    for q in range(p):
        for i in range(n):
            S[q, i] *= e[i]
    for i in range(n):
        a = eigenvalues[r, i] * dt
        for j in range(i + 1):
            b = eigenvalues[r, j] * dt
            first = dt * divided_difference(a, b, e[i], e[j])
            to_i = first * z[j]
            to_j = first * z[i]
            if has_input:
                second = dt * dt * divided_difference_with_zero(a, b)
                to_i += second * u[j]
                to_j += second * u[i]
            for q in range(p):
                S[q, i] += A[q, i, j] * to_i
            if i != j:
                for q in range(p):
                    S[q, j] += A[q, j, i] * to_j


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _advance_modal(eigenvalues, r, dt, has_input, z, S, u, A, e):
    n = z.shape[0]
    for i in range(n):
        e[i] = math.exp(eigenvalues[r, i] * dt)
    if S.shape[0] > 0:
        _modal_sensitivity(eigenvalues, r, dt, has_input, z, S, u, A, e)
    for i in range(n):
        z[i] *= e[i]
        if has_input:
            a = eigenvalues[r, i] * dt
            z[i] += u[i] * (dt * math.expm1(a) / a if a != 0.0 else dt)


@njit(cache=True, nogil=True, error_model="numpy")
def _advance_full(K, dK, dt, has_input, work):
    """One interval by the exponential of [[K, u], [0, 0]], whose last column carries the constant input."""
    n = work.z.shape[0]
    p = work.S.shape[0]
    size = n + 1 if has_input else n
    a = work.big[0]
    da = work.dbig[0]
    for i in range(size):
        for j in range(size):
            inside = i < n and j < n
            a[i, j] = K[i, j] * dt if inside else (work.u[i] * dt if i < n else 0.0)
            for q in range(p):
                da[q, i, j] = dK[q, i, j] * dt if inside else 0.0
    value = work.big[1]
    derivative = work.dbig[1]
    if not expm_frechet(a, da, size, p, value, derivative, work.big[2:], work.dbig[2]):
        for i in range(n):
            work.z[i] = math.nan
        return
    for q in range(p):
        _apply(value, work.S[q], work.e)
        for i in range(n):
            for j in range(n):
                work.S[q, i] += derivative[q, i, j] * work.z[j]
            if has_input:
                work.S[q, i] += derivative[q, i, n]
    _apply(value, work.z, work.e)
    if has_input:
        for i in range(n):
            work.z[i] += value[i, n]


@njit(cache=True, nogil=True, error_model="numpy")
def _advance(rates, r, dt, has_input, work):
    """Advance z and S by dt under the constant input u (all in basis coordinates)."""
    if dt == 0.0:
        return
    if rates.modal[r]:
        _advance_modal(rates.eigenvalues, r, dt, has_input, work.z, work.S, work.u, work.A, work.e)
    else:
        _advance_full(rates.K[r], rates.dK[r], dt, has_input, work)


@njit(cache=True, nogil=True, error_model="numpy")
def _leave_basis(rates, r, work):
    _apply(rates.V[r], work.z, work.e)
    for q in range(work.S.shape[0]):
        _apply(rates.V[r], work.S[q], work.e)


@njit(cache=True, nogil=True, error_model="numpy")
def _enter_basis(rates, r, work):
    """Take z and S from state to basis coordinates and prepare A = W dK V."""
    n = work.z.shape[0]
    V = rates.V[r]
    W = rates.W[r]
    _apply(W, work.z, work.e)
    for q in range(work.S.shape[0]):
        _apply(W, work.S[q], work.e)
        if rates.modal[r]:
            dK = rates.dK[r, q]
            for i in range(n):
                for j in range(n):
                    total = 0.0
                    for k in range(n):
                        total += dK[i, k] * V[k, j]
                    work.small[i, j] = total
            for i in range(n):
                for j in range(n):
                    total = 0.0
                    for k in range(n):
                        total += W[i, k] * work.small[k, j]
                    work.A[q, i, j] = total


@njit(cache=True, nogil=True, error_model="numpy")
def _change_basis(rates, old, new, work):
    if old >= 0:
        _leave_basis(rates, old, work)
    _enter_basis(rates, new, work)
    _refresh_input(rates, new, work)


@njit(cache=True, nogil=True, error_model="numpy")
def _clear(z, S, u, rate):
    """Empty the system and switch off what is running."""
    for i in range(z.shape[0]):
        z[i] = 0.0
        u[i] = 0.0
        rate[i] = 0.0
        for q in range(S.shape[0]):
            S[q, i] = 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def _set_input(rates, r, compartment, rate, work):
    """Write the input u of one compartment in basis coordinates."""
    for i in range(work.u.shape[0]):
        work.u[i] = rates.W[r, i, compartment] * rate


@njit(cache=True, nogil=True, error_model="numpy")
def _refresh_input(rates, r, work):
    for i in range(work.u.shape[0]):
        total = 0.0
        for j in range(work.u.shape[0]):
            total += rates.W[r, i, j] * work.rate[j]
        work.u[i] = total


@njit(cache=True, nogil=True, error_model="numpy")
def _steady_state(rates, r, events, g, e, compartment, work):
    """Leave in z and S the state just before a dose of an endlessly repeated regimen.

    One period maps x to E x + q, with q the response to the regimen from rest; the fixed point is (I - E)^-1
    q, and its derivative (I - E)^-1 (dq + dE x).
    """
    n = work.z.shape[0]
    p = work.S.shape[0]
    period = events.ii[g, e]
    idle = np.bool_(False)
    one = np.int64(1)
    amount = events.amount[g, e]
    _clear(work.z, work.S, work.u, work.right[0])
    if events.action[g, e] == BOLUS:
        for i in range(n):
            work.z[i] = rates.W[r, i, compartment] * amount
        _advance(rates, r, period, idle, work)
    else:
        running = events.running[g, e]
        first = events.duration[g, e] - running * period
        _set_input(rates, r, compartment, amount * (running + 1), work)
        _advance(rates, r, first, np.bool_(True), work)
        _set_input(rates, r, compartment, amount * running, work)
        _advance(rates, r, period - first, running > 0, work)
    right = work.right
    for i in range(n):
        right[0, i] = work.z[i]
        for q in range(p):
            right[q + 1, i] = work.S[q, i]
            work.S[q, i] = 0.0
    _solve_period(rates, r, period, one - 1, one, work)
    for i in range(n):
        work.z[i] = right[0, i]
    if p > 0:
        _advance(rates, r, period, idle, work)
        for q in range(p):
            for i in range(n):
                right[q + 1, i] += work.S[q, i]
        _solve_period(rates, r, period, one, p + 1, work)
        for i in range(n):
            work.z[i] = right[0, i]
            for q in range(p):
                work.S[q, i] = right[q + 1, i]


@njit(cache=True, nogil=True, error_model="numpy")
def _solve_period(rates, r, period, first, last, work):
    """right[first:last] <- (I - E)^-1 right[first:last] with E the propagator over one period."""
    n = work.z.shape[0]
    if rates.modal[r]:
        for k in range(first, last):
            for i in range(n):
                # An idle mode that never decays stays idle; a fed one has no steady state and becomes
                # infinite.
                if work.right[k, i] != 0.0:
                    work.right[k, i] /= -math.expm1(rates.eigenvalues[r, i] * period)
        return
    a = work.big[0]
    for i in range(n):
        for j in range(n):
            a[i, j] = rates.K[r, i, j] * period
    value = work.big[1]
    if not expm_frechet(a, work.dbig[0], n, np.int64(0), value, work.dbig[1], work.big[2:], work.dbig[2]):
        for k in range(first, last):
            for i in range(n):
                work.right[k, i] = math.nan
        return
    for i in range(n):
        for j in range(n):
            work.small[i, j] = (1.0 if i == j else 0.0) - value[i, j]
    solve_in_place(work.small, work.right[first:last])


@njit(cache=True, nogil=True, error_model="numpy")
def _dose(rates, r, events, g, e, compartment, n_running, work):
    """Apply a bolus, an infusion start or an infusion end; return the number of running infusions."""
    n = work.z.shape[0]
    action = events.action[g, e]
    amount = events.amount[g, e]
    ss = events.ss[g, e]
    if action == INFUSION_END:
        n_running -= 1
        work.rate[compartment] -= amount
        if n_running == 0:
            # Differences of rates leave rounding residues, which must not drip on.
            for i in range(n):
                work.rate[i] = 0.0
        _refresh_input(rates, r, work)
        return n_running
    if ss > 0:
        if ss == 1:
            _clear(work.z, work.S, work.u, work.rate)
            n_running = np.int64(0)
        for i in range(n):
            work.z0[i] = work.z[i]
            for q in range(work.S.shape[0]):
                work.S0[q, i] = work.S[q, i]
        _steady_state(rates, r, events, g, e, compartment, work)
        for i in range(n):
            work.z[i] += work.z0[i]
            for q in range(work.S.shape[0]):
                work.S[q, i] += work.S0[q, i]
    if action == BOLUS:
        for i in range(n):
            work.z[i] += rates.W[r, i, compartment] * amount
    else:
        copies = events.running[g, e] + 1
        n_running += copies
        work.rate[compartment] += amount * copies
    _refresh_input(rates, r, work)
    return n_running


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _observe(V, r, order, z, S, row, slot, x, s):
    """Write state and sensitivities in declaration order; return whether all are finite."""
    n = z.shape[0]
    checksum = 0.0
    for i in range(n):
        total = 0.0
        for j in range(n):
            total += V[r, i, j] * z[j]
        x[row, slot, order[i]] = total
        checksum += total * 0.0
    for q in range(S.shape[0]):
        for i in range(n):
            total = 0.0
            for j in range(n):
                total += V[r, i, j] * S[q, j]
            s[row, slot, q, order[i]] = total
            checksum += total * 0.0
    return checksum == 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def propagate(first, last, design_index, n_segments, events, rates, order, position, work, x, s, status):
    """Solve the rows first..last-1.

    Parameters
    ----------
    first, last : int
    design_index : ndarray of int, shape (N,)
        Design of each row.
    n_segments : int
        Row i uses the rates i * n_segments + segment.
    events : Events
    rates : Rates
        In internal state order.
    order, position : ndarray of int, shape (n,)
        Declared index of each internal state, and the inverse.
    work : Work
    x : ndarray, shape (N, m, n)
        Receives the states at the observations, in declared order; columns a design does not have are
        untouched.
    s : ndarray, shape (N, m, p, n)
        Receives dx/d(rate parameter).
    status : ndarray of int, shape (N,)
        Receives 0, or 2 for a row with a non-finite state.
    """
    time, action, slot, segment, count = (
        events.time,
        events.action,
        events.slot,
        events.segment,
        events.n_events,
    )
    compartment, amount, ss = events.compartment, events.amount, events.ss
    eigenvalues, V, W, modal = rates.eigenvalues, rates.V, rates.W, rates.modal
    z, S, u, A, e = work.z, work.S, work.u, work.A, work.e
    for row in range(first, last):
        g = design_index[row]
        _clear(z, S, u, work.rate)
        n_running = np.int64(0)
        r = np.int64(-1)
        finite = True
        for k in range(count[g]):
            what = action[g, k]
            dt = time[g, k] - time[g, k - 1] if k > 0 else 0.0
            if what == RESET:
                _clear(z, S, u, work.rate)
                n_running = np.int64(0)
            elif dt > 0.0:
                if modal[r]:
                    _advance_modal(eigenvalues, r, dt, n_running > 0, z, S, u, A, e)
                else:
                    _advance(rates, r, dt, n_running > 0, work)
            wanted = row * n_segments + segment[g, k]
            if wanted != r:
                _change_basis(rates, r, wanted, work)
                r = wanted
            if what == OBSERVE:
                finite = _observe(V, r, order, z, S, row, slot[g, k], x, s) and finite
            elif what == BOLUS and ss[g, k] == 0:
                into = position[compartment[g, k]]
                for i in range(z.shape[0]):
                    z[i] += W[r, i, into] * amount[g, k]
            elif what in (BOLUS, INFUSION_START, INFUSION_END):
                n_running = _dose(rates, r, events, g, k, position[compartment[g, k]], n_running, work)
        status[row] = STATUS_OK if finite else STATUS_NON_FINITE
