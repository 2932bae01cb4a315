"""Limits of quantification applied to measurements, and studies with simulated measurements."""

from dataclasses import replace

import numpy as np
import pytest

from amortnlme.core.errors import DataError
from amortnlme.core.rng import stream
from amortnlme.data.bundled import load_bundled
from amortnlme.data.dataset import Dataset
from amortnlme.data.event_table import read_frame, to_frame
from amortnlme.data.limits import censor, with_measurements
from amortnlme.model.registry import load_model

STUDY = load_bundled("theophylline")


def test_censor_reports_low_and_high_measurements_at_their_limits():
    y, observed, *_ = STUDY.y_padded()
    cut, _, censoring, limit = censor(STUDY, lloq=2.0, uloq=9.0).y_padded()
    np.testing.assert_array_equal(cut[observed], np.clip(y, 2.0, 9.0)[observed])
    np.testing.assert_array_equal(censoring[observed], ((y < 2.0).astype(int) - (y > 9.0))[observed])
    assert np.isnan(limit).all()
    assert (censoring == 1).any() and (censoring == -1).any()


def test_censor_changes_nothing_when_all_measurements_are_inside():
    assert censor(STUDY, lloq=1e-6, uloq=1e6) == STUDY
    assert censor(STUDY) == STUDY


def test_censor_leaves_alone_what_is_censored_already():
    once = censor(STUDY, lloq=2.0)
    twice = censor(once, lloq=3.0)
    levels = {y for s in twice.subjects for y in s.y[s.censoring == 1]}
    assert levels == {2.0, 3.0}
    assert censor(once, lloq=2.0) == once


def test_censor_uses_the_limit_of_each_outcome():
    subject = STUDY.subjects[0]
    design = replace(subject.design, output=np.where(subject.design.is_observation, 2, 0))
    second = replace(subject, id="second", design=design)
    study = censor(Dataset((subject, second)), lloq={2: 5.0})
    assert study.subjects[0] == subject
    assert study.subjects[1].n_censored == (subject.y < 5.0).sum() > 0


@pytest.mark.parametrize(
    "limits", [{"lloq": np.nan}, {"lloq": {3: 1.0}}, {"lloq": 2.0, "uloq": 2.0}, {"uloq": np.inf}], ids=str
)
def test_censor_refuses_limits_that_are_none(limits):
    with pytest.raises(DataError) as caught:
        censor(STUDY, **limits)
    assert caught.value.code == "E_DATA_LOQ"


def test_a_simulated_study_with_a_limit_survives_its_table():
    model = load_model("one_compartment_oral")
    phi = np.tile(np.log([1.5, 0.08, 32.0, 0.6]), (STUDY.n_subjects, 1))
    y = model.simulate_batch(phi, STUDY.design_batch(), stream(1, 1)).y
    study = censor(with_measurements(STUDY, y), lloq=2.0)
    assert study.n_observations == STUDY.n_observations
    assert sum(s.n_censored for s in study.subjects) == (y[STUDY.y_padded()[1]] < 2.0).sum() > 0
    assert read_frame(to_frame(study)) == study


def test_with_measurements_keeps_designs_covariates_and_gaps():
    first = STUDY.subjects[0]
    gap = replace(first, observed=np.arange(len(first.y)) != 3)
    study = Dataset((gap, *STUDY.subjects[1:]))
    again = with_measurements(study, study.y_padded()[0])
    assert again == study
    changed = with_measurements(study, np.ones(study.y_padded()[0].shape))
    assert not changed.subjects[0].observed[3]
    assert changed.subjects[0].covariates == first.covariates


def test_with_measurements_refuses_arrays_of_another_shape():
    with pytest.raises(DataError) as caught:
        with_measurements(STUDY, np.ones((12, 3)))
    assert caught.value.code == "E_DATA_SHAPE"
