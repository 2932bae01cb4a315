"""The likelihood of all endpoints of a joint model as a function of its random effects."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from amortnlme.core.errors import FitError
from amortnlme.methods.ebe import IndividualTarget


@dataclass(frozen=True, slots=True, eq=False)
class JointPart:
    """What one endpoint adds to the joint likelihood.

    Attributes
    ----------
    name : str
    bound : IndividualTarget
    rows : ndarray of int, shape (n_e,)
        Subjects of the joint model.
    mu : ndarray, shape (n_e, d_e)
    columns : ndarray of int, shape (r_e,)
        Columns of phi with a random effect.
    places : ndarray of int, shape (r_e,)
        The same effects among those of the joint model.
    """

    name: str
    bound: IndividualTarget
    rows: np.ndarray
    mu: np.ndarray
    columns: np.ndarray
    places: np.ndarray

    def phi(self, eta: np.ndarray) -> np.ndarray:
        """Individual parameters.

        Parameters
        ----------
        eta : ndarray, shape (n, M, D)
            Of all subjects of the joint model.

        Returns
        -------
        ndarray, shape (n_e, M, d_e)
        """
        mine = eta[self.rows]
        phi = np.repeat(self.mu[:, None], mine.shape[1], axis=1)
        phi[..., self.columns] += mine[..., self.places]
        return phi


@dataclass(frozen=True, slots=True, eq=False)
class JointTarget:
    """The likelihood of all endpoints as a function of the joint random effects (an `IndividualTarget`).

    Attributes
    ----------
    ids : tuple of str
        n subjects; one may lack some endpoints.
    names : tuple of str
        D random effects.
    parts : tuple of JointPart
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    parts: tuple[JointPart, ...]

    def log_likelihood(self, phi: np.ndarray) -> np.ndarray:
        """Log-likelihood of the data of all endpoints.

        Parameters
        ----------
        phi : ndarray, shape (n, M, D)
            Random effects.

        Returns
        -------
        ndarray, shape (n, M)   [nats]
        """
        total = np.zeros(phi.shape[:2])
        for part in self.parts:
            total[part.rows] += part.bound.log_likelihood(part.phi(phi))
        return total

    def log_likelihood_and_gradient(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log-likelihood and its gradient.

        Parameters
        ----------
        phi : ndarray, shape (n, M, D)

        Returns
        -------
        value : ndarray, shape (n, M)   [nats]
        gradient : ndarray, shape (n, M, D)
        """
        total, slope = np.zeros(phi.shape[:2]), np.zeros(phi.shape)
        for part in self.parts:
            value, gradient = part.bound.log_likelihood_and_gradient(part.phi(phi))
            total[part.rows] += value
            slope[part.rows[:, None], :, part.places] += np.moveaxis(gradient[..., part.columns], 2, 1)
        return total, slope

    def gauss_newton(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log-likelihood, gradient and expected information.

        Parameters
        ----------
        phi : ndarray, shape (n, D)

        Returns
        -------
        value : ndarray, shape (n,)   [nats]
        gradient : ndarray, shape (n, D)
        information : ndarray, shape (n, D, D)
        """
        n, D = phi.shape
        total, slope, curvature = np.zeros(n), np.zeros((n, D)), np.zeros((n, D, D))
        for part in self.parts:
            value, gradient, information = part.bound.gauss_newton(part.phi(phi[:, None])[:, 0])
            rows, places, columns = part.rows, part.places, part.columns
            total[rows] += value
            slope[rows[:, None], places] += gradient[:, columns]
            curvature[np.ix_(rows, places, places)] += information[:, columns[:, None], columns]
        return total, slope, curvature

    def without(self, *endpoints: str) -> JointTarget:
        """Leave endpoints out, as if they had not been measured.

        Parameters
        ----------
        *endpoints : str

        Returns
        -------
        JointTarget

        Raises
        ------
        FitError
            E_JOIN_ENDPOINT.
        """
        known = [part.name for part in self.parts]
        unknown = [name for name in endpoints if name not in known]
        if unknown or len(set(endpoints)) == len(known):
            raise FitError(
                "E_JOIN_ENDPOINT",
                f"the endpoints {', '.join(endpoints)} cannot be left out of {', '.join(known)}. Name some, "
                "and leave at least one.",
            )
        return replace(self, parts=tuple(part for part in self.parts if part.name not in endpoints))
