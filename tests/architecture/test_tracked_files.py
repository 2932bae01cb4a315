"""What may not be in the repository: machine paths, package hosts, large or stray files."""

from __future__ import annotations

import re

from architecture.house import ROOT, tracked_files

BINARY = {".h5", ".png", ".whl", ".gz"}
# Spelled in pieces so that this file does not match itself.
ROOTS = "|".join(["work", "root", "farm", "home", "opt", "srv"])
MACHINE_PATH = re.compile(rf"(?<![\w./>-])/(?:{ROOTS})/\w")
HOSTS = re.compile("|".join(["index" + "-url", "find" + "-links", "trusted" + "-host", "file" + "://"]))


def _texts():
    for path in tracked_files():
        if path.suffix not in BINARY:
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def test_no_file_names_a_path_of_one_machine():
    found = [
        f"{name}:{text.count(chr(10), 0, hit.start()) + 1}: {hit.group()}"
        for name, text in _texts()
        for hit in MACHINE_PATH.finditer(text)
    ]
    assert not found, "\n".join(found)


def test_no_file_names_a_package_host():
    found = [f"{name}: {hit.group()}" for name, text in _texts() for hit in HOSTS.finditer(text)]
    assert not found, "\n".join(found)


def test_locked_versions_are_exact_and_without_addresses():
    for name in ("lock.txt", "lock-dev.txt"):
        lines = (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
        pins = [line for line in lines if line and not line.startswith(("#", "-c ", "-r "))]
        assert pins
        assert not [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)]


def test_no_file_is_large():
    """Ten megabytes is the budget of a shipped estimator; nothing else comes near it."""
    large = [
        path.relative_to(ROOT).as_posix() for path in tracked_files() if path.stat().st_size > 10_000_000
    ]
    assert not large


def test_nothing_pickled_is_tracked():
    assert not [
        path.name for path in tracked_files() if path.suffix in {".pkl", ".pickle", ".npy", ".npz", ".joblib"}
    ]
