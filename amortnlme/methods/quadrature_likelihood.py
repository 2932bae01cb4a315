"""Adaptive Gauss-Hermite quadrature of the population likelihood (Pinheiro & Bates 1995).

The nodes follow each subject's conditional law as in `guided_likelihood.py`, whose derivation of the total
gradient applies to any fixed base points; here these are those of a quadrature rule. `recenter` expands the
guides anew, so that at a settled optimum the nodes sit at the conditional modes, scaled by their curvature.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from amortnlme.methods.ebe import EmpiricalBayes, find_ebe
from amortnlme.methods.guided_likelihood import GuidedLikelihood
from amortnlme.methods.guides import place_guide
from amortnlme.methods.laplace_likelihood import ExpandableTarget
from amortnlme.methods.proposals import LOG_2PI, BaseNumbers
from amortnlme.methods.quadrature_nodes import gauss_hermite
from amortnlme.population.bound_population import BoundPopulation


@dataclass(frozen=True, slots=True, eq=False)
class QuadratureLikelihood:
    """Population log-likelihood by quadrature around guides that are renewed by `recenter`.

    Attributes
    ----------
    target : ExpandableTarget
    population : BoundPopulation
    n_nodes : int
        Per random effect; see `gauss_hermite`.
    """

    target: ExpandableTarget
    population: BoundPopulation
    n_nodes: int
    _memory: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    _guided: dict[str, GuidedLikelihood] = field(default_factory=dict, repr=False)

    def recenter(self, x: np.ndarray) -> None:
        """Place the nodes around the conditional modes at x.

        Parameters
        ----------
        x : ndarray, shape (n_x,)
        """
        last = self._memory.get("u")
        start = None if last is None else last[:, None]
        guide, u = place_guide(self.target, *self.population.unpack(x), start)
        self._memory["u"] = u[:, 0]
        base = quadrature_base(self.population.n_subjects, self.population.r, self.n_nodes)
        self._guided["now"] = GuidedLikelihood(self.target, self.population, guide, base)

    def modes(self, x: np.ndarray) -> EmpiricalBayes:
        """Conditional modes of every subject.

        Parameters
        ----------
        x : ndarray, shape (n_x,)

        Returns
        -------
        EmpiricalBayes
        """
        return find_ebe(self.target, *self.population.unpack(x), start=self._memory.get("u"))

    def value_and_scores(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log-likelihood of every subject and its gradient; see `GuidedLikelihood`.

        Parameters
        ----------
        x : ndarray, shape (n_x,)

        Returns
        -------
        value : ndarray, shape (n_subjects,)   [nats]
        scores : ndarray, shape (n_subjects, n_x)
        """
        if "now" not in self._guided:
            self.recenter(x)
        return self._guided["now"].value_and_scores(x)


def quadrature_base(n_subjects: int, r: int, n_nodes: int) -> BaseNumbers:
    """Write a quadrature rule as base numbers, whose plain mean of weights then is the rule.

    Parameters
    ----------
    n_subjects, r, n_nodes : int

    Returns
    -------
    BaseNumbers
    """
    rule = gauss_hermite(r, n_nodes)
    n = len(rule.weight)
    log_normal = -0.5 * (rule.z**2).sum(axis=1) - 0.5 * r * LOG_2PI
    log_density = log_normal - np.log(np.abs(rule.weight) * n)
    z = np.broadcast_to(rule.z, (n_subjects, n, r))
    sign = np.sign(rule.weight)
    return BaseNumbers(
        normal=z,
        scaled=z,
        log_density=np.broadcast_to(log_density, (n_subjects, n)),
        n_defensive=0,
        sign=None if (sign > 0).all() else np.broadcast_to(sign, (n_subjects, n)),
    )
