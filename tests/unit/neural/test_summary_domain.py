"""Who is flagged because of measurements that no simulation gives."""

from dataclasses import replace

import numpy as np
import pytest
from unit.neural import tiny

from amortnlme.core.rng import generator
from amortnlme.data.dataset import Dataset
from amortnlme.neural.summary_domain import SummaryDomain


@pytest.fixture(scope="module")
def calibrated(tiny_estimator):
    domain = SummaryDomain.measure(tiny_estimator.summaries(tiny.patients(2000, seed=8)))
    return tiny_estimator.with_calibration({"summaries": domain.to_config()})


def test_distances_of_normal_summaries_are_those_of_a_chi_square():
    """The mean square of p whitened numbers has mean 1 and variance 2 / p; 4.5 SE, and the ridge's 1e-4."""
    rng, n, p = np.random.default_rng(1), 4000, 6
    values = rng.standard_normal((n, p)) @ rng.standard_normal((p, p)) + rng.standard_normal(p)
    domain = SummaryDomain.measure(values)
    square = domain.distance(values) ** 2
    assert abs(square.mean() - 1.0) < 4.5 * np.sqrt(2 / p / n) + 1e-3
    assert abs((square > domain.limit**2).mean() - 0.002) < 1e-3


def test_constant_and_repeated_summaries_leave_the_distance_finite():
    rng = np.random.default_rng(2)
    values = rng.standard_normal((500, 3))
    values = np.column_stack([values, values[:, 0], np.full(500, 4.0)])
    domain = SummaryDomain.measure(values)
    assert np.isfinite(domain.limit) and np.isfinite(domain.distance(values)).all()


def test_simulated_subjects_are_flagged_at_the_stated_rate(calibrated):
    """Two in a thousand of 1000, and the limit's own error: at most 9 with probability 1 - 1e-4."""
    reasons = calibrated.in_domain(tiny.patients(1000, seed=9))
    assert sum(bool(reason) for reason in reasons) <= 9


def test_measurements_of_another_world_are_flagged(calibrated):
    patients = tiny.patients(50, seed=10)
    alternating = Dataset(
        tuple(
            replace(subject, y=np.abs(subject.y) * np.where(np.arange(subject.y.size) % 2, 1e3, 1e-3))
            for subject in patients.subjects
        )
    )
    flagged = [any("look unlike" in text for text in reason) for reason in calibrated.in_domain(alternating)]
    assert np.mean(flagged) > 0.9
    draws = calibrated.sample(alternating, 20, generator(1))
    assert draws.out_of_domain == calibrated.in_domain(alternating)


def test_without_calibration_only_designs_are_judged(tiny_estimator):
    assert tiny_estimator.calibration is None and tiny_estimator.summary_domain is None
    assert tiny_estimator.in_domain(tiny.patients(3)) == ((),) * 3


@pytest.mark.parametrize("change", [{"mean": [0.0]}, {"whitening": [[1.0]]}, {"limit": float("nan")}])
def test_a_damaged_domain_is_refused(calibrated, change):
    with pytest.raises(ValueError, match="summaries of shapes"):
        SummaryDomain.from_config(calibrated.calibration["summaries"] | change)
