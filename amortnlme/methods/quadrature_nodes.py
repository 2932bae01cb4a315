"""Nodes and weights of Gauss-Hermite quadrature in one and many dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import comb

import numpy as np

#: From this many random effects on, the product grid gives way to a sparse one.
SPARSE_FROM = 5


@dataclass(frozen=True, slots=True, eq=False)
class QuadratureNodes:
    """A rule for expectations under N(0, I_r): E[g(z)] ~ sum_j weight_j g(z_j).

    Attributes
    ----------
    z : ndarray, shape (n, r)
    weight : ndarray, shape (n,)
        Sums to one; a sparse grid has negative weights too.
    """

    z: np.ndarray
    weight: np.ndarray


@cache
def gauss_hermite(r: int, n_nodes: int) -> QuadratureNodes:
    """Product grid of Gauss-Hermite rules, or a Smolyak grid from five dimensions on.

    Parameters
    ----------
    r : int
        Dimension.
    n_nodes : int
        Nodes per dimension; for the sparse grid the level, whose finest one-dimensional rule has as many.

    Returns
    -------
    QuadratureNodes
        The product rule is exact for polynomials of degree 2 n_nodes - 1 in every variable, the sparse rule
        for polynomials of *total* degree 2 n_nodes - 1 (Gerstner & Griebel 1998).
    """
    if r < SPARSE_FROM:
        return _product([_rule(n_nodes)] * r)
    return _smolyak(r, n_nodes)


def _rule(n: int) -> tuple[np.ndarray, np.ndarray]:
    z, w = np.polynomial.hermite_e.hermegauss(n)
    return z, w / w.sum()


def _product(rules: list[tuple[np.ndarray, np.ndarray]]) -> QuadratureNodes:
    z = np.stack([g.ravel() for g in np.meshgrid(*(rule[0] for rule in rules), indexing="ij")], axis=1)
    w = np.ones(1)
    for rule in rules:
        w = (w[:, None] * rule[1]).ravel()
    return QuadratureNodes(z, w)


def _smolyak(r: int, level: int) -> QuadratureNodes:
    """Combine small product rules: sum over |k| = level .. level + r - 1 of signed binomial weights."""
    total: dict[tuple[float, ...], float] = {}
    for excess in range(level):
        sign = (-1) ** (level - 1 - excess) * comb(r - 1, level - 1 - excess)
        if sign == 0:
            continue
        for orders in _compositions(excess, r):
            part = _product([_rule(k + 1) for k in orders])
            for z, w in zip(part.z, part.weight, strict=True):
                key = tuple(np.round(z, 12))
                total[key] = total.get(key, 0.0) + sign * float(w)
    kept = sorted((z, w) for z, w in total.items() if abs(w) > 1e-15)
    return QuadratureNodes(np.array([z for z, _ in kept]), np.array([w for _, w in kept]))


def _compositions(total: int, parts: int) -> list[tuple[int, ...]]:
    """All tuples of `parts` non-negative integers that sum to `total`."""
    if parts == 1:
        return [(total,)]
    return [(first, *rest) for first in range(total + 1) for rest in _compositions(total - first, parts - 1)]
