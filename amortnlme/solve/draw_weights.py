"""The population density of every individual draw, and what its weighted sums need: compiled, in one pass.

For a subject with draws phi_j, density terms c_j and a normal population with mean m and factor S,

    z_j = inv(S) (phi_j - m),  log w_j = c_j - |z_j|^2 / 2,  log_mean = log mean_j w_j,
    E[z] = sum_j w_j z_j / sum_j w_j,  and E[z z'] likewise.

Draws lie as [subject, parameter, draw]: the loops over draws are SIMD code, and one subject stays in the
cache between its two passes. Draws in single precision halve the memory traffic, where the time goes.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from amortnlme.solve.threads import for_each_chunk
from amortnlme.solve.vector_math import vexp

_njit: Any = njit
# Sums over draws may be reordered, or they would not become SIMD code.
_kernel: Any = partial(
    _njit, cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "arcp", "nsz"}
)

# Adding 1.5 * 2**23 leaves the nearest whole number in the low bits of a single-precision sum.
ROUND = np.float32(12582912.0)
ROUND_BITS = ROUND.view(np.int32)
LOG2_E = np.float32(1.4426950408889634)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
#: Below, a weight is zero for every purpose; exp itself stays a normal number.
LOWEST = np.float32(-87.0)
ONE_BITS = np.int32(0x3F800000)
MANTISSA_BITS = np.int32(23)
ONE, HALF = np.float32(1.0), np.float32(0.5)
C3, C4, C5, C6 = (np.float32(1.0 / math.factorial(n)) for n in (3, 4, 5, 6))
#: Subjects per task: enough work to pay for a thread, little enough to share out evenly.
CHUNK_SUBJECTS = 512


# `fastmath=False`, as in `vector_math`: rounding is put to use.
@njit(forceinline=True, error_model="numpy", fastmath=False)
def _single_exp(x):
    """exp(x) for x <= 0 in single precision, relative error 2e-7."""
    bounded = LOWEST if x < LOWEST else x
    shifted = bounded * LOG2_E + ROUND
    n = shifted - ROUND
    r = (bounded - n * LN2_HIGH) - n * LN2_LOW
    series = ONE + r * (ONE + r * (HALF + r * (C3 + r * (C4 + r * (C5 + r * C6)))))
    power = np.int32(((np.float32(shifted).view(np.int32) - ROUND_BITS) << MANTISSA_BITS) + ONE_BITS)
    return np.float32(series * power.view(np.float32))


def _weight(x):
    """exp(x) for x <= 0, in the precision of x."""
    return math.exp(x)


@overload(_weight, jit_options={"forceinline": True})
def _typed_weight(x):
    if x == types.float32:
        return lambda x: _single_exp(x)
    return lambda x: vexp(x)


@_kernel
def _normalize(log_weight, n, result, i):
    """Turn log weights into weights that sum to one; their log mean and effective number go to `result`."""
    top = log_weight[0]
    for j in range(1, n):
        top = max(top, log_weight[j])
    zero, one = log_weight.dtype.type(0), log_weight.dtype.type(1)
    total = zero
    for j in range(n):
        log_weight[j] = _weight(log_weight[j] - top)
    for j in range(n):
        total += log_weight[j]
    inverse = one / total
    square = zero
    for j in range(n):
        log_weight[j] *= inverse
        square += log_weight[j] * log_weight[j]
    result[i, 0] = top + math.log(total / n)
    result[i, 1] = 1.0 / square


@_kernel
def _diagonal(phi, constant, mean, scale, result, first, second, weight):
    """Independent coordinates: S is diagonal, `scale` its inverse (d,)."""
    n, d, m = phi.shape
    zero = phi.dtype.type(0)
    for i in range(n):
        for j in range(m):
            weight[j] = constant[i, j]
        for a in range(d):
            center, factor = mean[i, a], scale[a]
            for j in range(m):
                z = (phi[i, a, j] - center) * factor
                weight[j] -= HALF * (z * z)
        _normalize(weight, m, result, i)
        for a in range(d):
            center, factor = mean[i, a], scale[a]
            sum_z, sum_square = zero, zero
            for j in range(m):
                z = (phi[i, a, j] - center) * factor
                weighted = weight[j] * z
                sum_z += weighted
                sum_square += weighted * z
            first[i, a] = sum_z
            second[i, a] = sum_square


@_kernel
def _full(phi, constant, mean, inverse, result, first, second, weight, z):
    """Any S: `inverse` (d, d) is its inverse, whose zeros cost nothing.

    E[z z'] is added to `second`, (n, d, d), or (1, d, d) for the sum over subjects.
    """
    n, d, m = phi.shape
    zero = phi.dtype.type(0)
    for i in range(n):
        q = min(i, second.shape[0] - 1)
        for j in range(m):
            weight[j] = constant[i, j]
        for a in range(d):
            for j in range(m):
                z[a, j] = 0
            for b in range(d):
                factor, center = inverse[a, b], mean[i, b]
                if factor != 0:
                    for j in range(m):
                        z[a, j] += factor * (phi[i, b, j] - center)
            for j in range(m):
                weight[j] -= HALF * (z[a, j] * z[a, j])
        _normalize(weight, m, result, i)
        for a in range(d):
            total = zero
            for j in range(m):
                total += weight[j] * z[a, j]
            first[i, a] = total
            for b in range(a + 1):
                total = zero
                for j in range(m):
                    total += weight[j] * z[a, j] * z[b, j]
                second[q, a, b] += total
                if b < a:
                    second[q, b, a] += total


def diagonal_moments(
    phi: np.ndarray, constant: np.ndarray, mean: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log mean weight and weighted moments of every subject's draws, for independent coordinates.

    Parameters
    ----------
    phi : ndarray, shape (n_subjects, d, n_draws)
        Single or double precision, which decides on that of the sums over draws.
    constant : ndarray, shape (n_subjects, n_draws)   [nats]
        Part of the log weights that does not depend on the population; same precision.
    mean : ndarray, shape (n_subjects, d)
    scale : ndarray, shape (d,)
        Inverse standard deviations.

    Returns
    -------
    result : ndarray, shape (n_subjects, 2)
        Log mean weight without the determinant of S [nats], and the effective number of draws.
    first : ndarray, shape (n_subjects, d)
        E[z].
    second : ndarray, shape (n_subjects, d)
        E[z^2].
    """
    n, d, m = phi.shape
    kind = phi.dtype
    result, first, second = np.empty((n, 2)), np.empty((n, d)), np.empty((n, d))
    mean, scale = np.ascontiguousarray(mean, kind), np.ascontiguousarray(scale, kind)

    def task(start: int, stop: int) -> None:
        part = slice(start, stop)
        _diagonal(
            phi[part], constant[part], mean[part], scale, result[part], first[part], second[part],
            np.empty(m, kind),
        )  # fmt: skip

    for_each_chunk(n, task, CHUNK_SUBJECTS)
    return result, first, second


def full_moments(
    phi: np.ndarray, constant: np.ndarray, mean: np.ndarray, inverse: np.ndarray, *, summed: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log mean weight and weighted moments of every subject's draws, for any covariance.

    Parameters
    ----------
    phi, constant, mean
        As in `diagonal_moments`.
    inverse : ndarray, shape (d, d)
        inv(S).
    summed : bool
        Whether E[z z'] is wanted as the sum over subjects, which spares a large array.

    Returns
    -------
    result : ndarray, shape (n_subjects, 2)
    first : ndarray, shape (n_subjects, d)
        E[z].
    second : ndarray, shape (n_subjects, d, d), or (d, d) where summed
        E[z z'].
    """
    n, d, m = phi.shape
    kind = phi.dtype
    # One sum per chunk: the same bytes whatever the number of threads.
    n_second = -(-n // CHUNK_SUBJECTS) if summed else n
    result, first, second = np.empty((n, 2)), np.empty((n, d)), np.zeros((n_second, d, d))
    mean, inverse = np.ascontiguousarray(mean, kind), np.ascontiguousarray(inverse, kind)

    def task(start: int, stop: int) -> None:
        part = slice(start, stop)
        into = slice(start // CHUNK_SUBJECTS, start // CHUNK_SUBJECTS + 1) if summed else part
        _full(
            phi[part], constant[part], mean[part], inverse, result[part], first[part], second[into],
            np.empty(m, kind), np.empty((d, m), kind),
        )  # fmt: skip

    for_each_chunk(n, task, CHUNK_SUBJECTS)
    return result, first, second.sum(axis=0) if summed else second
