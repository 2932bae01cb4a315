"""Linear algebra of the map of one period: its fixed points, and whether they attract."""

from __future__ import annotations

import math

from amortnlme.solve.tangent_interface import inner_kernel

# A million (2**20) periods: what has not died out by then cannot be told from what never does.
SQUARINGS = 20
DIED_OUT = 1e-3


@inner_kernel
def solve_fixed_point(monodromy, matrix, right, count):
    """right[:count] <- (I - monodromy)^-1 right[:count], by elimination with exchange of rows.

    A mode that never decays (an empty compartment without exit) has a zero pivot: fed by nothing it stays
    where it is, fed by anything it becomes infinite.

    Parameters
    ----------
    monodromy : ndarray, shape (n, n)
    matrix : ndarray, shape (n, n)
        Scratch.
    right : ndarray, shape (>= count, n)
        One right-hand side per row.
    count : int
    """
    n = matrix.shape[0]
    for i in range(n):
        for j in range(n):
            matrix[i, j] = (1.0 if i == j else 0.0) - monodromy[i, j]
    for column in range(n):
        pivot = column
        for i in range(column + 1, n):
            if abs(matrix[i, column]) > abs(matrix[pivot, column]):
                pivot = i
        if matrix[pivot, column] == 0.0:
            continue
        for j in range(n):
            matrix[column, j], matrix[pivot, j] = matrix[pivot, j], matrix[column, j]
        for q in range(count):
            right[q, column], right[q, pivot] = right[q, pivot], right[q, column]
        for i in range(column + 1, n):
            factor = matrix[i, column] / matrix[column, column]
            for j in range(column, n):
                matrix[i, j] -= factor * matrix[column, j]
            for q in range(count):
                right[q, i] -= factor * right[q, column]
    for q in range(count):
        for i in range(n - 1, -1, -1):
            for j in range(i + 1, n):
                right[q, i] -= matrix[i, j] * right[q, j]
            if right[q, i] != 0.0:
                right[q, i] /= matrix[i, i]


@inner_kernel
def is_approached(monodromy, square, power):
    """Whether perturbations of a fixed point die out, those of states that never change at all excepted.

    Where more enters than can leave, Newton's method runs away to states so large that one period changes
    nothing within the tolerance; there perturbations last.

    Parameters
    ----------
    monodromy : ndarray, shape (n, n)
    square, power : ndarray, shape (n, n)
        Scratch.

    Returns
    -------
    bool
    """
    n = monodromy.shape[0]
    for i in range(n):
        for j in range(n):
            power[i, j] = monodromy[i, j]
    for _ in range(SQUARINGS):
        for i in range(n):
            for j in range(n):
                total = 0.0
                for q in range(n):
                    total += power[i, q] * power[q, j]
                square[i, j] = total
        for i in range(n):
            for j in range(n):
                power[i, j] = square[i, j]
    for j in range(n):
        idle = True
        for q in range(n):
            idle &= monodromy[j, q] == (1.0 if j == q else 0.0)
        for i in range(n):
            if not (idle or abs(power[i, j]) < DIED_OUT):
                return False
    return True


@inner_kernel
def newton_size(guess, image, change, rtol, atol):
    """Size of a change of the guess in units of the tolerance; infinite if it leads astray.

    A change that makes a state negative which the regimen keeps positive leads to a root that no regimen
    reaches.

    Parameters
    ----------
    guess, image, change : ndarray, shape (n,)
        A state, the state one period later, and Newton's change of the former.
    rtol, atol : float

    Returns
    -------
    float
    """
    size = 0.0
    for i in range(guess.shape[0]):
        new = guess[i] + change[i]
        if not math.isfinite(change[i]) or (new < 0.0 and guess[i] >= 0.0 and image[i] >= 0.0):
            return math.inf
        size = max(size, abs(change[i]) / (atol + rtol * max(abs(guess[i]), abs(new))))
    return size
