"""The evidence bound as a function of the population parameters, every subject's q being the best there.

The bound is maximized over q inside, so that its gradient by (mu, L) is the one at fixed q (the envelope
theorem), sum_j w_j dl/dphi_j and sum_j w_j dl/dphi_j u_j': exact also for the bound *as the rule gives it*.
Searches and standard errors then are those of any other population likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from amortnlme.methods.ebe import EmpiricalBayes, find_ebe
from amortnlme.methods.laplace_likelihood import ExpandableTarget
from amortnlme.methods.quadrature_nodes import QuadratureNodes
from amortnlme.methods.variational_posterior import (
    GaussianPosteriors,
    VariationalProblem,
    find_posteriors,
    predicted_start,
)
from amortnlme.population.bound_population import BoundPopulation


@dataclass(frozen=True, slots=True, eq=False)
class VariationalLikelihood:
    """Evidence lower bound of a population model.

    Attributes
    ----------
    target : ExpandableTarget
    population : BoundPopulation
    nodes : QuadratureNodes
        For expectations under q; see `expectation_nodes`.
    is_diagonal : bool
        Mean field: independent random effects under q.
    """

    target: ExpandableTarget
    population: BoundPopulation
    nodes: QuadratureNodes
    is_diagonal: bool = False
    # The last posteriors with their problem, from which the next ones are predicted.
    _memory: dict[str, tuple[VariationalProblem, GaussianPosteriors]] = field(
        default_factory=dict, repr=False
    )

    def posteriors(self, x: np.ndarray) -> GaussianPosteriors:
        """Best Gaussian approximation of every subject's conditional law.

        Parameters
        ----------
        x : ndarray, shape (n_x,)

        Returns
        -------
        GaussianPosteriors
        """
        problem = self.problem(x)
        last = self._memory.get("last")
        return self._search(problem, None if last is None else predicted_start(last[1], last[0], problem))

    def problem(self, x: np.ndarray) -> VariationalProblem:
        """State the bound of every subject at given population parameters.

        Parameters
        ----------
        x : ndarray, shape (n_x,)

        Returns
        -------
        VariationalProblem
        """
        return VariationalProblem(self.target, *self.population.unpack(x), self.nodes, self.is_diagonal)

    def posteriors_from(self, x: np.ndarray, mean: np.ndarray, root: np.ndarray) -> GaussianPosteriors:
        """Best approximations, searched from given ones; later searches go on from what is found.

        Parameters
        ----------
        x : ndarray, shape (n_x,)
        mean : ndarray, shape (n_subjects, r)
            Of u.
        root : ndarray, shape (n_subjects, r, r)

        Returns
        -------
        GaussianPosteriors
        """
        return self._search(self.problem(x), (mean, root))

    def _search(
        self, problem: VariationalProblem, start: tuple[np.ndarray, np.ndarray] | None
    ) -> GaussianPosteriors:
        found = find_posteriors(problem, start)
        if np.isfinite(found.bound).all():
            self._memory["last"] = (problem, found)
        return found

    def modes(self, x: np.ndarray) -> EmpiricalBayes:
        """Conditional modes of every subject, searched from the means of the posteriors.

        Parameters
        ----------
        x : ndarray, shape (n_x,)

        Returns
        -------
        EmpiricalBayes
        """
        return find_ebe(self.target, *self.population.unpack(x), start=self.posteriors(x).mean)

    def value_and_scores(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bound of every subject and its gradient; see `LaplaceLikelihood.value_and_scores`.

        Parameters
        ----------
        x : ndarray, shape (n_x,)

        Returns
        -------
        value : ndarray, shape (n_subjects,)   [nats]
        scores : ndarray, shape (n_subjects, n_x)
        """
        found = self.posteriors(x)
        lost = ~np.isfinite(found.bound)
        weighted = self.nodes.weight[:, None] * np.where(lost[:, None, None], 0.0, found.gradient)
        dfactor = np.swapaxes(weighted, 1, 2) @ found.at(self.nodes)
        return found.bound, self.population.pullback(weighted.sum(axis=1), dfactor, x)
