"""Estimator artefacts on disk: plain JSON, CSV and HDF5 files, verified when loaded, executed never."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy as np

from amortnlme.core.errors import AmortNlmeError, ArtefactError
from amortnlme.core.files import (
    make_folder,
    sha256_file,
    write_bytes_atomic,
    write_error,
    write_json_atomic,
    write_text_atomic,
)
from amortnlme.core.h5 import read_h5, write_h5_atomic
from amortnlme.model.individual import IndividualModel
from amortnlme.model.registry import load_model, model_names
from amortnlme.neural.backend import backend_name
from amortnlme.neural.encoder import EventEncoder
from amortnlme.neural.ensemble import MAX_MEMBERS
from amortnlme.neural.estimator import Estimator, TrainingRecord
from amortnlme.neural.model_card import model_card
from amortnlme.neural.sentinel import check_sentinel, make_sentinel
from amortnlme.neural.spec import NetworkSpec, TrainingSpec

FORMAT_VERSION = 1
CONFIG, WEIGHTS, SENTINEL = "config.json", "model.weights.h5", "sentinel.h5"
HISTORY, CARD, CALIBRATION, CHECKSUMS = "history.csv", "model_card.md", "calibration.json", "CHECKSUMS.sha256"
PICTURE = "calibration.png"
_OPTIONAL = (CALIBRATION, PICTURE)
_REQUIRED = (CONFIG, WEIGHTS, SENTINEL, HISTORY, CARD)
_WEIGHTS_KIND = "estimator-weights"


def trained_model_names() -> tuple[str, ...]:
    """Names of the estimators that ship with the package."""
    folder = resources.files("amortnlme.trained_models")
    return tuple(sorted(entry.name for entry in folder.iterdir() if (entry / CONFIG).is_file()))


def save_artefact(estimator: Estimator, path: Path) -> None:
    """Write an estimator as an artefact directory; the checksums are written last.

    Parameters
    ----------
    estimator : Estimator
        Trained estimator.
    path : Path
        Directory; created, or its artefact files replaced.

    Raises
    ------
    ArtefactError
        E_IO_WRITE when a file cannot be written.
    """
    make_folder(path)
    # Without its checksums a half-replaced artefact cannot be loaded.
    (path / CHECKSUMS).unlink(missing_ok=True)
    network = estimator.network
    # Numbers, not layer names: those carry counters of the process that trained.
    labels = [f"weight-{number:03d}" for number in range(len(network.weights))]
    arrays = dict(zip(labels, estimator.weights(), strict=True))
    write_h5_atomic(path / WEIGHTS, arrays, {"kind": _WEIGHTS_KIND})
    write_json_atomic(path / CONFIG, _config(estimator))
    make_sentinel(estimator, path / SENTINEL)
    write_text_atomic(path / HISTORY, _history_csv(estimator.history))
    write_text_atomic(path / CARD, model_card(estimator))
    # The picture belongs to the calibration of what lay here before.
    (path / PICTURE).unlink(missing_ok=True)
    if estimator.calibration is None:
        (path / CALIBRATION).unlink(missing_ok=True)
    else:
        write_json_atomic(path / CALIBRATION, estimator.calibration)
    _write_checksums(path)


def store_calibration(path: str | Path, calibration: dict[str, Any], picture: bytes | None = None) -> None:
    """Put a calibration record into an artefact and leave network and sentinel as they are.

    Parameters
    ----------
    path : path or str
        Artefact directory, or the name of an estimator that ships with the package.
    calibration : dict
        `CalibrationResult.to_dict()`.
    picture : bytes or None
        PNG file that shows it; None keeps the one that is there.

    Raises
    ------
    ArtefactError
        As `load_artefact`, and E_IO_WRITE.
    """
    folder = _folder(path)
    estimator = load_artefact(folder).with_calibration(calibration)
    # Written in full beside the artefact first: a full disk leaves the artefact as it was.
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    try:
        shutil.copytree(folder, fresh)
        write_json_atomic(fresh / CALIBRATION, calibration)
        if picture is not None:
            write_bytes_atomic(fresh / PICTURE, picture)
        shown = PICTURE if (fresh / PICTURE).is_file() else None
        write_text_atomic(fresh / CARD, model_card(estimator, picture=shown))
        _write_checksums(fresh)
        for name in (CALIBRATION, CARD, *([PICTURE] if shown else []), CHECKSUMS):
            (fresh / name).replace(folder / name)
    except OSError as cause:
        raise write_error(folder, cause) from cause
    finally:
        if fresh.exists():
            shutil.rmtree(fresh)


def _write_checksums(path: Path) -> None:
    names = [name for name in (*_REQUIRED, *_OPTIONAL) if (path / name).is_file()]
    lines = [f"{sha256_file(path / name)}  {name}\n" for name in sorted(names)]
    write_text_atomic(path / CHECKSUMS, "".join(lines))


def load_artefact(path: str | Path, model: IndividualModel | None = None) -> Estimator:
    """Load an artefact and verify checksums, format, model and sentinel.

    Parameters
    ----------
    path : path or str
        Directory, or the name of an estimator that ships with the package.
    model : IndividualModel or None
        The model, if it does not ship with the package.

    Returns
    -------
    Estimator
        Ready to sample.

    Raises
    ------
    ArtefactError
        E_ARTEFACT_MISSING (no such directory or file), E_ARTEFACT_CHECKSUM (changed bytes), E_ARTEFACT_FORMAT
        (other format version), E_ARTEFACT_CONFIG (a file whose content describes no estimator),
        E_ARTEFACT_MODEL (the model, its prior or its designs are no longer those of training),
        E_ARTEFACT_WEIGHTS (weights of another network), E_ARTEFACT_SENTINEL (the library computes other
        densities than at training time).
    """
    folder = _folder(path)
    listed = _verify_checksums(folder)
    config = _read_config(folder)
    with _named(folder / CONFIG):
        estimator = _rebuild(config, model)
    with _named(folder / WEIGHTS):
        _load_weights(estimator.network, folder / WEIGHTS)
    with _named(folder / HISTORY):
        estimator = estimator.with_history(_read_history(folder / HISTORY))
    if CALIBRATION in listed:
        with _named(folder / CALIBRATION):
            estimator = estimator.with_calibration(_read_calibration(folder / CALIBRATION))
            _check_summary_domain(estimator)
    # Last, because it compiles the passes that the returned object goes on using.
    with _named(folder / SENTINEL):
        check_sentinel(estimator, folder / SENTINEL)
    return estimator


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn what the content of a file of right checksum makes fail into an error that names the file."""
    try:
        yield
    except ArtefactError:
        raise
    except (AmortNlmeError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise ArtefactError(
            "E_ARTEFACT_CONFIG",
            f"{path} does not describe an estimator ({type(error).__name__}: {error}). "
            "Restore the artefact from its source.",
        ) from error


def _folder(path: str | Path) -> Path:
    folder = Path(path)
    if not os.path.isdir(folder) and folder.name == str(path):
        shipped = resources.files("amortnlme.trained_models") / str(path)
        if os.path.isdir(str(shipped)):
            folder = Path(str(shipped))
    if not os.path.isdir(folder):
        raise ArtefactError(
            "E_ARTEFACT_MISSING",
            f"there is no estimator at {str(path)!r}. Give an artefact directory, or one of the shipped "
            "estimators: "
            f"{', '.join(trained_model_names()) or 'none'}.",
        )
    return folder


def _verify_checksums(folder: Path) -> set[str]:
    """Check every listed file; return the listed names."""
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ArtefactError(
            "E_ARTEFACT_MISSING",
            f"{folder} has no readable {CHECKSUMS} ({error}): it is no estimator, or saving it was "
            "interrupted. "
            "Restore the artefact from its source.",
        ) from error
    known = (*_REQUIRED, *_OPTIONAL)
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    unknown = [name for name in sums if name not in known]
    absent = [name for name in _REQUIRED if name not in sums]
    if unknown or absent:
        raise ArtefactError(
            "E_ARTEFACT_CHECKSUM",
            f"{folder / CHECKSUMS} lists {', '.join(unknown) or 'nothing'} that is unknown and lacks "
            f"{', '.join(absent) or 'nothing'}. Restore the artefact from its source.",
        )
    for name, digest in sums.items():
        if not (folder / name).is_file():
            raise ArtefactError(
                "E_ARTEFACT_MISSING", f"{folder / name} is missing. Restore the artefact from its source."
            )
        if sha256_file(folder / name) != digest:
            raise ArtefactError(
                "E_ARTEFACT_CHECKSUM",
                f"{folder / name} was changed after it was saved: its SHA-256 is not the one in {CHECKSUMS}. "
                "Restore the artefact from its source.",
            )
    return set(sums)


def _config(estimator: Estimator) -> dict[str, Any]:
    model, record = estimator.model, estimator.record
    backend = backend_name()
    packages = ("numpy", "keras", "bayesflow", backend)
    versions = {"python": platform.python_version()} | {name: metadata.version(name) for name in packages}
    return {
        "format_version": FORMAT_VERSION,
        "model": {
            "name": model.name,
            "version": model.version,
            "fingerprint": model.fingerprint,
            "parameters": model.parameters.to_config(),
        },
        "prior": model.prior.to_config(),
        "design_sampler": model.design_sampler.to_config(),
        "network": estimator.network_config(),
        "training": {
            "training_set": record.training_set,
            "seed": record.seed,
            "spec": record.spec.to_config(),
            "backend": record.backend,
        }
        | ({"other_seeds": list(record.other_seeds)} if record.other_seeds else {}),
        "fingerprint": estimator.fingerprint,
        "versions": versions,
    }


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        version = config["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ArtefactError(
            "E_ARTEFACT_CONFIG",
            f"{folder / CONFIG} is not readable JSON of an estimator ({error}). Restore it.",
        ) from error
    if version != FORMAT_VERSION:
        raise ArtefactError(
            "E_ARTEFACT_FORMAT",
            f"{folder} has format version {version!r}; this release reads version {FORMAT_VERSION}. "
            "Install the release that wrote it, or train again.",
        )
    return config


def _rebuild(config: Mapping[str, Any], model: IndividualModel | None) -> Estimator:
    """Estimator with fresh weights from a configuration."""
    model = _matching_model(config, model)
    network, training = config["network"], config["training"]
    encoder = EventEncoder.from_config(network["encoder"], NetworkSpec.from_config(network["spec"]))
    record = TrainingRecord(
        str(training["training_set"]),
        int(training["seed"]),
        TrainingSpec.from_config(training["spec"]),
        str(training["backend"]),
        _other_seeds(training),
    )
    return Estimator.untrained(model, encoder, record, seed=None)


def _other_seeds(training: Mapping[str, Any]) -> tuple[int, ...]:
    seeds = tuple(int(seed) for seed in training.get("other_seeds", ()))
    # Networks are built before their weights are read: a configuration must not ask for any number of them.
    if len(seeds) >= MAX_MEMBERS:
        raise ValueError(f"{len(seeds) + 1} members; at most {MAX_MEMBERS} are allowed")
    return seeds


def _matching_model(config: Mapping[str, Any], model: IndividualModel | None) -> IndividualModel:
    """Load the model named in a configuration, if it still is what was trained for."""
    wanted = config["model"]
    name = str(wanted["name"])
    # Only shipped names: a path in a configuration must never make us execute a file.
    if model is None and name not in model_names():
        raise ArtefactError(
            "E_ARTEFACT_MODEL",
            f"the estimator belongs to model {name!r}, which does not ship with the package. "
            "Load your model file and pass it: Estimator.load(path, model=load_model('my_model.py')).",
        )
    model = model or load_model(name)
    found = {
        "equations": (model.fingerprint, wanted["fingerprint"]),
        "parameters": (_through_json(model.parameters.to_config()), wanted["parameters"]),
        "prior": (_through_json(model.prior.to_config()), config["prior"]),
        "design sampler": (_through_json(model.design_sampler.to_config()), config["design_sampler"]),
    }
    changed = [name for name, (now, then) in found.items() if now != then]
    if changed:
        raise ArtefactError(
            "E_ARTEFACT_MODEL",
            f"the estimator was trained for another version of model {model.name!r}: its "
            f"{', '.join(changed)} changed. "
            "Train it again, or restore the model file.",
        )
    return model


def _load_weights(network: Any, path: Path) -> None:
    arrays, _ = read_h5(path, _WEIGHTS_KIND)
    values = [arrays[name] for name in sorted(arrays)]
    if [value.shape for value in values] != [tuple(weight.shape) for weight in network.weights]:
        raise ArtefactError(
            "E_ARTEFACT_WEIGHTS",
            f"{path} holds {len(values)} arrays that do not fit the network of {CONFIG} "
            f"({len(network.weights)} arrays). Restore the artefact from its source.",
        )
    network.set_weights(values)


def _history_csv(history: tuple[dict[str, float], ...]) -> str:
    out = io.StringIO()
    if history:
        # In a fixed order: a resumed run read its first rows from JSON, whose keys are sorted.
        writer = csv.DictWriter(out, fieldnames=sorted(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
    return out.getvalue()


def _read_history(path: Path) -> list[dict[str, float]]:
    rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
    return [
        {key: int(value) if value.isdecimal() else float(value) for key, value in row.items()} for row in rows
    ]


def _read_calibration(path: Path) -> dict[str, Any]:
    record = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(record, dict):
        raise TypeError(f"a {type(record).__name__} is no calibration record")
    return record


def _check_summary_domain(estimator: Estimator) -> None:
    domain = estimator.summary_domain
    members = 1 + len(estimator.record.other_seeds)
    size = members * (estimator.spec.summary_size + len(estimator.encoder.condition_mean))
    if domain is not None and domain.mean.size != size:
        raise ValueError(f"a domain of {domain.mean.size} summaries, but the network has {size}")


def _through_json(config: Any) -> Any:
    return json.loads(json.dumps(config, default=_scalar))


def _scalar(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else list(value)
