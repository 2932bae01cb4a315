"""Small networks of covariates inside a population model: mu_i gains N(z_i; w) on the phi scale.

A network takes the covariates it is given and moves the parameters it may act on, nothing else; several of
them make a multi-branch model, one that has everything a fully connected one. Next to linear effects on the
logarithm of a covariate a network is a correction of a power law. Its weights are population parameters.

Head "linear": N(z) - N(0), zero at the reference covariates, so that typical values keep their meaning.
Head "softplus": log softplus(V'h(z) + c), a positive factor with an offset c of its own on a log scale (the
published deep compartment models; their typical values are fixed at 1).

Directions: where an input may only rise or fall, its kernel in the first layer and all later kernels are
squares of the weights, with a sign, so that the network is monotone in that input. The ridge then counts such
a kernel itself and not its square. With a linear head "tanh" makes any monotone shape, softplus activations
convex ones; "swish" is not monotone. All activations but "sharp-softplus" are smooth.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from amortnlme.core.errors import PopulationError
from amortnlme.population.effects import CovariateEffect

if TYPE_CHECKING:
    import pandas as pd

HEADS = ("linear", "softplus")
DIRECTIONS = {"free": 0, "rising": 1, "falling": -1}
#: Steepness of "sharp-softplus", softplus(10 x) / 10: nearly a rectifier.
SHARPNESS = 10.0
#: Glorot's range of a head's weights, shortened: a network starts as a small correction.
HEAD_SHARE = 0.3


def softplus(x: np.ndarray) -> np.ndarray:
    """Compute log(1 + exp(x)).

    Parameters
    ----------
    x : ndarray

    Returns
    -------
    ndarray, shape of x
    """
    return np.logaddexp(0.0, x)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


Pair = tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]
#: Name -> activation and its derivative.
ACTIVATIONS: dict[str, Pair] = {
    "sharp-softplus": (lambda x: softplus(SHARPNESS * x) / SHARPNESS, lambda x: _sigmoid(SHARPNESS * x)),
    "softplus": (softplus, _sigmoid),
    "tanh": (np.tanh, lambda x: 1.0 - np.tanh(x) ** 2),
    "swish": (lambda x: x * _sigmoid(x), lambda x: _sigmoid(x) * (1.0 + x * (1.0 - _sigmoid(x)))),
}


@dataclass(frozen=True, slots=True)
class NetworkInput:
    """A covariate as a network sees it: z = (T(x) - T(center)) / scale.

    Attributes
    ----------
    covariate : str
    transform : {"linear", "log"}
        T.
    center : {"mean", "median"} or float
        Reference value, in covariate units.
    scale : "sd" or float
        "sd": that of T(x) over the subjects of the dataset.
    direction : {"free", "rising", "falling"}
        Whether the parameters may only rise or fall with the covariate.

    Raises
    ------
    PopulationError
        E_POP_COVARIATE_TRANSFORM, E_POP_COVARIATE_CENTER, E_POP_NETWORK.
    """

    covariate: str
    transform: str = "linear"
    center: str | float = "mean"
    scale: str | float = "sd"
    direction: str = "free"

    def __post_init__(self) -> None:
        """Refuse unknown transforms and unusable numbers."""
        CovariateEffect("network", self.covariate, self.transform, self.center)
        if self.scale != "sd" and (
            isinstance(self.scale, bool | str) or not math.isfinite(self.scale) or self.scale <= 0
        ):
            raise PopulationError(
                "E_POP_NETWORK",
                f"network input {self.covariate!r}: scale {self.scale!r} cannot be used. Allowed: 'sd' or a "
                "positive number.",
            )
        if self.direction not in DIRECTIONS:
            raise PopulationError(
                "E_POP_NETWORK",
                f"network input {self.covariate!r}: direction {self.direction!r} is unknown. Allowed: "
                f"{', '.join(DIRECTIONS)}.",
            )


@dataclass(frozen=True, slots=True)
class NetworkEffect:
    """A network of covariates that moves some parameters.

    Attributes
    ----------
    on : tuple of str
        Parameters it may act on.
    inputs : tuple of NetworkInput
    hidden : tuple of int
        Widths of the hidden layers.
    activation : str
        A key of `ACTIVATIONS`.
    head : {"linear", "softplus"}
    ridge : float
        Penalty on -2 log-likelihood per squared weight; offsets are free.

    Raises
    ------
    PopulationError
        E_POP_NETWORK.
    """

    on: tuple[str, ...]
    inputs: tuple[NetworkInput, ...]
    hidden: tuple[int, ...] = (12,)
    activation: str = "sharp-softplus"
    head: str = "linear"
    ridge: float = 2.0

    def __post_init__(self) -> None:
        """Normalize sequences to tuples and refuse what makes no network."""
        for name in ("on", "inputs", "hidden"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        covariates = [i.covariate for i in self.inputs]
        problem = None
        if not self.on or len(set(self.on)) != len(self.on):
            problem = f"`on` is {list(self.on)}. Name at least one parameter, each once"
        elif not covariates or len(set(covariates)) != len(covariates):
            problem = f"its inputs are {covariates}. Give at least one covariate, each once"
        elif not self.hidden or any(isinstance(w, bool) or not 1 <= w <= 256 for w in self.hidden):
            problem = f"`hidden` is {list(self.hidden)}. Give at least one width from 1 to 256"
        elif self.activation not in ACTIVATIONS:
            problem = f"`activation` is {self.activation!r}. Allowed: {', '.join(ACTIVATIONS)}"
        elif self.activation == "swish" and any(i.direction != "free" for i in self.inputs):
            problem = '`activation` "swish" is not monotone, but an input has a direction. Choose tanh'
        elif self.head not in HEADS:
            problem = f"`head` is {self.head!r}. Allowed: {', '.join(HEADS)}"
        elif isinstance(self.ridge, bool) or not math.isfinite(self.ridge) or self.ridge < 0:
            problem = f"`ridge` is {self.ridge!r}. Allowed: a finite number, zero or above"
        if problem is not None:
            raise PopulationError("E_POP_NETWORK", f"network {self.name}: {problem}.")

    @property
    def name(self) -> str:
        """E.g. "CL_V1~weight"."""
        return f"{'_'.join(self.on)}~{'_'.join(i.covariate for i in self.inputs)}"

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of kernel and offset of every layer, in the order of the weights; a linear head has none."""
        widths = (len(self.inputs), *self.hidden, len(self.on))
        shapes: list[tuple[int, ...]] = []
        for before, after in itertools.pairwise(widths):
            shapes += [(before, after), (after,)]
        return tuple(shapes if self.head == "softplus" else shapes[:-1])

    @property
    def n_weights(self) -> int:
        """Number of weights, offsets included."""
        return sum(math.prod(shape) for shape in self.shapes)

    @property
    def penalty(self) -> np.ndarray:
        """Ridge of every weight on -2 log-likelihood, shape (n_weights,): zero for offsets."""
        return np.concatenate(
            [np.full(math.prod(shape), self.ridge if len(shape) == 2 else 0.0) for shape in self.shapes]
        )

    @property
    def signs(self) -> np.ndarray:
        """Sign of the square that a weight stands for, shape (n_weights,): 0 where it stands for itself."""
        first = np.array([DIRECTIONS[i.direction] for i in self.inputs])
        is_monotone, parts = bool(first.any()), []
        for k, shape in enumerate(self.shapes):
            sign = np.zeros(shape, dtype=int)
            if len(shape) == 2 and is_monotone:
                sign += first[:, None] if k == 0 else 1
            parts.append(sign.ravel())
        return np.concatenate(parts)

    def weight_names(self) -> tuple[str, ...]:
        """Names of the weights, e.g. "net_CL~weight_kernel1_0_3"."""
        names = []
        for k, shape in enumerate(self.shapes):
            kind = f"{'kernel' if len(shape) == 2 else 'offset'}{k // 2 + 1}"
            names += [f"net_{self.name}_{kind}_{'_'.join(map(str, i))}" for i in np.ndindex(shape)]
        return tuple(names)

    def bind(self, table: pd.DataFrame) -> BoundNetwork:
        """Join the network with the subjects' covariates.

        Parameters
        ----------
        table : pandas.DataFrame
            One row per subject, one column per covariate.

        Returns
        -------
        BoundNetwork
            Keeps the reference values of these subjects.

        Raises
        ------
        PopulationError
            E_POP_COVARIATE_MISSING and the codes of `CovariateEffect.regressor`.
        """
        ids = [str(name) for name in table.index]
        columns, centers, scales = [], [], []
        for given in self.inputs:
            effect = CovariateEffect(self.name, given.covariate, given.transform, given.center)
            values = covariate_column(table, given.covariate, f"network {self.name}")
            shifted, center = effect.regressor(values, ids)
            scale = float(shifted.std() if isinstance(given.scale, str) else given.scale)
            columns.append(shifted / scale)
            centers.append(center)
            scales.append(scale)
        return BoundNetwork(self, np.stack(columns, axis=1), tuple(centers), tuple(scales))


def covariate_column(table: pd.DataFrame, covariate: str, who: str) -> np.ndarray:
    """Values of one covariate.

    Parameters
    ----------
    table : pandas.DataFrame
    covariate : str
    who : str
        Who needs it, for the message.

    Returns
    -------
    ndarray, shape (n_subjects,)

    Raises
    ------
    PopulationError
        E_POP_COVARIATE_MISSING.
    """
    if covariate not in table.columns:
        known = ", ".join(str(c) for c in table.columns) or "none"
        raise PopulationError(
            "E_POP_COVARIATE_MISSING",
            f"{who} uses covariate {covariate!r}, which the data do not have. Covariates in the data: "
            f"{known}. Add the column or remove the effect.",
        )
    return np.asarray(table[covariate], dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class BoundNetwork:
    """A network with the inputs of given subjects.

    Attributes
    ----------
    effect : NetworkEffect
    z : ndarray, shape (n_subjects, n_inputs)
    centers, scales : tuple of float
        Reference values, covariate units, and scales of the transformed covariates.
    """

    effect: NetworkEffect
    z: np.ndarray
    centers: tuple[float, ...]
    scales: tuple[float, ...]

    def for_subjects(self, table: pd.DataFrame) -> BoundNetwork:
        """Keep the reference values, take other subjects.

        Parameters
        ----------
        table : pandas.DataFrame

        Returns
        -------
        BoundNetwork
        """
        columns = []
        for given, center, scale in zip(self.effect.inputs, self.centers, self.scales, strict=True):
            effect = CovariateEffect(self.effect.name, given.covariate, given.transform, center)
            values = covariate_column(table, given.covariate, f"network {self.effect.name}")
            columns.append(effect.transformed(values, center) / scale)
        return BoundNetwork(self.effect, np.stack(columns, axis=1), self.centers, self.scales)

    def outputs(self, weights: np.ndarray) -> np.ndarray:
        """Compute what the network adds to its parameters.

        Parameters
        ----------
        weights : ndarray, shape (n_weights,)

        Returns
        -------
        ndarray, shape (n_subjects, n_on)
        """
        return self.outputs_and_jacobian(weights)[0]

    def outputs_and_jacobian(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute outputs and their derivatives by the weights (forward and backward pass).

        Parameters
        ----------
        weights : ndarray, shape (n_weights,)

        Returns
        -------
        outputs : ndarray, shape (n_subjects, n_on)
        jacobian : ndarray, shape (n_subjects, n_on, n_weights)
        """
        is_linear = self.effect.head == "linear"
        # The reference goes through with the subjects and is subtracted.
        z = np.concatenate([self.z, np.zeros((1, self.z.shape[1]))]) if is_linear else self.z
        signs = self.effect.signs
        raw, jacobian = _network(self.effect, z, np.where(signs == 0, weights, signs * weights**2))
        jacobian = jacobian * np.where(signs == 0, 1.0, 2.0 * signs * weights)
        if is_linear:
            return raw[:-1] - raw[-1], jacobian[:-1] - jacobian[-1]
        factor = softplus(raw)
        return np.log(factor), jacobian * (_sigmoid(raw) / factor)[:, :, None]


def _network(effect: NetworkEffect, z: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Head before its link, shape (n, n_on), and the derivatives, shape (n, n_on, n_weights)."""
    activation, slope = ACTIVATIONS[effect.activation]
    layers = _split(effect, weights)
    values, slopes = [z], []
    for kernel, offset in layers[:-1]:
        before = values[-1] @ kernel + offset
        values.append(activation(before))
        slopes.append(slope(before))
    kernel, offset = layers[-1]
    out = values[-1] @ kernel + offset
    n, n_on = out.shape
    back = np.broadcast_to(np.eye(n_on), (n, n_on, n_on))  # d out / d (sum entering the layer)
    parts: list[np.ndarray] = []
    for k in range(len(layers) - 1, -1, -1):
        by_kernel = values[k][:, None, :, None] * back[:, :, None, :]
        parts = [by_kernel.reshape(n, n_on, -1), *([back] if 2 * k + 1 < len(effect.shapes) else []), *parts]
        if k:
            back = (back @ layers[k][0].T) * slopes[k - 1][:, None, :]
    return out, np.concatenate(parts, axis=2)


def _split(effect: NetworkEffect, weights: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernel and offset of every layer."""
    arrays, first = [], 0
    for shape in effect.shapes:
        last = first + math.prod(shape)
        arrays.append(weights[first:last].reshape(shape))
        first = last
    if effect.head == "linear":
        arrays.append(np.zeros(len(effect.on)))
    return list(zip(arrays[::2], arrays[1::2], strict=True))


def initial_weights(network: BoundNetwork, share: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw weights to start a search from: kinks spread over the subjects, heads small.

    Parameters
    ----------
    network : BoundNetwork
    share : ndarray, shape (n_on,)
        Part of log typical values that a softplus head has to supply.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (n_weights,)
    """
    effect, parts, first, kernel = network.effect, [], 0, np.zeros((0, 0))
    n_layers = len(effect.hidden) + 1
    for k, shape in enumerate(effect.shapes):
        is_head = k // 2 == n_layers - 1
        if len(shape) == 2:
            limit = math.sqrt(6.0 / sum(shape)) * (HEAD_SHARE if is_head else 1.0)
            drawn = rng.uniform(-limit, limit, shape).ravel()
            sign = effect.signs[first : first + drawn.size]
            parts.append(np.where(sign == 0, drawn, np.sqrt(np.abs(drawn))))
            kernel = np.where(sign == 0, drawn, sign * np.abs(drawn)).reshape(shape)
        elif is_head:
            # The inverse of log softplus.
            parts.append(np.log(np.expm1(np.exp(np.clip(share, -20.0, 5.0)))))
        elif k == 1:
            rows = rng.integers(len(network.z), size=shape[0])
            parts.append(-(network.z[rows] * kernel.T).sum(axis=1))
        else:
            parts.append(np.zeros(shape))
        first += math.prod(shape)
    return np.concatenate(parts)
