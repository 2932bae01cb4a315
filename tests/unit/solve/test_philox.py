"""Philox against its published vectors; what is made of its words against the exact distributions."""

import math

import numpy as np
import pytest
from numba import njit
from scipy import stats

from amortnlme.solve.philox import (
    PURPOSE_BROWNIAN,
    PURPOSE_REACTIONS,
    exponential,
    normal_pair,
    philox4x32,
    random_pair,
    uniform,
)
from amortnlme.solve.poisson import poisson

FALSE_ALARM = 1e-4
# Two-sided normal quantile of the false-alarm rate.
QUANTILE = float(stats.norm.ppf(1.0 - FALSE_ALARM / 2.0))
N = 100_000


@njit(error_model="numpy")
def _encrypt(counter, key):
    return philox4x32(counter[0], counter[1], counter[2], counter[3], key[0], key[1])


@njit(error_model="numpy")
def _words(n, purpose, low, key_0, out):
    for i in range(n):
        out[i, 0], out[i, 1] = random_pair(np.uint64(i), purpose, low, np.uint64(0), key_0, np.uint64(1))


@njit(error_model="numpy")
def _variates(words, out):
    for i in range(words.shape[0]):
        out[i, 0], out[i, 1] = normal_pair(words[i, 0], words[i, 1])
        out[i, 2] = uniform(words[i, 0])
        out[i, 3] = exponential(words[i, 0])


@njit(error_model="numpy")
def _poissons(mean, out):
    draw = np.uint64(0)
    for i in range(out.shape[0]):
        out[i], draw = poisson(mean, draw, np.uint64(3), np.uint64(0), np.uint64(4), np.uint64(5))


def _draw_words(n=N, purpose=PURPOSE_BROWNIAN, number=7, key=3):
    out = np.zeros((n, 2), dtype=np.uint64)
    _words(n, np.uint64(purpose), np.uint64(number), np.uint64(key), out)
    return out


@pytest.fixture(scope="module")
def variates():
    words = _draw_words()
    out = np.zeros((N, 4))
    _variates(words, out)
    return words, out


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_published_words(counter, key, expected):
    found = _encrypt(np.array(counter, dtype=np.uint64), np.array(key, dtype=np.uint64))
    assert " ".join(f"{int(word):08x}" for word in found) == expected


def test_words_differ_when_purpose_number_or_key_differ():
    base = _draw_words(1000)
    for other in (
        _draw_words(1000, purpose=PURPOSE_REACTIONS),
        _draw_words(1000, number=8),
        _draw_words(1000, key=4),
    ):
        assert not np.isin(base, other).any()


def test_variates_are_what_the_words_say(variates):
    """Against NumPy's functions; the polynomials are good to 1e-13 where the numbers are of order one."""
    words, found = variates
    u = ((words[:, 0] >> np.uint64(12)).astype(float) + 0.5) * 2.0**-52
    angle = ((words[:, 1] >> np.uint64(12)).astype(float) + 0.5) * 2.0**-52 * math.pi / 2 - math.pi / 4
    swapped = (words[:, 1] & np.uint64(1)) == 1
    radius = np.sqrt(-2.0 * np.log(u)) * np.where(words[:, 1] & np.uint64(2), -1.0, 1.0)
    first, second = radius * np.cos(angle), radius * np.sin(angle)
    np.testing.assert_array_equal(found[:, 2], u)
    np.testing.assert_allclose(found[:, 3], -np.log(u), rtol=1e-12)
    np.testing.assert_allclose(found[:, 0], np.where(swapped, second, first), rtol=0, atol=1e-11)
    np.testing.assert_allclose(found[:, 1], np.where(swapped, first, second), rtol=0, atol=1e-11)


def test_a_uniform_number_is_never_zero_or_one():
    out = np.zeros((2, 4))
    _variates(np.array([[0, 0], [2**64 - 1, 2**64 - 1]], dtype=np.uint64), out)
    assert out[0, 2] == 2.0**-53
    assert out[1, 2] == 1.0 - 2.0**-53
    assert np.isfinite(out).all()
    assert out[1, 3] > 0.0


@pytest.mark.statistical
def test_variates_have_their_distributions(variates):
    """Null: exact distributions; n = 100 000, false-alarm rate 1e-4 per test (Kolmogorov-Smirnov)."""
    found = variates[1]
    for column, cdf in ((0, "norm"), (1, "norm"), (2, "uniform"), (3, "expon")):
        assert stats.kstest(found[:, column], cdf).pvalue > FALSE_ALARM
    x, y = found[:, 0], found[:, 1]
    for a, b in ((x, y), (x * x, y * y), (x[1:], x[:-1]), (abs(x), y)):
        assert abs(np.corrcoef(a, b)[0, 1]) < QUANTILE / math.sqrt(a.size)


@pytest.mark.statistical
@pytest.mark.parametrize("mean", [0.3, 6.0, 9.99, 10.0, 37.5, 900.0])
def test_poisson_numbers_have_their_distribution_when_the_mean_is(mean):
    """Null: Poisson; n = 100 000, chi-square over cells that expect at least 20, false-alarm rate 1e-4."""
    found = np.zeros(N)
    _poissons(mean, found)
    edges = np.unique(stats.poisson.ppf(np.linspace(0.001, 0.999, 60), mean))
    cumulative = np.concatenate([[0.0], stats.poisson.cdf(edges, mean), [1.0]])
    expected = N * np.diff(cumulative)
    observed = np.bincount(np.searchsorted(edges, found), minlength=expected.size)
    keep = expected >= 20.0
    observed = np.append(observed[keep], observed[~keep].sum())
    expected = np.append(expected[keep], expected[~keep].sum())
    if expected[-1] < 20.0:  # too few for a cell of their own
        observed[-2] += observed[-1]
        expected[-2] += expected[-1]
        observed, expected = observed[:-1], expected[:-1]
    assert stats.chisquare(observed, expected).pvalue > FALSE_ALARM


def test_a_poisson_number_is_not_a_number_when_the_mean_is_not_finite():
    for mean, expected in ((math.inf, math.nan), (math.nan, math.nan), (0.0, 0.0)):
        found = np.zeros(3)
        _poissons(mean, found)
        np.testing.assert_array_equal(found, np.full(3, expected))
