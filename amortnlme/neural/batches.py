"""Batches for Keras from a training set: encoded once, bucketed by length, shuffled in blocks of shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from amortnlme.core.errors import TrainingError
from amortnlme.core.rng import stream
from amortnlme.neural.backend import use_backend
from amortnlme.neural.encoder import EventEncoder, pad_tokens
from amortnlme.training.shard import Shard
from amortnlme.training.training_set import TrainingSet

keras = use_backend()

# Encoded shards are kept in memory up to this size; beyond it they are read and encoded again each epoch.
_CACHE_BYTES = 4 * 1024**3
# Shards whose rows are mixed with each other: random single-row reads would cost a hundred times more.
_SHARDS_PER_BLOCK = 32


@dataclass(frozen=True, slots=True)
class Rows:
    """Encoded rows of a bucket: tokens (n, T, F), mask (n, T), conditions (n, C), coordinates (n, d)."""

    tokens: np.ndarray
    mask: np.ndarray
    conditions: np.ndarray
    coordinates: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def n_bytes(self) -> int:
        """Memory held."""
        return self.tokens.nbytes + self.mask.nbytes + self.conditions.nbytes + self.coordinates.nbytes

    def take(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Network input of some rows."""
        return {
            "tokens": self.tokens[index],
            "mask": self.mask[index],
            "conditions": self.conditions[index],
            "coordinates": self.coordinates[index],
        }


def usable_rows(shard: Shard) -> np.ndarray:
    """Tell which simulations can be learned from.

    Parameters
    ----------
    shard : Shard
        n simulations.

    Returns
    -------
    ndarray (n,) bool
        Rows that were solved and hold at least one measurement.
    """
    measured = (shard.designs.observation_mask & np.isfinite(shard.y)).any(axis=1)
    return (shard.status == 0) & measured


def encode_shard(
    encoder: EventEncoder, shard: Shard, keep: np.ndarray, buckets: Sequence[int]
) -> dict[int, Rows]:
    """Encode the kept rows of a shard and sort them into length buckets.

    Parameters
    ----------
    encoder : EventEncoder
        Encoder with fixed constants.
    shard : Shard
        n simulations.
    keep : ndarray (n,) bool
        Rows to encode.
    buckets : sequence of int
        Increasing token counts.

    Returns
    -------
    dict of int to Rows
        Rows by bucket; empty buckets are left out.

    Raises
    ------
    TrainingError
        E_SPEC_BUCKETS when a sequence is longer than the largest bucket.
    """
    index = np.flatnonzero(keep)
    designs, y = shard.designs.take(index), shard.y[index].astype(np.float64)
    encoded = encoder.encode(designs, y, designs.observation_mask & np.isfinite(y))
    coordinates = encoder.to_network(shard.phi[index], encoded.shift).astype(np.float32)
    if encoded.length.size and int(encoded.length.max()) > buckets[-1]:
        raise TrainingError(
            "E_SPEC_BUCKETS",
            f"a simulated subject has {int(encoded.length.max())} tokens, more than the largest bucket "
            f"({buckets[-1]}). "
            "Add a larger bucket to the network options.",
        )
    out: dict[int, Rows] = {}
    for bucket, rows in group_by_bucket(encoded.length, buckets).items():
        tokens = pad_tokens(encoded.tokens[rows], bucket)
        mask = np.arange(bucket) < encoded.length[rows, None]
        out[bucket] = Rows(tokens, mask, encoded.conditions[rows], coordinates[rows])
    return out


def group_by_bucket(length: np.ndarray, buckets: Sequence[int]) -> dict[int, np.ndarray]:
    """Sort rows into length buckets.

    Parameters
    ----------
    length : ndarray (n,) int
        Token counts, none above the last bucket.
    buckets : sequence of int
        Increasing token counts.

    Returns
    -------
    dict of int to ndarray of int
        Row indices by bucket; empty buckets are left out.
    """
    choice = np.minimum(np.searchsorted(np.asarray(buckets), length), len(buckets) - 1)
    groups = {int(buckets[i]): np.flatnonzero(choice == i) for i in range(len(buckets))}
    return {bucket: rows for bucket, rows in groups.items() if rows.size}


class EncodedShards:
    """Encoded training and validation rows of a training set, cached by shard."""

    def __init__(self, training_set: TrainingSet, encoder: EventEncoder, validation_rows: int) -> None:
        if validation_rows >= training_set.n:
            raise TrainingError(
                "E_TRAINING_SIZE",
                f"{validation_rows} validation rows leave nothing of the {training_set.n} simulations to "
                "train on. "
                "Simulate more, or set validation_rows lower.",
            )
        self._set, self._encoder = training_set, encoder
        self._first_validation_row = training_set.n - validation_rows
        self._cache: dict[int, dict[int, Rows]] = {}
        self._cached_bytes = 0

    @property
    def n_training(self) -> int:
        """Number of simulations before the validation rows, failed ones included."""
        return self._first_validation_row

    @property
    def log_abs_det(self) -> float:
        """Log |d coordinates / d phi| of the encoder."""
        return self._encoder.log_abs_det

    def training_shards(self) -> list[int]:
        """Return the indices of the shards that hold training rows."""
        size = int(self._set.header["shard_size"])
        return list(range(-(-self._first_validation_row // size)))

    def training_rows(self, index: int) -> dict[int, Rows]:
        """Return the encoded training rows of one shard, by bucket."""
        if index in self._cache:
            return self._cache[index]
        rows = self._encode(index, validation=False)
        size = sum(group.n_bytes for group in rows.values())
        if self._cached_bytes + size <= _CACHE_BYTES:
            self._cache[index] = rows
            self._cached_bytes += size
        return rows

    def validation_rows(self) -> dict[int, Rows]:
        """Return all encoded validation rows, by bucket."""
        first = self._first_validation_row // int(self._set.header["shard_size"])
        return merge([self._encode(index, validation=True) for index in range(first, self._set.n_shards)])

    def _encode(self, index: int, *, validation: bool) -> dict[int, Rows]:
        shard = self._set.shard(index)
        row = index * int(self._set.header["shard_size"]) + np.arange(len(shard.status))
        wanted = (row >= self._first_validation_row) == validation
        return encode_shard(self._encoder, shard, wanted & usable_rows(shard), self._encoder.spec.buckets)


def merge(parts: Sequence[dict[int, Rows]]) -> dict[int, Rows]:
    """Concatenate rows bucket by bucket.

    Parameters
    ----------
    parts : sequence of dict of int to Rows
        For instance one dictionary for each shard.

    Returns
    -------
    dict of int to Rows
        All rows, by bucket.
    """
    out: dict[int, Rows] = {}
    for bucket in sorted({bucket for part in parts for bucket in part}):
        groups = [part[bucket] for part in parts if bucket in part]
        out[bucket] = Rows(
            np.concatenate([group.tokens for group in groups]),
            np.concatenate([group.mask for group in groups]),
            np.concatenate([group.conditions for group in groups]),
            np.concatenate([group.coordinates for group in groups]),
        )
    return out


class EpochBatches(keras.utils.PyDataset):
    """The full batches of one epoch in an order that is a pure function of (seed, epoch).

    Rows are shuffled within blocks of shards and within length buckets; every batch has one shape per
    bucket, and the remainder of a bucket that fills no batch is left out of this epoch.
    """

    def __init__(self, shards: EncodedShards, batch_size: int, seed: int, epoch: int) -> None:
        super().__init__(workers=1)
        self._shards, self._batch_size = shards, batch_size
        self._no_target = np.zeros(batch_size, dtype=np.float32)
        self._block: tuple[int, dict[int, Rows]] | None = None
        rng = stream(seed, epoch)
        order = rng.permutation(shards.training_shards())
        self._blocks = [order[i : i + _SHARDS_PER_BLOCK] for i in range(0, len(order), _SHARDS_PER_BLOCK)]
        self._plan: list[tuple[int, int, np.ndarray]] = []
        for number in range(len(self._blocks)):
            self._plan += self._plan_block(number, self._rows(number), rng)
        self._plan = _two_shapes_first(self._plan)
        if not self._plan:
            raise TrainingError(
                "E_TRAINING_SIZE",
                f"the training rows fill no batch of {batch_size}. Simulate more, or set batch_size lower.",
            )

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, index: int) -> tuple[dict[str, Any], np.ndarray]:
        number, bucket, rows = self._plan[index]
        return self._rows(number)[bucket].take(rows), self._no_target

    def _rows(self, number: int) -> dict[int, Rows]:
        if self._block is None or self._block[0] != number:
            self._block = None
            parts = [self._shards.training_rows(int(index)) for index in self._blocks[number]]
            self._block = (number, merge(parts))
        return self._block[1]

    def _plan_block(
        self, number: int, rows: dict[int, Rows], rng: np.random.Generator
    ) -> list[tuple[int, int, np.ndarray]]:
        plan: list[tuple[int, int, np.ndarray]] = []
        for bucket, group in rows.items():
            shuffled = rng.permutation(len(group))
            full = len(group) // self._batch_size * self._batch_size
            plan += [(number, bucket, part) for part in shuffled[:full].reshape(-1, self._batch_size)]
        return [plan[i] for i in rng.permutation(len(plan))]


def _two_shapes_first(plan: list[tuple[int, int, np.ndarray]]) -> list[tuple[int, int, np.ndarray]]:
    """Move a batch of another bucket to the second place.

    Under TensorFlow, Keras takes the signature of a dataset from its first two batches: if their lengths
    differ, it accepts any length.
    """
    other = next((i for i, (_, bucket, _) in enumerate(plan) if bucket != plan[0][1]), None)
    if other is None:
        return plan
    return [plan[0], plan[other], *plan[1:other], *plan[other + 1 :]]
