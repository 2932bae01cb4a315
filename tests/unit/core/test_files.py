"""A file is there as a whole or not at all, whatever interrupts the writing."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

import pytest

from amortnlme.core.errors import ArtefactError
from amortnlme.core.files import sha256_file, write_bytes_atomic, write_json_atomic, write_text_atomic

KILLED = """
import os, sys
from amortnlme.core import files

def stop(descriptor):
    print("ready", flush=True)
    sys.stdin.read()

files.os.fsync = stop
files.write_bytes_atomic(sys.argv[1], b"new" * 100_000)
"""


def test_a_file_is_written_whole_and_replaced_whole(tmp_path):
    path = tmp_path / "a.bin"
    write_bytes_atomic(path, b"old")
    write_bytes_atomic(path, b"new and longer")
    assert path.read_bytes() == b"new and longer"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_text_is_utf8_and_json_is_strict(tmp_path):
    write_text_atomic(tmp_path / "a.txt", "é\n")
    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xa9\n"
    write_json_atomic(tmp_path / "a.json", {"b": [1.5, None]})
    assert (tmp_path / "a.json").read_text() == '{\n  "b": [\n    1.5,\n    null\n  ]\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        write_json_atomic(tmp_path / "b.json", float("nan"))
    assert sorted(os.listdir(tmp_path)) == ["a.json", "a.txt"]


def test_a_written_file_has_the_permissions_the_user_asked_for(tmp_path):
    before = os.umask(0o027)
    try:
        write_text_atomic(tmp_path / "a.txt", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    writer = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )
    assert writer.stdout is not None and writer.stdin is not None
    assert writer.stdout.readline() == b"ready\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait(timeout=30)
    writer.stdin.close()
    writer.stdout.close()
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_is_named_and_leaves_the_old_file_and_no_rubbish(function, tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    target = "os.fsync" if function == "fsync" else "pathlib.Path.replace"
    monkeypatch.setattr(target, fail)
    with pytest.raises(ArtefactError, match=r"a\.bin: No space left on device") as refusal:
        write_bytes_atomic(path, b"new")
    assert refusal.value.code == "E_IO_WRITE"
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_an_interrupt_while_writing_leaves_no_rubbish(tmp_path, monkeypatch):
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes_atomic(tmp_path / "a.bin", b"new")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ArtefactError, match="nowhere") as refusal:
        write_text_atomic(tmp_path / "nowhere" / "a.txt", "x")
    assert refusal.value.code == "E_IO_WRITE"


def test_the_checksum_of_a_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert sha256_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(ArtefactError) as refusal:
        sha256_file(tmp_path / "b")
    assert refusal.value.code == "E_IO_READ"
