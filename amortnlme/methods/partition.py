"""A partition of unity over phi: which of several proposals for random effects answers for a point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amortnlme.methods.proposals import DEGREES_OF_FREEDOM, log_standard_t


@dataclass(frozen=True, slots=True, eq=False)
class Partition:
    """Shares rho_k(phi) of K equally likely t-components in their mixture, u = inverse (phi - mu).

    Attributes
    ----------
    mu : ndarray, shape (n_subjects, d)
    inverse : ndarray, shape (r, d)
        Pseudo-inverse of L: parameters without random effects do not move u.
    center : ndarray, shape (n_subjects, K, r)
    chol : ndarray, shape (n_subjects, K, r, r)
        Lower triangular C; C C' is the precision of a component.
    """

    mu: np.ndarray
    inverse: np.ndarray
    center: np.ndarray
    chol: np.ndarray

    def log_share(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Share of every component at its own points.

        Parameters
        ----------
        phi : ndarray, shape (n_subjects, K, n_points, d)

        Returns
        -------
        log_share : ndarray, shape (n_subjects, K, n_points)   [nats]
            log rho_k at the points of component k.
        gradient : ndarray, shape (n_subjects, K, n_points, d)
            Its derivative by phi.
        """
        K, r = self.center.shape[1:]
        u = (phi - self.mu[:, None, None]) @ self.inverse.T
        log_density = np.empty((K, *u.shape[:-1]))
        for k in range(K):
            white, chol = self._white(u, k)
            log_root = np.log(np.diagonal(chol, axis1=-2, axis2=-1)).sum(axis=-1)
            log_density[k] = log_standard_t((white**2).sum(axis=-1), r) + log_root[..., None]
        log_total = np.logaddexp.reduce(log_density, axis=0)
        gradient = np.zeros_like(u)
        # The densities once more, one component at a time: all slopes at once are K times the nodes.
        for k in range(K):
            white, chol = self._white(u, k)
            weight = -np.exp(log_density[k] - log_total)
            weight[:, k] += 1.0
            weight *= -(DEGREES_OF_FREEDOM + r) / (DEGREES_OF_FREEDOM + (white**2).sum(axis=-1))
            gradient += weight[..., None] * (white @ np.swapaxes(chol, -1, -2))
        own = np.arange(K)
        # Advanced indices at both ends of a slice go first: (K, n, n_points).
        log_share = np.swapaxes(log_density[own, :, own], 0, 1) - log_total
        return log_share, gradient @ self.inverse

    def _white(self, u: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """C_k'(u - center_k), and C_k with an axis for the components of u."""
        chol = self.chol[:, None, k]
        return (u - self.center[:, None, None, k]) @ chol, chol
