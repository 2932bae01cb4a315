"""Equal content makes equal bytes, whenever it is written."""

from __future__ import annotations

import time

import numpy as np

from amortnlme.core.h5 import read_h5, write_h5_atomic


def test_the_same_arrays_give_the_same_bytes_in_another_second(tmp_path):
    """HDF5 can stamp groups with the second of their creation; a resumed training set would then differ."""
    arrays = {
        "phi": np.arange(4000.0).reshape(40, 100),
        "design/time": np.arange(4000),
        "design/a/b": np.eye(3),
    }
    write_h5_atomic(tmp_path / "first.h5", arrays, {"kind": "test"})
    time.sleep(1.1)
    write_h5_atomic(tmp_path / "second.h5", arrays, {"kind": "test"})
    assert (tmp_path / "first.h5").read_bytes() == (tmp_path / "second.h5").read_bytes()
    assert set(read_h5(tmp_path / "second.h5", "test")[0]) == set(arrays)


def test_a_header_beyond_the_attribute_limit_of_old_hdf5_survives(tmp_path):
    write_h5_atomic(tmp_path / "x.h5", {"a": np.zeros(2)}, {"kind": "test", "text": "y" * 200_000})
    assert len(read_h5(tmp_path / "x.h5", "test")[1]["text"]) == 200_000
