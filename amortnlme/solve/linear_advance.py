"""One interval of dx/dt = K x + u with constant input u, with sensitivities: by modes or by the exponential.

The arrays are those of `amortnlme.solve.linear_arrays`. Arrays with one matrix per row of the batch are
passed whole, with the row r: a view would count references at every use.
"""

from __future__ import annotations

import math

import numpy as np

from amortnlme.solve.expm import divided_difference, divided_difference_with_zero, expm_frechet
from amortnlme.solve.lane_jit import lane_jit as kernel


@kernel
def apply_basis(matrices, r, X, scratch):
    """Overwrite every row of X with matrices[r] @ row.

    Parameters
    ----------
    matrices : ndarray, shape (R, n, n)
    r : int
    X : ndarray, shape (p + 1, n)
    scratch : ndarray, shape (n,)
    """
    n = X.shape[1]
    for q in range(X.shape[0]):
        for i in range(n):
            total = 0.0
            for j in range(n):
                total += matrices[r, i, j] * X[q, j]
            scratch[i] = total
        for i in range(n):
            X[q, i] = scratch[i]


@kernel
def mode_slopes(W, dK, V, r, A, scratch):
    """A_q <- W dK_q V, which couples the modes of the sensitivities.

    Parameters
    ----------
    W, dK, V : ndarray
        See `amortnlme.solve.linear_arrays.Rates`.
    r : int
    A : ndarray, shape (p, n, n)
    scratch : ndarray, shape (n, n)
    """
    n = V.shape[1]
    for q in range(A.shape[0]):
        for i in range(n):
            for j in range(n):
                total = 0.0
                for k in range(n):
                    total += dK[r, q, i, k] * V[r, k, j]
                scratch[i, j] = total
        for i in range(n):
            for j in range(n):
                total = 0.0
                for k in range(n):
                    total += W[r, i, k] * scratch[k, j]
                A[q, i, j] = total


@kernel
def response(rate, dt):
    """Integrate exp(rate t) over an interval: the answer of a mode to a unit input.

    Parameters
    ----------
    rate : float   [1/time]
    dt : float   [time]

    Returns
    -------
    float   [time]
    """
    a = rate * dt
    return dt * math.expm1(a) / a if a != 0.0 else dt


@kernel
def advance_slopes(eigenvalues, r, dt, is_new, has_input, has_input_slopes, X, U, A, e, weights):
    """Advance the sensitivities by modes, before the state: e holds exp(l_i dt).

    S_i <- e_i S_i + sum_j A_ij (exp[l_i, l_j] z_j + exp[l_i, l_j, 0] u_j) + exp[l_i, 0] du_i

    Parameters
    ----------
    eigenvalues : ndarray, shape (R, n)   [1/time]
    r : int
    dt : float   [time]
    is_new : bool
        Whether `weights` still have to be computed for this dt.
    has_input, has_input_slopes : bool
        Whether u and du may differ from zero.
    X, U : ndarray, shape (p + 1, n)
    A : ndarray, shape (p, n, n)
    e : ndarray, shape (n,)
    weights : ndarray, shape (n, n)
        Receives dt exp[l_i, l_j].
    """
    n = X.shape[1]
    p = A.shape[0]
    for q in range(1, p + 1):
        for i in range(n):
            X[q, i] *= e[i]
    for i in range(n):
        a = eigenvalues[r, i] * dt
        for j in range(i + 1):
            b = eigenvalues[r, j] * dt
            if is_new:
                weights[i, j] = dt * divided_difference(a, b, e[i], e[j])
            first = weights[i, j]
            to_i = first * X[0, j]
            to_j = first * X[0, i]
            if has_input:
                second = dt * dt * divided_difference_with_zero(a, b)
                to_i += second * U[0, j]
                to_j += second * U[0, i]
            for q in range(p):
                X[q + 1, i] += A[q, i, j] * to_i
            if i != j:
                for q in range(p):
                    X[q + 1, j] += A[q, j, i] * to_j
    if has_input and has_input_slopes:
        for i in range(n):
            each = response(eigenvalues[r, i], dt)
            for q in range(1, p + 1):
                X[q, i] += U[q, i] * each


@kernel
def _advance_full(rates, r, dt, has_input, X, U, work):
    """Advance a row by the exponential of [[K, u], [0, 0]], whose last column carries the constant input."""
    K, dK, big, dbig, scratch = rates.K, rates.dK, work.big, work.dbig, work.scratch
    n = X.shape[1]
    p = X.shape[0] - 1
    value, derivative, tag = big[1], dbig[1], work.tag
    if has_input or tag[0] != r or tag[1] != dt:
        size = n + 1 if has_input else n
        a, da = big[0], dbig[0]
        for i in range(size):
            for j in range(size):
                inside = i < n and j < n
                a[i, j] = K[r, i, j] * dt if inside else (U[0, i] * dt if i < n else 0.0)
                for q in range(p):
                    da[q, i, j] = dK[r, q, i, j] * dt if inside else (U[q + 1, i] * dt if i < n else 0.0)
        tag[0] = -1.0
        if not expm_frechet(a, da, size, p, value, derivative, big[2:], dbig[2]):
            for i in range(n):
                X[0, i] = math.nan
            return
        if not has_input:
            tag[0], tag[1] = r, dt
    for q in range(p, -1, -1):
        for i in range(n):
            total = 0.0
            for j in range(n):
                total += value[i, j] * X[q, j]
            if q > 0:
                for j in range(n):
                    total += derivative[q - 1, i, j] * X[0, j]
            if has_input:
                total += value[i, n] if q == 0 else derivative[q - 1, i, n]
            scratch[i] = total
        for i in range(n):
            X[q, i] = scratch[i]


@kernel
def advance(rates, r, dt, has_input, X, U, work):
    """Advance a row by dt, whatever its basis, under a constant input.

    Parameters
    ----------
    rates : Rates
    r : int
    dt : float   [time]
    has_input : bool
        Whether U may differ from zero.
    X, U : ndarray, shape (p + 1, n)
        State and input, with derivatives.
    work : Work
    """
    if dt == 0.0:
        return
    if not rates.modal[r]:
        _advance_full(rates, r, dt, has_input, X, U, work)
        return
    eigenvalues, e = rates.eigenvalues, work.e
    for i in range(e.shape[0]):
        e[i] = math.exp(eigenvalues[r, i] * dt)
    if X.shape[0] > 1:
        advance_slopes(
            eigenvalues, r, dt, np.bool_(True), has_input, np.bool_(True), X, U, work.A, e, work.small
        )
    for i in range(e.shape[0]):
        X[0, i] *= e[i]
        if has_input:
            X[0, i] += U[0, i] * response(eigenvalues[r, i], dt)
