"""The two-sample test and marginal distances on inputs with known answers."""

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from amortnlme.core.errors import UsageError
from amortnlme.diagnostics.two_sample import classifier_two_sample, marginal_wasserstein


def test_c2st_is_one_when_samples_are_disjoint():
    rng = np.random.default_rng(1)
    first, second = rng.standard_normal((1000, 2)), 100.0 + rng.standard_normal((1000, 2))
    assert classifier_two_sample(first, second, rng) == 1.0


def test_c2st_does_not_depend_on_the_scale_of_a_parameter():
    rng = np.random.default_rng(2)
    first, second = rng.standard_normal((600, 2)), rng.standard_normal((600, 2)) + np.array([0.0, 0.8])
    scale = np.array([1.0, 1e6])
    plain = classifier_two_sample(first, second, np.random.default_rng(3), n=600)
    scaled = classifier_two_sample(first * scale, second * scale, np.random.default_rng(3), n=600)
    assert plain == scaled


@pytest.mark.parametrize(
    ("first", "second", "k", "n"),
    [
        (np.zeros((10, 2)), np.zeros((10, 2)), 25, 1000),
        (np.zeros((100, 2)), np.zeros((100, 3)), 25, 100),
        (np.zeros((100, 2)), np.zeros((100, 2)), 24, 100),
        (np.full((100, 2), np.nan), np.zeros((100, 2)), 25, 100),
    ],
)
def test_c2st_refuses_unusable_samples(first, second, k, n):
    with pytest.raises(UsageError) as caught:
        classifier_two_sample(first, second, np.random.default_rng(0), k=k, n=n)
    assert caught.value.code == "E_C2ST_INPUT"


def test_marginal_wasserstein_of_a_pure_shift_is_the_shift_in_reference_sds():
    reference = np.random.default_rng(4).standard_normal((500, 2)) * [1.0, 3.0]
    distance = marginal_wasserstein(reference + 0.25, reference)
    assert distance == pytest.approx(0.25 / reference.std(axis=0), rel=1e-12)


@pytest.mark.parametrize("sizes", [(40, 40), (40, 33), (7, 100)])
def test_marginal_wasserstein_matches_scipy_when_sizes_differ(sizes):
    rng = np.random.default_rng(5)
    a, b = rng.gamma(2.0, size=(sizes[0], 1)), rng.gamma(3.0, size=(sizes[1], 1))
    expected = wasserstein_distance(a[:, 0], b[:, 0]) / b.std()
    assert marginal_wasserstein(a, b)[0] == pytest.approx(expected, rel=1e-10)


def test_marginal_wasserstein_refuses_a_reference_without_spread():
    with pytest.raises(UsageError):
        marginal_wasserstein(np.zeros((5, 1)), np.zeros((5, 1)))
