"""Averages of joint laws, weighted by how well they predict held-out subjects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.special import logsumexp

from amortnlme.core.errors import PopulationError
from amortnlme.population.laws import AbstractLaw, check_weights, checked_names, keep_array, split_names
from amortnlme.population.resampled import sample_given_by_weights


@dataclass(frozen=True, slots=True, eq=False)
class StackedLaw(AbstractLaw):
    """The average of several laws of the same effects (their densities, not their draws, are averaged).

    Attributes
    ----------
    names : tuple of str
    weights : ndarray, shape (K,)
    laws : tuple of AbstractLaw
        K of them.

    Raises
    ------
    PopulationError
        E_LAW_NAMES, E_LAW_SHAPE, E_LAW_WEIGHTS.
    """

    kind: ClassVar[str] = "stacked"
    names: tuple[str, ...]
    weights: np.ndarray
    laws: tuple[AbstractLaw, ...]

    def __post_init__(self) -> None:
        """Check that the laws describe the same effects."""
        checked_names(self)
        for law in self.laws:
            if law.names != self.names:
                raise PopulationError(
                    "E_LAW_NAMES",
                    f"laws of {', '.join(law.names)} and of {', '.join(self.names)} cannot be averaged. All "
                    "must have the same effects in the same order.",
                )
        keep_array(self, "weights", (len(self.laws),))
        check_weights(self.weights)

    def log_density(self, eta: np.ndarray) -> np.ndarray:
        """Log density; see `AbstractLaw.log_density`."""
        used = [(w, law) for w, law in zip(self.weights, self.laws, strict=True) if w > 0]
        return np.asarray(logsumexp(np.stack([np.log(w) + law.log_density(eta) for w, law in used]), axis=0))

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw; see `AbstractLaw.sample`."""
        which = rng.choice(len(self.weights), size=n, p=self.weights)
        eta = np.empty((n, len(self.names)))
        for k, law in enumerate(self.laws):
            here = np.flatnonzero(which == k)
            eta[here] = law.sample(len(here), rng)
        return eta

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance."""
        means, covariances = zip(*(law.moments() for law in self.laws), strict=True)
        mean = self.weights @ np.stack(means)
        apart = np.stack(means) - mean
        within = np.einsum("k,kij->ij", self.weights, np.stack(covariances))
        return mean, within + np.einsum("k,ki,kj->ij", self.weights, apart, apart)

    def sample_given(
        self, given: Sequence[str], values: np.ndarray, n: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, float]:
        """Draw given some effects; see `AbstractLaw.sample_given`."""
        split_names(self.names, given)
        return sample_given_by_weights(self, given, values, n, rng)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Values and arrays; see `AbstractLaw.state`."""
        header: dict[str, Any] = {"names": list(self.names), "laws": []}
        arrays: dict[str, np.ndarray] = {"weights": self.weights}
        for k, law in enumerate(self.laws):
            part, found = law.state()
            header["laws"].append({"kind": law.kind, **part})
            arrays |= {f"{k}/{name}": value for name, value in found.items()}
        return header, arrays
