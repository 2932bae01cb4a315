"""Joint laws with small networks: an affine coupling flow, and a conditional mixture on a normal block.

Both are trained in `amortnlme.neural.joint_networks` and are plain arrays here, evaluated by NumPy: a stored
law needs no neural backend. Both start from a normal law, in whose whitened coordinates z the networks work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.special import logsumexp

from amortnlme.core.errors import PopulationError
from amortnlme.core.rng import stream
from amortnlme.population.laws import AbstractLaw, GaussianLaw, split_names
from amortnlme.population.resampled import sample_given_by_weights

Layer = tuple[np.ndarray, np.ndarray]
#: Draws behind the moments of a law without closed form, and their stream.
MOMENT_DRAWS, MOMENT_STREAM = 20_000, 88
#: Log scales of a coupling and of a component stay within this bound.
LOG_SCALE = 2.0


def perceptron(layers: Sequence[Layer], x: np.ndarray) -> np.ndarray:
    """Hidden layers with tanh, then a linear one.

    Parameters
    ----------
    layers : sequence of (ndarray, shape (a, b), ndarray, shape (b,))
    x : ndarray, shape (..., a)

    Returns
    -------
    ndarray, shape (..., c)
    """
    for weight, bias in layers[:-1]:
        x = np.tanh(x @ weight + bias)
    weight, bias = layers[-1]
    return x @ weight + bias


def bounded(log_scale: np.ndarray) -> np.ndarray:
    """Log scales within their bound.

    Parameters
    ----------
    log_scale : ndarray

    Returns
    -------
    ndarray
    """
    return LOG_SCALE * np.tanh(log_scale / LOG_SCALE)


def coupling_masks(d: int, n: int) -> np.ndarray:
    """Which coordinates each coupling moves.

    Parameters
    ----------
    d, n : int
        Coordinates, couplings.

    Returns
    -------
    ndarray of bool, shape (n, d)
    """
    index = np.arange(d)
    kinds = (index < d // 2, index >= d // 2, index % 2 == 0, index % 2 == 1)
    return np.stack([kinds[k % 4] for k in range(n)])


@dataclass(frozen=True, slots=True, eq=False)
class FlowLaw(AbstractLaw):
    """A normalizing flow of affine couplings around a normal law.

    Attributes
    ----------
    base : GaussianLaw
        Where the flow is the identity; names are its names.
    couplings : tuple of tuple of (ndarray, ndarray)
        Layers of the network of each coupling: from the coordinates it leaves alone to the log scales and
        shifts of those it moves.
    names : tuple of str

    Raises
    ------
    PopulationError
        E_LAW_SHAPE.
    """

    kind: ClassVar[str] = "flow"
    names: tuple[str, ...]
    base: GaussianLaw
    couplings: tuple[tuple[Layer, ...], ...]

    def __post_init__(self) -> None:
        """Check the shapes of the networks."""
        d = len(self.names)
        for mask, layers in zip(coupling_masks(d, len(self.couplings)), self.couplings, strict=True):
            check_layers(layers, int((~mask).sum()), 2 * int(mask.sum()))

    def log_density(self, eta: np.ndarray) -> np.ndarray:
        """Log density; see `AbstractLaw.log_density`."""
        z = white(self.base, eta)
        x, log_det = np.array(z), np.zeros(z.shape[:-1])
        masks = coupling_masks(len(self.names), len(self.couplings))
        for mask, layers in zip(masks, self.couplings, strict=True):
            log_scale, shift = self._moves(layers, x[..., ~mask])
            x[..., mask] = (x[..., mask] - shift) * np.exp(-log_scale)
            log_det -= log_scale.sum(axis=-1)
        ratio = log_det - 0.5 * (x**2).sum(axis=-1) + 0.5 * (z**2).sum(axis=-1)
        return self.base.log_density(eta) + ratio

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw; see `AbstractLaw.sample`."""
        x = rng.standard_normal((n, len(self.names)))
        masks = coupling_masks(len(self.names), len(self.couplings))
        for mask, layers in zip(masks[::-1], self.couplings[::-1], strict=True):
            log_scale, shift = self._moves(layers, x[:, ~mask])
            x[:, mask] = x[:, mask] * np.exp(log_scale) + shift
        return self.base.mean + x @ np.linalg.cholesky(self.base.covariance).T

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance, of many draws that are always the same."""
        return moments_of_draws(self)

    def sample_given(
        self, given: Sequence[str], values: np.ndarray, n: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, float]:
        """Draw given some effects; see `AbstractLaw.sample_given`."""
        split_names(self.names, given)
        return sample_given_by_weights(self, given, values, n, rng)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Values and arrays; see `AbstractLaw.state`."""
        arrays = {"base_mean": self.base.mean, "base_covariance": self.base.covariance}
        for c, layers in enumerate(self.couplings):
            arrays |= layer_arrays(f"coupling{c}", layers)
        header = {"names": list(self.names), "layers": [len(layers) for layers in self.couplings]}
        return header, arrays

    @staticmethod
    def _moves(layers: Sequence[Layer], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        out = perceptron(layers, x)
        half = out.shape[-1] // 2
        return bounded(out[..., :half]), out[..., half:]


@dataclass(frozen=True, slots=True, eq=False)
class ConditionalMixtureLaw(AbstractLaw):
    """A normal law of some effects, and a mixture for the others whose components depend on those.

    Attributes
    ----------
    names : tuple of str
    base : GaussianLaw
        The block comes first in it: `names` in another order.
    n_block : int
    layers : tuple of (ndarray, ndarray)
        Network from the whitened block to K components: log weight, means, log scales and the strict lower
        triangle of the inverse factor of each.

    Raises
    ------
    PopulationError
        E_LAW_SHAPE.
    """

    kind: ClassVar[str] = "conditional_mixture"
    names: tuple[str, ...]
    base: GaussianLaw
    n_block: int
    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        """Check the shapes of the network."""
        check_layers(self.layers, self.n_block, None)
        q = len(self.names) - self.n_block
        if self.layers[-1][0].shape[1] % component_size(q) or set(self.names) != set(self.base.names):
            raise PopulationError(
                "E_LAW_SHAPE",
                f"the network of a conditional mixture of {q} effects has {self.layers[-1][0].shape[1]} "
                f"outputs; it needs {component_size(q)} for every component.",
            )

    def log_density(self, eta: np.ndarray) -> np.ndarray:
        """Log density; see `AbstractLaw.log_density`."""
        ordered = eta[..., self._order]
        z = white(self.base, ordered)
        block, x = z[..., : self.n_block], z[..., self.n_block :]
        log_weight, mean, log_scale, lower = self._components(block)
        e = (x[..., None, :] - mean) * np.exp(-log_scale)
        standard = e + (lower @ e[..., None])[..., 0]
        part = log_weight - 0.5 * (standard**2).sum(axis=-1) - log_scale.sum(axis=-1)
        return self.base.log_density(ordered) + logsumexp(part, axis=-1) + 0.5 * (x**2).sum(axis=-1)

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw; see `AbstractLaw.sample`."""
        return self._unordered(self._fill(rng.standard_normal((n, self.n_block)), rng))

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance, of many draws that are always the same."""
        return moments_of_draws(self)

    def sample_given(
        self, given: Sequence[str], values: np.ndarray, n: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, float]:
        """Draw given some effects; see `AbstractLaw.sample_given`. Exact where the block is given."""
        split_names(self.names, given)
        block = self.base.names[: self.n_block]
        if set(given) != set(block):
            return sample_given_by_weights(self, given, values, n, rng)
        value = dict(zip(given, np.asarray(values, dtype=np.float64), strict=True))
        root = np.linalg.cholesky(self.base.covariance)[: self.n_block, : self.n_block]
        gap = np.array([value[name] for name in block]) - self.base.mean[: self.n_block]
        z = np.tile(np.linalg.solve(root, gap), (n, 1))
        return self._unordered(self._fill(z, rng)), float(n)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Values and arrays; see `AbstractLaw.state`."""
        arrays = {"base_mean": self.base.mean, "base_covariance": self.base.covariance}
        header = {
            "names": list(self.names),
            "order": list(self.base.names),
            "n_block": self.n_block,
            "layers": len(self.layers),
        }
        return header, arrays | layer_arrays("network", self.layers)

    @property
    def _order(self) -> list[int]:
        return [self.names.index(name) for name in self.base.names]

    def _unordered(self, z: np.ndarray) -> np.ndarray:
        ordered = self.base.mean + z @ np.linalg.cholesky(self.base.covariance).T
        eta = np.empty_like(ordered)
        eta[:, self._order] = ordered
        return eta

    def _fill(self, block: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Whitened block (n, b) completed by draws of the others."""
        log_weight, mean, log_scale, lower = self._components(block)
        n, K, q = mean.shape
        cumulative = np.cumsum(np.exp(log_weight), axis=1)
        which = np.minimum((rng.random((n, 1)) * cumulative[:, -1:] > cumulative).sum(axis=1), K - 1)
        row = np.arange(n)
        factor = np.eye(q) + lower[row, which]
        e = np.linalg.solve(factor, rng.standard_normal((n, q, 1)))[..., 0]
        x = mean[row, which] + e * np.exp(log_scale[row, which])
        return np.concatenate([block, x], axis=1)

    def _components(self, block: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        q = len(self.names) - self.n_block
        out = perceptron(self.layers, block)
        out = out.reshape(*out.shape[:-1], -1, component_size(q))
        log_weight = out[..., 0] - logsumexp(out[..., 0], axis=-1, keepdims=True)
        lower = np.zeros((*out.shape[:-1], q, q))
        row, column = np.tril_indices(q, -1)
        lower[..., row, column] = out[..., 1 + 2 * q :]
        return log_weight, out[..., 1 : 1 + q], bounded(out[..., 1 + q : 1 + 2 * q]), lower


def component_size(q: int) -> int:
    """Numbers that define a component of q effects.

    Parameters
    ----------
    q : int

    Returns
    -------
    int
    """
    return 1 + 2 * q + q * (q - 1) // 2


def white(base: GaussianLaw, eta: np.ndarray) -> np.ndarray:
    """Coordinates in which a normal law is standard.

    Parameters
    ----------
    base : GaussianLaw
    eta : ndarray, shape (..., d)

    Returns
    -------
    ndarray, shape (..., d)
    """
    return (eta - base.mean) @ np.linalg.inv(np.linalg.cholesky(base.covariance)).T


def moments_of_draws(law: AbstractLaw) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of draws from a fixed stream.

    Parameters
    ----------
    law : AbstractLaw

    Returns
    -------
    mean : ndarray, shape (d,)
    covariance : ndarray, shape (d, d)
    """
    eta = law.sample(MOMENT_DRAWS, stream(0, MOMENT_STREAM))
    return eta.mean(axis=0), np.cov(eta.T, bias=True).reshape(len(law.names), len(law.names))


def check_layers(layers: Sequence[Layer], n_in: int, n_out: int | None) -> None:
    """Refuse layers that do not fit together.

    Parameters
    ----------
    layers : sequence of (ndarray, ndarray)
    n_in : int
    n_out : int or None
        None: any.

    Raises
    ------
    PopulationError
        E_LAW_SHAPE.
    """
    width = n_in
    for weight, bias in layers:
        fits = weight.ndim == 2 and weight.shape[0] == width and bias.shape == weight.shape[1:]
        if not fits or not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise PopulationError(
                "E_LAW_SHAPE",
                f"a layer of a law has weights {weight.shape} and biases {bias.shape}; it must be finite and "
                f"take {width} numbers.",
            )
        width = weight.shape[1]
    if n_out is not None and width != n_out:
        raise PopulationError("E_LAW_SHAPE", f"a network of a law gives {width} numbers, not {n_out}.")


def layer_arrays(name: str, layers: Sequence[Layer]) -> dict[str, np.ndarray]:
    """Arrays of a network by name.

    Parameters
    ----------
    name : str
    layers : sequence of (ndarray, ndarray)

    Returns
    -------
    dict of str to ndarray
    """
    return {
        f"{name}_{kind}{k}": value
        for k, layer in enumerate(layers)
        for kind, value in zip(("weight", "bias"), layer, strict=True)
    }


def layers_from(name: str, n: int, arrays: dict[str, np.ndarray]) -> tuple[Layer, ...]:
    """Undo `layer_arrays`.

    Parameters
    ----------
    name : str
    n : int
    arrays : dict of str to ndarray

    Returns
    -------
    tuple of (ndarray, ndarray)
    """
    return tuple((arrays[f"{name}_weight{k}"], arrays[f"{name}_bias{k}"]) for k in range(n))
