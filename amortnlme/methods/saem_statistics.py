"""The M-step of SAEM: population parameters from averaged statistics of the sampled individuals.

Parameters with random effects enter the complete-data likelihood through s1_i = E[phi_i] and
s2_i = E[phi_i phi_i'] alone, whose maximizer is a regression and a covariance. Pooled parameters (residual
errors among them) have no statistics in general: they follow the averaged score, scaled by the averaged
expected information, a Robbins-Monro iteration whose limit solves the likelihood equation exactly. Nothing
is given an artificial variance.

The covariance alone would be learnt slowly, and small variances could be lost for good: what the individuals
say about omega is mostly what omega said about them. A second step per iteration therefore moves the factor L
with u = inv(L) eta held fixed, along the score E[dl/dphi u'], whose zero is the same likelihood equation
(parameter expansion, Liu, Rubin & Wu 1998; interweaving, Yu & Meng 2011); the averages are moved along.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from amortnlme.methods.laplace_likelihood import ExpandableTarget
from amortnlme.population.bound_population import BoundPopulation


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Averages over the iterations.

    Attributes
    ----------
    first : ndarray, shape (n, r)
        Of phi, columns with random effects.
    second : ndarray, shape (n, r, r)
        Of phi phi'.
    information : ndarray, shape (q, q)
        Of the expected information about the q pooled coefficients.
    factor_information : ndarray, shape (l, l)
        Of that about the l free entries of L, at fixed u.
    """

    first: np.ndarray
    second: np.ndarray
    information: np.ndarray
    factor_information: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Which entries of x the two halves of the M-step own.

    Attributes
    ----------
    population : BoundPopulation
    random_columns : ndarray of int
        Entries of x (typical values and coefficients) of parameters with random effects.
    random_design : ndarray, shape (n, r, p)
        mu_i (random columns of phi) = random_design[i] @ x[random_columns] + random_offset.
    random_offset : ndarray, shape (r,)
        Given typical values of parameters with random effects, added to that; zero for the others.
    pooled_columns : ndarray of int
    pooled_design : ndarray, shape (n, d, q)
        d mu_i / d x[pooled_columns].
    """

    population: BoundPopulation
    random_columns: np.ndarray
    random_design: np.ndarray
    random_offset: np.ndarray
    pooled_columns: np.ndarray
    pooled_design: np.ndarray

    @classmethod
    def of(cls, population: BoundPopulation) -> Layout:
        """Sort the entries of x.

        Parameters
        ----------
        population : BoundPopulation

        Returns
        -------
        Layout
        """
        n, d = population.n_subjects, population.d
        owner = population.owner
        size = np.concatenate([np.ones((n, len(population.theta_index))), population.regressors], axis=1)
        is_random = np.isin(owner, population.random_index)
        random_columns, pooled_columns = np.flatnonzero(is_random), np.flatnonzero(~is_random)
        design = np.zeros((n, d, len(owner)))
        design[:, owner, np.arange(len(owner))] = size
        return cls(
            population,
            random_columns,
            design[:, population.random_index][:, :, random_columns],
            population.base_phi[population.random_index],
            pooled_columns,
            design[:, :, pooled_columns],
        )

    def random_mean(self, coefficients: np.ndarray) -> np.ndarray:
        """Typical values of the parameters with random effects.

        Parameters
        ----------
        coefficients : ndarray, shape (p,)
            For `random_columns`.

        Returns
        -------
        ndarray, shape (n, r)
        """
        return self.random_design @ coefficients + self.random_offset

    def pool_occasions(self, spread: np.ndarray) -> np.ndarray:
        """Average covariances over the subjects, and over the occasions where these share an entry.

        Parameters
        ----------
        spread : ndarray, shape (n, r, r)

        Returns
        -------
        ndarray, shape (r, r)
            Zero outside the blocks. A subject counts for the occasions it has: the effects of others only
            repeat what omega was.
        """
        label, has = self.population.layout.block, self.population.has_occasion.astype(np.float64)
        flat = label.ravel() + 1
        counts = np.bincount(flat, (has.T @ has).ravel())
        # An element-wise product, as the sum over subjects must not depend on how BLAS cuts it.
        total = np.bincount(flat, (spread * has[:, :, None] * has[:, None, :]).sum(axis=0).ravel())
        return np.where(label >= 0, (total / np.maximum(counts, 1.0))[flat].reshape(label.shape), 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """First derivatives of the complete-data likelihood, averaged over the chains, with their information.

    Attributes
    ----------
    pooled : ndarray, shape (q,)
        By the pooled coefficients.
    pooled_information : ndarray, shape (q, q)
    factor : ndarray, shape (l,)
        By the free entries of L, at fixed u.
    factor_information : ndarray, shape (l, l)
    gradient : ndarray, shape (n, C, d)
        Of every chain's log-likelihood by phi.
    information : ndarray, shape (n, C, d, d)
    """

    pooled: np.ndarray
    pooled_information: np.ndarray
    factor: np.ndarray
    factor_information: np.ndarray
    gradient: np.ndarray
    information: np.ndarray


def complete_scores(target: ExpandableTarget, phi: np.ndarray, u: np.ndarray, layout: Layout) -> Scores:
    """Differentiate the likelihood of the sampled individuals.

    Parameters
    ----------
    target : ExpandableTarget
    phi : ndarray, shape (n, C, d)
    u : ndarray, shape (n, C, r)
        Standardized random effects.
    layout : Layout

    Returns
    -------
    Scores
    """
    _, gradient, information = target.expansions(phi)
    design, population = layout.pooled_design, layout.population
    pooled = (np.swapaxes(design, 1, 2) @ gradient.mean(axis=1)[..., None]).sum(axis=0)[:, 0]
    pooled_information = (np.swapaxes(design, 1, 2) @ information.mean(axis=1) @ design).sum(axis=0)
    places, shares = population.layout, population.layout.shares
    rows = places.chol_row
    by_place = u[:, :, places.chol_column]
    factor = (gradient[:, :, rows] * by_place).mean(axis=1).sum(axis=0) @ shares
    among = information[:, :, rows[:, None], rows[None, :]]
    factor_information = np.einsum("ncab,nca,ncb->ab", among, by_place, by_place) / u.shape[1]
    factor_information = shares.T @ factor_information @ shares
    return Scores(pooled, pooled_information, factor, factor_information, gradient, information)


def observe(phi: np.ndarray, layout: Layout, scores: Scores) -> Statistics:
    """Statistics of one set of sampled individuals.

    Parameters
    ----------
    phi : ndarray, shape (n, C, d)
    layout : Layout
    scores : Scores

    Returns
    -------
    Statistics
    """
    random = phi[:, :, layout.population.random_index]
    second = np.swapaxes(random, 1, 2) @ random / phi.shape[1]
    return Statistics(random.mean(axis=1), second, scores.pooled_information, scores.factor_information)


def average(old: Statistics, new: Statistics, gain: float) -> Statistics:
    """Move the averages towards new statistics.

    Parameters
    ----------
    old, new : Statistics
    gain : float

    Returns
    -------
    Statistics
    """
    return Statistics(
        old.first + gain * (new.first - old.first),
        old.second + gain * (new.second - old.second),
        old.information + gain * (new.information - old.information),
        old.factor_information + gain * (new.factor_information - old.factor_information),
    )


def stretch(statistics: Statistics, mu: np.ndarray, transform: np.ndarray) -> Statistics:
    """Move the averages as if every sampled eta had been multiplied by a matrix.

    Parameters
    ----------
    statistics : Statistics
    mu : ndarray, shape (n, r)
        Typical values of the parameters with random effects.
    transform : ndarray, shape (r, r)

    Returns
    -------
    Statistics
    """
    cross = statistics.first[:, :, None] * mu[:, None, :]
    centered = statistics.second - cross - np.swapaxes(cross, 1, 2) + mu[:, :, None] * mu[:, None, :]
    first = mu + (statistics.first - mu) @ transform.T
    cross = first[:, :, None] * mu[:, None, :]
    second = transform @ centered @ transform.T
    second = second + cross + np.swapaxes(cross, 1, 2) - mu[:, :, None] * mu[:, None, :]
    return replace(statistics, first=first, second=second)


def maximize_random(
    statistics: Statistics, layout: Layout, omega: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Typical values, coefficients and covariance of the parameters with random effects.

    Parameters
    ----------
    statistics : Statistics
    layout : Layout
    omega : ndarray, shape (r, r)
        Current covariance, which weighs the regression.

    Returns
    -------
    coefficients : ndarray, shape (p,)
        For `layout.random_columns`.
    omega : ndarray, shape (r, r)
    """
    X, precision = layout.random_design, np.linalg.inv(omega)
    weighted = np.swapaxes(X, 1, 2) @ precision
    free = statistics.first - layout.random_offset
    coefficients = np.linalg.solve(
        (weighted @ X).sum(axis=0), (weighted @ free[..., None]).sum(axis=0)[:, 0]
    )
    mu = layout.random_mean(coefficients)
    cross = statistics.first[:, :, None] * mu[:, None, :]
    spread = statistics.second - cross - np.swapaxes(cross, 1, 2) + mu[:, :, None] * mu[:, None, :]
    return coefficients, layout.pool_occasions(spread)


def bounded_step(
    score: np.ndarray, information: np.ndarray, gain: float, longest: float | np.ndarray
) -> np.ndarray:
    """Move along the score, never further than `longest`.

    Parameters
    ----------
    score : ndarray, shape (q,)
    information : ndarray, shape (q, q)
    gain : float
    longest : float or ndarray of shape (q,)

    Returns
    -------
    ndarray, shape (q,)
    """
    ridge = 1e-8 * np.diag(np.diagonal(information)) + 1e-12 * np.eye(len(score))
    step = gain * np.linalg.solve(information + ridge, score)
    return np.clip(step, -longest, longest)


def floored(omega: np.ndarray, last: np.ndarray, share: float) -> np.ndarray:
    """Lift omega so that it is at least `share` of another matrix in every direction.

    Parameters
    ----------
    omega, last : ndarray, shape (r, r)
    share : float

    Returns
    -------
    ndarray, shape (r, r)
    """
    root = np.linalg.cholesky(last)
    inverse = np.linalg.inv(root)
    values, vectors = np.linalg.eigh(inverse @ omega @ inverse.T)
    lifted = (vectors * np.maximum(values, share)) @ vectors.T
    # Entries outside the blocks are zero in both matrices, and stay so.
    return np.where((omega == 0.0) & (last == 0.0), 0.0, root @ lifted @ root.T)


def not_below(omega: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Lift omega to `least` where it is smaller in some direction; else not a bit of it changes.

    Parameters
    ----------
    omega, least : ndarray, shape (r, r)

    Returns
    -------
    ndarray, shape (r, r)
    """
    inverse = np.linalg.inv(np.linalg.cholesky(least))
    if np.linalg.eigvalsh(inverse @ omega @ inverse.T)[0] >= 1.0:
        return omega
    return floored(omega, least, 1.0)
