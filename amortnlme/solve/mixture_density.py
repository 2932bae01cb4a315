"""Log density of mixtures of multivariate t-distributions, compiled.

    log (1/K) sum_k t_nu(x; m_k, R_k R_k'),
    log t_nu = c(nu, r) - (nu + r) / 2 log(1 + |R_k^-1 (x - m_k)|^2 / nu) - log|R_k|.

Every subject has its own mixture. The matrices are tiny: NumPy's batched solver spends its time on calls.
"""

from __future__ import annotations

import math

import numpy as np

from amortnlme.solve.lane_jit import lane_jit as kernel


@kernel
def _square(point, mode, root, white):
    """|R^-1 (x - m)|^2 by forward substitution."""
    square = 0.0
    for a in range(point.shape[0]):
        value = point[a] - mode[a]
        for b in range(a):
            value -= root[a, b] * white[b]
        white[a] = value / root[a, a]
        square += white[a] * white[a]
    return square


@kernel
def _power(base, twice):
    """Raise to the power -twice / 2: cheaper by far than a logarithm and an exponential."""
    value = 1.0 / math.sqrt(base) if twice % 2 else 1.0
    factor, left = 1.0 / base, twice // 2
    while left > 0:
        if left % 2:
            value *= factor
        factor *= factor
        left //= 2
    return value


@kernel
def _log_t_mixture(points, mode, root, log_det, weight, least, nu, constant, white, out):
    n, C, r = points.shape
    K = mode.shape[1]
    for i in range(n):
        for c in range(C):
            total = 0.0
            for k in range(K):
                square = _square(points[i, c], mode[i, k], root[i, k], white)
                total += weight[i, k] * _power(1.0 + square / nu, nu + r)
            if total > 1e-290:
                out[i, c] = math.log(total / K) - least[i] + constant
                continue
            # So far out that the powers vanish: on the log scale.
            top = -math.inf
            for k in range(K):
                square = _square(points[i, c], mode[i, k], root[i, k], white)
                top = max(top, -0.5 * (nu + r) * math.log1p(square / nu) - log_det[i, k])
            total = 0.0
            for k in range(K):
                square = _square(points[i, c], mode[i, k], root[i, k], white)
                total += math.exp(-0.5 * (nu + r) * math.log1p(square / nu) - log_det[i, k] - top)
            out[i, c] = top + math.log(total / K) + constant


def log_t_mixture(points: np.ndarray, mode: np.ndarray, root: np.ndarray, nu: int) -> np.ndarray:
    """Evaluate every subject's equally weighted mixture at its own points.

    Parameters
    ----------
    points : ndarray, shape (n, C, r)
        Finite.
    mode : ndarray, shape (n, K, r)
    root : ndarray, shape (n, K, r, r)
        Lower triangular with positive diagonal; root root' is the scale matrix of a component.
    nu : int
        Degrees of freedom.

    Returns
    -------
    ndarray, shape (n, C)   [nats]
    """
    r = points.shape[2]
    constant = math.lgamma(0.5 * (nu + r)) - math.lgamma(0.5 * nu) - 0.5 * r * math.log(nu * math.pi)
    log_det = np.log(np.diagonal(root, axis1=2, axis2=3)).sum(axis=2)
    least = log_det.min(axis=1)
    weight = np.exp(least[:, None] - log_det)
    out = np.empty(points.shape[:2])
    _log_t_mixture(
        np.ascontiguousarray(points), np.ascontiguousarray(mode), np.ascontiguousarray(root),
        log_det, weight, least, nu, constant, np.empty(r), out,
    )  # fmt: skip
    return out
