"""Draws from the exact posteriors of the theophylline patients, by adaptive importance resampling."""

from __future__ import annotations

import numpy as np
from reference.quadrature import Theophylline, concentration

PRIOR_MEAN = np.log([1.5, 0.08, 32.0, 0.6])
PRIOR_SD = np.array([0.9, 0.6, 0.6, 0.7])


def log_joint(data: Theophylline, phi: np.ndarray) -> np.ndarray:
    """log p(y, phi) up to a constant, for phi (12, M, 4) = logs of ka, ke, V, a."""
    f = concentration(phi[..., :3], data.dose[:, None], data.time[:, None])
    z = (data.y[:, None] - f) * np.exp(-phi[..., 3:])
    prior = (((phi - PRIOR_MEAN) / PRIOR_SD) ** 2).sum(axis=-1)
    return -0.5 * (z**2).sum(axis=-1) - data.y.shape[1] * phi[..., 3] - 0.5 * prior


def exact_posterior_draws(
    data: Theophylline, n_draws: int, rng: np.random.Generator, pool: int = 20_000, rounds: int = 8
) -> np.ndarray:
    """phi (12, n_draws, 4); every round's proposal is a t with the weighted moments of the round before."""
    n, d, nu = len(data.dose), 4, 5
    mean, root = np.tile(PRIOR_MEAN, (n, 1)), np.tile(np.diag(PRIOR_SD), (n, 1, 1))
    for number in range(rounds):
        z = rng.standard_normal((n, pool, d)) / np.sqrt(rng.chisquare(nu, (n, pool, 1)) / nu)
        phi = mean[:, None] + z @ np.swapaxes(root, 1, 2)
        log_w = log_joint(data, phi) + 0.5 * (nu + d) * np.log1p((z**2).sum(axis=-1) / nu)
        # Tempered at first: the prior is far too wide a proposal for a posterior of four parameters.
        temper = min(1.0, 0.1 * 2.0**number)
        w = np.exp(temper * (log_w - log_w.max(axis=1, keepdims=True)))
        w /= w.sum(axis=1, keepdims=True)
        if number == rounds - 1:
            break
        mean = (w[..., None] * phi).sum(axis=1)
        gap = phi - mean[:, None]
        root = np.linalg.cholesky(1.1 * np.swapaxes(gap, 1, 2) @ (w[..., None] * gap))
    ess = 1.0 / (w**2).sum(axis=1)
    assert ess.min() > 0.3 * pool, f"the reference sampler failed: {ess / pool}"
    return np.stack([phi[i, rng.choice(pool, n_draws, p=w[i])] for i in range(n)])
