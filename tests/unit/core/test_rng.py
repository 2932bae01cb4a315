"""Random streams depend on the seed and the keys, and on nothing else."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amortnlme.core.errors import UsageError
from amortnlme.core.rng import generator, stream

KEYS = st.lists(st.integers(0, 2**40), max_size=3).map(tuple)


@given(seed=st.integers(0, 2**63 - 1), keys=st.lists(KEYS, min_size=2, max_size=5, unique=True))
def test_streams_are_the_same_in_whatever_order_they_are_made_and_used(seed, keys):
    forward = [stream(seed, *key) for key in keys]
    drawn = [rng.random(3) for rng in forward]
    backward = {key: stream(seed, *key).random(3) for key in reversed(keys)}
    for key, values in zip(keys, drawn, strict=True):
        assert np.array_equal(values, backward[key])


@given(seed=st.integers(0, 2**62), keys=st.lists(KEYS, min_size=2, max_size=5, unique=True))
def test_streams_of_different_keys_or_seeds_differ(seed, keys):
    values = {stream(seed, *key).integers(2**63) for key in keys}
    assert len(values) == len(keys)
    assert stream(seed, *keys[0]).integers(2**63) != stream(seed + 1, *keys[0]).integers(2**63)


def test_a_key_of_zero_is_not_the_stream_without_keys():
    draws = [stream(7).random(), stream(7, 0).random(), stream(7, 0, 0).random()]
    assert len(set(draws)) == 3


def test_generator_is_the_stream_without_keys():
    assert generator(5).random() == stream(5).random()


def test_streams_are_the_same_in_another_process():
    program = "from amortnlme.core.rng import stream; print(stream(3, 1, 4).integers(2**63))"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(told.stdout) == stream(3, 1, 4).integers(2**63)


def test_streams_stay_the_same_across_versions():
    # frozen when training sets were first written: a change here changes every training set
    assert stream(1).integers(2**63) == 616139784949098269
    assert stream(1, 2, 3).integers(2**63) == 1670415900307801542


@pytest.mark.statistical
def test_neighboring_streams_are_uncorrelated():
    """Null: independent uniforms; n = 20 000; the SD is n**-0.5, and 4 SD are a false alarm in 1e-4."""
    n = 20_000
    first = np.array([stream(11, shard).random() for shard in range(n)])
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 4.0 / np.sqrt(n - 1)


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, True, "1", None])
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(UsageError) as refusal:
        generator(seed)
    assert refusal.value.code == "E_SEED"
    with pytest.raises(UsageError):
        stream(1, seed)
