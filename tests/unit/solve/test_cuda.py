"""The GPU engine in Numba's simulator of a device, against the closed form and the processor's engines."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import cuda
from numpy.testing import assert_allclose, assert_array_equal
from unit.solve import cuda_cases as cases
from unit.solve import untraced_models as examples

from amortnlme.core.errors import SolveError
from amortnlme.core.status import SolveStatus
from amortnlme.model.gpu import on_gpu

# Local errors of 1e-8 relative to each state add up over some dozens of steps.
TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def simulated():
    """What the simulator returns; Numba reads the variable when it is imported, hence the other process."""
    run = subprocess.run(
        [sys.executable, "-m", "unit.solve.cuda_cases"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(run.stdout)


def test_device_agrees_with_the_closed_form_on_boluses_infusions_resets_and_covariates(simulated):
    design = cases.plain_design()
    exact = examples.closed_form_model().predict(cases.PHI, design, cases.weights_of(design))
    assert_array_equal(simulated["status"], 0)
    assert_allclose(simulated["plain"], exact.f, rtol=TOLERANCE)


def test_device_moves_doses_and_starts_as_the_processor_does(simulated):
    """Both walk from event to event with the same text; this checks how the device is fed."""
    model = examples.compiled_model(**cases.MOVED)
    found = model.predict(cases.PHI[:3], cases.moved_design(), cases.WEIGHT)
    assert_allclose(simulated["moved"], found.f, rtol=TOLERANCE)


def test_device_evaluates_formulas_as_compiled_python_does(simulated):
    """The other side differentiates numerically and knows no generated text."""
    model = examples.compiled_model(examples.powered, ())
    found = model.predict(cases.PHI[:3], cases.moved_design())
    assert_allclose(simulated["powered"], found.f, rtol=TOLERANCE)


def test_device_hands_out_single_precision_when_asked(simulated):
    assert simulated["narrow type"] == "float32"
    assert_allclose(simulated["narrow"], np.array(simulated["plain"][:3]), rtol=2.0**-23)


def test_device_gives_a_status_when_steps_run_out(simulated):
    status, is_nan = simulated["few"]
    assert status == [SolveStatus.MAX_STEPS]
    assert np.all(is_nan)


def test_device_refuses_what_it_cannot_solve(simulated):
    assert simulated["steady"] == "E_GPU_STEADY_STATE"
    assert simulated["sensitivity"] == "E_GPU_SENSITIVITY"
    assert simulated["method"] == "E_GPU_METHOD"
    assert simulated["dynamics"] == "E_GPU_DYNAMICS"


def test_model_on_the_device_claims_no_sensitivities_and_keeps_its_fingerprint(simulated):
    assert simulated["capabilities"] == ["likelihood", "predict", "simulate"]
    assert simulated["same fingerprint"]


def test_missing_device_is_named(monkeypatch):
    monkeypatch.setattr(cuda, "is_available", lambda: False)
    with pytest.raises(SolveError, match="no CUDA device") as caught:
        on_gpu(cases.ode_model())
    assert caught.value.code == "E_GPU_DEVICE"


@pytest.mark.gpu
def test_real_device_agrees_with_the_closed_form():
    design = cases.plain_design()
    phi = np.repeat(cases.PHI, 1000, axis=0)
    found = on_gpu(cases.ode_model()).predict(phi, design, cases.weights_of(design))
    exact = examples.closed_form_model().predict(cases.PHI, design, cases.weights_of(design))
    assert_allclose(found.f, np.repeat(exact.f, 1000, axis=0), rtol=TOLERANCE)
