"""Settings every test runs under."""

from __future__ import annotations

import os
from pathlib import Path

# Set before any import of the package: plots need no display, and the backend is TensorFlow unless the
# caller asks for the other one.
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# Generated kernels stay in the checkout: a test run neither reads nor fills the user's own cache.
os.environ.setdefault(
    "AMORTNLME_CACHE_DIR", str(Path(__file__).resolve().parents[1] / ".pytest_cache" / "kernels")
)

import pytest
from hypothesis import HealthCheck, settings

# Derandomized: a red run is red again on the next machine.
settings.register_profile(
    "house", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("house")

# Everything in these folders runs the networks, so it is repeated on the other backend.
BACKEND_FOLDERS = ("unit/neural", "artefacts")


def pytest_collection_modifyitems(config, items):
    """Mark tests by where they stand; what the marks mean is in pyproject.toml."""
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parent.as_posix()
        if folder.startswith(BACKEND_FOLDERS):
            item.add_marker(pytest.mark.backend)
        if folder.startswith("statistical"):
            item.add_marker(pytest.mark.statistical)
