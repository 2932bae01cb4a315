"""Normal joint laws from a bank of nodes: maximum likelihood by EM, shrunken, sparse, and split between both.

Every step of EM replaces the covariance by the mean over subjects of E[eta eta' | y_i]: it increases the
marginal likelihood, which the single pass over posteriors of the separate fits does not maximize (it shrinks
correlations towards the independence those posteriors assumed). Unless `free` the standard deviations stay
those of the separate fits, and only correlations are learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from amortnlme.core.errors import FitError
from amortnlme.methods.covariance_graph import constrained_covariance, rescaled, sparse_graph
from amortnlme.methods.importance import normalized_weights
from amortnlme.methods.likelihood_bank import LikelihoodBank, score
from amortnlme.methods.log_sum import log_sum_exp
from amortnlme.population.laws import GaussianLaw

#: EM ends when a step gains less than this [nats, all subjects].
TOLERANCE, MAX_STEPS = 1e-3, 400
#: The same in cross-validation, which looks at differences of whole nats.
CV_TOLERANCE = 0.03
#: The graph is chosen anew every so many steps, after a first stretch without one.
FIRST_STRETCH, EVERY = 10, 5
#: Candidate weights of the independent law, in subjects, for shrinkage.
WEIGHTS = (0.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
N_FOLDS, CV_NODES = 5, 128


@dataclass(frozen=True, slots=True)
class GaussianRule:
    """How a step of EM turns second moments into a covariance.

    Attributes
    ----------
    weight : float
        Subjects' worth of the independent law that is mixed in (an inverse-Wishart prior).
    penalty : float or None
        Price of an edge of the graph in log-likelihood; None: no graph.
    free : bool
        Learn standard deviations too.
    """

    weight: float = 0.0
    penalty: float | None = None
    free: bool = False


def fit_gaussian(
    bank: LikelihoodBank,
    independent: GaussianLaw,
    rule: GaussianRule,
    start: GaussianLaw | None = None,
    tolerance: float = TOLERANCE,
) -> tuple[GaussianLaw, np.ndarray | None]:
    """Fit a normal law by EM.

    Parameters
    ----------
    bank : LikelihoodBank
    independent : GaussianLaw
        Of the learned effects: what the separate fits say.
    rule : GaussianRule
    start : GaussianLaw, optional
        `independent` where not given.
    tolerance : float   [nats]
        EM ends when a step gains less.

    Returns
    -------
    law : GaussianLaw
    graph : ndarray of bool, shape (d, d), or None
        Where there is a penalty.
    """
    n, nodes = bank.n_subjects, _Nodes(bank)
    base, covariance = independent.covariance, (start or independent).covariance
    before, graph = -np.inf, None
    for step in range(MAX_STEPS):
        value, moments = nodes.expect(covariance)
        if rule.penalty is not None and step >= FIRST_STRETCH and step % EVERY == 0:
            graph = sparse_graph(moments, n, rule.penalty)
        if graph is None:
            # A mode with this prior: what is mixed in has the moments of the independent law.
            covariance = (n * moments + rule.weight * base) / (n + rule.weight)
        else:
            covariance = constrained_covariance(moments, graph)
        settled = abs(value - before) < tolerance
        if settled and (rule.penalty is None or step > FIRST_STRETCH + EVERY):
            break
        before = value
    if not rule.free:
        covariance = rescaled(covariance, np.sqrt(np.diagonal(base)))
    return GaussianLaw(independent.names, np.zeros(len(base)), covariance), graph


def one_pass_gaussian(bank: LikelihoodBank, independent: GaussianLaw) -> GaussianLaw:
    """Aggregate the posteriors of the separate fits once, as published: a baseline, attenuated.

    Parameters
    ----------
    bank : LikelihoodBank
    independent : GaussianLaw
        Of the learned effects.

    Returns
    -------
    GaussianLaw
    """
    moments = _Nodes(bank).expect(independent.covariance)[1]
    covariance = rescaled(moments, np.sqrt(np.diagonal(independent.covariance)))
    return GaussianLaw(independent.names, np.zeros(len(moments)), covariance)


def fit_shrunken(
    bank: LikelihoodBank, independent: GaussianLaw, start: GaussianLaw, rng: np.random.Generator
) -> tuple[GaussianLaw, float]:
    """Shrink the covariance towards the independent law, by as much as cross-validation says.

    Parameters
    ----------
    bank : LikelihoodBank
    independent, start : GaussianLaw
    rng : numpy.random.Generator

    Returns
    -------
    law : GaussianLaw
    weight : float
        See `GaussianRule`.
    """
    gain = cross_validated(bank, independent, start, [lambda law: law], rng)[0]
    weight = WEIGHTS[int(np.argmax(gain))]
    return fit_gaussian(bank, independent, GaussianRule(weight=weight), start)[0], weight


def fit_split(
    bank: LikelihoodBank,
    independent: GaussianLaw,
    primary: Sequence[str],
    start: GaussianLaw,
    rng: np.random.Generator,
) -> tuple[GaussianLaw, float]:
    """Sparse law of the biomarkers; the primary effects regress on them, shrunken by cross-validation.

    Dependence between biomarkers is strong and hides how little the data say of the primary endpoint:
    one weight for all would be chosen for the biomarkers.

    Parameters
    ----------
    bank : LikelihoodBank
    independent : GaussianLaw
    primary : sequence of str
        Effects of the primary endpoint.
    start : GaussianLaw
    rng : numpy.random.Generator

    Returns
    -------
    law : GaussianLaw
    weight : float

    Raises
    ------
    FitError
        E_JOIN_PRIMARY.
    """
    names, sd = independent.names, np.sqrt(np.diagonal(independent.covariance))
    a = [k for k, name in enumerate(names) if name in primary]
    b = [k for k, name in enumerate(names) if name not in primary]
    if len(a) != len(primary) or not a or not b:
        raise FitError(
            "E_JOIN_PRIMARY",
            f"the primary effects {', '.join(primary) or 'none'} are not some of {', '.join(names)}.",
        )
    sparse, _ = fit_gaussian(bank, independent, bic_rule(bank), start)

    def combine(shrunken: GaussianLaw) -> GaussianLaw:
        other, block = shrunken.covariance, sparse.covariance[np.ix_(b, b)]
        slope = np.linalg.solve(other[np.ix_(b, b)], other[np.ix_(b, a)]).T
        rest = other[np.ix_(a, a)] - slope @ other[np.ix_(b, a)]
        covariance = np.empty_like(other)
        covariance[np.ix_(b, b)], covariance[np.ix_(a, b)] = block, slope @ block
        covariance[np.ix_(b, a)] = covariance[np.ix_(a, b)].T
        covariance[np.ix_(a, a)] = rest + slope @ block @ slope.T
        return GaussianLaw(names, independent.mean, rescaled(covariance, sd))

    gain = cross_validated(bank, independent, start, [combine], rng)[0]
    weight = WEIGHTS[int(np.argmax(gain))]
    return combine(fit_gaussian(bank, independent, GaussianRule(weight=weight), start)[0]), weight


def bic_rule(bank: LikelihoodBank) -> GaussianRule:
    """Choose the graph by Schwarz's criterion.

    Parameters
    ----------
    bank : LikelihoodBank

    Returns
    -------
    GaussianRule
    """
    return GaussianRule(penalty=0.5 * float(np.log(bank.n_subjects)))


def cross_validated(
    bank: LikelihoodBank,
    independent: GaussianLaw,
    start: GaussianLaw,
    combine: Sequence,
    rng: np.random.Generator,
) -> np.ndarray:
    """Held-out log-likelihood of shrunken laws.

    Parameters
    ----------
    bank : LikelihoodBank
    independent, start : GaussianLaw
    combine : sequence of callable
        What is made of each shrunken law before it is scored.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (len(combine), len(WEIGHTS))   [nats]
    """
    small = bank.resampled(start, CV_NODES, rng)
    fold = rng.permutation(np.arange(small.n_subjects) % N_FOLDS)
    value = np.zeros((len(combine), len(WEIGHTS)))
    for k in range(N_FOLDS):
        rest, held_out = small.select(np.flatnonzero(fold != k)), small.select(np.flatnonzero(fold == k))
        law = start
        for j, weight in enumerate(WEIGHTS):
            law, _ = fit_gaussian(rest, independent, GaussianRule(weight=weight), law, CV_TOLERANCE)
            for c, change in enumerate(combine):
                value[c, j] += score(held_out, change(law)).total
    return value


class _Nodes:
    """Nodes of a bank laid out for the repeated steps of EM."""

    def __init__(self, bank: LikelihoodBank) -> None:
        self.n, self.S, self.d = bank.eta.shape
        self.flat = bank.eta.reshape(-1, self.d)
        self.log_weight = bank.log_weight

    def expect(self, covariance: np.ndarray) -> tuple[float, np.ndarray]:
        """Log-likelihood up to its constant, and the mean over subjects of E[eta eta' | y]."""
        inverse = np.linalg.inv(np.linalg.cholesky(covariance))
        white = self.flat @ inverse.T
        square = np.einsum("ij,ij->i", white, white).reshape(self.n, self.S)
        log_joint = self.log_weight - 0.5 * square
        value = log_sum_exp(log_joint, axis=1).sum() + self.n * np.log(np.diagonal(inverse)).sum()
        weights = normalized_weights(log_joint).reshape(-1, 1)
        return float(value), (self.flat * weights).T @ self.flat / self.n
