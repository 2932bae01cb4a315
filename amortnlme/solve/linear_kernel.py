"""Event-to-event propagation of dx/dt = K x + r and its sensitivities, compiled once for all models.

Within one covariate segment a row is kept in *basis coordinates* z = W x. With a well-conditioned eigenbasis
(`modal`) the coordinates decouple; otherwise the basis is the identity and every interval takes a matrix exponential.
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
    """Scratch memory of one thread; `z`, `S`, `rate` are the state, its sensitivities and the running input."""

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


@njit(cache=True, nogil=True, error_model="numpy")
def _apply(matrix, vector, work):
    """vector <- matrix @ vector."""
    n = vector.shape[0]
    for i in range(n):
        total = 0.0
        for j in range(n):
            total += matrix[i, j] * vector[j]
        work[i] = total
    for i in range(n):
        vector[i] = work[i]


@njit(cache=True, nogil=True, error_model="numpy")
def _modal_sensitivity(eigenvalues, dt, has_input, work):
    """S_i <- e_i S_i + sum_j A_ij (exp[l_i, l_j] z_j + exp[l_i, l_j, 0] u_j), before z is advanced."""
    n = work.z.shape[0]
    p = work.S.shape[0]
    for q in range(p):
        for i in range(n):
            work.S[q, i] *= work.e[i]
    for i in range(n):
        a = eigenvalues[i] * dt
        for j in range(i + 1):
            b = eigenvalues[j] * dt
            first = dt * divided_difference(a, b, work.e[i], work.e[j])
            to_i = first * work.z[j]
            to_j = first * work.z[i]
            if has_input:
                second = dt * dt * divided_difference_with_zero(a, b)
                to_i += second * work.u[j]
                to_j += second * work.u[i]
            for q in range(p):
                work.S[q, i] += work.A[q, i, j] * to_i
            if i != j:
                for q in range(p):
                    work.S[q, j] += work.A[q, j, i] * to_j


@njit(cache=True, nogil=True, error_model="numpy")
def _advance_modal(eigenvalues, dt, has_input, work):
    n = work.z.shape[0]
    for i in range(n):
        work.e[i] = math.exp(eigenvalues[i] * dt)
    if work.S.shape[0] > 0:
        _modal_sensitivity(eigenvalues, dt, has_input, work)
    for i in range(n):
        work.z[i] *= work.e[i]
        if has_input:
            a = eigenvalues[i] * dt
            work.z[i] += work.u[i] * (dt * math.expm1(a) / a if a != 0.0 else dt)


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
        work.z[:] = np.nan
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
        _advance_modal(rates.eigenvalues[r], dt, has_input, work)
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

    One period maps x to E x + q, with q the response to the regimen from rest; the fixed point is (I - E)^-1 q, and
    its derivative (I - E)^-1 (dq + dE x).
    """
    n = work.z.shape[0]
    p = work.S.shape[0]
    period = events.ii[g, e]
    amount = events.amount[g, e]
    work.z[:] = 0.0
    work.S[:] = 0.0
    if events.action[g, e] == BOLUS:
        for i in range(n):
            work.z[i] = rates.W[r, i, compartment] * amount
        _advance(rates, r, period, False, work)
    else:
        running = events.running[g, e]
        first = events.duration[g, e] - running * period
        _set_input(rates, r, compartment, amount * (running + 1), work)
        _advance(rates, r, first, True, work)
        _set_input(rates, r, compartment, amount * running, work)
        _advance(rates, r, period - first, running > 0, work)
    work.right[0] = work.z
    for q in range(p):
        work.right[q + 1] = work.S[q]
    _solve_period(rates, r, period, 0, 1, work)
    work.z[:] = work.right[0]
    work.S[:] = 0.0
    if p > 0:
        _advance(rates, r, period, False, work)
        for q in range(p):
            for i in range(n):
                work.right[q + 1, i] += work.S[q, i]
        _solve_period(rates, r, period, 1, p + 1, work)
        for q in range(p):
            work.S[q] = work.right[q + 1]
        work.z[:] = work.right[0]


@njit(cache=True, nogil=True, error_model="numpy")
def _solve_period(rates, r, period, first, last, work):
    """right[first:last] <- (I - E)^-1 right[first:last] with E the propagator over one period."""
    n = work.z.shape[0]
    if rates.modal[r]:
        for k in range(first, last):
            for i in range(n):
                # An idle mode that never decays stays idle; a fed one has no steady state and becomes infinite.
                if work.right[k, i] != 0.0:
                    work.right[k, i] /= -math.expm1(rates.eigenvalues[r, i] * period)
        return
    a = work.big[0]
    for i in range(n):
        for j in range(n):
            a[i, j] = rates.K[r, i, j] * period
    value = work.big[1]
    if not expm_frechet(a, work.dbig[0], n, 0, value, work.dbig[1], work.big[2:], work.dbig[2]):
        work.right[first:last] = np.nan
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
            work.rate[:] = 0.0
        _refresh_input(rates, r, work)
        return n_running
    if ss > 0:
        if ss == 1:
            work.z[:] = 0.0
            work.S[:] = 0.0
            work.rate[:] = 0.0
            n_running = 0
        work.z0[:] = work.z
        work.S0[:] = work.S
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


@njit(cache=True, nogil=True, error_model="numpy")
def _observe(V, order, x_out, s_out, work):
    """Write state and sensitivities in declaration order; return whether all are finite."""
    n = work.z.shape[0]
    finite = True
    for i in range(n):
        total = 0.0
        for j in range(n):
            total += V[i, j] * work.z[j]
        x_out[order[i]] = total
        finite = finite and math.isfinite(total)
    for q in range(work.S.shape[0]):
        for i in range(n):
            total = 0.0
            for j in range(n):
                total += V[i, j] * work.S[q, j]
            s_out[q, order[i]] = total
            finite = finite and math.isfinite(total)
    return finite


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
        Receives the states at the observations, in declared order; columns a design does not have are untouched.
    s : ndarray, shape (N, m, p, n)
        Receives dx/d(rate parameter).
    status : ndarray of int, shape (N,)
        Receives 0, or 2 for a row with a non-finite state.
    """
    for row in range(first, last):
        g = design_index[row]
        work.z[:] = 0.0
        work.S[:] = 0.0
        work.rate[:] = 0.0
        work.u[:] = 0.0
        n_running = 0
        r = -1
        time = events.time[g, 0]
        finite = True
        for e in range(events.count[g]):
            if events.action[g, e] == RESET:
                work.z[:] = 0.0
                work.S[:] = 0.0
                work.rate[:] = 0.0
                work.u[:] = 0.0
                n_running = 0
            elif r >= 0:
                _advance(rates, r, events.time[g, e] - time, n_running > 0, work)
            time = events.time[g, e]
            wanted = row * n_segments + events.segment[g, e]
            if wanted != r:
                if r >= 0:
                    _leave_basis(rates, r, work)
                r = wanted
                _enter_basis(rates, r, work)
                _refresh_input(rates, r, work)
            action = events.action[g, e]
            if action == OBSERVE:
                slot = events.slot[g, e]
                finite = _observe(rates.V[r], order, x[row, slot], s[row, slot], work) and finite
            elif action == BOLUS or action == INFUSION_START or action == INFUSION_END:
                compartment = position[events.compartment[g, e]]
                n_running = _dose(rates, r, events, g, e, compartment, n_running, work)
        status[row] = STATUS_OK if finite else STATUS_NON_FINITE
