"""Naive pooling: the typical subject's prediction for everybody, without random effects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from amortnlme.methods.base import AbstractMethod, FitProblem
from amortnlme.methods.ebe import EmpiricalBayes, IndividualTarget
from amortnlme.methods.likelihood_fit import LikelihoodOptions, fit_likelihood
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.population.bound_population import BoundPopulation


@dataclass(frozen=True, slots=True, eq=False)
class PooledLikelihood:
    """Likelihood of the data under the subjects' typical parameters.

    Attributes
    ----------
    target : IndividualTarget
    population : BoundPopulation
    """

    target: IndividualTarget
    population: BoundPopulation

    def modes(self, x: np.ndarray) -> EmpiricalBayes:
        """Random effects of zero, which is what they are here.

        Parameters
        ----------
        x : ndarray, shape (n_x,)

        Returns
        -------
        EmpiricalBayes
        """
        mu = self.population.unpack(x)[0]
        n, r = len(mu), self.population.r
        return EmpiricalBayes(
            np.zeros((n, r)),
            mu,
            np.tile(np.eye(r), (n, 1, 1)),
            self.target.log_likelihood(mu[:, None])[:, 0],
            np.ones(n, dtype=bool),
        )

    def value_and_scores(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log-likelihood of every subject and its gradient; see `LaplaceLikelihood.value_and_scores`.

        Parameters
        ----------
        x : ndarray, shape (n_x,)

        Returns
        -------
        value : ndarray, shape (n_subjects,)   [nats]
        scores : ndarray, shape (n_subjects, n_x)
        """
        mu, factor = self.population.unpack(x)
        value, gradient = self.target.log_likelihood_and_gradient(mu[:, None])
        return value[:, 0], self.population.pullback(gradient[:, 0], np.zeros((len(mu), *factor.shape)), x)


@dataclass(frozen=True, slots=True)
class Pooled(AbstractMethod):
    """Naive pooled maximum likelihood; with an additive error, least squares ("MSE").

    For typical predictions only: omega is zero and the residual SD holds all variability.

    Attributes
    ----------
    starts, referee_points, referee_replicates
        See `LikelihoodOptions`.

    Raises
    ------
    UsageError
        E_FIT_OPTION.
    """

    starts: int = 1
    referee_points: int = 512
    referee_replicates: int = 8

    name: ClassVar[str] = "pooled"
    needs_draws: ClassVar[bool] = False
    requires: ClassVar[frozenset[str]] = frozenset({"predict", "sensitivity", "likelihood"})
    handles_networks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse options outside their range."""
        self._options()

    def run(self, problem: FitProblem) -> PopulationFit:
        """Fit; see `AbstractMethod.run`."""
        return fit_likelihood(
            self.name,
            problem,
            lambda bound: PooledLikelihood(bound, problem.bound_population),
            self._options(),
            {name: getattr(self, name) for name in self.__slots__},
            has_omega=False,
        )

    def _options(self) -> LikelihoodOptions:
        return LikelihoodOptions(self.starts, "hessian", self.referee_points, self.referee_replicates)
