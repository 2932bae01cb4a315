"""Networks of covariates on posterior draws: the surrogate, penalized, with no simulator in the loop."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from amortnlme.methods.density_targets import SurrogateTarget
from amortnlme.methods.ebe import EmpiricalBayes, find_ebe
from amortnlme.methods.penalized_search import maximize_penalized
from amortnlme.methods.refine import Optimum
from amortnlme.methods.surrogate import Surrogate, SurrogateLikelihood
from amortnlme.population.bound_population import BoundPopulation
from amortnlme.population.posterior_draws import PosteriorDraws
from amortnlme.population.starts import moment_start, with_weights


@dataclass(frozen=True, slots=True, eq=False)
class ModalSurrogate:
    """The surrogate as an objective that knows the conditional modes.

    Attributes
    ----------
    surrogate : Surrogate
    population : BoundPopulation
    """

    surrogate: Surrogate
    population: BoundPopulation

    def modes(self, x: np.ndarray) -> EmpiricalBayes:
        """Conditional modes under the surrogate.

        Parameters
        ----------
        x : ndarray, shape (n_x,)

        Returns
        -------
        EmpiricalBayes
        """
        mu, factor = self.population.unpack(x)
        start = self.surrogate.likely_effects(mu, factor)
        return find_ebe(SurrogateTarget(self.surrogate), mu, factor, start=start)

    def value_and_scores(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `SurrogateLikelihood.value_and_scores`.

        Parameters
        ----------
        x : ndarray, shape (n_x,)

        Returns
        -------
        value : ndarray, shape (n_subjects,)   [nats]
        scores : ndarray, shape (n_subjects, n_x)
        """
        return SurrogateLikelihood(self.surrogate, self.population).value_and_scores(x)


def fit_networks_to_surrogate(
    surrogate: Surrogate,
    population: BoundPopulation,
    draws: PosteriorDraws,
    n_starts: int,
    rng: np.random.Generator,
) -> Optimum:
    """Maximize the surrogate less the ridge from several weights of the networks.

    Parameters
    ----------
    surrogate : Surrogate
    population : BoundPopulation
        With networks.
    draws : PosteriorDraws
        For starting points.
    n_starts : int
    rng : numpy.random.Generator

    Returns
    -------
    Optimum
        The best of all starts; no covariance.
    """
    center, mean = moment_start(population, draws), draws.phi.mean(axis=1)
    objective, found = ModalSurrogate(surrogate, population), []
    for _ in range(n_starts):
        start = with_weights(population, center, mean, rng)
        found.append(maximize_penalized(objective, SurrogateTarget(surrogate), population, start))
    values = [o.value + 0.5 * float(population.penalty @ o.x**2) for o in found]
    values = [value if np.isfinite(value) else np.inf for value in values]
    best = found[int(np.argmin(values))]
    entry = {"stage": "starts", "start_objectives": [2.0 * value for value in values]}
    return replace(best, trace=(*best.trace, entry))
