"""Loading an estimator leaves the caller's process as it was."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import numpy as np
import pytest

from amortnlme.neural.estimator import Estimator


def test_loading_does_not_reseed_the_generators_of_the_caller(tiny_artefact):
    """Keras' own seeding would make whatever the caller draws next the same after every load."""
    after = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the global generator is what a caller may be using
        Estimator.load(tiny_artefact)
        after.append((random.random(), np.random.random()))  # noqa: NPY002
    assert after[0][0] != after[1][0]
    assert after[0][1] != after[1][1]


def test_loading_on_jax_does_not_start_tensorflow(tiny_artefact):
    if os.environ["KERAS_BACKEND"] != "jax":
        pytest.skip("asks about JAX")
    code = (
        "import sys; from amortnlme.neural.estimator import Estimator;"
        f"Estimator.load({str(tiny_artefact)!r}); print('tensorflow' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.stdout.splitlines()[-1] == "False", run.stderr
