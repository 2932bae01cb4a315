"""Settings every test runs under."""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path

# Set before any import of the package: plots need no display, and the backend is TensorFlow unless the
# caller asks for the other one.
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import pytest
from hypothesis import HealthCheck, settings

# Derandomized: a red run is red again on the next machine.
settings.register_profile(
    "house", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("house")

# Everything in these folders runs the networks, so it is repeated on the other backend.
BACKEND_FOLDERS = ("unit/neural", "artefacts")


def pytest_configure():
    """Keep generated kernels and machine code in the checkout, before anything imports the package.

    Numba looks only at the file of the function it caches: after a change in the file of a callee it would
    run the old machine code with the old memory layout. Hence one folder for each state of the kernels.
    """
    root = Path(__file__).resolve().parents[1]
    sources = sorted((root / "amortnlme" / "solve").glob("*.py"))
    state = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    cache = root / ".pytest_cache"
    os.environ.setdefault("AMORTNLME_CACHE_DIR", str(cache / "kernels"))
    os.environ.setdefault("NUMBA_CACHE_DIR", str(cache / f"numba-{state}"))
    if "PYTEST_XDIST_WORKER" in os.environ:
        _let_workers_share_machine_code(cache / "numba.lock")


def _let_workers_share_machine_code(path: Path):
    """Let one worker at a time write into Numba's cache: what one has compiled, the others load.

    Numba reads the index of a function, chooses the next free file and writes the index back. Two processes
    that do so at once for different types choose the same file, and the index then names the wrong code.
    """
    from numba.core.caching import IndexDataCacheFile

    save = IndexDataCacheFile.save
    path.parent.mkdir(exist_ok=True)

    def save_alone(self, key, data):
        with path.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            save(self, key, data)

    IndexDataCacheFile.save = save_alone


def pytest_collection_modifyitems(config, items):
    """Mark tests by where they stand; what the marks mean is in pyproject.toml."""
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parent.as_posix()
        if folder.startswith(BACKEND_FOLDERS):
            item.add_marker(pytest.mark.backend)
        if folder.startswith("statistical"):
            item.add_marker(pytest.mark.statistical)
