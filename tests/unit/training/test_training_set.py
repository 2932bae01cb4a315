"""Training sets: pure shards, resume, damage."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from amortnlme.core.errors import ArtefactError, TrainingError
from amortnlme.core.files import sha256_file
from amortnlme.model.prior import NormalPrior
from amortnlme.model.registry import load_model
from amortnlme.training.training_set import TrainingSet

MODEL = load_model("one_compartment_oral")
SIZES = {"n": 250, "seed": 3, "shard_size": 100}


def make(path: Path) -> TrainingSet:
    return TrainingSet.create(path, MODEL, **SIZES, progress=False)


def sums(path: Path) -> dict[str, str]:
    return {file.name: sha256_file(file) for file in sorted(path.iterdir())}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    path = tmp_path_factory.mktemp("sets") / "original.training"
    make(path)
    return path


@pytest.fixture
def copy(original, tmp_path):
    """A copy that a test may damage."""
    path = tmp_path / "copy.training"
    path.mkdir()
    for file in original.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    return path


def test_training_set_holds_what_was_asked_for(original):
    opened = TrainingSet.open(original)
    shards = list(opened.shards())
    assert [len(shard.status) for shard in shards] == [100, 100, 50]
    assert opened.verify(deep=True) == opened.verify(deep=True)
    assert opened.verify(deep=True).n_rows == 250
    shard = shards[0]
    assert shard.phi.shape == (100, MODEL.d) and shard.y.shape == shard.designs.observation_mask.shape
    assert np.isfinite(shard.y[shard.designs.observation_mask]).all()
    assert np.isnan(shard.y[~shard.designs.observation_mask]).all()
    assert "weight" in shard.designs.covariates


def test_shards_do_not_depend_on_the_number_of_rows_asked_for(original, tmp_path):
    longer = TrainingSet.create(tmp_path / "long.training", MODEL, 300, 3, shard_size=100, progress=False)
    np.testing.assert_array_equal(longer.shard(0).y, TrainingSet.open(original).shard(0).y)
    np.testing.assert_array_equal(longer.shard(1).phi, TrainingSet.open(original).shard(1).phi)
    assert not np.array_equal(longer.shard(0).phi, longer.shard(1).phi)


def test_bytes_are_the_same_when_two_processes_simulate(original, tmp_path):
    path = tmp_path / "parallel.training"
    TrainingSet.create(path, MODEL, **SIZES, workers=2, progress=False)
    assert sums(path) == sums(original)


def test_bytes_are_the_same_when_the_run_was_killed_and_resumed(tmp_path):
    path = tmp_path / "killed.training"
    code = (
        "from amortnlme.model.registry import load_model\n"
        "from amortnlme.training.training_set import TrainingSet\n"
        "TrainingSet.create(__import__('sys').argv[1], load_model('one_compartment_oral'), 4000, 3,"
        " shard_size=100, progress=False)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], env=dict(os.environ))
    deadline = time.monotonic() + 120
    while not (path / "shard-00001.h5").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    made = len(list(path.glob("shard-*.h5")))
    assert 2 <= made < 40, "the run was meant to be killed in the middle"
    with pytest.raises(TrainingError, match="missing") as caught:
        TrainingSet.open(path)
    assert caught.value.code == "E_TRAINING_INCOMPLETE"
    before = sums(path)
    finished = TrainingSet.create(path, MODEL, 4000, 3, shard_size=100, progress=False)
    whole = tmp_path / "whole.training"
    TrainingSet.create(whole, MODEL, 4000, 3, shard_size=100, progress=False)
    after = sums(path)
    assert after == sums(whole)
    assert all(after[name] == digest for name, digest in before.items() if name in after)
    assert finished.verify(deep=True).problems == ()


def test_resume_repairs_damaged_shards(copy, original):
    (copy / "shard-00000.h5").write_bytes((copy / "shard-00000.h5").read_bytes()[:3000])
    (copy / "shard-00002.h5").unlink()
    make(copy)
    assert sums(copy) == sums(original)


def test_failed_solves_are_kept_and_counted(tmp_path):
    absurd = replace(MODEL, prior=NormalPrior(mean=[800.0, -3.0, 3.0, 0.0], sd=[1.0, 0.1, 0.1, 0.1]))
    made = TrainingSet.create(tmp_path / "absurd.training", absurd, 20, 1, progress=False)
    shard = made.shard(0)
    assert (shard.status != 0).all() and np.isnan(shard.y).all()
    assert made.verify(deep=True).n_failed == 20


@pytest.mark.parametrize(
    ("damage", "code"),
    [("truncated", "E_H5_TRUNCATED"), ("garbage", "E_H5_TRUNCATED"), ("flipped", "E_H5_CHECKSUM")],
)
def test_reading_a_damaged_shard_names_the_damage(copy, damage, code):
    path = copy / "shard-00001.h5"
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "garbage":
        path.write_bytes(b"not an HDF5 file")
    else:
        with h5py.File(path, "r+") as file:
            values = file["phi"][()]
            values[7, 2] += 1e-9
            file["phi"][...] = values
    with pytest.raises(ArtefactError) as caught:
        TrainingSet.open(copy).shard(1)
    assert caught.value.code == code
    problems = TrainingSet.open(copy).verify(deep=True).problems
    assert len(problems) == 1 and "shard 1" in problems[0]


def test_a_shard_in_the_wrong_place_is_foreign(copy):
    (copy / "shard-00000.h5").write_bytes((copy / "shard-00001.h5").read_bytes())
    with pytest.raises(ArtefactError) as caught:
        TrainingSet.open(copy).shard(0)
    assert caught.value.code == "E_TRAINING_FOREIGN"
    with pytest.raises(ArtefactError):
        make(copy)


def test_resume_refuses_other_settings(copy):
    with pytest.raises(TrainingError, match="seed") as caught:
        TrainingSet.create(copy, MODEL, 250, 4, shard_size=100, progress=False)
    assert caught.value.code == "E_TRAINING_HEADER"


@pytest.mark.parametrize("content", [None, "{", "[]", '{"format_version": 99}', '{"format_version": 1}'])
def test_open_refuses_what_is_no_training_set(tmp_path, content):
    if content is not None:
        (tmp_path / "header.json").write_text(content)
    with pytest.raises(TrainingError) as caught:
        TrainingSet.open(tmp_path)
    assert caught.value.code in {"E_TRAINING_PATH", "E_TRAINING_FORMAT"}


def test_create_refuses_a_directory_of_something_else(tmp_path):
    (tmp_path / "thesis.txt").write_text("important")
    with pytest.raises(TrainingError) as caught:
        make(tmp_path)
    assert caught.value.code == "E_TRAINING_PATH"
    assert (tmp_path / "thesis.txt").read_text() == "important"


@pytest.mark.parametrize("changed", [{"n": 0}, {"shard_size": 0}, {"workers": 0}])
def test_create_refuses_counts_below_one(tmp_path, changed):
    with pytest.raises(TrainingError) as caught:
        TrainingSet.create(tmp_path / "x.training", MODEL, **(SIZES | changed), progress=False)
    assert caught.value.code == "E_TRAINING_SIZE"


def test_workers_are_refused_for_a_model_they_cannot_load(tmp_path):
    nameless = replace(MODEL, name="my_model")
    with pytest.raises(TrainingError) as caught:
        TrainingSet.create(tmp_path / "x.training", nameless, 20, 1, workers=2, progress=False)
    assert caught.value.code == "E_TRAINING_WORKERS"


def test_a_full_disk_is_named_and_leaves_no_half_shard(tmp_path, monkeypatch):
    path = tmp_path / "full.training"

    def no_space(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    make(path)
    (path / "shard-00001.h5").unlink()
    monkeypatch.setattr("amortnlme.core.h5.os.fsync", no_space)
    with pytest.raises(ArtefactError, match="No space left") as caught:
        make(path)
    assert caught.value.code == "E_IO_WRITE"
    assert not (path / "shard-00001.h5").exists()


def test_the_header_says_what_was_simulated(original):
    header = json.loads((original / "header.json").read_text())
    assert header["model_fingerprint"] == MODEL.fingerprint
    assert header["prior"] == MODEL.prior.to_config()
    assert header["n"] == 250 and header["seed"] == 3
