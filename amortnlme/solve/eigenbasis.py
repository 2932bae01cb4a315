"""Eigenbases of many small rate matrices, and the decision where they can be trusted."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

# Cancellation allowed in an entry of V exp(L t) V^-1. Sensitivities pass through the basis three times and
# so lose up to its cube: 40^3 x 1.1e-16 = 7e-12 relative. Beyond it (nearly equal rates) the matrix
# exponential takes over.
MAX_CANCELLATION = 40.0
# States alone pass through it once: 2000 x 1.1e-16 = 2e-13. Only for systems with loops of two states,
# whose exponentials are dear; otherwise states are the same to the last bit with and without sensitivities.
MAX_CANCELLATION_OF_STATES = 2000.0


def eigenbases(
    K: np.ndarray, blocks: tuple[int, ...], *, sensitivities: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Eigenvalues, eigenvectors and inverse eigenvectors of rate matrices.

    Parameters
    ----------
    K : ndarray, shape (R, n, n)   [1/time]
        Lower block triangular.
    blocks : tuple of int
        Sizes of the blocks along the diagonal. Blocks of one or two states are solved directly; with larger
        ones LAPACK is used.
    sensitivities : bool
        Whether the bases have to serve sensitivities too.

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
    largest = max(blocks, default=1)
    if largest <= 2:
        values = np.ascontiguousarray(np.diagonal(K, axis1=1, axis2=2)).copy()
        if largest == 2:
            _pair_vectors(K, np.array(blocks, dtype=np.int64), values, V, W, modal)
    else:
        # Squares of larger entries overflow inside LAPACK, which then may not converge.
        modal &= np.abs(K).max(axis=(1, 2)) < 1e100
        found, vectors = np.linalg.eig(np.where(modal[:, None, None] == 1, K, 0.0))
        modal &= np.all(np.imag(found) == 0.0, axis=1)
        values = np.ascontiguousarray(np.real(found))
        V[:] = np.real(vectors)
    limit = MAX_CANCELLATION if sensitivities or largest != 2 else MAX_CANCELLATION_OF_STATES
    _complete(K, values, V, W, modal, largest, limit)
    return values, V, W, modal


@njit(cache=True, nogil=True, error_model="numpy")
def _pair(K, i, values, U, inverse):
    """Diagonalize the block of the states i and i + 1 as U diag(values) inverse; return whether it is real.

    Nothing cancels where the two exchange (b c > 0): neither g, nor det U. The smaller eigenvalue is taken
    from the determinant, whose error is relative to the slower of the two rates.
    """
    a, b, c, d = K[i, i], K[i, i + 1], K[i + 1, i], K[i + 1, i + 1]
    half = 0.5 * (a - d)
    discriminant = half * half + b * c
    if not 0.0 < discriminant < math.inf:
        return False
    root = math.sqrt(discriminant)
    middle = 0.5 * (a + d)
    outer = middle - root if middle < 0.0 else middle + root
    inner = (a * d - b * c) / outer
    high, low = (inner, outer) if middle < 0.0 else (outer, inner)
    g = root + abs(half)
    if half >= 0.0:
        first, second, third, fourth = g, -b, c, g
    else:
        first, second, third, fourth = b, g, g, -c
    values[i], values[i + 1] = high, low
    U[i, i], U[i, i + 1], U[i + 1, i], U[i + 1, i + 1] = first, second, third, fourth
    scale = 1.0 / (first * fourth - second * third)
    inverse[i, i], inverse[i, i + 1] = fourth * scale, -second * scale
    inverse[i + 1, i], inverse[i + 1, i + 1] = -third * scale, first * scale
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def _multiply(A, B, out):
    n = A.shape[0]
    for i in range(n):
        for j in range(n):
            total = 0.0
            for k in range(n):
                total += A[i, k] * B[k, j]
            out[i, j] = total


@njit(cache=True, nogil=True, error_model="numpy")
def _pair_vectors(K, blocks, values, V, W, modal):
    """Diagonalize the blocks, which leaves a triangular matrix, and join the two bases."""
    n = K.shape[1]
    U, inverse, T = np.zeros((n, n)), np.zeros((n, n)), np.empty((n, n))
    inner, inner_inverse, scratch = np.empty((n, n)), np.empty((n, n)), np.empty((n, n))
    block_of = np.repeat(np.arange(blocks.shape[0]), blocks)
    for r in range(K.shape[0]):
        i = 0
        for size in blocks:
            if size == 1:
                U[i, i] = inverse[i, i] = 1.0
            elif modal[r] and not _pair(K[r], i, values[r], U, inverse):
                modal[r] = 0
            i += size
        if not modal[r]:
            continue
        _multiply(K[r], U, scratch)
        _multiply(inverse, scratch, T)
        for i in range(n):
            for j in range(n):
                if block_of[i] == block_of[j]:
                    T[i, j] = 0.0
        _triangular_vectors(T, values[r], inner, inner_inverse)
        _multiply(U, inner, V[r])
        _multiply(inner_inverse, inverse, W[r])


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
def _is_trusted(K, values, V, W, reach, exponentials, limit):
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
            if not size <= limit * peak:
                return False
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def _complete(K, values, V, W, modal, largest_block, limit):
    """Fill V and W, and replace untrusted bases by the identity."""
    n = K.shape[1]
    scratch = np.empty((n, n))
    exponentials = np.empty((n, n))
    reach = np.empty((n, n), np.bool_)
    for r in range(K.shape[0]):
        if modal[r]:
            if largest_block == 1:
                _triangular_vectors(K[r], values[r], V[r], W[r])
            elif largest_block > 2:
                _invert(V[r], W[r], scratch)
            if not _is_trusted(K[r], values[r], V[r], W[r], reach, exponentials, limit):
                modal[r] = 0
        if not modal[r]:
            for i in range(n):
                for j in range(n):
                    V[r, i, j] = 1.0 if i == j else 0.0
                    W[r, i, j] = V[r, i, j]
