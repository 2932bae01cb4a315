"""Missing covariates are filled in on the data, by group, and never silently."""

import logging

import numpy as np
import pytest

from amortnlme.core.errors import DataError
from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design, Dose
from amortnlme.data.imputation import fill_covariate
from amortnlme.data.subject import Subject, TimeVarying

DESIGN = Design.from_doses([Dose(0, 50)], [1.0, 2.0])


def patient(name, weight, sex):
    return Subject.from_observations(name, DESIGN, np.ones(2), {"weight": weight, "sex": sex})


STUDY = Dataset(
    (
        patient("a", 60.0, 0.0),
        patient("b", np.nan, 0.0),
        patient("c", np.nan, 1.0),
        patient("d", TimeVarying(np.array([70.0, np.nan, 72.0])), 1.0),
    )
)


def test_fill_covariate_fills_by_group_and_names_the_subjects(caplog):
    with caplog.at_level(logging.WARNING):
        filled = fill_covariate(STUDY, "weight", {1: 83.0, 0: 75.0}, by="sex")
    assert filled.subjects[0] is STUDY.subjects[0]
    assert filled.covariate_table()["weight"].tolist() == [60.0, 75.0, 83.0, 70.0]
    np.testing.assert_array_equal(filled.subjects[3].covariate_values("weight"), [70.0, 83.0, 72.0])
    assert "'weight' was filled in for 3 of 4 subjects: b, c, d" in caplog.text
    assert filled.fingerprint != STUDY.fingerprint


def test_fill_covariate_takes_one_number_for_everybody():
    assert fill_covariate(STUDY, "weight", 70.0).covariate_table()["weight"].tolist() == [60, 70, 70, 70]


def test_fill_covariate_leaves_complete_covariates_alone(caplog):
    assert fill_covariate(STUDY, "sex", 1.0) == STUDY
    assert not caplog.text


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("weight", {1: 83.0}, "sex"), "E_DATA_IMPUTATION", "no value for its group sex = 0"),
        (("weight", {1: 83.0}, None), "E_DATA_IMPUTATION", "Give a number without `by`"),
        (("weight", 83.0, "sex"), "E_DATA_IMPUTATION", "Give a number without `by`"),
        (("height", 83.0, None), "E_DATA_COVARIATE", "no covariate 'height'"),
    ],
)
def test_fill_covariate_refuses_what_it_cannot_do(arguments, code, text):
    name, values, by = arguments
    with pytest.raises(DataError) as caught:
        fill_covariate(STUDY, name, values, by=by)
    assert caught.value.code == code
    assert text in str(caught.value)
