"""Generated modules on disk: compiled once, never half written, never read from somebody else's folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from amortnlme.core.errors import ArtefactError
from amortnlme.solve import kernel_module
from amortnlme.solve.kernel_module import cache_folder, load_kernels

SOURCE = '''"""Twice a number."""
from numba import njit, types


@njit(types.float64(types.float64), cache=True)
def twice(x):
    return 2.0 * x
'''
PROGRAM = """
import sys
from amortnlme.solve.kernel_module import load_kernels
module = load_kernels("twice", open(sys.argv[1]).read())
stats = module.twice.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()), module.twice(4.0), module.__file__)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("AMORTNLME_CACHE_DIR", str(tmp_path / "kernels"))
    return tmp_path / "kernels"


def test_second_process_compiles_nothing(folder, tmp_path):
    (tmp_path / "source.py").write_text(SOURCE)
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    answers = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "source.py")],
            capture_output=True, text=True, check=True, env=environment,
        ).stdout.split()
        for _ in range(2)
    ]  # fmt: skip
    assert answers[0][:3] == ["0", "1", "8.0"]
    assert answers[1][:3] == ["1", "0", "8.0"]
    assert answers[0][3] == answers[1][3]
    assert Path(answers[0][3]).parent == folder


def test_same_source_gives_the_same_module_and_another_source_another(folder):
    first = load_kernels("twice", SOURCE)
    assert load_kernels("twice", SOURCE) is first
    other = load_kernels("twice", SOURCE.replace("2.0", "3.0"))
    assert other.twice(1.0) == 3.0 and first.twice(1.0) == 2.0
    assert sorted(p.suffix for p in folder.glob("*.py")) == [".py", ".py"]
    assert (folder.stat().st_mode & 0o777) == 0o700


def test_key_changes_when_versions_or_processor_change(monkeypatch):
    before = kernel_module._key(SOURCE)
    monkeypatch.setattr(kernel_module, "_environment", lambda: "another processor")
    assert kernel_module._key(SOURCE) != before


def test_a_damaged_file_is_written_anew(folder):
    source = SOURCE.replace("2.0", "5.0")
    folder.mkdir(mode=0o700)
    path = folder / f"twice_{kernel_module._key(source)}.py"
    path.write_text(source[:40])
    assert load_kernels("twice", source).twice(1.0) == 5.0
    assert path.read_text() == source


def test_a_module_that_fails_is_not_kept(folder):
    with pytest.raises(ZeroDivisionError):
        load_kernels("broken", "1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        load_kernels("broken", "1 / 0\n")


def test_a_named_folder_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AMORTNLME_CACHE_DIR", str(tmp_path / "file" / "below"))
    with pytest.raises(ArtefactError, match="AMORTNLME_CACHE_DIR") as caught:
        cache_folder()
    assert caught.value.code == "E_IO_WRITE"


@pytest.mark.parametrize("fault", ["file", "open to others"])
def test_users_folder_is_replaced_by_a_private_one_when_it_cannot_be_trusted(
    tmp_path, monkeypatch, caplog, fault
):
    monkeypatch.delenv("AMORTNLME_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    if fault == "file":
        (tmp_path / "amortnlme").write_text("")
    else:
        (tmp_path / "amortnlme" / "kernels").mkdir(parents=True)
        (tmp_path / "amortnlme" / "kernels").chmod(0o777)
    kernel_module._temporary_folder.cache_clear()
    found = cache_folder()
    assert found.is_dir() and (found.stat().st_mode & 0o777) == 0o700
    assert found != tmp_path / "amortnlme" / "kernels"
    assert "AMORTNLME_CACHE_DIR" in caplog.text
    assert cache_folder() == found
    kernel_module._temporary_folder.cache_clear()


def test_users_folder_is_private_when_it_is_made(tmp_path, monkeypatch):
    monkeypatch.delenv("AMORTNLME_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "amortnlme" / "kernels"
    assert (cache_folder().stat().st_mode & 0o777) == 0o700
