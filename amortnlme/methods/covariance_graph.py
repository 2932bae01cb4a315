"""Covariance matrices with a sparse inverse: the graph by a stepwise search, the matrix by regressions."""

from __future__ import annotations

import numpy as np

#: The matrix settles when no entry moves by more than this share of the largest.
TOLERANCE, MAX_SWEEPS = 1e-9, 300
#: One in so many of the edges that may go is removed at a time, the weakest first.
BATCH = 8
#: Changes of single edges, the most promising ones, that are tried exactly in turn.
TRIALS = 15


def constrained_covariance(scatter: np.ndarray, graph: np.ndarray) -> np.ndarray:
    """Maximum-likelihood covariance whose inverse is zero where the graph has no edge.

    Parameters
    ----------
    scatter : ndarray, shape (d, d)
        Second moments, positive definite.
    graph : ndarray of bool, shape (d, d)
        Symmetric; the diagonal does not matter.

    Returns
    -------
    ndarray, shape (d, d)

    Notes
    -----
    Hastie, Tibshirani & Friedman, The Elements of Statistical Learning (2009), algorithm 17.1.
    """
    d = len(scatter)
    fitted = scatter.copy()
    for _ in range(MAX_SWEEPS):
        before = fitted.copy()
        for j in range(d):
            others = np.flatnonzero(np.arange(d) != j)
            near = np.flatnonzero(graph[j] & (np.arange(d) != j))
            column = np.zeros(d - 1)
            if len(near):
                slope = np.linalg.solve(fitted[np.ix_(near, near)], scatter[near, j])
                column = fitted[np.ix_(others, near)] @ slope
            fitted[others, j] = fitted[j, others] = column
        if np.abs(fitted - before).max() < TOLERANCE * np.abs(scatter).max():
            break
    return fitted


def sparse_graph(scatter: np.ndarray, n: int, penalty: float) -> np.ndarray:
    """Choose the edges of a graph: backward elimination from the full one, then exact single changes.

    Where the graph is not full the price of an edge is only guessed during elimination, and of two edges that
    stand in for each other both may go. Adding and removing single edges by their exact worth mends that.

    Parameters
    ----------
    scatter : ndarray, shape (d, d)
    n : int
        Subjects.
    penalty : float
        Price of an edge in log-likelihood; log(n) / 2 for BIC.

    Returns
    -------
    ndarray of bool, shape (d, d)
    """
    d = len(scatter)
    sd = np.sqrt(np.diagonal(scatter))
    correlation = scatter / np.outer(sd, sd)
    graph = np.ones((d, d), dtype=bool)
    while True:
        precision = np.linalg.inv(constrained_covariance(correlation, graph))
        scale = np.sqrt(np.diagonal(precision))
        partial = np.clip(precision / np.outer(scale, scale), -1 + 1e-12, 1 - 1e-12)
        # What the edge is worth given the rest of the graph, exactly so while the graph is full.
        worth = -0.5 * n * np.log1p(-(np.tril(partial, -1) ** 2))
        row, column = np.nonzero(np.tril(graph, -1) & (worth < penalty))
        if not len(row):
            return _improved(correlation, n, penalty, graph)
        weakest = np.argsort(worth[row, column])[: max(1, len(row) // BATCH)]
        graph[row[weakest], column[weakest]] = False
        graph[column[weakest], row[weakest]] = False


def _improved(correlation: np.ndarray, n: int, penalty: float, graph: np.ndarray) -> np.ndarray:
    """Change single edges as long as one change raises the penalized likelihood."""
    value, fitted = _penalized(correlation, n, penalty, graph)
    while True:
        for i, j in _promising(correlation, n, penalty, graph, fitted):
            new = graph.copy()
            new[i, j] = new[j, i] = not graph[i, j]
            new_value, new_fitted = _penalized(correlation, n, penalty, new)
            if new_value > value + 1e-6:
                graph, value, fitted = new, new_value, new_fitted
                break
        else:
            return graph


def _penalized(
    correlation: np.ndarray, n: int, penalty: float, graph: np.ndarray
) -> tuple[float, np.ndarray]:
    """Profile log-likelihood less the price of the edges, and the covariance it is reached at."""
    fitted = constrained_covariance(correlation, graph)
    return -0.5 * n * np.linalg.slogdet(fitted)[1] - penalty * np.tril(graph, -1).sum(), fitted


def _promising(
    correlation: np.ndarray, n: int, penalty: float, graph: np.ndarray, fitted: np.ndarray
) -> list[tuple[int, int]]:
    """Edges whose change should gain most to second order, best first."""
    precision = np.linalg.inv(fitted)
    size = np.outer(np.diagonal(fitted), np.diagonal(fitted)) + fitted**2
    added = 0.5 * n * (correlation - fitted) ** 2 / size - penalty
    scale = np.sqrt(np.diagonal(precision))
    partial = np.clip(precision / np.outer(scale, scale), -1 + 1e-12, 1 - 1e-12)
    removed = penalty + 0.5 * n * np.log1p(-(np.tril(partial, -1) ** 2))
    row, column = np.tril_indices(len(fitted), -1)
    gain = np.where(graph, removed, added)[row, column]
    best = np.argsort(-gain, kind="stable")[:TRIALS]
    return [(int(row[k]), int(column[k])) for k in best]


def rescaled(covariance: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Covariance with the same correlations and given standard deviations.

    Parameters
    ----------
    covariance : ndarray, shape (d, d)
    sd : ndarray, shape (d,)

    Returns
    -------
    ndarray, shape (d, d)
    """
    scale = sd / np.sqrt(np.diagonal(covariance))
    return covariance * np.outer(scale, scale)
