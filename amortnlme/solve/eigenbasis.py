"""Eigenbases of many small rate matrices, and the decision where they can be trusted."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

# Cancellation allowed in an entry of V exp(L t) V^-1. Sensitivities pass through the basis three times and
# so lose up to its cube: 40^3 x 1.1e-16 = 7e-12 relative. Beyond it (nearly equal rates) the matrix
# exponential takes over.
MAX_CANCELLATION = 40.0


def eigenbases(K: np.ndarray, is_triangular: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Eigenvalues, eigenvectors and inverse eigenvectors of rate matrices.

    Parameters
    ----------
    K : ndarray, shape (R, n, n)   [1/time]
    is_triangular : bool
        Whether all matrices are lower triangular; otherwise LAPACK is used.

    Returns
    -------
    eigenvalues : ndarray, shape (R, n)   [1/time]
    V, W : ndarray, shape (R, n, n)
        Eigenvectors and their inverse; identities where `modal` is 0.
    modal : ndarray of int, shape (R,)
        1 where the eigenbasis is real and cancels little, else 0.
    """
    R, n = K.shape[:2]
    modal: np.ndarray = np.all(np.isfinite(K), axis=(1, 2)).astype(np.int64)
    V = np.zeros((R, n, n))
    W = np.zeros((R, n, n))
    if is_triangular:
        values = np.ascontiguousarray(np.diagonal(K, axis1=1, axis2=2))
    else:
        # Squares of larger entries overflow inside LAPACK, which then may not converge.
        modal &= np.abs(K).max(axis=(1, 2)) < 1e100
        found, vectors = np.linalg.eig(np.where(modal[:, None, None] == 1, K, 0.0))
        modal &= np.all(np.imag(found) == 0.0, axis=1)
        values = np.ascontiguousarray(np.real(found))
        V[:] = np.real(vectors)
    _complete(K, values, V, W, modal, is_triangular)
    return values, V, W, modal


@njit(cache=True, nogil=True, error_model="numpy")
def _triangular_vectors(K, values, V, W):
    """Find unit lower triangular eigenvectors by forward substitution, and their inverse."""
    n = K.shape[0]
    for k in range(n):
        for i in range(n):
            V[i, k] = 1.0 if i == k else 0.0
            W[i, k] = 1.0 if i == k else 0.0
    for k in range(n):
        for i in range(k + 1, n):
            total = 0.0
            for j in range(k, i):
                total += K[i, j] * V[j, k]
            # Uncoupled states may share an eigenvalue; coupled ones make this infinite, which the check
            # finds.
            V[i, k] = 0.0 if total == 0.0 else total / (values[k] - values[i])
    for k in range(n):
        for i in range(k + 1, n):
            total = 0.0
            for j in range(k, i):
                total += V[i, j] * W[j, k]
            W[i, k] = -total


@njit(cache=True, nogil=True, error_model="numpy")
def _invert(V, W, scratch):
    """W <- V^-1 by Gauss-Jordan elimination with partial pivoting (non-finite when singular)."""
    n = V.shape[0]
    for i in range(n):
        for j in range(n):
            scratch[i, j] = V[i, j]
            W[i, j] = 1.0 if i == j else 0.0
    for column in range(n):
        pivot = column
        for i in range(column + 1, n):
            if abs(scratch[i, column]) > abs(scratch[pivot, column]):
                pivot = i
        for j in range(n):
            scratch[column, j], scratch[pivot, j] = scratch[pivot, j], scratch[column, j]
            W[column, j], W[pivot, j] = W[pivot, j], W[column, j]
        inverse = 1.0 / scratch[column, column]
        for j in range(n):
            scratch[column, j] *= inverse
            W[column, j] *= inverse
        for i in range(n):
            if i != column:
                factor = scratch[i, column]
                for j in range(n):
                    scratch[i, j] -= factor * scratch[column, j]
                    W[i, j] -= factor * W[column, j]


@njit(cache=True, nogil=True, error_model="numpy")
def _reachable(K, reach):
    """reach[i, j] <- whether anything in state j ever arrives in state i."""
    n = K.shape[0]
    for i in range(n):
        for j in range(n):
            reach[i, j] = i == j or K[i, j] != 0.0
    for k in range(n):
        for i in range(n):
            for j in range(n):
                reach[i, j] = reach[i, j] or (reach[i, k] and reach[k, j])


@njit(cache=True, nogil=True, error_model="numpy")
def _is_trusted(K, values, V, W, reach, exponentials):
    """Compare every entry of V exp(L t) W with the sum of its absolute terms, at t = 1 / |each eigenvalue|.

    The ratio is invariant to the units of the states and to the scaling of the eigenvectors.
    """
    n = K.shape[0]
    _reachable(K, reach)
    for probe in range(n):
        scale = abs(values[probe])
        for k in range(n):
            if scale > 0.0:
                exponentials[probe, k] = math.exp(min(values[k] / scale, 700.0))
            else:
                exponentials[probe, k] = 1.0 if values[k] == 0.0 else math.exp(-1.0)
    for i in range(n):
        for j in range(n):
            if not reach[i, j]:
                continue
            size = 0.0
            for k in range(n):
                size += abs(V[i, k] * W[k, j])
            peak = 0.0
            for probe in range(n):
                total = 0.0
                for k in range(n):
                    total += V[i, k] * W[k, j] * exponentials[probe, k]
                peak = max(peak, abs(total))
            if not size <= MAX_CANCELLATION * peak:
                return False
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def _complete(K, values, V, W, modal, is_triangular):
    """Fill V and W, and replace untrusted bases by the identity."""
    n = K.shape[1]
    scratch = np.empty((n, n))
    exponentials = np.empty((n, n))
    reach = np.empty((n, n), np.bool_)
    for r in range(K.shape[0]):
        if modal[r]:
            if is_triangular:
                _triangular_vectors(K[r], values[r], V[r], W[r])
            else:
                _invert(V[r], W[r], scratch)
            if not _is_trusted(K[r], values[r], V[r], W[r], reach, exponentials):
                modal[r] = 0
        if not modal[r]:
            for i in range(n):
                for j in range(n):
                    V[r, i, j] = 1.0 if i == j else 0.0
                    W[r, i, j] = V[r, i, j]
