"""Training sets in which everybody has the same design: stored once, simulated from one set of events."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, replace

import h5py
import numpy as np
import pytest

from amortnlme.core.errors import ArtefactError
from amortnlme.core.rng import stream
from amortnlme.data.design import FIELDS, Design, DesignBatch, Dose
from amortnlme.data.design_sampler import AbstractDesignSampler
from amortnlme.model.registry import load_model
from amortnlme.training.shard import read_shard, shard_path, simulate_shard, write_shard
from amortnlme.training.training_set import TrainingSet

DESIGN = Design.from_doses([Dose(0.0, 320.0)], np.linspace(0.5, 24.0, 12))
N = 300


@dataclass(frozen=True, slots=True)
class OneDesign(AbstractDesignSampler):
    """The same design for everybody; weights differ unless `weight` is given."""

    weight: float = 0.0

    @property
    def max_observations(self) -> int:
        return DESIGN.n_observations

    @property
    def max_records(self) -> int:
        return DESIGN.n_records

    def sample(self, n, rng):
        weight = np.full(n, self.weight) if self.weight else rng.uniform(50.0, 90.0, n)
        index = np.zeros(n, dtype=np.int64)
        one = DesignBatch.from_designs([DESIGN]).take(index)
        columns = {name: getattr(one, name) for name in FIELDS}
        return DesignBatch.from_columns(columns, one.n_records, {"weight": weight})

    def contains(self, subject):
        return ()

    def to_config(self):
        return {"kind": "one", "weight": self.weight}


SHIPPED = load_model("one_compartment_oral")
SAMPLERS = {"same weight": OneDesign(70.0), "own weights": OneDesign()}


@pytest.fixture(scope="module", params=SAMPLERS)
def model(request):
    return replace(SHIPPED, design_sampler=SAMPLERS[request.param])


def test_a_common_design_gives_the_numbers_of_a_batch(model):
    shard = simulate_shard(model, 3, 0, N)
    batch = model.simulate_batch(shard.phi, shard.designs, stream(3, 0, 2))
    np.testing.assert_array_equal(shard.y, batch.y.astype(np.float32))
    np.testing.assert_array_equal(shard.status, batch.status)


def test_a_common_design_comes_back_as_one_row_per_simulation(model, tmp_path):
    shard = simulate_shard(model, 3, 0, N)
    write_shard(tmp_path, 0, shard, "x")
    back = read_shard(tmp_path, 0, "x")
    for name in DesignBatch.__dataclass_fields__:
        before, after = getattr(shard.designs, name), getattr(back.designs, name)
        if name == "covariates":
            before, after = before["weight"], after["weight"]
        np.testing.assert_array_equal(after, before)
        assert after.dtype == before.dtype
    rows = np.array([7, 7, 250])
    np.testing.assert_array_equal(back.designs.take(rows).time, shard.designs.take(rows).time)


def test_a_common_design_is_stored_once(model, tmp_path):
    write_shard(tmp_path, 0, simulate_shard(model, 3, 0, N), "x")
    with h5py.File(shard_path(tmp_path, 0)) as file:
        assert file["design:time"].shape == (1, DESIGN.n_records)
        assert file["covariate:weight"].shape == (N,)
        assert file["y"].shape == (N, DESIGN.n_observations)


def test_shards_of_different_designs_keep_every_row(tmp_path):
    write_shard(tmp_path, 0, simulate_shard(SHIPPED, 3, 0, N), "x")
    with h5py.File(shard_path(tmp_path, 0)) as file:
        assert len(file["design:time"]) == N


def test_a_failed_write_ends_the_run_with_its_error(model, tmp_path, monkeypatch):
    """Shards are written beside the simulation; what fails there must not be lost."""
    written = []

    def fails_at_the_third(descriptor):
        written.append(descriptor)
        # a shard is synchronized once itself and once in its folder; the header is there before
        if len(written) > 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("amortnlme.core.h5.os.fsync", fails_at_the_third)
    with pytest.raises(ArtefactError) as caught:
        TrainingSet.create(tmp_path / "x.training", model, 50 * 40, 3, shard_size=40, progress=False)
    assert caught.value.code == "E_IO_WRITE"
    names = sorted(path.name for path in (tmp_path / "x.training").iterdir())
    assert len(names) < 8 and not [name for name in names if name.endswith(".tmp")]
    monkeypatch.undo()
    finished = TrainingSet.create(tmp_path / "x.training", model, 50 * 40, 3, shard_size=40, progress=False)
    assert finished.verify().problems == ()
