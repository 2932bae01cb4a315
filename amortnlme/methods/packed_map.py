"""How typical parameters and the factor of omega depend on the packed population parameters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amortnlme.population.bound_population import BoundPopulation


@dataclass(frozen=True, slots=True, eq=False)
class PackedMap:
    """Derivatives of (mu, L) by x, which do not depend on x: both are linear in it.

    Attributes
    ----------
    mu : ndarray, shape (n_subjects, d, n_x)
    factor : ndarray, shape (n_x, d, r)
    """

    mu: np.ndarray
    factor: np.ndarray

    @property
    def random_rows(self) -> np.ndarray:
        """Components of phi that vary between subjects, ndarray of int."""
        return np.flatnonzero((self.factor != 0.0).any(axis=(0, 2)))


def packed_map(population: BoundPopulation) -> PackedMap:
    """Read the map off by unpacking unit vectors.

    Parameters
    ----------
    population : BoundPopulation

    Returns
    -------
    PackedMap
    """
    n_x = population.n_x
    origin_mu, origin_factor = population.unpack(np.zeros(n_x))
    mu = np.empty((*origin_mu.shape, n_x))
    factor = np.empty((n_x, *origin_factor.shape))
    for k, unit in enumerate(np.eye(n_x)):
        moved_mu, moved_factor = population.unpack(unit)
        mu[:, :, k] = moved_mu - origin_mu
        factor[k] = moved_factor - origin_factor
    return PackedMap(mu, factor)
