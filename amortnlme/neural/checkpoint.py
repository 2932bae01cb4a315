"""One atomic file from which a killed training run goes on to the same bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from amortnlme.core.errors import TrainingError
from amortnlme.core.h5 import read_h5, write_h5_atomic
from amortnlme.neural.backend import values_of

_KIND = "training-checkpoint"


@dataclass(slots=True)
class TrainingState:
    """Where a run stands after a whole epoch.

    Attributes
    ----------
    epoch : int
        Epochs finished.
    history : list of dict
        One row per epoch: epoch, steps, learning_rate, training_nll, validation_nll.
    best_epoch : int
        Epoch (1-based) of the smallest validation loss so far, 0 before the first.
    best_weights : list of ndarray
        Network weights after that epoch.
    """

    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_weights: list[np.ndarray] = field(default_factory=list)


def save_checkpoint(path: Path, network: Any, state: TrainingState, identity: dict[str, Any]) -> None:
    """Write weights, optimizer variables, the best weights and the history.

    Parameters
    ----------
    path : Path
        File to replace.
    network : keras.Model
        Compiled network.
    state : TrainingState
        Progress.
    identity : dict
        What the run is (training set, options, seed, backend); a resumed run must match it.
    """
    arrays = _numbered("weight", values_of(network.weights))
    arrays |= _numbered("optimizer", values_of(network.optimizer.variables))
    arrays |= _numbered("best", state.best_weights)
    attributes = {
        "identity": identity,
        "epoch": state.epoch,
        "history": state.history,
        "best_epoch": state.best_epoch,
    }
    write_h5_atomic(path, arrays, attributes | {"kind": _KIND})


def load_checkpoint(path: Path, network: Any, identity: dict[str, Any]) -> TrainingState:
    """Put a checkpoint's weights and optimizer variables into the network.

    Parameters
    ----------
    path : Path
        Checkpoint file.
    network : keras.Model
        Compiled network with a built optimizer.
    identity : dict
        What this run is.

    Returns
    -------
    TrainingState
        Progress of the interrupted run.

    Raises
    ------
    TrainingError
        E_CHECKPOINT_FOREIGN when the checkpoint belongs to a run with other options.
    ArtefactError
        When the file is damaged.
    """
    arrays, stored = read_h5(path, _KIND)
    attributes: dict[str, Any] = dict(stored)
    found = attributes["identity"]
    different = sorted(key for key in identity if found.get(key) != identity[key])
    if different:
        raise TrainingError(
            "E_CHECKPOINT_FOREIGN",
            f"checkpoint {path} belongs to a run with another {', '.join(different)}. "
            "Choose another output, delete the checkpoint, or start with resume=False.",
        )
    network.set_weights(_collect("weight", arrays))
    for variable, value in zip(network.optimizer.variables, _collect("optimizer", arrays), strict=True):
        variable.assign(value)
    return TrainingState(
        epoch=int(attributes["epoch"]),
        history=list(attributes["history"]),
        best_epoch=int(attributes["best_epoch"]),
        best_weights=_collect("best", arrays),
    )


def _numbered(name: str, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{name}-{number:03d}": np.asarray(value) for number, value in enumerate(arrays)}


def _collect(name: str, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    return [arrays[key] for key in sorted(arrays) if key.startswith(f"{name}-")]
