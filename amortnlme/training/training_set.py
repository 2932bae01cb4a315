"""Simulated training sets on disk: a directory with a header and HDF5 shards.

Each shard is a pure function of (seed, shard index), so neither the number of workers nor an interruption
changes a byte, and an interrupted set resumes by redoing what is missing or damaged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amortnlme.core.errors import ArtefactError, TrainingError
from amortnlme.core.files import make_folder, write_json_atomic
from amortnlme.core.fingerprint import fingerprint_json
from amortnlme.core.rng import stream
from amortnlme.model.individual import IndividualModel
from amortnlme.training.creation import ShardPlan, simulate_missing
from amortnlme.training.shard import Shard, read_shard, shard_path

FORMAT_VERSION = 1
HEADER = "header.json"
_HEADER_KEYS = (
    "format_version",
    "model",
    "model_fingerprint",
    "prior",
    "design_sampler",
    "seed",
    "n",
    "shard_size",
    "target",
)


@dataclass(frozen=True, slots=True)
class Verification:
    """Outcome of `TrainingSet.verify`: rows, failed solves, and a sentence for each damaged shard."""

    n_rows: int
    n_failed: int
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """A simulated training set that lies in the directory `path`.

    Attributes
    ----------
    path : Path
        Directory, by convention NAME.training.
    header : dict
        Model name and fingerprint, prior, design sampler, seed, number of rows and shard size.
    """

    path: Path
    header: dict[str, Any]

    @classmethod
    def create(
        cls,
        path: str | Path,
        model: IndividualModel,
        n: int,
        seed: int,
        *,
        shard_size: int = 10_000,
        workers: int = 1,
        progress: bool = True,
    ) -> TrainingSet:
        """Simulate a training set, or finish one that was interrupted.

        Parameters
        ----------
        path : path
            Directory to create or to resume.
        model : IndividualModel
            Model whose prior, design sampler and simulator are used.
        n : int
            Number of simulations.
        seed : int
            Seed; together with the shard index it determines every byte of a shard.
        shard_size : int
            Simulations per shard.
        workers : int
            Processes; more than one needs a model that a fresh process finds again by name.
        progress : bool
            Show a progress bar when standard error is a terminal.

        Returns
        -------
        TrainingSet
            The complete set.

        Raises
        ------
        TrainingError
            E_TRAINING_SIZE for counts below one, E_TRAINING_PATH when the directory holds something else,
            E_TRAINING_HEADER when it holds a training set made with other settings, E_TRAINING_WORKERS.
        ArtefactError
            E_IO_WRITE when a shard cannot be written (full disk).
        """
        for name, value in (("n", n), ("shard_size", shard_size), ("workers", workers)):
            if value < 1:
                raise TrainingError(
                    "E_TRAINING_SIZE", f"{name} is {value}. Allowed: an integer of at least 1."
                )
        folder = Path(path)
        header = _header(model, n, seed, shard_size)
        if folder.exists() and not folder.is_dir():
            raise TrainingError(
                "E_TRAINING_PATH", f"{folder} is a file, not a folder. Name a folder that may be created."
            )
        # Refuses a bad seed before anything is written.
        stream(seed)
        # A killed run leaves unfinished temporary files behind; they hold nothing.
        for stale in folder.glob(".*.tmp"):
            stale.unlink()
        if folder.exists() and any(folder.iterdir()):
            _require_same_header(folder, header)
        else:
            write_json_atomic(make_folder(folder) / HEADER, header)
        plan = ShardPlan(folder, seed, n, shard_size, fingerprint_json(header))
        simulate_missing(plan, model, workers, progress)
        return cls(folder, header)

    @classmethod
    def open(cls, path: str | Path) -> TrainingSet:
        """Open a complete training set.

        Raises
        ------
        TrainingError
            E_TRAINING_PATH when there is no readable header, E_TRAINING_FORMAT for another format version,
            E_TRAINING_INCOMPLETE when shards are missing.
        """
        folder = Path(path)
        header = _read_header(folder)
        out = cls(folder, header)
        # Counted on the disk: a header of unknown origin may speak of any number.
        present = {path.name for path in folder.glob("shard-*.h5")}
        first = next((i for i in range(out.n_shards) if shard_path(folder, i).name not in present), None)
        if first is not None:
            raise TrainingError(
                "E_TRAINING_INCOMPLETE",
                f"training set {folder} has {len(present)} of {out.n_shards} shards, the first missing is "
                "shard "
                f"{first}. Run the same simulation command again to finish it.",
            )
        return out

    @property
    def n(self) -> int:
        """Number of simulations."""
        return int(self.header["n"])

    @property
    def n_shards(self) -> int:
        """Number of shard files."""
        return -(-self.n // int(self.header["shard_size"]))

    @property
    def fingerprint(self) -> str:
        """Fingerprint of everything that determines the simulations."""
        return fingerprint_json(self.header)

    def shard(self, index: int) -> Shard:
        """Read one shard with its checksums verified; raises ArtefactError on damage or a foreign file."""
        return read_shard(self.path, index, fingerprint_json(self.header))

    def shards(self) -> Iterator[Shard]:
        """All shards in order."""
        return (self.shard(index) for index in range(self.n_shards))

    def verify(self, *, deep: bool = True) -> Verification:
        """Check the whole set and count failed solves.

        Parameters
        ----------
        deep : bool
            Read every byte against the checksums; otherwise only look for missing files.

        Returns
        -------
        Verification
            Counts (over readable shards) and one sentence for each problem; never raises for damage.
        """
        n_rows, n_failed, problems = 0, 0, []
        for index in range(self.n_shards):
            if not deep:
                if not shard_path(self.path, index).exists():
                    problems.append(f"shard {index} is missing")
                continue
            try:
                shard = self.shard(index)
            except ArtefactError as error:
                problems.append(f"shard {index}: {error}")
                continue
            n_rows += len(shard.status)
            n_failed += int((shard.status != 0).sum())
        return Verification(n_rows if deep else self.n, n_failed, tuple(problems))


def _header(model: IndividualModel, n: int, seed: int, shard_size: int) -> dict[str, Any]:
    if model.design_sampler is None or model.prior is None:
        raise TrainingError(
            "E_TRAINING_MODEL",
            f"model {model.name!r} has no prior or no design sampler, so nothing can be simulated for "
            "training. "
            "Add both to the model file.",
        )
    values = (
        FORMAT_VERSION,
        model.name,
        model.fingerprint,
        model.prior.to_config(),
        model.design_sampler.to_config(),
        int(seed),
        int(n),
        int(shard_size),
        "posterior",
    )
    # Through JSON, so that a header compares equal to one read back (tuples become lists).
    return json.loads(json.dumps(dict(zip(_HEADER_KEYS, values, strict=True))))


def _read_header(folder: Path) -> dict[str, Any]:
    try:
        header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(
            "E_TRAINING_PATH",
            f"{folder} is not a training set: {HEADER} cannot be read ({error}). "
            "Give the directory that `simulate` wrote.",
        ) from error
    if not isinstance(header, dict) or header.get("format_version") != FORMAT_VERSION:
        raise TrainingError(
            "E_TRAINING_FORMAT",
            f"training set {folder} does not have format version {FORMAT_VERSION}. Simulate it again.",
        )
    missing = [key for key in _HEADER_KEYS if key not in header]
    if missing:
        raise TrainingError(
            "E_TRAINING_FORMAT", f"{folder / HEADER} lacks {', '.join(missing)}. Simulate again."
        )
    strange = [key for key in ("n", "shard_size") if type(header[key]) is not int or header[key] < 1]
    if strange:
        raise TrainingError(
            "E_TRAINING_FORMAT",
            f"{folder / HEADER} gives {strange[0]} as {header[strange[0]]!r}, which is no count. "
            "Simulate again.",
        )
    return header


def _require_same_header(folder: Path, header: dict[str, Any]) -> None:
    found = _read_header(folder)
    different = [key for key in _HEADER_KEYS if found[key] != header[key]]
    if different:
        shown = "; ".join(f"{key}: {found[key]!r} on disk, {header[key]!r} wanted" for key in different[:2])
        raise TrainingError(
            "E_TRAINING_HEADER",
            f"{folder} holds a training set made with other settings ({shown}). "
            "Choose another directory, or repeat the original settings to resume.",
        )
