"""One shard of a training set: simulate it, write it, read it back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from amortnlme.core.errors import ArtefactError
from amortnlme.core.h5 import read_h5, write_h5_atomic
from amortnlme.core.rng import stream
from amortnlme.data.design import FIELDS, DesignBatch
from amortnlme.model.individual import IndividualModel

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
        n designs with covariates.
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
    designs = model.design_sampler.sample(n, stream(seed, index, _DESIGNS))
    simulated = model.simulate_batch(phi, designs, stream(seed, index, _NOISE))
    return Shard(
        np.asarray(phi, dtype=np.float64),
        np.asarray(simulated.y, dtype=np.float32),
        np.asarray(simulated.status, dtype=np.int8),
        designs,
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
    """Write a shard atomically.

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
    arrays |= {_DESIGN + name: getattr(shard.designs, name) for name in (*FIELDS, _LENGTH)}
    arrays |= {_COVARIATE + name: values for name, values in shard.designs.covariates.items()}
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
    covariates = _with_prefix(arrays, _COVARIATE)
    columns = _with_prefix(arrays, _DESIGN)
    designs = DesignBatch.from_columns(columns, columns[_LENGTH], covariates)
    return Shard(arrays["phi"], arrays["y"], arrays["status"], designs)


def _with_prefix(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
