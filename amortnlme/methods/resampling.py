"""Bootstrap over individuals and posterior chains of population parameters, from the exact likelihood."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from amortnlme.core.errors import UsageError
from amortnlme.methods.information import whitening
from amortnlme.methods.local_search import PopulationObjective, minimize_whitened, negative_value_and_gradient
from amortnlme.methods.near_optimum import NearOptimum
from amortnlme.methods.proposals import DEGREES_OF_FREEDOM, log_standard_t

#: Furthest move of a replicate along each direction, in standard errors.
REACH = 6.0
#: Share of the steps that propose from the Wald distribution; the others walk.
INDEPENDENT = 0.7


@dataclass(frozen=True, slots=True, eq=False)
class Weighted:
    """A log-likelihood in which every subject counts a number of times.

    Attributes
    ----------
    objective : PopulationObjective
    weight : ndarray, shape (n_subjects,)
    """

    objective: PopulationObjective
    weight: np.ndarray

    def value_and_scores(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weighted log-likelihood of every subject and its gradient at x."""
        value, scores = self.objective.value_and_scores(x)
        used = self.weight > 0
        # A subject that was not drawn must not spoil the sum by a likelihood of zero.
        value, scores = np.where(used, value, 0.0), np.where(used[:, None], scores, 0.0)
        return self.weight * value, self.weight[:, None] * scores


def bootstrap(
    near: NearOptimum, n_replicates: int, rng: np.random.Generator, *, progress: bool = False
) -> np.ndarray:
    """Refit to samples of the subjects, drawn with replacement (nonparametric case bootstrap).

    Parameters
    ----------
    near : NearOptimum
    n_replicates : int
    rng : numpy.random.Generator
    progress : bool
        Show a bar.

    Returns
    -------
    ndarray, shape (n_replicates, n_x)
        Packed estimates. Entries on the boundary stay there.

    Raises
    ------
    UsageError
        E_BOOTSTRAP_SIZE.
    """
    if n_replicates < 2:
        raise UsageError(
            "E_BOOTSTRAP_SIZE", f"a bootstrap needs 2 replicates or more; {n_replicates} were asked for."
        )
    n, free = near.population.n_subjects, near.free
    transform = whitening(near.information)
    scores = near.objective.value_and_scores(near.x)[1][:, free]
    out = np.tile(near.x, (n_replicates, 1))
    for replicate in tqdm(range(n_replicates), desc="bootstrap", disable=not progress):
        weight = rng.multinomial(n, np.full(n, 1.0 / n)).astype(np.float64)
        start = np.array(near.x)
        start[free] += np.linalg.solve(near.information, weight @ scores)
        objective = Weighted(near.objective, weight)
        if not np.isfinite(negative_value_and_gradient(objective, start)[0]):
            start = np.array(near.x)
        found = minimize_whitened(objective, start, transform, free, max_iterations=40, reach=REACH)
        out[replicate] = near.population.fold_signs(found.x)
    return out


@dataclass(frozen=True, slots=True, eq=False)
class PopulationChains:
    """Draws from the posterior of the population parameters.

    Attributes
    ----------
    x : ndarray, shape (n_chains, n_draws, n_x)
        Packed; entries on the boundary stay there.
    log_posterior : ndarray, shape (n_chains, n_draws)   [nats]
        Up to a constant.
    acceptance : ndarray, shape (n_chains,)
    names : tuple of str
        Of the entries of x.
    """

    x: np.ndarray
    log_posterior: np.ndarray
    acceptance: np.ndarray
    names: tuple[str, ...]


def sample_population(
    near: NearOptimum,
    n_draws: int,
    rng: np.random.Generator,
    *,
    n_chains: int = 4,
    prior: Mapping[str, tuple[float, float]] | None = None,
    progress: bool = False,
) -> PopulationChains:
    """Sample the population parameters given the data by Metropolis-Hastings.

    Steps propose from a t-distribution with the Wald covariance, or walk: the first travel, the second keep
    moving where the tails of the posterior are heavier than those of the proposal.

    Parameters
    ----------
    near : NearOptimum
    n_draws : int
        Per chain, after a fifth as many that are thrown away.
    rng : numpy.random.Generator
    n_chains : int
    prior : mapping of str to (float, float), optional
        Mean and SD of independent normal priors on entries of x, by their names `near.population.names`:
        typical values on the phi scale, entries of L as they are. Flat elsewhere.
    progress : bool
        Show a bar.

    Returns
    -------
    PopulationChains

    Raises
    ------
    UsageError
        E_CHAINS_SIZE, E_CHAINS_PRIOR.
    """
    if n_draws < 1 or n_chains < 1:
        raise UsageError(
            "E_CHAINS_SIZE", f"{n_chains} chains of {n_draws} draws were asked for; at least 1 of each."
        )
    log_prior = _LogPrior.of(near, prior or {})
    free, root = near.free, np.linalg.cholesky(near.covariance)
    k, n_warm = len(free), n_draws // 5
    chains = np.tile(near.x, (n_chains, n_draws, 1))
    log_posterior, accepted = np.empty((n_chains, n_draws)), np.zeros(n_chains)
    bar = tqdm(total=n_chains * (n_warm + n_draws), desc="chains", disable=not progress)
    for chain in range(n_chains):
        z = _student(k, rng)
        now = _log_target(near, log_prior, root, z)
        while not np.isfinite(now):
            z = _student(k, rng)
            now = _log_target(near, log_prior, root, z)
        for number in range(-n_warm, n_draws):
            if rng.random() < INDEPENDENT:
                new = _student(k, rng)
                back = log_standard_t((z**2).sum(), k) - log_standard_t((new**2).sum(), k)
            else:
                new, back = z + 2.4 / np.sqrt(k) * rng.standard_normal(k), 0.0
            value = _log_target(near, log_prior, root, new)
            if np.log(rng.random()) < value - now + back:
                z, now = new, value
                accepted[chain] += number >= 0
            if number >= 0:
                chains[chain, number, free] = near.x[free] + root @ z
                log_posterior[chain, number] = now
            bar.update()
    bar.close()
    return PopulationChains(chains, log_posterior, accepted / n_draws, near.population.names)


@dataclass(frozen=True, slots=True, eq=False)
class _LogPrior:
    """Independent normal priors on some entries of x."""

    position: np.ndarray
    mean: np.ndarray
    sd: np.ndarray

    @classmethod
    def of(cls, near: NearOptimum, prior: Mapping[str, tuple[float, float]]) -> _LogPrior:
        names = near.population.names
        for name, (mean, sd) in prior.items():
            if name not in names or not np.isfinite(mean) or not 0.0 < sd < np.inf:
                raise UsageError(
                    "E_CHAINS_PRIOR",
                    f"the prior of {name!r} is ({mean:g}, {sd:g}). Give mean and positive SD of an entry of "
                    f"x: {', '.join(names)}.",
                )
        moments = np.array(list(prior.values()), dtype=np.float64).reshape(-1, 2)
        return cls(
            np.array([names.index(name) for name in prior], dtype=np.int64), moments[:, 0], moments[:, 1]
        )

    def at(self, x: np.ndarray) -> float:
        return float(-0.5 * (((x[self.position] - self.mean) / self.sd) ** 2).sum())


def _student(k: int, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal(k) * np.sqrt(DEGREES_OF_FREEDOM / rng.chisquare(DEGREES_OF_FREEDOM))


def _log_target(near: NearOptimum, log_prior: _LogPrior, root: np.ndarray, z: np.ndarray) -> float:
    x = np.array(near.x)
    x[near.free] += root @ z
    # The likelihood is even in the columns of L: one half of the space holds all there is.
    if (x[near.population.chol_diagonal] < 0.0).any():
        return -np.inf
    value = -negative_value_and_gradient(near.objective, x)[0]
    return value + log_prior.at(x)
