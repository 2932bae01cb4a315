"""Banks of importance nodes: the likelihood of every subject at fixed random effects, for any law of them.

Nodes eta_is of subject i come from a proposal q_i with weights v_is = p(y_i | eta_is) / q_i(eta_is). The
likelihood under a law p of the effects is the mean of v_is p(eta_is): one bank serves every law, as long as
its proposals cover what the law makes of the data. The effective number of nodes says whether they do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from amortnlme.methods.ebe import find_ebe
from amortnlme.methods.importance import effective_sample_size, normalized_weights
from amortnlme.methods.joint_target import JointTarget
from amortnlme.methods.log_sum import log_sum_exp
from amortnlme.methods.proposals import LOG_2PI, Proposal, base_numbers, freeze
from amortnlme.methods.referee import fitted_proposal
from amortnlme.population.laws import AbstractLaw, GaussianLaw

#: Independent randomizations of the nodes: their spread gives the Monte-Carlo error.
N_BLOCKS = 4

LogDensity = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True, eq=False)
class LikelihoodBank:
    """Nodes of n subjects with the part of their weights that no law of the learned effects changes.

    Attributes
    ----------
    ids : tuple of str
    names : tuple of str
        Learned effects.
    eta : ndarray, shape (n, S, d)
    log_weight : ndarray, shape (n, S)   [nats]
        log p(y | eta) - log q(eta), the law of the held effects included.
    held_names : tuple of str
    held : ndarray, shape (n, S, h)
        The other effects of the nodes.
    n_blocks : int
        Nodes come in so many independent blocks of equal size.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    eta: np.ndarray
    log_weight: np.ndarray
    held_names: tuple[str, ...]
    held: np.ndarray
    n_blocks: int

    @property
    def n_subjects(self) -> int:
        """Number of subjects."""
        return len(self.ids)

    @property
    def n_nodes(self) -> int:
        """Nodes per subject."""
        return self.eta.shape[1]

    def select(self, subjects: np.ndarray) -> LikelihoodBank:
        """Take some subjects.

        Parameters
        ----------
        subjects : ndarray of int

        Returns
        -------
        LikelihoodBank
        """
        return replace(
            self,
            ids=tuple(self.ids[k] for k in subjects),
            eta=self.eta[subjects],
            log_weight=self.log_weight[subjects],
            held=self.held[subjects],
        )

    def resampled(self, law: AbstractLaw, size: int, rng: np.random.Generator) -> LikelihoodBank:
        """Equally weighted nodes from the conditional laws: fewer, for fits that go over them many times.

        Parameters
        ----------
        law : AbstractLaw
            Of the learned effects; other laws are then evaluated by their ratio to it.
        size : int
        rng : numpy.random.Generator

        Returns
        -------
        LikelihoodBank
            With the likelihoods under `law` as they were.
        """
        log_joint = self.log_weight + law.log_density(self.eta)
        weights = normalized_weights(log_joint)
        cumulative = np.cumsum(weights, axis=1)
        grid = (np.arange(size) + rng.random((self.n_subjects, 1))) / size
        index = np.stack([np.searchsorted(c, g * c[-1]) for c, g in zip(cumulative, grid, strict=True)])
        index = rng.permuted(np.minimum(index, self.n_nodes - 1), axis=1)
        eta = np.take_along_axis(self.eta, index[..., None], axis=1)
        evidence = log_sum_exp(log_joint, axis=1) - np.log(self.n_nodes)
        return replace(
            self,
            eta=eta,
            log_weight=evidence[:, None] - law.log_density(eta),
            held=np.take_along_axis(self.held, index[..., None], axis=1),
            n_blocks=1,
        )


@dataclass(frozen=True, slots=True, eq=False)
class JointScore:
    """Marginal likelihood of every subject under a law, and what the data say of its effects.

    Attributes
    ----------
    log_likelihood : ndarray, shape (n,)   [nats]
    block_log_likelihood : ndarray, shape (n, n_blocks)   [nats]
        From the nodes of each block alone.
    ess : ndarray, shape (n,)
        Effective number of nodes.
    mean : ndarray, shape (n, d)
        Conditional means of the learned effects.
    """

    log_likelihood: np.ndarray
    block_log_likelihood: np.ndarray
    ess: np.ndarray
    mean: np.ndarray

    @property
    def total(self) -> float:
        """Log-likelihood of all subjects [nats]."""
        return float(self.log_likelihood.sum())

    @property
    def se(self) -> float:
        """Monte-Carlo standard error of `total` [nats]; NaN from a single block."""
        return _se(np.exp(self.block_log_likelihood - self.log_likelihood[:, None]))

    def gain_over(self, other: JointScore) -> tuple[float, float]:
        """Difference of the totals of two laws on the same nodes.

        Parameters
        ----------
        other : JointScore

        Returns
        -------
        gain, se : float   [nats]
            The error of the difference, which common nodes make smaller than those of the totals.
        """
        first = np.exp(self.block_log_likelihood - self.log_likelihood[:, None])
        second = np.exp(other.block_log_likelihood - other.log_likelihood[:, None])
        return self.total - other.total, _se(first - second)


def _se(relative: np.ndarray) -> float:
    n_blocks = relative.shape[1]
    if n_blocks < 2:
        return float("nan")
    return float(np.sqrt((relative.var(axis=1, ddof=1) / n_blocks).sum()))


def score(bank: LikelihoodBank, law: AbstractLaw | LogDensity) -> JointScore:
    """Evaluate the likelihood of every subject under a law of the learned effects.

    Parameters
    ----------
    bank : LikelihoodBank
    law : AbstractLaw or callable
        A callable returns the log density of effects (n, S, d).

    Returns
    -------
    JointScore
    """
    log_density = law.log_density(bank.eta) if isinstance(law, AbstractLaw) else law(bank.eta)
    log_joint = bank.log_weight + log_density
    blocks = log_joint.reshape(bank.n_subjects, bank.n_blocks, -1)
    weights = normalized_weights(log_joint)
    return JointScore(
        log_likelihood=log_sum_exp(log_joint, axis=1) - np.log(bank.n_nodes),
        block_log_likelihood=log_sum_exp(blocks, axis=2) - np.log(blocks.shape[2]),
        ess=effective_sample_size(log_joint),
        mean=(weights[..., None] * bank.eta).sum(axis=1),
    )


def make_bank(
    target: JointTarget,
    reference: GaussianLaw,
    learned: tuple[str, ...],
    rng: np.random.Generator,
    n_nodes: int = 512,
    *,
    mixtures: bool = False,
) -> LikelihoodBank:
    """Place nodes around the conditional modes under a normal law, and evaluate the likelihood there.

    Parameters
    ----------
    target : JointTarget
    reference : GaussianLaw
        Of all effects of the target, in its order: the closer to the law the bank is for, the better.
    learned : tuple of str
        The effects whose law the bank leaves open; `reference` stays the law of the others, which must not
        depend on them.
    rng : numpy.random.Generator
    n_nodes : int
        Fitted nodes per subject, best a power of two; one more for every eight comes from `reference`.
    mixtures : bool
        Give subjects whose conditional law is not close to normal a mixture of proposals, at four times the
        cost.

    Returns
    -------
    LikelihoodBank
    """
    n, D = len(target.ids), len(target.names)
    factor, center = np.linalg.cholesky(reference.covariance), np.tile(reference.mean, (n, 1))
    modes = find_ebe(target, center, factor, tolerance=1e-4)
    proposal = Proposal(modes.u, np.linalg.inv(modes.precision))
    nodes_of = None
    if mixtures:
        nodes_of = fitted_proposal(target, center, factor, modes, rng, n_nodes // N_BLOCKS).nodes
    us, log_weights = [], []
    for _ in range(N_BLOCKS):
        base = base_numbers(n, n_nodes // N_BLOCKS, D, rng)
        frozen = freeze(proposal, base) if nodes_of is None else nodes_of(base)
        us.append(frozen.u)
        # The nodes' weights hold the standard normal law of u: take it out again.
        log_weights.append(frozen.log_weight + 0.5 * (frozen.u**2).sum(axis=2) + 0.5 * D * LOG_2PI)
    u = np.concatenate(us, axis=1)
    eta = center[:, None] + u @ factor.T
    log_likelihood = target.log_likelihood(eta)
    log_weight = np.where(np.isfinite(log_likelihood), log_likelihood, -np.inf)
    log_weight += np.concatenate(log_weights, axis=1) + np.log(np.diagonal(factor)).sum()
    held_names = tuple(name for name in target.names if name not in learned)
    place = {name: k for k, name in enumerate(target.names)}
    held = eta[..., [place[name] for name in held_names]]
    if held_names:
        log_weight += reference.marginal(held_names).log_density(held)
    return LikelihoodBank(
        ids=target.ids,
        names=learned,
        eta=np.ascontiguousarray(eta[..., [place[name] for name in learned]]),
        log_weight=log_weight,
        held_names=held_names,
        held=held,
        n_blocks=N_BLOCKS,
    )


def reference_law(held: GaussianLaw | None, law: AbstractLaw) -> GaussianLaw:
    """Build the normal law of all effects with the moments of a law of the learned ones.

    Parameters
    ----------
    held : GaussianLaw or None
        Of the held effects, which come first.
    law : AbstractLaw

    Returns
    -------
    GaussianLaw
    """
    mean, covariance = law.moments()
    if held is None:
        return GaussianLaw(law.names, mean, covariance)
    h, D = len(held.names), len(held.names) + len(law.names)
    whole = np.zeros((D, D))
    whole[:h, :h], whole[h:, h:] = held.covariance, covariance
    return GaussianLaw((*held.names, *law.names), np.concatenate([held.mean, mean]), whole)
