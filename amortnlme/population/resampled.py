"""Draws from laws whose conditional distributions have no closed form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammaln

from amortnlme.population.laws import GaussianLaw, split_names

if TYPE_CHECKING:
    from amortnlme.population.laws import AbstractLaw

#: Of the t-distribution that proposes, how many proposals per draw, and how much wider than the normal
#: approximation its covariance is: the tails of the law are not those of a normal one.
DEGREES_OF_FREEDOM, PROPOSALS_PER_DRAW, WIDER = 6.0, 8, 1.5


def sample_given_by_weights(
    law: AbstractLaw, given: Sequence[str], values: np.ndarray, n: int, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Draw from a law given some effects, by resampling proposals of its normal approximation.

    Parameters
    ----------
    law : AbstractLaw
    given : sequence of str
    values : ndarray, shape (len(given),)
    n : int
    rng : numpy.random.Generator

    Returns
    -------
    eta : ndarray, shape (n, d)
    ess : float
        Effective number of proposals; far below n the draws repeat few of them.
    """
    rest, fixed = split_names(law.names, given)
    normal = GaussianLaw(law.names, *law.moments())
    # The margin of the others, given what is given or not: a dependence that is not linear hides in the
    # conditional normal law, so half of the proposals ignore it.
    near = normal.conditional(given, values)
    wide = normal.marginal([law.names[k] for k in rest])
    m = PROPOSALS_PER_DRAW * n
    noise = rng.standard_normal((m, len(rest)))
    noise *= np.sqrt(DEGREES_OF_FREEDOM / rng.chisquare(DEGREES_OF_FREEDOM, (m, 1)))
    proposed = np.empty((m, len(rest)))
    for part, of in ((slice(0, None, 2), near), (slice(1, None, 2), wide)):
        proposed[part] = of.mean + noise[part] @ np.linalg.cholesky(WIDER * of.covariance).T
    eta = np.empty((m, len(law.names)))
    eta[:, fixed], eta[:, rest] = values, proposed
    log_q = np.logaddexp(_log_t(proposed, near), _log_t(proposed, wide)) - np.log(2.0)
    log_weights = law.log_density(eta) - log_q
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    # Systematic resampling.
    grid = (np.arange(n) + rng.random()) / n
    index = np.minimum(np.searchsorted(np.cumsum(weights), grid), m - 1)
    return eta[rng.permutation(index)], float(1.0 / (weights**2).sum())


def _log_t(x: np.ndarray, law: GaussianLaw) -> np.ndarray:
    nu, r = DEGREES_OF_FREEDOM, x.shape[1]
    inverse = np.linalg.inv(np.linalg.cholesky(WIDER * law.covariance))
    square = (((x - law.mean) @ inverse.T) ** 2).sum(axis=1)
    constant = gammaln(0.5 * (nu + r)) - gammaln(0.5 * nu) - 0.5 * r * np.log(nu * np.pi)
    return constant + np.log(np.diagonal(inverse)).sum() - 0.5 * (nu + r) * np.log1p(square / nu)
