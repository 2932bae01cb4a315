"""HDF5 files come back as written, or are refused with the reason."""

from __future__ import annotations

import errno
import os

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from amortnlme.core.errors import ArtefactError
from amortnlme.core.h5 import read_h5, write_h5_atomic

ARRAYS = {
    "phi": np.linspace(-1.0, 1.0, 3000).reshape(10, 100, 3),
    "status": np.arange(200, dtype=np.int8),
    "mask": np.array([True, False]),
    "group/scalar": np.array(3.5),
    "empty": np.zeros((0, 4), np.float32),
}
HEADER = {"kind": "draws", "names": ["ka", "é"], "nested": {"x": None, "y": 1e-300}}


def code_of(path, kind="draws") -> str:
    with pytest.raises(ArtefactError) as refusal:
        read_h5(path, kind)
    assert path.name in refusal.value.message
    return refusal.value.code


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.h5"
    write_h5_atomic(path, ARRAYS, HEADER)
    return path


@pytest.mark.parametrize("compress", [True, False])
def test_arrays_and_header_come_back_as_written(compress, tmp_path):
    write_h5_atomic(tmp_path / "a.h5", ARRAYS, HEADER, compress=compress)
    arrays, header = read_h5(tmp_path / "a.h5", "draws")
    assert header == HEADER
    assert list(arrays) == list(ARRAYS)
    for name, values in ARRAYS.items():
        assert arrays[name].dtype == values.dtype
        assert np.array_equal(arrays[name], values)


@given(
    hnp.arrays(
        st.sampled_from([np.dtype(t) for t in ("f8", "f4", "i4", "u1", "?", ">f8")]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
    )
)
def test_any_numbers_come_back_bit_by_bit(tmp_path_factory, array):
    path = tmp_path_factory.mktemp("h5") / "a.h5"
    write_h5_atomic(path, {"x": array}, {"kind": "test"})
    back = read_h5(path, "test")[0]["x"]
    assert back.shape == array.shape
    assert back.astype(array.dtype).tobytes() == array.tobytes()


def test_the_same_content_gives_the_same_bytes(tmp_path):
    for name in ("a.h5", "b.h5"):
        write_h5_atomic(tmp_path / name, ARRAYS, HEADER)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_missing_file_is_named(tmp_path):
    assert code_of(tmp_path / "nowhere.h5") == "E_H5_MISSING"


def test_a_file_of_another_kind_is_named(file):
    assert code_of(file, "fit") == "E_H5_KIND"


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.7, 0.99])
def test_a_file_that_was_cut_off_is_named(share, file):
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    assert code_of(file) in ("E_H5_TRUNCATED", "E_H5_CHECKSUM")


def test_a_text_file_is_no_h5_file(tmp_path):
    (tmp_path / "a.h5").write_text("phi\n1.0\n")
    assert code_of(tmp_path / "a.h5") == "E_H5_TRUNCATED"


def test_an_h5_file_of_another_program_is_named(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as other:
        other["phi"] = np.zeros(3)
    assert code_of(tmp_path / "a.h5") == "E_H5_TRUNCATED"


def test_a_changed_number_is_found(file):
    with h5py.File(file, "r+") as damaged:
        damaged["phi"][0, 0, 0] = 7.0
    with pytest.raises(ArtefactError, match="checksum of phi ") as refusal:
        read_h5(file, "draws")
    assert refusal.value.code == "E_H5_CHECKSUM"


def test_a_changed_header_is_found(file):
    with h5py.File(file, "r+") as damaged:
        damaged.attrs["meta"] = '{"kind": "draws", "names": []}'
    assert code_of(file) == "E_H5_CHECKSUM"


def test_no_flipped_byte_changes_what_is_read(tmp_path):
    """Every 37th byte: the file is refused by name, or the byte was of no consequence."""
    path = tmp_path / "a.h5"
    write_h5_atomic(path, {"phi": ARRAYS["phi"][:2]}, HEADER)
    content = path.read_bytes()
    refused = 0
    for at in range(0, len(content), 37):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        try:
            arrays, header = read_h5(path, "draws")
        except ArtefactError as refusal:
            assert refusal.code.startswith("E_H5_")
            refused += 1
        else:
            assert header == HEADER
            assert np.array_equal(arrays["phi"], ARRAYS["phi"][:2])
    assert refused > 0


def test_a_full_disk_is_named_and_leaves_the_old_file(file, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = file.read_bytes()
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(ArtefactError, match="No space left") as refusal:
        write_h5_atomic(file, {"x": np.zeros(3)}, HEADER)
    assert refusal.value.code == "E_IO_WRITE"
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == ["a.h5"]


def test_objects_and_text_are_not_stored_as_arrays(tmp_path):
    with pytest.raises(ArtefactError) as refusal:
        write_h5_atomic(tmp_path / "a.h5", {"names": np.array(["a", "b"])}, HEADER)
    assert refusal.value.code == "E_H5_DTYPE"
    assert os.listdir(tmp_path) == []


def test_a_file_that_swells_beyond_memory_is_refused(tmp_path):
    path = tmp_path / "bomb.h5"
    write_h5_atomic(path, {"a": np.zeros(3)}, {"kind": "test"})
    with h5py.File(path, "r+") as file:
        del file["a"]
        bomb = file.create_dataset("a", shape=(200_000, 200_000), chunks=(1000, 1000), compression="gzip")
        bomb.attrs["crc32"] = np.uint32(0)
    with pytest.raises(ArtefactError, match="would take") as caught:
        read_h5(path, "test")
    assert caught.value.code == "E_H5_TRUNCATED"


@pytest.mark.parametrize("link", [h5py.ExternalLink("other.h5", "/a"), h5py.SoftLink("/b")])
def test_an_array_that_lies_elsewhere_is_refused(tmp_path, link):
    for name in ("other.h5", "linked.h5"):
        write_h5_atomic(tmp_path / name, {"a": np.zeros(3), "b": np.zeros(3)}, {"kind": "test"})
    with h5py.File(tmp_path / "linked.h5", "r+") as file:
        del file["a"]
        file["a"] = link
    with pytest.raises(ArtefactError, match="another file"):
        read_h5(tmp_path / "linked.h5", "test")
