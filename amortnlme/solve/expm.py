"""Small matrix exponential with Frechet derivatives, divided differences of exp, and a small linear solve."""

from __future__ import annotations

import math

import numpy as np

from amortnlme.solve.lane_jit import lane_jit as kernel

# With the scaled norm at most 1 the first term left out is 1/20! = 4e-19.
TAYLOR_DEGREE = 19
MAX_SQUARINGS = 60
# 1/9, 1/8 ... 1/2: a chain of divisions would cost more than everything else in an interval.
RECIPROCALS = tuple(1.0 / k for k in range(9, 1, -1))


@kernel
def divided_difference(a: float, b: float, exp_a: float, exp_b: float) -> float:
    """First divided difference of exp at two points, accurate for any gap.

    Parameters
    ----------
    a, b : float
    exp_a, exp_b : float
        exp(a) and exp(b).

    Returns
    -------
    float
        exp[a, b] = (e^a - e^b) / (a - b), and e^a where a = b.
    """
    z = a - b
    if z == 0.0:
        return exp_a
    if abs(z) > 0.1:
        return (exp_a - exp_b) / z
    # (e^z - 1) / z by Horner; the first term left out is z^9 / 10! <= 3e-16.
    total = 1.0
    for k in range(len(RECIPROCALS)):
        total = 1.0 + total * z * RECIPROCALS[k]
    return exp_b * total


@kernel
def divided_difference_with_zero(a: float, b: float) -> float:
    """Second divided difference of exp at a, b and 0, accurate for any gaps.

    Parameters
    ----------
    a, b : float

    Returns
    -------
    float
        exp[a, b, 0]; times dt^2 it is the double convolution of two exponentials with a constant input.
    """
    if max(abs(a), abs(b)) < 0.7:
        # Sum of complete homogeneous polynomials h_k(a, b) / (k + 2)!.
        homogeneous = 1.0
        power = 1.0
        factorial = 2.0
        total = 0.5
        for k in range(1, 17):
            power *= b
            homogeneous = a * homogeneous + power
            factorial *= k + 2
            total += homogeneous / factorial
        return total
    low = min(a, b, 0.0)
    high = max(a, b, 0.0)
    middle = max(min(a, b), min(max(a, b), 0.0))
    exp_low = math.exp(low)
    exp_middle = math.exp(middle)
    exp_high = math.exp(high)
    upper = divided_difference(high, middle, exp_high, exp_middle)
    lower = divided_difference(middle, low, exp_middle, exp_low)
    return (upper - lower) / (high - low)


@kernel
def _multiply_add(a, b, size, out):
    for i in range(size):
        for j in range(size):
            total = out[i, j]
            for k in range(size):
                total += a[i, k] * b[k, j]
            out[i, j] = total


@kernel
def _copy_scaled(source, size, factor, out):
    for i in range(size):
        for j in range(size):
            out[i, j] = source[i, j] * factor


@kernel
def _taylor(a, da, size, n_derivatives, value, derivative, term, dterm, work):
    """exp(a) and its derivatives by Taylor series; `a` must have a norm of at most about one."""
    _copy_scaled(a, size, 0.0, term)
    for i in range(size):
        term[i, i] = 1.0
    _copy_scaled(term, size, 1.0, value)
    for q in range(n_derivatives):
        _copy_scaled(a, size, 0.0, derivative[q])
        _copy_scaled(a, size, 0.0, dterm[q])
    for k in range(1, TAYLOR_DEGREE + 1):
        # d(A^k / k!) = (d(A^(k-1)/(k-1)!) A + A^(k-1)/(k-1)! dA) / k
        for q in range(n_derivatives):
            _copy_scaled(a, size, 0.0, work)
            _multiply_add(dterm[q], a, size, work)
            _multiply_add(term, da[q], size, work)
            _copy_scaled(work, size, 1.0 / k, dterm[q])
            for i in range(size):
                for j in range(size):
                    derivative[q, i, j] += dterm[q, i, j]
        _copy_scaled(a, size, 0.0, work)
        _multiply_add(term, a, size, work)
        _copy_scaled(work, size, 1.0 / k, term)
        for i in range(size):
            for j in range(size):
                value[i, j] += term[i, j]


@kernel
def expm_frechet(a, da, size, n_derivatives, value, derivative, scratch, dscratch):
    """Matrix exponential and its Frechet derivatives in given directions, by scaling and squaring.

    The diagonal is shifted so that the matrix of a compartment system (non-negative off-diagonals) becomes
    non-negative: then nothing cancels, neither in the Taylor series nor in the squarings, and small entries
    keep their relative accuracy.

    Parameters
    ----------
    a : ndarray, shape (>= size, >= size)
        Overwritten.
    da : ndarray, shape (n_derivatives, >= size, >= size)
        Directions; overwritten.
    size, n_derivatives : int
    value : ndarray, like a
        Receives exp(a).
    derivative : ndarray, like da
        Receives the derivatives of exp at a in the directions da.
    scratch : ndarray, shape (2, >= size, >= size)
    dscratch : ndarray, like da

    Returns
    -------
    bool
        False when `a` is not finite or too large to be scaled.
    """
    shift = a[0, 0]
    for i in range(1, size):
        shift = min(shift, a[i, i])
    norm = 0.0
    for j in range(size):
        a[j, j] -= shift
        column = 0.0
        for i in range(size):
            column += abs(a[i, j])
        norm = max(norm, column) if math.isfinite(column) else math.inf
    norm = max(norm, abs(shift))
    if not norm < 2.0**MAX_SQUARINGS:
        return False
    squarings = 0
    while norm > 1.0:
        norm *= 0.5
        squarings += 1
    factor = 0.5**squarings
    _copy_scaled(a, size, factor, a)
    for q in range(n_derivatives):
        _copy_scaled(da[q], size, factor, da[q])
    _taylor(a, da, size, n_derivatives, value, derivative, scratch[0], dscratch, scratch[1])
    unshift = math.exp(shift * factor)
    _copy_scaled(value, size, unshift, value)
    for q in range(n_derivatives):
        _copy_scaled(derivative[q], size, unshift, derivative[q])
    for _ in range(squarings):
        for q in range(n_derivatives):
            _copy_scaled(a, size, 0.0, scratch[0])
            _multiply_add(value, derivative[q], size, scratch[0])
            _multiply_add(derivative[q], value, size, scratch[0])
            _copy_scaled(scratch[0], size, 1.0, derivative[q])
        _copy_scaled(a, size, 0.0, scratch[0])
        _multiply_add(value, value, size, scratch[0])
        _copy_scaled(scratch[0], size, 1.0, value)
    return True


@kernel
def solve_in_place(matrix, right):
    """Solve matrix @ x = right.T for several right-hand sides, by elimination with partial pivoting.

    Parameters
    ----------
    matrix : ndarray, shape (n, n)
        Overwritten.
    right : ndarray, shape (k, n)
        One right-hand side per row; overwritten with the solutions. A singular matrix gives non-finite
        values.
    """
    n = matrix.shape[0]
    for column in range(n):
        pivot = column
        for i in range(column + 1, n):
            if abs(matrix[i, column]) > abs(matrix[pivot, column]):
                pivot = i
        if pivot != column:
            for j in range(n):
                matrix[column, j], matrix[pivot, j] = matrix[pivot, j], matrix[column, j]
            for k in range(right.shape[0]):
                right[k, column], right[k, pivot] = right[k, pivot], right[k, column]
        for i in range(column + 1, n):
            factor = matrix[i, column] / matrix[column, column]
            for j in range(column, n):
                matrix[i, j] -= factor * matrix[column, j]
            for k in range(right.shape[0]):
                right[k, i] -= factor * right[k, column]
    for k in range(right.shape[0]):
        for i in range(n - 1, -1, -1):
            total = right[k, i]
            for j in range(i + 1, n):
                total -= matrix[i, j] * right[k, j]
            right[k, i] = total / matrix[i, i]


def matrix_exponential(
    matrix: np.ndarray, directions: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Exponential of one small matrix and its Frechet derivatives.

    Parameters
    ----------
    matrix : ndarray, shape (n, n)
    directions : ndarray, shape (p, n, n), optional

    Returns
    -------
    value : ndarray, shape (n, n)
    derivatives : ndarray, shape (p, n, n)
        NaN throughout when the matrix is not finite or its norm exceeds 2^60.
    """
    a = np.array(matrix, dtype=np.float64, order="C")
    n = a.shape[0]
    da = np.zeros((0, n, n)) if directions is None else np.array(directions, dtype=np.float64, order="C")
    value, derivative = np.empty_like(a), np.empty_like(da)
    if not expm_frechet(a, da, n, da.shape[0], value, derivative, np.empty((2, n, n)), np.empty_like(da)):
        value[:] = np.nan
        derivative[:] = np.nan
    return value, derivative
