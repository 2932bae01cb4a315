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
        log_density, slope = np.empty((K, *u.shape[:-1])), np.empty((K, *u.shape))
        for k in range(K):
            chol = self.chol[:, None, k]
            white = (u - self.center[:, None, None, k]) @ chol
            square = (white**2).sum(axis=-1)
            log_root = np.log(np.diagonal(chol, axis1=-2, axis2=-1)).sum(axis=-1)
            log_density[k] = log_standard_t(square, r) + log_root[..., None]
            pull = -(DEGREES_OF_FREEDOM + r) / (DEGREES_OF_FREEDOM + square)
            slope[k] = pull[..., None] * (white @ np.swapaxes(chol, -1, -2))
        log_total = np.logaddexp.reduce(log_density, axis=0)
        share = np.exp(log_density - log_total)
        own = np.arange(K)
        # Advanced indices at both ends of a slice go first: (K, n, n_points, ...).
        log_share = np.swapaxes(log_density[own, :, own], 0, 1) - log_total
        gradient = np.swapaxes(slope[own, :, own], 0, 1) - (share[..., None] * slope).sum(axis=0)
        return log_share, gradient @ self.inverse
