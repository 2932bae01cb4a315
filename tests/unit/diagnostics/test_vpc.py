"""Binning and percentiles of visual predictive checks."""

import numpy as np
import pytest

from amortnlme.core.errors import UsageError
from amortnlme.diagnostics.time_bins import assign, automatic_edges, default_bin_count
from amortnlme.diagnostics.vpc import ObservedStudy, VpcOptions, visual_predictive_check

NOMINAL = np.array([0.25, 0.5, 1.0, 2.0, 3.5, 5.0, 7.0, 9.0, 12.0, 24.0])


def _study(rng, n_subjects=30):
    time = NOMINAL * (1.0 + 0.02 * rng.uniform(-1, 1, (n_subjects, len(NOMINAL))))
    mean = 8.0 * np.exp(-0.1 * time)
    replicates = mean + rng.standard_normal((200, *time.shape))
    return ObservedStudy(
        time, mean + rng.standard_normal(time.shape), np.ones(time.shape, bool), pred=mean
    ), replicates


def test_automatic_bins_recover_a_jittered_nominal_schedule():
    study, _ = _study(np.random.default_rng(5))
    edges = automatic_edges(study.time.ravel(), default_bin_count(study.used))
    np.testing.assert_array_equal(assign(study.time, edges), np.tile(np.arange(10), (30, 1)))


def test_automatic_bins_are_fewer_when_there_are_fewer_distinct_times():
    edges = automatic_edges(np.repeat([1.0, 4.0], 10), 6)
    assert len(edges) == 3
    assert assign(np.array([1.0, 4.0]), edges).tolist() == [0, 1]


def test_automatic_bins_survive_one_single_time():
    edges = automatic_edges(np.full(9, 2.0), 4)
    assert assign(np.array([2.0]), edges).tolist() == [0]


def test_automatic_bins_of_many_scattered_times_are_fast_and_balanced():
    time = np.random.default_rng(6).uniform(0.0, 100.0, 20_000)
    count = np.bincount(assign(time, automatic_edges(time, 8)))
    assert len(count) == 8
    assert count.min() >= 20_000 / 8 / 3 * 0.98


def test_time_bins_refuse_no_times():
    with pytest.raises(UsageError) as caught:
        automatic_edges(np.empty(0), 3)
    assert caught.value.code == "E_VPC_BINS"


def test_vpc_percentiles_are_those_of_each_bin():
    study, replicates = _study(np.random.default_rng(7))
    check = visual_predictive_check(study, replicates)
    np.testing.assert_allclose(check.observed, np.quantile(study.y, [0.05, 0.5, 0.95], axis=0))
    each = np.quantile(replicates, 0.5, axis=1)
    assert (check.lower[1] <= np.quantile(each, 0.03, axis=0)).all()
    assert (check.upper[1] >= np.quantile(each, 0.97, axis=0)).all()
    assert check.count.tolist() == [30] * 10


def test_vpc_with_prediction_correction_removes_a_known_dose_effect():
    """Two dose groups that differ by a pure factor collapse onto one curve."""
    rng = np.random.default_rng(8)
    time = np.tile(NOMINAL, (40, 1))
    scale = np.repeat([1.0, 5.0], 20)[:, None]
    noise = np.exp(0.1 * rng.standard_normal(time.shape))
    pred = scale * np.exp(-0.1 * time)
    replicates = pred * np.exp(0.1 * rng.standard_normal((100, *time.shape)))
    study = ObservedStudy(time, pred * noise, np.ones(time.shape, bool), pred=pred)
    check = visual_predictive_check(study, replicates, VpcOptions(prediction_corrected=True))
    expected = np.quantile(np.median(pred, axis=0) * noise, [0.05, 0.5, 0.95], axis=0)
    np.testing.assert_allclose(check.observed, expected, rtol=1e-12)


def test_vpc_ranks_censored_values_below_all_others_and_reports_their_share():
    rng = np.random.default_rng(9)
    study, replicates = _study(rng)
    limit = np.full(study.y.shape, 2.0)
    low = study.y < 2.0
    censored = ObservedStudy(
        study.time, np.where(low, 2.0, study.y), study.used, below_limit=low, limit=limit
    )
    check = visual_predictive_check(censored, replicates)
    full = visual_predictive_check(study, replicates)
    # Percentiles above the limit are those of the uncensored data; those below are only known to be there.
    shown = np.isfinite(check.observed)
    assert np.isneginf(check.observed[~shown]).all()
    np.testing.assert_allclose(check.observed[shown], full.observed[shown])
    assert (full.observed[~shown] < 2.6).all()
    assert not shown[0, -1]
    assert check.censored is not None
    np.testing.assert_allclose(check.censored[0], low.mean(axis=0))
    assert (check.censored[1] <= check.censored[3]).all()


def test_vpc_leaves_out_failed_replicates_and_counts_the_rest():
    study, replicates = _study(np.random.default_rng(10))
    broken = replicates.copy()
    broken[:50, 0, 0] = np.nan
    assert visual_predictive_check(study, broken).n_replicates == 150


@pytest.mark.parametrize("n", [0, 19])
def test_vpc_refuses_too_few_replicates(n):
    study, replicates = _study(np.random.default_rng(11))
    with pytest.raises(UsageError) as caught:
        visual_predictive_check(study, replicates[:n])
    assert caught.value.code == "E_VPC_REPLICATES"


def test_vpc_uses_the_edges_it_is_given():
    study, replicates = _study(np.random.default_rng(12))
    check = visual_predictive_check(study, replicates, VpcOptions(edges=(0.0, 3.0, 25.0)))
    assert check.count.tolist() == [120, 180]
