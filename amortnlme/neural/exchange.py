"""Parameters that can swap their values without any effect: named by the user, and checked before use."""

from __future__ import annotations

import numpy as np

from amortnlme.core.errors import TrainingError
from amortnlme.data.design import DesignBatch
from amortnlme.model.individual import IndividualModel
from amortnlme.neural.sentinel import simulated_dataset
from amortnlme.neural.spec import NetworkSpec

_ROWS = 50
# Two evaluations of one closed form or one tolerance-driven solve, on log densities of some hundred nats.
_TOLERANCE = 1e-5


def exchangeable_pair(model: IndividualModel, spec: NetworkSpec) -> tuple[int, int]:
    """Columns of the two exchangeable parameters.

    Parameters
    ----------
    model : IndividualModel
        The model.
    spec : NetworkSpec
        Options that name two exchangeable parameters.

    Returns
    -------
    tuple of int
        Their columns in phi.

    Raises
    ------
    TrainingError
        E_SPEC_EXCHANGE when the model lacks one of them.
    """
    names = list(model.parameters.names)
    unknown = [name for name in spec.exchangeable if name not in names]
    if unknown:
        raise TrainingError(
            "E_SPEC_EXCHANGE",
            f"exchangeable names {unknown[0]!r}, which is no parameter of model {model.name!r} "
            f"({', '.join(names)}). Correct the network options.",
        )
    first, second = (names.index(name) for name in spec.exchangeable)
    return first, second


def refuse_false_exchange(
    model: IndividualModel, pair: tuple[int, int], batch: DesignBatch, y: np.ndarray, phi: np.ndarray
) -> None:
    """Compare likelihood and prior before and after the swap on pilot simulations.

    Parameters
    ----------
    model : IndividualModel
        The model.
    pair : tuple of int
        Columns that are said to be exchangeable.
    batch : DesignBatch
        n pilot designs.
    y : ndarray (n, m), unit of the outputs
        Simulated measurements, NaN where there is none.
    phi : ndarray (n, d)
        Parameters that produced them, unconstrained scale.

    Raises
    ------
    TrainingError
        E_SPEC_EXCHANGE when the swap changes the joint density, or when there is no likelihood to tell.
    """
    parameters = [model.parameters.parameters[column] for column in pair]
    same_scale = parameters[0].transform == parameters[1].transform
    if "likelihood" not in model.capabilities or not same_scale:
        raise TrainingError(
            "E_SPEC_EXCHANGE",
            f"parameters {parameters[0].name!r} and {parameters[1].name!r} of model {model.name!r} have "
            "other transforms, or the model has no likelihood, so that nobody can check that they are "
            "exchangeable. Leave exchangeable empty.",
        )
    rows = np.arange(min(_ROWS, len(phi)))
    points = np.stack([phi[rows], phi[rows]], axis=1)
    points[:, 1, list(pair)] = points[:, 0, list(pair[::-1])]
    bound = model.bind(simulated_dataset(batch.take(rows), y[rows]))
    joint = bound.log_likelihood(points) + model.prior.log_prob(points)
    change = float(np.max(np.abs(joint[:, 1] - joint[:, 0]) / (1.0 + np.abs(joint[:, 0]))))
    if not change <= _TOLERANCE:
        raise TrainingError(
            "E_SPEC_EXCHANGE",
            f"parameters {parameters[0].name!r} and {parameters[1].name!r} of model {model.name!r} are not "
            f"exchangeable: swapping them changes the log joint density by up to {change:.2g} of its size "
            f"(allowed {_TOLERANCE:g}). Leave exchangeable empty.",
        )
