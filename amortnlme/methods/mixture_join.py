"""Mixtures of normal laws as joint laws, and averages of laws of any family, from a bank of nodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from amortnlme.methods.importance import normalized_weights
from amortnlme.methods.likelihood_bank import LikelihoodBank, score
from amortnlme.methods.log_sum import log_sum_exp
from amortnlme.population.laws import AbstractLaw, GaussianLaw, MixtureLaw
from amortnlme.population.stacked_law import StackedLaw

#: Numbers of components to choose from.
COMPONENTS = (2, 3, 4, 6)
#: Every component is shrunk towards this share of the normal law's covariance, worth so many subjects: a
#: component of few subjects would collapse.
SHARE, WEIGHT = 0.5, 8.0
MAX_STEPS, TOLERANCE = 150, 1e-3
STACKING_STEPS = 500


def fit_mixture_law(
    bank: LikelihoodBank, normal: GaussianLaw, n_components: int, rng: np.random.Generator
) -> MixtureLaw:
    """Fit a mixture by EM over components and effects.

    Parameters
    ----------
    bank : LikelihoodBank
        Best `resampled` to few nodes: every step goes over all of them.
    normal : GaussianLaw
        Where the components start, spread at random, and what they are shrunk to.
    n_components : int
    rng : numpy.random.Generator

    Returns
    -------
    MixtureLaw
    """
    n, d = bank.n_subjects, len(bank.names)
    flat, K = bank.eta.reshape(-1, d), n_components
    means = 0.7 * normal.sample(K, rng)
    law = MixtureLaw(
        normal.names, np.full(K, 1.0 / K), means, np.repeat(0.6 * normal.covariance[None], K, axis=0)
    )
    before = -np.inf
    for step in range(MAX_STEPS):
        parts = law.log_components(bank.eta)
        whole = log_sum_exp(parts, axis=0)
        log_joint = bank.log_weight + whole
        value = log_sum_exp(log_joint, axis=1).sum()
        of_node = normalized_weights(log_joint)
        weights, means, covariances = np.empty(K), np.empty((K, d)), np.empty((K, d, d))
        for k in range(K):
            share = (of_node * np.exp(parts[k] - whole)).reshape(-1, 1)
            total = float(share.sum()) + 1e-9
            weights[k], means[k] = total / n, (share * flat).sum(axis=0) / total
            apart = flat - means[k]
            scatter = (apart * share).T @ apart + WEIGHT * SHARE * normal.covariance
            covariances[k] = scatter / (total + WEIGHT)
        law = MixtureLaw(normal.names, weights / weights.sum(), means, covariances)
        if step > 15 and abs(value - before) < TOLERANCE * max(1.0, n / 200):
            break
        before = value
    return law


def fit_mixtures_of_all_sizes(
    bank: LikelihoodBank, normal: GaussianLaw, rng: np.random.Generator
) -> tuple[MixtureLaw, ...]:
    """Fit one mixture for each number of components in `COMPONENTS`.

    Parameters
    ----------
    bank : LikelihoodBank
    normal : GaussianLaw
    rng : numpy.random.Generator

    Returns
    -------
    tuple of MixtureLaw
    """
    return tuple(fit_mixture_law(bank, normal, K, rng) for K in COMPONENTS)


def stack(laws: Sequence[AbstractLaw], tuning: LikelihoodBank) -> StackedLaw:
    """Average laws with the weights that held-out subjects prefer.

    Parameters
    ----------
    laws : sequence of AbstractLaw
    tuning : LikelihoodBank
        Of subjects that none of the laws was fitted to.

    Returns
    -------
    StackedLaw
        The likelihood is concave in the weights. Half a subject, spread evenly, keeps every law in: a tuning
        set is small.
    """
    K, n = len(laws), tuning.n_subjects
    log_likelihood = np.stack([score(tuning, law).log_likelihood for law in laws])
    weights = np.full(K, 1.0 / K)
    for _ in range(STACKING_STEPS):
        log_part = np.log(weights)[:, None] + log_likelihood
        share = np.exp(log_part - log_sum_exp(log_part, axis=0))
        weights = (share.sum(axis=1) + 0.5 / K) / (n + 0.5)
    return StackedLaw(laws[0].names, weights / weights.sum(), tuple(laws))


def kept(laws: Sequence[AbstractLaw], start: AbstractLaw, tuning: LikelihoodBank) -> tuple[AbstractLaw, dict]:
    """Keep the best of several laws only where held-out subjects prefer it to the start beyond their noise.

    The best of many looks at few subjects looks better than it is.

    Parameters
    ----------
    laws : sequence of AbstractLaw
    start : AbstractLaw
        What the laws were trained from; the result where none is better by one standard error.
    tuning : LikelihoodBank

    Returns
    -------
    law : AbstractLaw
    notes : dict
        Which of them (None: the start), its gain on the held-out subjects and the standard error of that.
    """
    k = best_on(laws, tuning)
    difference = score(tuning, laws[k]).log_likelihood - score(tuning, start).log_likelihood
    gain, se = float(difference.sum()), float(difference.std(ddof=1) * np.sqrt(len(difference)))
    better = gain > se
    notes = {"kept": k if better else None, "held_out_gain": gain, "held_out_se": se}
    return (laws[k] if better else start), notes


def best_on(laws: Sequence[AbstractLaw], tuning: LikelihoodBank) -> int:
    """Position of the law that held-out subjects like best.

    Parameters
    ----------
    laws : sequence of AbstractLaw
    tuning : LikelihoodBank

    Returns
    -------
    int
    """
    return int(np.argmax([score(tuning, law).total for law in laws]))
