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
    Power,
    Proportional,
    error_model_from_config,
)

MODELS = [
    Additive("a"),
    Proportional("b"),
    Combined("a", "b"),
    Combined("a", "b", convention="sd"),
    Power("b", "c"),
    Combined("a", "b", c="c"),
    Combined("a", "b", convention="sd", c="c"),
    LogNormal("s"),
]
F = np.array([[0.3, 2.0, 7.0, 40.0], [0.5, 1.0, 8.0, 30.0]])
Y = np.array([[0.2, 2.5, 6.0, 44.0], [0.9, 0.7, 8.8, 21.0]])


def sigma_of(model):
    if isinstance(model, Power):
        return np.array([[0.2, 0.6], [0.1, 1.4]])
    return np.array([[0.4, 0.2, 0.6], [0.7, 0.1, 1.4]])[:, : len(model.names)]


def exact_sd(model, f, sigma):
    if isinstance(model, Additive | LogNormal):
        return np.broadcast_to(sigma[:, :1], f.shape)
    if isinstance(model, Proportional):
        return sigma[:, :1] * f
    if isinstance(model, Power):
        return sigma[:, :1] * f ** sigma[:, 1:]
    a, b = sigma[:, :1], sigma[:, 1:2]
    c = sigma[:, 2:] if model.c else 1.0
    return a + b * f**c if model.convention == "sd" else np.sqrt(a**2 + (b * f**c) ** 2)


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
    for model in (Proportional("b"), LogNormal("s"), Power("b", "c")):
        ll, df, dsigma = model.log_density_with_gradient(one, zero, np.tile(one, len(model.names)))
        assert ll[0, 0] == -np.inf and df[0, 0] == 0.0 and (dsigma == 0.0).all()


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_density_integrates_to_one(model):
    """The trapezoidal rule on a smooth density that has vanished at both ends is exact to rounding."""
    sigma = sigma_of(model)
    sd = exact_sd(model, F, sigma)
    steps = np.linspace(-12.0, 12.0, 2001)[:, None, None]
    y = F * np.exp(sd * steps) if model.is_log_scale else F + sd * steps
    scale = y * sd if model.is_log_scale else sd
    density = np.exp(model.log_density(y, F, sigma)) * scale
    assert_allclose(np.trapezoid(density, steps[:, 0, 0], axis=0), 1.0, rtol=1e-12)


EXPONENTS = [m for m in MODELS if m.exponents]


@pytest.mark.parametrize("model", EXPONENTS, ids=str)
def test_an_exponent_of_one_is_the_model_without_it(model):
    plain = Proportional("b") if isinstance(model, Power) else Combined("a", "b", model.convention)
    sigma = sigma_of(model)
    sigma[:, -1] = 1.0
    signs = F * np.array([1.0, -1.0, 1.0, -1.0])
    found = model.sd_with_derivatives(signs, sigma)
    expected = plain.sd_with_derivatives(signs, sigma[:, :-1])
    for one, other in zip((*found[:2], found[2][..., :-1]), expected, strict=True):
        assert_allclose(one, other, rtol=1e-15)


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_sd_is_even_in_the_prediction_and_its_slope_is_odd(model):
    sigma = sigma_of(model)
    sd, df, dsigma = model.sd_with_derivatives(F, sigma)
    mirrored = model.sd_with_derivatives(-F, sigma)
    for one, other in zip(mirrored, (sd, -df, dsigma), strict=True):
        assert_allclose(one, other, rtol=1e-15)


@pytest.mark.parametrize("exponent", [0.3, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("convention", ["variance", "sd"])
def test_combined_with_exponent_has_finite_density_and_gradient_at_a_prediction_of_zero(convention, exponent):
    model = Combined("a", "b", convention, c="c")
    zero, sigma = np.array([[0.0]]), np.array([[0.4, 0.2, exponent]])
    ll, df, dsigma = model.log_density_with_gradient(np.array([[0.3]]), zero, sigma)
    assert ll[0, 0] == pytest.approx(stats.norm.logpdf(0.3, 0.0, 0.4), rel=1e-14)
    # Only the mean and the additive SD move: the other part is 0 whatever b and c are.
    assert df[0, 0] == pytest.approx(0.3 / 0.4**2, rel=1e-14)
    assert dsigma[0, 0, 0] == pytest.approx((0.75**2 - 1.0) / 0.4, rel=1e-14)
    assert (dsigma[0, 0, 1:] == 0.0).all()


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_config_round_trips(model):
    assert error_model_from_config(model.to_config()) == model


def test_config_of_a_model_without_exponent_does_not_mention_one():
    """It enters the fingerprints of stored estimators."""
    assert Combined("a", "b").to_config() == {
        "kind": "combined",
        "a": "a",
        "b": "b",
        "convention": "variance",
    }


def test_unknown_conventions_and_configs_are_refused():
    with pytest.raises(ModelError) as caught:
        Combined("a", "b", convention="combined1")
    assert caught.value.code == "E_MODEL_ERROR_CONVENTION"
    for config in ({"kind": "additive", "a": "a", "b": "b"}, {"kind": "power", "b": "b"}, {"kind": "huber"}):
        with pytest.raises(ModelError) as caught:
            error_model_from_config(config)
        assert caught.value.code == "E_MODEL_CONFIG"
