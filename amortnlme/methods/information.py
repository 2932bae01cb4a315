"""Observed information by differences of an analytic gradient, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

#: Smallest eigenvalue, after scaling to unit diagonal, of an information matrix that can be inverted.
SINGULAR = 1e-8


def observed_information(
    gradient: Callable[[np.ndarray], np.ndarray], x: np.ndarray, step: np.ndarray
) -> np.ndarray:
    """Hessian of a function from central differences of its gradient.

    Parameters
    ----------
    gradient : callable
        Maps x (n,) to the gradient (n,).
    x : ndarray, shape (n,)
    step : ndarray, shape (n,)
        Half width of each difference; about a hundredth of a standard error is a good choice.

    Returns
    -------
    ndarray, shape (n, n)
        Symmetric; not necessarily positive definite.
    """
    n = len(x)
    hessian = np.empty((n, n))
    for k in range(n):
        ahead, behind = x.copy(), x.copy()
        ahead[k] += step[k]
        behind[k] -= step[k]
        hessian[k] = (gradient(ahead) - gradient(behind)) / (ahead[k] - behind[k])
    return 0.5 * (hessian + hessian.T)


def invert_information(information: np.ndarray) -> np.ndarray | None:
    """Covariance from an information matrix, or None where it is not positive definite.

    Parameters
    ----------
    information : ndarray, shape (n, n)

    Returns
    -------
    ndarray, shape (n, n), or None
        None when the smallest eigenvalue, after scaling to unit diagonal, is below `SINGULAR`.
    """
    if not np.isfinite(information).all() or (np.diagonal(information) <= 0).any():
        return None
    scale = 1.0 / np.sqrt(np.diagonal(information))
    scaled = information * np.outer(scale, scale)
    values, vectors = np.linalg.eigh(scaled)
    if values[0] < SINGULAR:
        return None
    return (vectors / values) @ vectors.T * np.outer(scale, scale)


def whitening(information: np.ndarray) -> np.ndarray:
    """Matrix C with C C' close to the inverse of |information|: along z, x = C z, one unit is one SE.

    Parameters
    ----------
    information : ndarray, shape (n, n)
        Need not be positive definite: eigenvalues are replaced by their absolute values, bounded from below.

    Returns
    -------
    ndarray, shape (n, n)
    """
    scale = 1.0 / np.sqrt(np.maximum(np.abs(np.diagonal(information)), 1e-12))
    values, vectors = np.linalg.eigh(information * np.outer(scale, scale))
    values = np.maximum(np.abs(values), 1e-3)
    return scale[:, None] * (vectors / np.sqrt(values))


def weak_entries(information: np.ndarray, limit: float) -> np.ndarray:
    """Entries that take part in a direction without information.

    Parameters
    ----------
    information : ndarray, shape (n, n)
        Symmetric.
    limit : float
        Eigenvalue, after scaling to unit diagonal, below which a direction counts as one without.

    Returns
    -------
    ndarray of int
        Those with an empty diagonal where there are any; else those with more than a twentieth of the squared
        length of a weak direction; else none.
    """
    if not np.isfinite(information).all():
        return np.zeros(0, dtype=np.int64)
    diagonal = np.diagonal(information)
    empty = diagonal <= 0.0
    if empty.any():
        return np.flatnonzero(empty)
    scale = 1.0 / np.sqrt(diagonal)
    values, vectors = np.linalg.eigh(information * np.outer(scale, scale))
    return np.flatnonzero((vectors[:, values < limit] ** 2 > 0.05).any(axis=1))


def correlation_of_estimates(covariance: np.ndarray) -> np.ndarray:
    """Correlation matrix of a covariance matrix of estimates.

    Parameters
    ----------
    covariance : ndarray, shape (n, n)
        With a positive diagonal.

    Returns
    -------
    ndarray, shape (n, n)
    """
    se = np.sqrt(np.diagonal(covariance))
    correlation = covariance / np.outer(se, se)
    np.fill_diagonal(correlation, 1.0)
    return correlation


def condition_number(covariance: np.ndarray) -> float:
    """Ratio of the largest to the smallest eigenvalue of the correlation matrix of the estimates.

    Parameters
    ----------
    covariance : ndarray, shape (n, n)

    Returns
    -------
    float
        inf where the smallest eigenvalue is not positive.
    """
    values = np.linalg.eigvalsh(correlation_of_estimates(covariance))
    return float(values[-1] / values[0]) if values[0] > 0.0 else float("inf")
