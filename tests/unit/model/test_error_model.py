"""Residual-error models against SciPy distributions; derivatives against differences; far tails."""

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from amortnlme.core.errors import ModelError
from amortnlme.model.censoring import log_probability
from amortnlme.model.error_model import (
    Additive,
    Combined,
    LogNormal,
    Proportional,
    error_model_from_config,
)

MODELS = [
    Additive("a"),
    Proportional("b"),
    Combined("a", "b"),
    Combined("a", "b", convention="sd"),
    LogNormal("s"),
]
F = np.array([[0.3, 2.0, 7.0, 40.0], [0.5, 1.0, 8.0, 30.0]])
Y = np.array([[0.2, 2.5, 6.0, 44.0], [0.9, 0.7, 8.8, 21.0]])


def sigma_of(model):
    return np.array([[0.4, 0.2], [0.7, 0.1]])[:, : len(model.names)]


def exact_sd(model, f, sigma):
    if isinstance(model, Additive | LogNormal):
        return np.broadcast_to(sigma[:, :1], f.shape)
    if isinstance(model, Proportional):
        return sigma[:, :1] * f
    a, b = sigma[:, :1], sigma[:, 1:]
    return a + b * f if model.convention == "sd" else np.sqrt(a**2 + (b * f) ** 2)


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_log_density_is_that_of_the_distribution(model):
    sigma = sigma_of(model)
    sd = exact_sd(model, F, sigma)
    exact = (
        stats.lognorm.logpdf(Y, sd, scale=F) if isinstance(model, LogNormal) else stats.norm.logpdf(Y, F, sd)
    )
    assert_allclose(model.log_density(Y, F, sigma), exact, rtol=1e-13)
    assert_allclose(model.sd(F, sigma), sd, rtol=1e-14)


CENSORING = {
    "none": (None, None),
    "below": (np.array([[1, 0, 1, 0], [0, 0, 1, 1]]), None),
    "above": (np.array([[-1, 0, -1, 0], [0, 0, -1, -1]]), None),
    "interval": (
        np.array([[1, 1, -1, 0], [0, 1, 1, -1]]),
        np.array([[0.1, np.nan, 9.0, np.nan], [0.0, 0.5, 1.0, 29.0]]),
    ),
}


@pytest.mark.parametrize("case", CENSORING)
@pytest.mark.parametrize("model", MODELS, ids=str)
def test_gradient_agrees_with_differences_under_every_censoring(model, case):
    censoring, limit = CENSORING[case]
    if isinstance(model, LogNormal) and limit is not None:
        limit = np.where(limit == 0.0, 1e-3, limit)
    sigma = sigma_of(model)
    ll, df, dsigma = model.log_density_with_gradient(Y, F, sigma, censoring, limit)
    assert np.isfinite(ll).all()
    h = 1e-5

    def value(f, s):
        return model.log_density(Y, f, s, censoring, limit)

    def extrapolated(function):
        return (4 * (function(h / 2) - function(-h / 2)) / h - (function(h) - function(-h)) / (2 * h)) / 3

    assert_allclose(df, extrapolated(lambda e: value(F + e, sigma)), rtol=1e-7, atol=1e-8)
    for k in range(len(model.names)):
        step = np.eye(len(model.names))[k]
        numeric = extrapolated(lambda e, step=step: value(F, sigma + e * step))
        assert_allclose(dsigma[..., k], numeric, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_censored_probability_is_that_of_the_distribution(model):
    sigma = sigma_of(model)
    sd = exact_sd(model, F, sigma)
    ones = np.ones(F.shape, int)
    distribution = stats.lognorm(sd, scale=F) if isinstance(model, LogNormal) else stats.norm(F, sd)
    below = model.log_density(Y, F, sigma, ones)
    above = model.log_density(Y, F, sigma, -ones)
    between = model.log_density(Y, F, sigma, ones, 0.5 * Y)
    assert_allclose(below, distribution.logcdf(Y), rtol=1e-12)
    assert_allclose(above, distribution.logsf(Y), rtol=1e-12)
    assert_allclose(between, np.log(distribution.cdf(Y) - distribution.cdf(0.5 * Y)), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(
    ("a", "b"),
    [(-np.inf, -35.0), (30.0, 31.0), (-31.0, -30.0), (-0.1, 0.1), (5.0, np.inf), (1.0, 1.0 + 1e-6)],
)
def test_log_probability_is_accurate_in_the_tails(a, b):
    with mpmath.workdps(400):
        exact = mpmath.log(mpmath.ncdf(b) - mpmath.ncdf(a))
    # Narrow intervals lose eps / width in the difference of the two ends.
    tolerance = 1e-12 + (1e-15 / (b - a) if np.isfinite(b - a) else 0.0)
    assert log_probability(np.array(a), np.array(b)) == pytest.approx(float(exact), rel=tolerance)


def test_censored_gradient_stays_finite_and_informative_fifty_sd_away():
    model = Additive("a")
    f, y, sigma = np.array([[50.0]]), np.array([[0.0]]), np.array([[1.0]])
    ll, df, dsigma = model.log_density_with_gradient(y, f, sigma, np.array([[1]]))
    # log Phi(-50): slope of the Mills ratio, phi/Phi = 50.02
    assert ll[0, 0] == pytest.approx(stats.norm.logcdf(-50.0), rel=1e-12)
    assert df[0, 0] == pytest.approx(-50.0199, rel=1e-5)
    assert np.isfinite(dsigma).all()


def test_impossible_observations_have_minus_infinite_density_and_zero_gradient():
    zero, one = np.array([[0.0]]), np.array([[1.0]])
    for model in (Proportional("b"), LogNormal("s")):
        ll, df, dsigma = model.log_density_with_gradient(one, zero, one)
        assert ll[0, 0] == -np.inf and df[0, 0] == 0.0 and (dsigma == 0.0).all()


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_config_round_trips(model):
    assert error_model_from_config(model.to_config()) == model


def test_unknown_conventions_and_configs_are_refused():
    with pytest.raises(ModelError) as caught:
        Combined("a", "b", convention="combined1")
    assert caught.value.code == "E_MODEL_ERROR_CONVENTION"
    with pytest.raises(ModelError) as caught:
        error_model_from_config({"kind": "additive", "a": "a", "b": "b"})
    assert caught.value.code == "E_MODEL_CONFIG"
