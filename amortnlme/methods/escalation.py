"""A better proposal for the subjects whose corrected draws are not to be trusted.

Where a network is too wide or displaced, a handful of its draws carries all the weight, and more draws hardly
help. Those few say where the posterior lies; a mixture of local expansions around them, moved by repeated
importance resampling, covers it. Posteriors too thin and bent for any such mixture are tempered
(`tempered.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from amortnlme.data.dataset import Dataset
from amortnlme.methods.ebe import IndividualTarget
from amortnlme.methods.importance import CorrectedDraws, importance_correct
from amortnlme.methods.local_mixture import (
    LocalMixture,
    expand_locally,
    fit_mixture,
    freeze_mixture,
    resample_points,
)
from amortnlme.methods.log_sum import log_sum_exp
from amortnlme.methods.proposals import base_numbers
from amortnlme.methods.surrogate import gaussian_prior_moments
from amortnlme.methods.tempered import temper
from amortnlme.model.individual import IndividualModel
from amortnlme.population.posterior_draws import PosteriorDraws

#: Subjects above this Pareto k, or below this effective share of their draws, get another proposal.
PARETO_LIMIT, EFFECTIVE_LIMIT = 0.7, 0.1
#: Subjects with fewer effective draws than this per parameter are tempered, as are those of a bad Pareto k.
FEWEST_PER_PARAMETER = 10
#: Populations of particles, and particles in each.
N_REPLICATES, N_PARTICLES = 4, 256
# Weights are raised to this power where the first components are placed: one draw may hold all of them.
_FIRST_TEMPERATURE = 0.1
_FIT_POINTS = 2048


def correct_draws(
    draws: PosteriorDraws, model: IndividualModel, dataset: Dataset, rng: np.random.Generator
) -> CorrectedDraws:
    """Turn draws of a network into draws of the exact posteriors.

    Parameters
    ----------
    draws : PosteriorDraws
        Of an estimator with a normal prior.
    model : IndividualModel
        With a likelihood.
    dataset : Dataset
        The data the draws belong to.
    rng : numpy.random.Generator

    Returns
    -------
    CorrectedDraws
        By importance resampling, and by `escalate` where that is not enough.

    Raises
    ------
    DrawsError
        E_DRAWS_NO_SUPPORT.
    CapabilityError
        E_POP_PRIOR_NOT_NORMAL.
    """
    first = importance_correct(draws, model.bind(dataset), rng)
    return escalate(draws, first, lambda ids: model.bind(dataset.select(ids)), rng)


def escalate(
    draws: PosteriorDraws,
    corrected: CorrectedDraws,
    bind: Callable[[Sequence[str]], IndividualTarget],
    rng: np.random.Generator,
) -> CorrectedDraws:
    """Correct subjects of bad weights again: by mixtures of local expansions, or else by tempering.

    Parameters
    ----------
    draws : PosteriorDraws
        Of an estimator with a normal prior.
    corrected : CorrectedDraws
        Their correction by `importance_correct`.
    bind : callable
        Joins the model with the subjects of some names: `lambda ids: model.bind(dataset.select(ids))`.
    rng : numpy.random.Generator

    Returns
    -------
    CorrectedDraws
        As many draws as before. A subject is replaced where its bad Pareto k fell, or where a good one came
        with more effective draws; its `log_weights` then belong to the draws of the mixture. Those of
        tempered subjects are equal, and their draws repeat particles.

    Raises
    ------
    CapabilityError
        E_POP_PRIOR_NOT_NORMAL.
    """
    few = corrected.ess < EFFECTIVE_LIMIT * draws.n_draws
    bad = np.flatnonzero((corrected.pareto_k > PARETO_LIMIT) | few)
    if not bad.size:
        return corrected
    ids = [draws.subject_ids[i] for i in bad]
    part, target = draws.select(ids), bind(ids)
    mean, covariance = gaussian_prior_moments(draws.prior)
    factor = np.linalg.cholesky(covariance)
    mu = np.tile(mean, (bad.size, 1))
    mixture = _mixture(part, target, mu, factor, rng)
    base = base_numbers(bad.size, draws.n_draws, len(mean), rng, defensive=False)
    nodes = freeze_mixture(mixture, base)
    phi = mean + nodes.u @ factor.T
    log_prior = draws.prior.log_prob(phi)
    # The weights of the nodes are prior over proposal, the same in u and in phi.
    proposed = replace(part, phi=phi, log_prior=log_prior, log_q=log_prior - nodes.log_weight)
    better = importance_correct(proposed, target, rng)
    before = corrected.pareto_k[bad]
    more = (better.ess > corrected.ess[bad]) & (better.pareto_k <= PARETO_LIMIT)
    use = np.where(before > PARETO_LIMIT, better.pareto_k < before, more)
    corrected = _merge(corrected, better, bad, use)
    lost = np.flatnonzero(
        (corrected.pareto_k[bad] > PARETO_LIMIT) | (corrected.ess[bad] < FEWEST_PER_PARAMETER * len(mean))
    )
    if not lost.size:
        return corrected
    ids = [ids[k] for k in lost]
    start = LocalMixture(mixture.mean[lost], mixture.root[lost])
    tempered = _tempered(draws.select(ids), bind(ids), factor, start, rng)
    return _merge(corrected, tempered, bad[lost], tempered.pareto_k < np.inf)


def _mixture(
    draws: PosteriorDraws,
    target: IndividualTarget,
    mu: np.ndarray,
    factor: np.ndarray,
    rng: np.random.Generator,
) -> LocalMixture:
    """Fit a mixture that starts at the draws of largest weight."""
    u = np.swapaxes(np.linalg.solve(factor, np.swapaxes(draws.phi - mu[:, None], 1, 2)), 1, 2)
    log_weight = target.log_likelihood(draws.phi) + draws.log_prior - draws.log_q
    log_weight = np.where(np.isnan(log_weight), -np.inf, log_weight)
    points, spread = resample_points(u, _FIRST_TEMPERATURE * log_weight, rng)
    start = expand_locally(target, mu, factor, points, spread)
    return fit_mixture(target, mu, factor, start, rng, _FIT_POINTS)


def _tempered(
    draws: PosteriorDraws,
    target: IndividualTarget,
    factor: np.ndarray,
    start: LocalMixture,
    rng: np.random.Generator,
) -> CorrectedDraws:
    """Draws from particles that followed a path from a mixture to the posterior."""
    mean, _ = gaussian_prior_moments(draws.prior)
    n, M, _ = draws.phi.shape
    mu = np.tile(mean, (n, 1))
    found = temper(target, mu, factor, start, rng, N_PARTICLES, N_REPLICATES)
    _, R, N, r = found.u.shape
    # Replicates count by their likelihoods.
    log_weight = np.repeat(found.log_mean, N, axis=1)
    u, _ = resample_points(found.u.reshape(n, R * N, r), log_weight, rng, M)
    u = np.take_along_axis(u, rng.permuted(np.tile(np.arange(M), (n, 1)), axis=1)[..., None], axis=1)
    phi = mean + u @ factor.T
    log_prior = draws.prior.log_prob(phi)
    log_evidence = log_sum_exp(found.log_mean, axis=1) - np.log(R)
    log_posterior = target.log_likelihood(phi) + log_prior - log_evidence[:, None]
    return CorrectedDraws(
        replace(draws, phi=phi, log_prior=log_prior, log_q=log_posterior),
        np.full((n, M), -np.log(M)),
        np.minimum(found.ess, M),
        found.pareto_k,
        log_evidence,
    )


def _merge(
    first: CorrectedDraws, second: CorrectedDraws, rows: np.ndarray, use: np.ndarray
) -> CorrectedDraws:
    """Put the rows of `second` that are to be used into `first`."""
    to = rows[use]

    def put(into: np.ndarray, values: np.ndarray) -> np.ndarray:
        out = np.array(into)
        out[to] = values[use]
        return out

    names = ("phi", "log_q", "log_prior")
    merged = {name: put(getattr(first.draws, name), getattr(second.draws, name)) for name in names}
    return CorrectedDraws(
        replace(first.draws, **merged),
        put(first.log_weights, second.log_weights),
        put(first.ess, second.ess),
        put(first.pareto_k, second.pareto_k),
        put(first.log_evidence, second.log_evidence),
    )
