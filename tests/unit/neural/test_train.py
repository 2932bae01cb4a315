"""Batches and training: deterministic, resumable to the byte, stopped early."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from unit.neural import tiny

from amortnlme.core.errors import TrainingError
from amortnlme.core.files import sha256_file
from amortnlme.neural.backend import use_backend

keras = use_backend()

from amortnlme.neural.batches import EncodedShards, EpochBatches  # noqa: E402
from amortnlme.neural.estimator import Estimator  # noqa: E402
from amortnlme.neural.pilot import fit_encoder  # noqa: E402
from amortnlme.neural.train import train  # noqa: E402

FILES = ("model.weights.h5", "history.csv", "config.json")


@pytest.fixture(scope="module")
def shards(tiny_set):
    shard = tiny_set.shard(0)
    encoder = fit_encoder(tiny.MODEL, tiny.NETWORK, shard.designs, shard.y.astype(float), shard.phi)
    return EncodedShards(tiny_set, encoder, 100)


def rows_of(batches):
    return np.concatenate([batches[i][0]["coordinates"] for i in range(len(batches))])


def test_batches_are_a_function_of_seed_and_epoch(shards):
    first, again, next_epoch, other_seed = (
        rows_of(EpochBatches(shards, 32, seed, epoch)) for seed, epoch in ((1, 0), (1, 0), (1, 1), (2, 0))
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[:32], next_epoch[:32])
    assert not np.array_equal(first[:32], other_seed[:32])


def test_an_epoch_shows_every_row_at_most_once_and_never_a_validation_row(shards):
    rows = rows_of(EpochBatches(shards, 32, 1, 0))
    assert len(np.unique(rows, axis=0)) == len(rows) > 400
    validation = np.concatenate([group.coordinates for group in shards.validation_rows().values()])
    assert len(validation) == 100
    assert not (rows[:, None] == validation[None]).all(axis=-1).any()


def test_batches_have_one_shape_per_bucket_and_two_shapes_at_the_start(shards):
    batches = EpochBatches(shards, 32, 1, 0)
    shapes = [batches[i][0]["tokens"].shape[:2] for i in range(len(batches))]
    assert set(shapes) == {(32, 10), (32, 20)}
    assert shapes[0] != shapes[1]


def test_training_lowers_the_validation_loss_and_reports_on_the_phi_scale(tiny_estimator):
    history = tiny_estimator.history
    assert [row["epoch"] for row in history] == [1, 2]
    assert history[1]["validation_nll"] < history[0]["validation_nll"]
    # A standard normal in network coordinates, the start, has 4 x 0.5 log(2 pi e) = 5.7 nats there.
    assert history[1]["validation_nll"] < 5.7 - tiny_estimator.encoder.log_abs_det


def test_a_repeated_run_gives_the_same_bytes(tiny_set, tiny_artefact, tmp_path):
    train(tiny_set, tiny.NETWORK, tiny.TRAINING, tmp_path / "again", 1, progress=False)
    for name in FILES:
        assert sha256_file(tmp_path / "again" / name) == sha256_file(tiny_artefact / name), name


# The second epoch dies in the middle: after a checkpoint, and with batches behind it and before it.
KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[3])
from unit.neural import tiny
from amortnlme.neural import train
from amortnlme.neural.batches import EpochBatches
from amortnlme.training.training_set import TrainingSet

class Dying(EpochBatches):
    def __init__(self, shards, batch_size, seed, epoch):
        EpochBatches.__init__(self, shards, batch_size, seed, epoch)
        self.last = len(self) // 2 if epoch == 1 else len(self)

    def __getitem__(self, index):
        if index == self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        return EpochBatches.__getitem__(self, index)

train.EpochBatches = Dying
train.train(TrainingSet.open(sys.argv[1]), tiny.NETWORK, tiny.TRAINING, sys.argv[2], 1, progress=False)
"""


def test_a_killed_run_refuses_other_options_and_resumes_to_the_same_bytes(tiny_set, tiny_artefact, tmp_path):
    tests = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
    out, checkpoint = tmp_path / "killed", tmp_path / "killed.checkpoint.h5"
    process = subprocess.run([sys.executable, "-c", KILLED, str(tiny_set.path), str(out), tests], timeout=200)
    assert process.returncode == -signal.SIGKILL
    assert checkpoint.exists() and not out.exists(), "the run was meant to be killed in the middle"
    with pytest.raises(TrainingError, match="seed") as caught:
        train(tiny_set, tiny.NETWORK, tiny.TRAINING, out, 2, progress=False)
    assert caught.value.code == "E_CHECKPOINT_FOREIGN"
    resumed = train(tiny_set, tiny.NETWORK, tiny.TRAINING, out, 1, progress=False)
    assert len(resumed.history) == 2
    for name in FILES:
        assert sha256_file(out / name) == sha256_file(tiny_artefact / name), name


def test_training_stops_early_and_keeps_the_best_weights(tiny_set, tmp_path):
    # Far too large a rate: the loss soon stops improving.
    spec = replace(tiny.TRAINING, epochs=30, patience=1, learning_rate=0.3, warmup_steps=0)
    estimator = train(tiny_set, tiny.NETWORK, spec, tmp_path / "early", 1, progress=False)
    losses = [row["validation_nll"] for row in estimator.history]
    assert len(losses) < 30
    assert int(np.argmin(losses)) == len(losses) - 2
    assert Estimator.load(tmp_path / "early").fingerprint == estimator.fingerprint


@pytest.mark.parametrize(
    ("changed", "code"),
    [({"validation_rows": 600}, "E_TRAINING_SIZE"), ({"batch_size": 512}, "E_TRAINING_SIZE")],
)
def test_a_training_set_that_is_too_small_is_refused(tiny_set, tmp_path, changed, code):
    with pytest.raises(TrainingError) as caught:
        train(tiny_set, tiny.NETWORK, replace(tiny.TRAINING, **changed), tmp_path / "x", 1, progress=False)
    assert caught.value.code == code


def test_sequences_longer_than_the_last_bucket_are_refused(tiny_set, tmp_path):
    with pytest.raises(TrainingError, match="20 tokens") as caught:
        network = replace(tiny.NETWORK, buckets=(5, 10))
        train(tiny_set, network, tiny.TRAINING, tmp_path / "x", 1, progress=False)
    assert caught.value.code == "E_SPEC_BUCKETS"


def test_a_training_set_of_a_changed_model_is_refused(tiny_set, tmp_path):
    changed = replace(tiny.MODEL, units=dict(tiny.MODEL.units) | {"time": "min"})
    with pytest.raises(TrainingError) as caught:
        train(tiny_set, tiny.NETWORK, tiny.TRAINING, tmp_path / "x", 1, model=changed, progress=False)
    assert caught.value.code == "E_TRAINING_FINGERPRINT"
