"""Settings every test runs under."""

from __future__ import annotations

import os

# Set before any import of the package: plots need no display, and the backend is TensorFlow unless the
# caller asks for the other one.
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

from hypothesis import HealthCheck, settings

# Derandomized: a red run is red again on the next machine.
settings.register_profile(
    "house", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("house")
