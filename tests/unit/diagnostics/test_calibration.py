"""SBC bands and coverage on ranks with known properties."""

import numpy as np
import pytest
from scipy.stats import binomtest

from amortnlme.core.errors import UsageError
from amortnlme.diagnostics.calibration import binomial_interval, coverage_from_ranks, ecdf_difference


def test_ecdf_difference_vanishes_when_ranks_are_spread_evenly():
    ranks = np.tile(np.arange(100), 5)[:, None]
    result = ecdf_difference(ranks, 99)
    np.testing.assert_allclose(result.difference, 0.0, atol=1e-12)
    assert result.inside.all()


def test_ecdf_difference_flags_ranks_of_a_posterior_that_is_too_narrow():
    rng = np.random.default_rng(1)
    narrow = np.where(
        rng.random((400, 1)) < 0.3, rng.choice([0, 99], (400, 1)), rng.integers(0, 100, (400, 1))
    )
    assert not ecdf_difference(narrow, 99).inside[0]


def test_ecdf_difference_of_a_biased_posterior_has_the_sign_of_the_bias():
    """Draws that lie too high leave few of them below the truth: small ranks, an ECDF above the diagonal."""
    ranks = np.random.default_rng(2).integers(0, 50, (300, 1))
    result = ecdf_difference(ranks, 99)
    assert result.difference[0].max() > 0.4
    assert result.difference[0].min() >= -1e-12


def test_coverage_reports_the_level_that_ranks_can_realize():
    """With 99 draws, ranks 5..94 are 90 of 100 values: exactly 90 %."""
    ranks = np.arange(100)[:, None]
    coverage = coverage_from_ranks(ranks, 99, (0.9, 0.5))
    np.testing.assert_allclose(coverage.nominal, [0.9, 0.5])
    np.testing.assert_allclose(coverage.empirical, [[0.9, 0.5]])


@pytest.mark.parametrize(("hits", "n"), [(0, 20), (20, 20), (7, 20), (1, 300)])
def test_binomial_interval_matches_the_exact_test(hits, n):
    low, high = binomial_interval(np.array([hits]), n)
    exact = binomtest(hits, n).proportion_ci(0.95, "exact")
    assert (low[0], high[0]) == pytest.approx((exact.low, exact.high))


def test_sbc_ranks_outside_their_range_are_refused():
    with pytest.raises(UsageError) as caught:
        ecdf_difference(np.array([[0], [120]]), 99)
    assert caught.value.code == "E_SBC_RANKS"
