"""One shard of a training set: simulate it, write it, read it back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from amortnlme.core.errors import ArtefactError
from amortnlme.core.h5 import read_h5, write_h5_atomic
from amortnlme.core.rng import stream
from amortnlme.data.design import FIELDS, Design, DesignBatch
from amortnlme.data.repeated_design import repeat_design
from amortnlme.model.individual import IndividualModel, Simulated

_KIND = "training-shard"
_COVARIATE = "covariate:"
_DESIGN = "design:"
_LENGTH = "n_records"
# Purposes of the independent random streams of a shard.
_PRIOR, _DESIGNS, _NOISE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Shard:
    """Simulations of one shard.

    Attributes
    ----------
    phi : ndarray (n, d) float64
        Parameters, unconstrained scale.
    y : ndarray (n, m) float32, unit of the outputs
        Simulated measurements, NaN where a design has none and in failed rows.
    status : ndarray (n,) int8
        SolveStatus of each row; failed rows are kept.
    designs : DesignBatch
        n designs with covariates; read-only views of one row where all designs are the same.
    """

    phi: np.ndarray
    y: np.ndarray
    status: np.ndarray
    designs: DesignBatch


def simulate_shard(model: IndividualModel, seed: int, index: int, n: int) -> Shard:
    """Simulate one shard: a pure function of the model, the seed, the index and n.

    Parameters
    ----------
    model : IndividualModel
        Model with prior and design sampler.
    seed : int
        Seed of the training set.
    index : int
        Position of the shard.
    n : int
        Number of simulations.

    Returns
    -------
    Shard
        n simulations, failed ones included.
    """
    phi = model.prior.sample(n, stream(seed, index, _PRIOR))
    designs = _shared(model.design_sampler.sample(n, stream(seed, index, _DESIGNS)))
    simulated = _simulate(model, phi, designs, stream(seed, index, _NOISE))
    with np.errstate(over="ignore"):  # what exceeds 32 bits becomes infinite, and counts as not measured
        y = np.asarray(simulated.y, dtype=np.float32)
    return Shard(
        np.asarray(phi, dtype=np.float64),
        y,
        np.asarray(simulated.status, dtype=np.int8),
        designs,
    )


def _shared(designs: DesignBatch) -> DesignBatch:
    """Replace designs that are all the same by views of one row, so that nobody compares them again."""
    if not all(_is_common(getattr(designs, name)) for name in (*FIELDS, _LENGTH)):
        return designs
    covariates = {
        name: _repeat(values[:1], designs.n) if _is_common(values) else values
        for name, values in designs.covariates.items()
    }
    return repeat_design(designs.take(np.arange(1)), designs.n, covariates)


def _simulate(
    model: IndividualModel, phi: np.ndarray, designs: DesignBatch, rng: np.random.Generator
) -> Simulated:
    """Simulate; where everybody has the same design its events are prepared once, which changes no number."""
    length = int(designs.n_records[0])
    if designs.n < 2 or any(v.strides[0] for v in (designs.time, *designs.covariates.values())):
        return model.simulate_batch(phi, designs, rng)
    design = Design(**{name: getattr(designs, name)[0, :length] for name in FIELDS})
    # A batch has an observation column even where no design has an observation.
    if design.n_observations != designs.observation_times.shape[1]:
        return model.simulate_batch(phi, designs, rng)
    covariates = {name: values[0, :length] for name, values in designs.covariates.items()}
    return model.simulate(phi, design, covariates, rng)


def _is_common(values: np.ndarray) -> bool:
    """Whether all rows are the same."""
    if len(values) < 2:
        return False
    return values.strides[0] == 0 or (
        np.array_equal(values[0], values[-1]) and bool((values == values[:1]).all())
    )


def shard_path(folder: Path, index: int) -> Path:
    """Name the file of a shard.

    Parameters
    ----------
    folder : Path
        Directory of the training set.
    index : int
        Position of the shard.

    Returns
    -------
    Path
        The file, which need not exist.
    """
    return folder / f"shard-{index:05d}.h5"


def write_shard(folder: Path, index: int, shard: Shard, header_fingerprint: str) -> None:
    """Write a shard atomically; a design column that all rows share is stored once.

    Parameters
    ----------
    folder : Path
        Directory of the training set.
    index : int
        Position of the shard.
    shard : Shard
        Its simulations.
    header_fingerprint : str
        Fingerprint of the training set's header; ties the file to its set.

    Raises
    ------
    ArtefactError
        E_IO_WRITE on a full disk.
    """
    arrays = {"phi": shard.phi, "y": shard.y, "status": shard.status}
    for name in (*FIELDS, _LENGTH):
        values = getattr(shard.designs, name)
        arrays[_DESIGN + name] = values[:1] if _is_common(values) else values
    for name, values in shard.designs.covariates.items():
        constant = bool((values == values[:, :1]).all())
        arrays[_COVARIATE + name] = np.ascontiguousarray(values[:, 0]) if constant else values
    attributes = {"index": index, "header": header_fingerprint}
    write_h5_atomic(shard_path(folder, index), arrays, attributes | {"kind": _KIND})


def read_shard(folder: Path, index: int, header_fingerprint: str) -> Shard:
    """Read a shard with checksums.

    Parameters
    ----------
    folder : Path
        Directory of the training set.
    index : int
        Position of the shard.
    header_fingerprint : str
        Fingerprint of the training set's header.

    Returns
    -------
    Shard
        Its simulations.

    Raises
    ------
    ArtefactError
        E_H5_MISSING, E_H5_TRUNCATED, E_H5_CHECKSUM or E_H5_KIND for damage, E_TRAINING_FOREIGN for a shard
        of another training set or position.
    """
    path = shard_path(folder, index)
    arrays, attributes = read_h5(path, _KIND)
    if attributes.get("header") != header_fingerprint or attributes.get("index") != index:
        raise ArtefactError(
            "E_TRAINING_FOREIGN",
            f"{path} belongs to another training set or position (it says shard {attributes.get('index')}). "
            "Delete it and run the same simulation command again.",
        )
    designs = _designs(arrays, len(arrays["status"]))
    return Shard(arrays["phi"], arrays["y"], arrays["status"], designs)


def _designs(arrays: Mapping[str, np.ndarray], n: int) -> DesignBatch:
    columns, covariates = _with_prefix(arrays, _DESIGN), _with_prefix(arrays, _COVARIATE)
    if n > 1 and all(len(values) == 1 for values in columns.values()):
        return repeat_design(DesignBatch.from_columns(columns, columns[_LENGTH]), n, covariates)
    columns = {name: _repeat(values, n) for name, values in columns.items()}
    return DesignBatch.from_columns(columns, columns[_LENGTH], covariates)


def _repeat(values: np.ndarray, n: int) -> np.ndarray:
    return np.broadcast_to(values, (n, *values.shape[1:]))


def _with_prefix(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
