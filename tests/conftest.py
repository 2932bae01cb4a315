"""Settings every test runs under."""

from __future__ import annotations

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
    # Two processes that fill one cache at the same time may mix up its files: a worker has its own.
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    os.environ.setdefault("NUMBA_CACHE_DIR", str(cache / f"numba-{state}-{worker}"))


def pytest_collection_modifyitems(config, items):
    """Mark tests by where they stand; what the marks mean is in pyproject.toml."""
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parent.as_posix()
        if folder.startswith(BACKEND_FOLDERS):
            item.add_marker(pytest.mark.backend)
        if folder.startswith("statistical"):
            item.add_marker(pytest.mark.statistical)
