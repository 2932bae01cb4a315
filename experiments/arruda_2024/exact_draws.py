"""Draws from individual posteriors without a network: importance resampling with the exact likelihood.

The prior is a population of its own, mean and covariance known, so that the machinery of the referee applies:
conditional modes, second modes, mixtures of local expansions where one Gaussian will not do.
"""

from __future__ import annotations

import numpy as np

from amortnlme.data.dataset import Dataset
from amortnlme.methods.ebe import find_ebe
from amortnlme.methods.importance import effective_sample_size, normalized_weights
from amortnlme.methods.proposals import base_numbers
from amortnlme.methods.referee import fitted_proposal
from amortnlme.model.individual import IndividualModel
from amortnlme.population.posterior_draws import PosteriorDraws


def exact_draws(
    model: IndividualModel,
    dataset: Dataset,
    n_draws: int,
    rng: np.random.Generator,
    pool: int = 4096,
    start: np.ndarray | None = None,
) -> tuple[PosteriorDraws, np.ndarray]:
    """Posterior draws of every subject, and the effective share of the pool they were picked from.

    `start` (n_subjects, d): where the modes are searched from, instead of the prior mean.
    """
    bound = model.bind(dataset)
    n, d = len(dataset.ids), model.d
    mean = np.asarray(model.prior.mean)
    mu, root = np.tile(mean, (n, 1)), np.linalg.cholesky(model.prior.covariance)
    start_u = None if start is None else np.linalg.solve(root, (start - mean).T).T
    modes = find_ebe(bound, mu, root, start=start_u, max_iterations=200)
    proposal = fitted_proposal(bound, mu, root, modes, rng, min(pool, 512))
    nodes = proposal.nodes(base_numbers(n, pool, d, rng))
    phi = mu[:, None] + nodes.u @ root.T
    log_weight = bound.log_likelihood(phi) + nodes.log_weight
    weight = normalized_weights(log_weight)
    # One node for each of n_draws equal parts of the total weight; then in random order.
    grid = (np.arange(n_draws) + rng.random((n, n_draws))) / n_draws
    total = np.cumsum(weight, axis=1)
    index = np.stack([np.searchsorted(c / c[-1], g) for c, g in zip(total, grid, strict=True)])
    index = rng.permuted(np.minimum(index, weight.shape[1] - 1), axis=1)
    picked = np.take_along_axis(phi, index[..., None], axis=1)
    log_prior = model.prior.log_prob(picked.reshape(-1, d)).reshape(n, n_draws)
    draws = PosteriorDraws(
        phi=picked,
        log_q=np.take_along_axis(log_weight, index, axis=1),
        log_prior=log_prior,
        subject_ids=dataset.ids,
        parameters=model.parameters,
        prior=model.prior,
        model_name=model.name,
        model_fingerprint=model.fingerprint,
        estimator_fingerprint="importance resampling",
        dataset_fingerprint=dataset.fingerprint,
    )
    return draws, effective_sample_size(log_weight) / weight.shape[1]
