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
def _log_t_mixture(points, mode, root, nu, constant, white, parts, out):
    n, C, r = points.shape
    K = mode.shape[1]
    for i in range(n):
        for c in range(C):
            top = -math.inf
            for k in range(K):
                square, log_det = 0.0, 0.0
                for a in range(r):
                    value = points[i, c, a] - mode[i, k, a]
                    for b in range(a):
                        value -= root[i, k, a, b] * white[b]
                    white[a] = value / root[i, k, a, a]
                    square += white[a] * white[a]
                    log_det += math.log(root[i, k, a, a])
                parts[k] = -0.5 * (nu + r) * math.log1p(square / nu) - log_det
                top = max(top, parts[k])
            total = 0.0
            for k in range(K):
                total += math.exp(parts[k] - top)
            out[i, c] = top + math.log(total / K) + constant


def log_t_mixture(points: np.ndarray, mode: np.ndarray, root: np.ndarray, nu: float) -> np.ndarray:
    """Evaluate every subject's equally weighted mixture at its own points.

    Parameters
    ----------
    points : ndarray, shape (n, C, r)
        Finite.
    mode : ndarray, shape (n, K, r)
    root : ndarray, shape (n, K, r, r)
        Lower triangular with positive diagonal; root root' is the scale matrix of a component.
    nu : float
        Degrees of freedom.

    Returns
    -------
    ndarray, shape (n, C)   [nats]
    """
    r, K = points.shape[2], mode.shape[1]
    constant = math.lgamma(0.5 * (nu + r)) - math.lgamma(0.5 * nu) - 0.5 * r * math.log(nu * math.pi)
    out = np.empty(points.shape[:2])
    _log_t_mixture(
        np.ascontiguousarray(points), np.ascontiguousarray(mode), np.ascontiguousarray(root),
        float(nu), constant, np.empty(r), np.empty(K), out,
    )  # fmt: skip
    return out
