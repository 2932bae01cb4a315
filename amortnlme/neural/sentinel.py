"""Fixed subjects with stored log densities: a drift of the libraries under the network shows when loading."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from amortnlme.core.errors import ArtefactError
from amortnlme.core.h5 import read_h5, write_h5_atomic
from amortnlme.core.rng import stream
from amortnlme.data.dataset import Dataset
from amortnlme.data.design import FIELDS, Design, DesignBatch, EventKind
from amortnlme.data.subject import Subject

if TYPE_CHECKING:
    from amortnlme.neural.estimator import Estimator

_KIND = "estimator-sentinel"
_N_SUBJECTS, _N_POINTS = 8, 16
_SEED = 20_240_229
# Float32 passes through some forty layers differ by a few 1e-6 relative between backends; densities are of
# order ten.
_TOLERANCE = 2e-3


def make_sentinel(estimator: Estimator, path: Path) -> None:
    """Simulate the sentinel subjects and store them with points and their log densities.

    Parameters
    ----------
    estimator : Estimator
        Trained estimator; the points are its own draws, where the density is not tiny.
    path : Path
        File to write.
    """
    model = estimator.model
    phi = model.prior.sample(_N_SUBJECTS, stream(_SEED, 0))
    designs = model.design_sampler.sample(_N_SUBJECTS, stream(_SEED, 1))
    y = model.simulate_batch(phi, designs, stream(_SEED, 2)).y
    dataset = simulated_dataset(designs, y)
    noise = stream(_SEED, 3).standard_normal((_N_SUBJECTS, _N_POINTS, model.d))
    encoded = estimator.encode(dataset)
    # Plain points around the training parameters, so that an untrained or wild network still has finite
    # densities.
    points = estimator.encoder.to_phi(0.5 * noise, encoded.shift)
    arrays = {name: getattr(designs, name) for name in FIELDS} | {
        "n_records": designs.n_records,
        "y": y,
        "points": points,
        "log_density": estimator.log_prob(dataset, points),
    }
    arrays |= {f"covariate:{name}": values for name, values in designs.covariates.items()}
    write_h5_atomic(path, arrays, {"kind": _KIND})


def check_sentinel(estimator: Estimator, path: Path) -> None:
    """Recompute the stored log densities.

    Parameters
    ----------
    estimator : Estimator
        Estimator with its weights loaded.
    path : Path
        Sentinel file.

    Raises
    ------
    ArtefactError
        E_ARTEFACT_SENTINEL when a density moved by more than rounding.
    """
    arrays, _ = read_h5(path, _KIND)
    covariates = {
        name.removeprefix("covariate:"): values
        for name, values in arrays.items()
        if name.startswith("covariate:")
    }
    columns = {name: arrays[name] for name in FIELDS}
    designs = DesignBatch.from_columns(columns, arrays["n_records"], covariates)
    found = estimator.log_prob(simulated_dataset(designs, arrays["y"]), arrays["points"])
    stored = arrays["log_density"]
    worst = float(np.max(np.abs(found - stored) / (1.0 + np.abs(stored) / 10.0)))
    if not worst <= _TOLERANCE:
        raise ArtefactError(
            "E_ARTEFACT_SENTINEL",
            f"the estimator's log densities differ from those stored at training time by up to {worst:.2g} "
            f"(allowed {_TOLERANCE:g}): a library under it changed its numbers. Install the versions in "
            "config.json.",
        )


def simulated_dataset(designs: DesignBatch, y: np.ndarray) -> Dataset:
    """Subjects "1", "2", ... from simulated designs and measurements.

    Parameters
    ----------
    designs : DesignBatch
        n designs; covariates are taken as constant.
    y : ndarray (n, m), unit of the outputs
        Measurements, NaN where a design has none.

    Returns
    -------
    Dataset
        n subjects, all present measurements observed and uncensored.
    """
    return Dataset(subjects=tuple(_subject(designs, y, row) for row in range(designs.n)), name="simulated")


def _subject(designs: DesignBatch, y: np.ndarray, row: int) -> Subject:
    count = int(designs.n_records[row])
    design = Design(**{name: getattr(designs, name)[row, :count] for name in FIELDS})
    m = int((design.kind == EventKind.OBSERVATION).sum())
    return Subject(
        id=str(row + 1),
        design=design,
        y=y[row, :m].astype(np.float64),
        observed=np.isfinite(y[row, :m]),
        censoring=np.zeros(m, dtype=np.int8),
        limit=np.full(m, np.nan),
        occasion=np.ones(count, dtype=np.int32),
        covariates={name: float(values[row, 0]) for name, values in designs.covariates.items()},
    )
