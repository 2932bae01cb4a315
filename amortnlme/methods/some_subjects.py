"""Individual likelihoods of some of the subjects of a study, for work that the others do not need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amortnlme.methods.ebe import EmpiricalBayes, IndividualTarget

#: Points of all subjects together that are handed over at once.
BLOCK = 1 << 19


@dataclass(frozen=True, slots=True, eq=False)
class SomeSubjects:
    """The chosen rows of a target; its other subjects are asked with NaN, which costs nothing.

    Attributes
    ----------
    target : IndividualTarget
    chosen : ndarray of int, shape (n_chosen,)
    n_subjects : int
        Of the target.
    """

    target: IndividualTarget
    chosen: np.ndarray
    n_subjects: int

    def log_likelihood(self, phi: np.ndarray) -> np.ndarray:
        """Log-likelihood.

        Parameters
        ----------
        phi : ndarray, shape (n_chosen, n_points, d)

        Returns
        -------
        ndarray, shape (n_chosen, n_points)   [nats]
        """
        size = max(1, BLOCK // self.n_subjects)
        blocks = [phi[:, first : first + size] for first in range(0, phi.shape[1], size)]
        return np.concatenate([self.target.log_likelihood(self._all(b))[self.chosen] for b in blocks], axis=1)

    def log_likelihood_and_gradient(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log-likelihood and its gradient.

        Parameters
        ----------
        phi : ndarray, shape (n_chosen, n_points, d)

        Returns
        -------
        value : ndarray, shape (n_chosen, n_points)   [nats]
        gradient : ndarray, shape (n_chosen, n_points, d)
        """
        value, gradient = self.target.log_likelihood_and_gradient(self._all(phi))
        return value[self.chosen], gradient[self.chosen]

    def gauss_newton(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log-likelihood, gradient and expected information.

        Parameters
        ----------
        phi : ndarray, shape (n_chosen, d)

        Returns
        -------
        value : ndarray, shape (n_chosen,)   [nats]
        gradient : ndarray, shape (n_chosen, d)
        information : ndarray, shape (n_chosen, d, d)
        """
        value, gradient, information = self.target.gauss_newton(self._all(phi))
        return value[self.chosen], gradient[self.chosen], information[self.chosen]

    def _all(self, phi: np.ndarray) -> np.ndarray:
        everyone = np.full((self.n_subjects, *phi.shape[1:]), np.nan)
        everyone[self.chosen] = phi
        return everyone


def modes_of(modes: EmpiricalBayes, chosen: np.ndarray) -> EmpiricalBayes:
    """Conditional modes of some subjects.

    Parameters
    ----------
    modes : EmpiricalBayes
    chosen : ndarray of int, shape (n_chosen,)

    Returns
    -------
    EmpiricalBayes
    """
    return EmpiricalBayes(
        modes.u[chosen],
        modes.phi[chosen],
        modes.precision[chosen],
        modes.log_joint[chosen],
        modes.converged[chosen],
    )
