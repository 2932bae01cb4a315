"""Diagnostics under a true model: their null distributions, with tolerances derived at a false-alarm rate
of 1e-4.

Every test fixes its seed, so it either passes always or never; the rate says how often another seed would
fail.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, chi2, kstwo, norm
from unit.diagnostics.linear_study import TIMES, make_study

from amortnlme.diagnostics.calibration import coverage_from_ranks, ecdf_difference
from amortnlme.diagnostics.tables import diagnose
from amortnlme.diagnostics.two_sample import classifier_two_sample, marginal_wasserstein
from amortnlme.diagnostics.vpc import ObservedStudy, visual_predictive_check

pytestmark = pytest.mark.statistical
ALPHA = 1e-4
Z = norm.isf(ALPHA / 2)


@pytest.fixture(scope="module")
def diagnosed():
    """200 subjects x 6 observations, the true population parameters, 4000 simulated studies."""
    fit, model, dataset = make_study(np.random.default_rng(11), n_subjects=200)
    return diagnose(fit, model, dataset, n_replicates=4000, seed=5)


def test_cwres_are_standard_normal_when_the_linear_model_is_true(diagnosed):
    """Null: n = 1200 independent N(0, 1), exactly, because linearization is exact for a linear model."""
    value = diagnosed.cwres.ravel()
    n = len(value)
    assert n == 200 * len(TIMES)
    assert abs(value.mean()) < Z / np.sqrt(n)
    assert chi2.ppf(ALPHA / 2, n) < (value**2).sum() < chi2.isf(ALPHA / 2, n)
    assert _ks(norm.cdf(value)) < kstwo.isf(ALPHA, n)
    # Correlations between records of a subject: 200 products of independent normals, SD 1 each.
    correlation = diagnosed.cwres.T @ diagnosed.cwres / 200
    off = correlation[~np.eye(len(TIMES), dtype=bool)]
    assert np.abs(off).max() < norm.isf(ALPHA / (2 * 15)) / np.sqrt(200) * 1.1


def test_pde_are_uniform_and_npde_normal_when_the_model_is_true(diagnosed):
    """Null: uniform up to the error of a covariance estimated from K = 4000 studies.

    Whitening with an estimated covariance changes variances by relative terms of order (m + 1) / K <
    0.002 and moves every pde by less than sup_z |z phi(z)| * 0.002 / 2 < 2.5e-4 in the mean; ranks add
    steps of 1 / K = 2.5e-4.
    """
    pde, npde = diagnosed.pde.ravel(), diagnosed.npde.ravel()
    n = len(pde)
    assert _ks(pde) < kstwo.isf(ALPHA, n) + 5e-4
    assert abs(npde.mean()) < Z / np.sqrt(n) + 1e-3
    variance = npde.var(ddof=1)
    assert (
        chi2.ppf(ALPHA / 2, n - 1) / (n - 1) - 0.006 < variance < chi2.isf(ALPHA / 2, n - 1) / (n - 1) + 0.006
    )


def test_npde_reject_a_model_with_half_the_random_effects():
    """Power, so that the test above is not vacuous: the same data against a population with omega halved."""
    fit, model, dataset = make_study(np.random.default_rng(11), n_subjects=200)
    narrow = _with_scaled_omega(fit, 0.5)
    npde = diagnose(narrow, model, dataset, n_replicates=1000, seed=5).npde.ravel()
    n = len(npde)
    assert npde.var(ddof=1) > chi2.isf(ALPHA, n - 1) / (n - 1)


def test_vpc_bands_hold_the_observed_percentiles_as_often_as_they_say(diagnosed):
    """Null: each simulated study is exchangeable with the data, so a 95 % band misses it 5 % of the time.

    300 of the 4000 studies stand in for data, against bands from the remaining ones. Bins and percentiles
    within one study are dependent, studies are not: the share inside per study has a variance of at most
    0.05 * 0.95, so the mean over 300 studies has SD at most 0.0126. The band's own quantiles come from
    3700 studies and err by at most sqrt(0.025 * 0.975 / 3700) = 0.0026 in probability on each side, for
    which 0.01 is added.
    """
    p = diagnosed.predictions
    replicates = diagnosed.replicates
    bands = visual_predictive_check(ObservedStudy(p.time, p.y, p.observed), replicates[300:])
    inside = []
    for study in replicates[:300]:
        observed = np.quantile(study, bands.levels, axis=0)
        inside.append(((observed >= bands.lower) & (observed <= bands.upper)).mean())
    assert abs(np.mean(inside) - 0.95) < Z * np.sqrt(0.05 * 0.95 / 300) + 0.01


def test_c2st_is_one_half_for_equal_distributions():
    """Null: accuracy 1/2. Derivation of its SD, from which the tolerance follows.

    Each of N = 2000 votes is right with probability 1/2. Two votes are dependent when each point is a
    neighbor of the other: flipping one label turns the majority of the other with probability C(24, 12) /
    2^24 = 0.161, a point has at most 25 such partners, so Var <= (1 + 25 * 0.161) / (4 N) and SD <=
    0.0251. The mean over 20 pairs of independent samples has SD <= 0.0056.
    """
    values = []
    for seed in range(20):
        rng = np.random.default_rng([17, seed])
        values.append(
            classifier_two_sample(rng.standard_normal((1000, 4)), rng.standard_normal((1000, 4)), rng)
        )
    assert abs(np.mean(values) - 0.5) < Z * 0.0251 / np.sqrt(20)
    assert np.abs(np.array(values) - 0.5).max() < norm.isf(ALPHA / 40) * 0.0251


@pytest.mark.parametrize("shift", [0.5, 1.0, 2.0])
def test_c2st_reaches_the_bayes_accuracy_for_shifted_normals(shift):
    """Bayes accuracy of N(0, 1) against N(shift, 1) is Phi(shift / 2); no classifier does better.

    For large samples k neighbors vote wrongly against a conditional probability p < 1/2 with probability
    at most exp(-2 k (1/2 - p)^2) (Hoeffding), which costs (1 - 2 p) each time: at most 1 / sqrt(k e) in
    all (Devroye, Gyorfi & Lugosi 1996, chapter 5). Both ends get Z times the SD derived above.
    """
    rng = np.random.default_rng(19)
    value = classifier_two_sample(rng.standard_normal((1000, 1)), shift + rng.standard_normal((1000, 1)), rng)
    bayes_error = norm.cdf(-shift / 2)
    noise = Z * 0.0251
    assert 1.0 - bayes_error - 1.0 / np.sqrt(25.0 * np.e) - noise < value < 1.0 - bayes_error + noise


def test_marginal_wasserstein_of_equal_distributions_vanishes_like_one_over_root_n():
    """Null: E W1 between two samples of N(0, 1) of size n is at most sqrt(2 / n) times the integral of
    sqrt(F (1 - F)) = 1.615 (Bobkov & Ledoux 2019, theorem 3.2); W1 is Lipschitz with constant sqrt(2 / n)
    in the 2 n standard normals, so it exceeds its mean by t with probability at most exp(-n t^2 / 4). The
    division by the sample SD of the reference (n = 4000) changes it by less than 5 %.
    """
    n = 4000
    rng = np.random.default_rng(23)
    distance = marginal_wasserstein(rng.standard_normal((n, 3)), rng.standard_normal((n, 3)))
    bound = np.sqrt(2.0 / n) * 1.615 + np.sqrt(4.0 * np.log(3 / ALPHA) / n)
    assert distance.max() < 1.05 * bound


def test_simultaneous_ecdf_bands_hold_uniform_curves_as_often_as_they_say():
    """Null: a share 0.95 of 2000 uniform rank sets stays inside; binomial limits at the false-alarm rate.

    The adjustment itself is simulated with 4000 curves: its own error, SD sqrt(0.95 * 0.05 / 4000) =
    0.0034, is added at Z SDs. Discreteness only makes bands wider, hence the upper limit has a further
    0.02.
    """
    rng = np.random.default_rng(29)
    inside = ecdf_difference(rng.integers(0, 100, (250, 2000)), 99).inside.mean()
    slack = Z * 0.0034
    low, high = binom.ppf([ALPHA / 2, 1 - ALPHA / 2], 2000, 0.95) / 2000
    assert low - slack < inside < high + slack + 0.02


def test_coverage_intervals_are_conservative_for_uniform_ranks():
    """Null: an exact binomial interval misses the true level at most 5 % of the time, for 2000 parameters."""
    ranks = np.random.default_rng(31).integers(0, 100, (300, 2000))
    missed = 1.0 - coverage_from_ranks(ranks, 99, (0.8,)).consistent.mean()
    assert missed < binom.isf(ALPHA, 2000, 0.05) / 2000


def _ks(uniform):
    ordered = np.sort(uniform)
    grid = np.arange(len(ordered) + 1) / len(ordered)
    return max((grid[1:] - ordered).max(), (ordered - grid[:-1]).max())


def _with_scaled_omega(fit, factor):
    from dataclasses import replace

    x = np.array(fit.x)
    x[[i for i, name in enumerate(fit.x_names) if name.startswith("chol_")]] *= factor
    return replace(fit, x=x, omega=np.array(fit.omega) * factor**2)
