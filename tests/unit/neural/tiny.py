"""A training set and network options small enough to train inside a test."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from amortnlme.core.rng import stream
from amortnlme.data.dataset import Dataset
from amortnlme.model.registry import load_model
from amortnlme.neural.sentinel import simulated_dataset
from amortnlme.neural.spec import NetworkSpec, TrainingSpec
from amortnlme.training.training_set import TrainingSet

MODEL = load_model("one_compartment_oral")
NETWORK = NetworkSpec(
    tokens="observations",
    history_rates=(0.05, 0.5, 5.0),
    dose_scaled=("a",),
    output_scaled=("a",),
    inverse_output_scaled=("V",),
    summary_width=8,
    summary_rounds=1,
    summary_size=8,
    flow_depth=2,
    flow_width=8,
    buckets=(10, 20),
)
TRAINING = TrainingSpec(epochs=2, batch_size=32, warmup_steps=5, validation_rows=100, pilot_rows=300)


def training_set(path: Path, n: int = 600) -> TrainingSet:
    """n simulations in shards of 200."""
    return TrainingSet.create(path, MODEL, n, 11, shard_size=200, progress=False)


def patients(n: int, seed: int = 5) -> Dataset:
    """n simulated patients."""
    phi = MODEL.prior.sample(n, stream(seed, 0))
    designs = MODEL.design_sampler.sample(n, stream(seed, 1))
    y = MODEL.simulate_batch(phi, designs, stream(seed, 2)).y
    return simulated_dataset(designs, np.asarray(y))
