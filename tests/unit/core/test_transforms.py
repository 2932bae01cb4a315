"""Transforms invert each other, and their derivatives are derivatives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amortnlme.core.errors import ModelError
from amortnlme.core.transforms import transform

NAMES = ("identity", "log", "logit")


@pytest.mark.parametrize("name", NAMES)
@given(phi=st.lists(st.floats(-30.0, 30.0), min_size=1, max_size=5))
def test_forward_undoes_inverse(name, phi):
    one = transform(name)
    values = np.array(phi)
    psi = one.inverse(values)
    # beyond |phi| = 15 a logistic value is so close to 1 that its rounding alone moves phi by 1e-9
    inside = np.abs(values) < 15 if name == "logit" else np.full(values.shape, True)
    assert np.allclose(one.forward(psi[inside]), values[inside], rtol=0, atol=1e-8)
    assert one.in_domain(psi[inside]).all()


@pytest.mark.parametrize("name", NAMES)
@given(phi=st.floats(-20.0, 20.0))
def test_the_derivative_is_the_slope_of_the_inverse(name, phi):
    one = transform(name)
    step = 1e-5
    low, high = one.inverse(np.array([phi - step])), one.inverse(np.array([phi + step]))
    slope = (high - low) / (2 * step)
    # central difference: relative error step**2 / 6 x (third / first derivative <= 6), plus rounding
    rounding = 2 * np.finfo(float).eps * np.abs(high) / step
    assert np.abs(one.derivative(np.array([phi])) - slope) <= 2e-10 * np.abs(slope) + rounding


@pytest.mark.parametrize("name", NAMES)
@given(phi=st.floats(-600.0, 600.0))
def test_the_log_determinant_is_the_log_of_the_derivative(name, phi):
    one = transform(name)
    values = np.array([phi])
    assert np.allclose(np.exp(one.log_abs_det(values)), one.derivative(values), rtol=1e-12)


def test_the_log_determinant_of_logit_does_not_cancel_far_out():
    assert transform("logit").log_abs_det(np.array([-800.0, 800.0])) == pytest.approx([-800.0, -800.0])


@pytest.mark.parametrize(
    ("name", "outside"),
    [
        ("identity", [np.inf, np.nan]),
        ("log", [0.0, -1.0, np.inf, np.nan]),
        ("logit", [0.0, 1.0, -1, 2, np.nan]),
    ],
)
def test_values_outside_the_domain_are_recognized(name, outside):
    assert not transform(name).in_domain(np.array(outside, dtype=float)).any()


@pytest.mark.parametrize("name", NAMES)
def test_transforms_keep_shapes(name):
    one = transform(name)
    values = np.full((2, 1, 3), 0.25)
    for function in (one.forward, one.inverse, one.derivative, one.log_abs_det, one.in_domain):
        assert function(values).shape == (2, 1, 3)


def test_an_unknown_transform_is_refused_and_the_known_ones_are_named():
    with pytest.raises(ModelError, match="identity, log, logit") as refusal:
        transform("sqrt")
    assert refusal.value.code == "E_TRANSFORM"
