"""Train an estimator: deterministic in the seed, checkpointed every epoch, resumable to the same bytes."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from amortnlme.core.errors import TrainingError
from amortnlme.core.files import make_folder
from amortnlme.model.individual import IndividualModel
from amortnlme.model.registry import load_shipped_model
from amortnlme.neural.backend import backend_name, use_backend, values_of
from amortnlme.neural.batches import EncodedShards, EpochBatches, Rows, usable_rows
from amortnlme.neural.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from amortnlme.neural.encoder import EventEncoder
from amortnlme.neural.estimator import Estimator, TrainingRecord
from amortnlme.neural.pilot import fit_encoder
from amortnlme.neural.spec import NetworkSpec, TrainingSpec
from amortnlme.training.training_set import TrainingSet

keras = use_backend()

_LOGGER = logging.getLogger(__name__)
_EVALUATION_ROWS = 1024
_LOWEST_LOG_DENSITY = -1e4


def train(
    training_set: TrainingSet,
    network_spec: NetworkSpec,
    training_spec: TrainingSpec,
    out: str | Path,
    seed: int,
    *,
    model: IndividualModel | None = None,
    resume: bool = True,
    progress: bool = True,
) -> Estimator:
    """Train a posterior network and save it as an artefact.

    Parameters
    ----------
    training_set : TrainingSet
        Complete training set.
    network_spec, training_spec : NetworkSpec, TrainingSpec
        Options.
    out : path
        Artefact directory to write; checkpoints go to `<out>.checkpoint.h5` beside it.
    seed : int
        Fixes the initial weights and the order of the batches.
    model : IndividualModel or None
        Model of the training set; None loads it from the registry by the name in the header.
    resume : bool
        Go on from a checkpoint of the same run if there is one; False starts afresh.
    progress : bool
        Show a progress bar when standard error is a terminal.

    Returns
    -------
    Estimator
        The trained estimator, also saved in `out`.

    Raises
    ------
    TrainingError
        E_TRAINING_FINGERPRINT when the model no longer is the one that was simulated, E_TRAINING_SIZE,
        E_TRAINING_PATH when `out` is a file, E_SPEC_BUCKETS, E_CHECKPOINT_FOREIGN, E_TRAINING_DIVERGED when
        the loss is no longer finite.
    ArtefactError
        When files are damaged or cannot be written.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise TrainingError(
            "E_TRAINING_PATH", f"{folder} is a file, not a folder. Name a folder for the estimator."
        )
    model = _checked_model(training_set, model)
    encoder = _pilot_encoder(training_set, model, network_spec, training_spec.pilot_rows)
    shards = EncodedShards(training_set, encoder, training_spec.validation_rows)
    estimator = Estimator.untrained(
        model,
        encoder,
        TrainingRecord(training_set.fingerprint, seed, training_spec, backend_name()),
        seed=seed,
    )
    network = estimator.network
    steps = training_spec.epochs * max(shards.n_training // training_spec.batch_size, 1)
    network.compile(optimizer=_optimizer(training_spec, steps), loss=_negative_mean)
    network.optimizer.build(network.trainable_variables)
    checkpoint = folder.parent / f"{folder.name}.checkpoint.h5"
    identity = {
        "training_set": training_set.fingerprint,
        "network": estimator.network_config(),
        "training": training_spec.to_config(),
        "seed": seed,
        "backend": backend_name(),
    }
    make_folder(folder.parent)
    state = TrainingState()
    if resume and checkpoint.exists():
        state = load_checkpoint(checkpoint, network, identity)
    _run_epochs(network, shards, training_spec, state, seed, checkpoint, identity, progress)
    if training_spec.patience:
        network.set_weights(state.best_weights)
    estimator = estimator.with_history(state.history)
    estimator.save(folder)
    return estimator


def _run_epochs(
    network: Any,
    shards: EncodedShards,
    spec: TrainingSpec,
    state: TrainingState,
    seed: int,
    checkpoint: Path,
    identity: dict[str, Any],
    progress: bool,
) -> None:
    """Train epoch by epoch from where `state` stands, writing a checkpoint after each."""
    validation = shards.validation_rows()
    quiet = not (progress and sys.stderr.isatty())
    with tqdm(total=spec.epochs, initial=state.epoch, desc="train", unit="epoch", disable=quiet) as bar:
        while state.epoch < spec.epochs and not _stale(state, spec):
            batches = EpochBatches(shards, spec.batch_size, seed, state.epoch)
            log = network.fit(batches, epochs=1, shuffle=False, verbose=0).history
            state.epoch += 1
            row = {
                "epoch": state.epoch,
                "steps": int(values_of([network.optimizer.iterations])[0]),
                "learning_rate": float(keras.ops.convert_to_numpy(network.optimizer.learning_rate)),
                # On the scale of phi, so that runs with other standardizations compare.
                "training_nll": float(log["loss"][0]) - shards.log_abs_det,
                "validation_nll": mean_negative_log_density(network, validation) - shards.log_abs_det,
            }
            if not np.isfinite(row["training_nll"]) or not np.isfinite(row["validation_nll"]):
                raise TrainingError(
                    "E_TRAINING_DIVERGED",
                    f"the loss is no longer finite in epoch {state.epoch}. Lower learning_rate and train "
                    "with "
                    "resume=False, or resume from the last checkpoint with other data.",
                )
            best = min((past["validation_nll"] for past in state.history), default=np.inf)
            state.history.append(row)
            if row["validation_nll"] < best:
                state.best_epoch, state.best_weights = state.epoch, values_of(network.weights)
            save_checkpoint(checkpoint, network, state, identity)
            _LOGGER.info("epoch %d: validation NLL %.4f", state.epoch, row["validation_nll"])
            bar.set_postfix(validation=f"{row['validation_nll']:.3f}")
            bar.update()


def mean_negative_log_density(network: Any, rows: dict[int, Rows]) -> float:
    """Average -log q over encoded rows.

    Parameters
    ----------
    network : keras.Model
        Compiled network.
    rows : dict of int to Rows
        Encoded rows by bucket; each bucket has one batch shape.

    Returns
    -------
    float, nats
        Mean in network coordinates.
    """
    total, count = 0.0, 0
    for group in rows.values():
        for start in range(0, len(group), _EVALUATION_ROWS):
            index = np.arange(start, min(start + _EVALUATION_ROWS, len(group)))
            padded = np.resize(index, _EVALUATION_ROWS)
            value = np.asarray(network.predict_on_batch(group.take(padded)))
            total -= float(value[: len(index)].astype(np.float64).sum())
            count += len(index)
    return total / max(count, 1)


def _stale(state: TrainingState, spec: TrainingSpec) -> bool:
    return spec.patience > 0 and state.epoch - state.best_epoch >= spec.patience and state.epoch > 0


def _negative_mean(_target: Any, log_density: Any) -> Any:
    # The floor takes the gradient off rows that float32 cannot place, far below any density that matters.
    return -keras.ops.mean(keras.ops.maximum(log_density, _LOWEST_LOG_DENSITY))


def _optimizer(spec: TrainingSpec, steps: int) -> Any:
    warmup = min(spec.warmup_steps, steps // 2)
    # Driven by the optimizer's own step count, which a checkpoint restores.
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, max(steps - warmup, 1), alpha=0.0, warmup_target=spec.learning_rate, warmup_steps=warmup
    )
    return keras.optimizers.Adam(schedule, clipnorm=spec.clipnorm)


def _checked_model(training_set: TrainingSet, model: IndividualModel | None) -> IndividualModel:
    found = model or load_shipped_model(str(training_set.header["model"]))
    if found.fingerprint != training_set.header["model_fingerprint"]:
        raise TrainingError(
            "E_TRAINING_FINGERPRINT",
            f"training set {training_set.path} was simulated with another version of model {found.name!r}. "
            "Simulate it again, or use the original model file.",
        )
    return found


def _pilot_encoder(
    training_set: TrainingSet, model: IndividualModel, spec: NetworkSpec, pilot_rows: int
) -> EventEncoder:
    """Fit the encoder's constants on the first usable rows of shard 0."""
    shard = training_set.shard(0)
    rows = np.flatnonzero(usable_rows(shard))[:pilot_rows]
    if not rows.size:
        raise TrainingError(
            "E_TRAINING_SIZE",
            f"no row of shard 0 of {training_set.path} was solved and observed, so nothing can be learned "
            "from it. "
            "Check the model with `amortnlme check`.",
        )
    return fit_encoder(
        model, spec, shard.designs.take(rows), shard.y[rows].astype(np.float64), shard.phi[rows]
    )
