"""Joint laws of random effects: one distribution for the effects of several models, whatever its family.

A law knows its effects by name, evaluates its density, draws from it, and draws from it given some of the
effects. It holds plain arrays only, so that it is stored without code (`amortnlme.methods.joint_file`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.special import logsumexp

from amortnlme.core.errors import PopulationError

LOG_2PI = float(np.log(2.0 * np.pi))


class AbstractLaw(ABC):
    """Distribution of the random effects `names`, centered where the fits of their models are.

    Attributes
    ----------
    kind : str
        Of the family, as stored.
    names : tuple of str
        Effects, in the order of the last axis of every array.
    """

    __slots__ = ()

    kind: ClassVar[str]
    names: tuple[str, ...]

    @abstractmethod
    def log_density(self, eta: np.ndarray) -> np.ndarray:
        """Log density.

        Parameters
        ----------
        eta : ndarray, shape (..., d)

        Returns
        -------
        ndarray, shape (...)   [nats]
        """

    @abstractmethod
    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw effects of n subjects.

        Parameters
        ----------
        n : int
        rng : numpy.random.Generator

        Returns
        -------
        ndarray, shape (n, d)
        """

    @abstractmethod
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance.

        Returns
        -------
        mean : ndarray, shape (d,)
        covariance : ndarray, shape (d, d)
        """

    @abstractmethod
    def sample_given(
        self, given: Sequence[str], values: np.ndarray, n: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, float]:
        """Draw all effects, some of them given.

        Parameters
        ----------
        given : sequence of str
        values : ndarray, shape (len(given),)
        n : int
        rng : numpy.random.Generator

        Returns
        -------
        eta : ndarray, shape (n, d)
            The given ones at their values.
        ess : float
            Effective number of draws; n where they are exact.
        """

    @abstractmethod
    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Plain values and arrays that define the law.

        Returns
        -------
        header : dict
            JSON-able.
        arrays : dict of str to ndarray
        """


@dataclass(frozen=True, slots=True, eq=False)
class GaussianLaw(AbstractLaw):
    """A normal distribution.

    Attributes
    ----------
    names : tuple of str
    mean : ndarray, shape (d,)
    covariance : ndarray, shape (d, d)

    Raises
    ------
    PopulationError
        E_LAW_SHAPE, E_LAW_COVARIANCE.
    """

    kind: ClassVar[str] = "gaussian"
    names: tuple[str, ...]
    mean: np.ndarray
    covariance: np.ndarray

    def __post_init__(self) -> None:
        """Check the shapes and that the covariance is positive definite."""
        d = checked_names(self)
        for name, shape in (("mean", (d,)), ("covariance", (d, d))):
            keep_array(self, name, shape)
        check_covariances(self.covariance[None])

    def log_density(self, eta: np.ndarray) -> np.ndarray:
        """Log density; see `AbstractLaw.log_density`."""
        return log_normal_density(eta, self.mean, self.covariance)

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw; see `AbstractLaw.sample`."""
        return self.mean + rng.standard_normal((n, len(self.names))) @ np.linalg.cholesky(self.covariance).T

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance."""
        return self.mean, self.covariance

    def conditional(self, given: Sequence[str], values: np.ndarray) -> GaussianLaw:
        """Law of the other effects.

        Parameters
        ----------
        given : sequence of str
        values : ndarray, shape (len(given),)

        Returns
        -------
        GaussianLaw
        """
        a, b = split_names(self.names, given)
        slope = np.linalg.solve(self.covariance[np.ix_(b, b)], self.covariance[np.ix_(b, a)]).T
        rest = self.covariance[np.ix_(a, a)] - slope @ self.covariance[np.ix_(b, a)]
        mean = self.mean[a] + slope @ (np.asarray(values, dtype=np.float64) - self.mean[b])
        return GaussianLaw(tuple(self.names[k] for k in a), mean, 0.5 * (rest + rest.T))

    def marginal(self, names: Sequence[str]) -> GaussianLaw:
        """Law of some effects, in the order asked for.

        Parameters
        ----------
        names : sequence of str

        Returns
        -------
        GaussianLaw
        """
        pick = [self.names.index(name) for name in names]
        return GaussianLaw(tuple(names), self.mean[pick], self.covariance[np.ix_(pick, pick)])

    def sample_given(
        self, given: Sequence[str], values: np.ndarray, n: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, float]:
        """Draw given some effects; see `AbstractLaw.sample_given`."""
        a, b = split_names(self.names, given)
        eta = np.empty((n, len(self.names)))
        eta[:, b] = values
        eta[:, a] = self.conditional(given, values).sample(n, rng)
        return eta, float(n)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Values and arrays; see `AbstractLaw.state`."""
        return {"names": list(self.names)}, {"mean": self.mean, "covariance": self.covariance}


@dataclass(frozen=True, slots=True, eq=False)
class MixtureLaw(AbstractLaw):
    """A mixture of normal distributions.

    Attributes
    ----------
    names : tuple of str
    weights : ndarray, shape (K,)
    means : ndarray, shape (K, d)
    covariances : ndarray, shape (K, d, d)

    Raises
    ------
    PopulationError
        E_LAW_SHAPE, E_LAW_COVARIANCE, E_LAW_WEIGHTS.
    """

    kind: ClassVar[str] = "mixture"
    names: tuple[str, ...]
    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    def __post_init__(self) -> None:
        """Check shapes, weights and covariances."""
        d, K = checked_names(self), len(self.weights)
        for name, shape in (("weights", (K,)), ("means", (K, d)), ("covariances", (K, d, d))):
            keep_array(self, name, shape)
        check_weights(self.weights)
        check_covariances(self.covariances)

    def log_density(self, eta: np.ndarray) -> np.ndarray:
        """Log density; see `AbstractLaw.log_density`."""
        return np.asarray(logsumexp(self.log_components(eta), axis=0))

    def log_components(self, eta: np.ndarray) -> np.ndarray:
        """Log of weight times density of every component.

        Parameters
        ----------
        eta : ndarray, shape (..., d)

        Returns
        -------
        ndarray, shape (K, ...)   [nats]
        """
        with np.errstate(divide="ignore"):
            log_weights = np.log(self.weights)
        parts = zip(log_weights, self.means, self.covariances, strict=True)
        return np.stack([w + log_normal_density(eta, m, c) for w, m, c in parts])

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw; see `AbstractLaw.sample`."""
        which = rng.choice(len(self.weights), size=n, p=self.weights)
        roots = np.linalg.cholesky(self.covariances)
        noise = rng.standard_normal((n, len(self.names), 1))
        return self.means[which] + (roots[which] @ noise)[..., 0]

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance."""
        mean = self.weights @ self.means
        apart = self.means - mean
        within = np.einsum("k,kij->ij", self.weights, self.covariances)
        return mean, within + np.einsum("k,ki,kj->ij", self.weights, apart, apart)

    def conditional(self, given: Sequence[str], values: np.ndarray) -> MixtureLaw:
        """Law of the other effects.

        Parameters
        ----------
        given : sequence of str
        values : ndarray, shape (len(given),)

        Returns
        -------
        MixtureLaw
        """
        parts = [
            GaussianLaw(self.names, mean, covariance)
            for mean, covariance in zip(self.means, self.covariances, strict=True)
        ]
        evidence = np.array([part.marginal(given).log_density(np.asarray(values)) for part in parts])
        with np.errstate(divide="ignore"):
            log_weights = np.log(self.weights) + evidence
        rest = [part.conditional(given, values) for part in parts]
        weights = np.exp(log_weights - logsumexp(log_weights))
        return MixtureLaw(
            rest[0].names, weights, np.stack([r.mean for r in rest]), np.stack([r.covariance for r in rest])
        )

    def sample_given(
        self, given: Sequence[str], values: np.ndarray, n: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, float]:
        """Draw given some effects; see `AbstractLaw.sample_given`."""
        a, b = split_names(self.names, given)
        eta = np.empty((n, len(self.names)))
        eta[:, b] = values
        eta[:, a] = self.conditional(given, values).sample(n, rng)
        return eta, float(n)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Values and arrays; see `AbstractLaw.state`."""
        arrays = {"weights": self.weights, "means": self.means, "covariances": self.covariances}
        return {"names": list(self.names)}, arrays


def log_normal_density(eta: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Log density of a normal distribution.

    Parameters
    ----------
    eta : ndarray, shape (..., d)
    mean : ndarray, shape (d,)
    covariance : ndarray, shape (d, d)

    Returns
    -------
    ndarray, shape (...)   [nats]
    """
    inverse = np.linalg.inv(np.linalg.cholesky(covariance))
    white = (eta - mean) @ inverse.T
    return np.log(np.diagonal(inverse)).sum() - 0.5 * len(mean) * LOG_2PI - 0.5 * (white**2).sum(axis=-1)


def split_names(names: tuple[str, ...], given: Sequence[str]) -> tuple[list[int], list[int]]:
    """Columns of the effects that are not given, and of those that are, in the order given.

    Parameters
    ----------
    names : tuple of str
    given : sequence of str

    Returns
    -------
    rest, given : list of int

    Raises
    ------
    PopulationError
        E_LAW_NAMES for unknown or repeated names, or when nothing is left.
    """
    unknown = [name for name in given if name not in names]
    if unknown or len(set(given)) != len(given) or not 0 < len(given) < len(names):
        raise PopulationError(
            "E_LAW_NAMES",
            f"the effects {', '.join(given) or 'none'} cannot be given in a law of {', '.join(names)}. Give "
            "some of them, each once, and leave at least one.",
        )
    return [k for k, name in enumerate(names) if name not in given], [names.index(name) for name in given]


def checked_names(law: AbstractLaw) -> int:
    """Count the effects of a law.

    Parameters
    ----------
    law : AbstractLaw

    Returns
    -------
    int

    Raises
    ------
    PopulationError
        E_LAW_NAMES.
    """
    if not law.names or len(set(law.names)) != len(law.names):
        raise PopulationError(
            "E_LAW_NAMES", f"a law needs effects with names of their own, but was given {law.names}."
        )
    return len(law.names)


def keep_array(law: AbstractLaw, name: str, shape: tuple[int, ...]) -> None:
    """Turn an attribute into a finite, read-only array of a given shape.

    Parameters
    ----------
    law : AbstractLaw
    name : str
    shape : tuple of int

    Raises
    ------
    PopulationError
        E_LAW_SHAPE.
    """
    value = np.array(getattr(law, name), dtype=np.float64)
    if value.shape != shape or not np.isfinite(value).all():
        raise PopulationError(
            "E_LAW_SHAPE",
            f"{name} of a law of {len(law.names)} effects has shape {value.shape}; it must be finite and of "
            f"shape {shape}.",
        )
    value.setflags(write=False)
    object.__setattr__(law, name, value)


def check_weights(weights: np.ndarray) -> None:
    """Refuse weights that are no probabilities.

    Parameters
    ----------
    weights : ndarray, shape (K,)

    Raises
    ------
    PopulationError
        E_LAW_WEIGHTS.
    """
    if (weights < 0).any() or abs(float(weights.sum()) - 1.0) > 1e-8:
        raise PopulationError(
            "E_LAW_WEIGHTS", f"the weights {weights.tolist()} are no probabilities. They must sum to 1."
        )


def check_covariances(covariances: np.ndarray) -> None:
    """Refuse matrices that are not symmetric and positive definite.

    Parameters
    ----------
    covariances : ndarray, shape (K, d, d)

    Raises
    ------
    PopulationError
        E_LAW_COVARIANCE.
    """
    symmetric = np.allclose(covariances, np.swapaxes(covariances, -1, -2), rtol=1e-8, atol=1e-12)
    if not symmetric or np.linalg.eigvalsh(covariances).min() <= 0:
        raise PopulationError(
            "E_LAW_COVARIANCE",
            "a covariance matrix of a law is not symmetric and positive definite. A random effect without "
            "variance cannot be joined: leave it out of the fit of its model.",
        )
