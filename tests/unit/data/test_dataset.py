"""Subjects and data sets: equal when they mean the same, refused when they mean nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from amortnlme.core.errors import DataError
from amortnlme.data.bundled import load_bundled
from amortnlme.data.dataset import Dataset, Exclusion
from amortnlme.data.design import Design, Dose
from amortnlme.data.subject import Subject, TimeVarying

DESIGN = Design.from_doses([Dose(0.0, 100.0)], [1.0, 2.0, 4.0])


def subject(name: str = "1", y: tuple[float, ...] = (3.0, 2.0, 1.0), **covariates: object) -> Subject:
    return Subject.from_observations(name, DESIGN, np.array(y), covariates)  # type: ignore[arg-type]


def test_what_was_not_measured_has_no_value():
    one = subject()
    hidden = np.array([True, False, True])
    a = replace(one, observed=hidden, y=np.array([3.0, 9.0, 1.0]), limit=np.full(3, 0.1))
    b = replace(one, observed=hidden, y=np.array([3.0, np.nan, 1.0]), censoring=np.array([0, 1, 0]))
    assert a == b
    assert a.n_observed == 2 and a.n_censored == 0
    assert Dataset((a,)).fingerprint == Dataset((b,)).fingerprint


def test_a_covariate_that_never_changes_is_a_number():
    assert subject(w=TimeVarying(np.full(4, 70.0))) == subject(w=70.0)
    varying = subject(w=TimeVarying(np.array([70.0, 70.0, 71.0, 71.0])))
    assert varying != subject(w=70.0)
    assert varying.covariate_values("w").tolist() == [70.0, 70.0, 71.0, 71.0]


def test_unknown_covariate_values_are_equal_to_each_other():
    assert subject(w=np.nan) == subject(w=float("nan"))
    assert subject(w=np.nan) != subject(w=1.0)


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("E_DATA_SHAPE", {"y": np.zeros(2)}),
        ("E_DATA_NOT_FINITE", {"y": np.array([1.0, np.inf, 1.0])}),
        ("E_DATA_NOT_FINITE", {"covariates": {"w": np.inf}}),
        ("E_DATA_CENS", {"censoring": np.array([0, 2, 0])}),
        ("E_DATA_SHAPE", {"covariates": {"w": TimeVarying(np.arange(3.0))}}),
    ],
)
def test_a_subject_whose_parts_do_not_fit_is_refused(code, change):
    with pytest.raises(DataError) as refusal:
        replace(subject(), **change)
    assert refusal.value.code == code
    assert "'1'" in refusal.value.message


def test_an_unknown_covariate_is_named_with_the_known_ones():
    with pytest.raises(DataError, match="'height'; it has w"):
        subject(w=70.0).covariate_values("height")


@pytest.mark.parametrize(
    ("code", "subjects"),
    [
        ("E_DATA_EMPTY", ()),
        ("E_DATA_DUPLICATE_ID", (subject("1"), subject("1"))),
        ("E_DATA_NO_OBSERVATIONS", (subject("1", (np.nan, np.nan, np.nan)),)),
        ("E_DATA_COVARIATE", (subject("1", w=70.0), subject("2"))),
    ],
)
def test_a_data_set_that_makes_no_sense_is_refused(code, subjects):
    with pytest.raises(DataError) as refusal:
        Dataset(subjects)
    assert refusal.value.code == code


def test_select_keeps_the_order_asked_for_and_its_exclusions():
    notes = (Exclusion(3, "1", "why"), Exclusion(9, "2", "why"))
    study = Dataset((subject("1"), subject("2")), "study", notes, {"DV": "mg/L"}, "a file")
    part = study.select(["2"])
    assert (part.ids, part.exclusions, part.source) == (("2",), notes[1:], "a file")
    assert study.select(["2", "1"]).ids == ("2", "1")
    with pytest.raises(DataError) as refusal:
        study.select(["3"])
    assert refusal.value.code == "E_DATA_UNKNOWN_ID"


def test_the_fingerprint_sees_every_part_and_not_the_name():
    base = Dataset((subject(w=70.0),))
    changed = [
        subject("2", w=70.0),
        subject(y=(3.0, 2.0, 1.5), w=70.0),
        subject(w=71.0),
        subject(v=70.0),
        replace(subject(w=70.0), censoring=np.array([0, 0, 1])),
        replace(subject(w=70.0), censoring=np.array([0, 0, 1]), limit=np.array([np.nan, np.nan, 0.5])),
        replace(subject(w=70.0), occasion=np.array([1, 1, 1, 2])),
        replace(subject(w=70.0), design=Design.from_doses([Dose(0.0, 101.0)], [1.0, 2.0, 4.0])),
    ]
    names = {base.fingerprint, *(Dataset((one,)).fingerprint for one in changed)}
    assert len(names) == len(changed) + 1
    assert Dataset(base.subjects, "other", source="elsewhere").fingerprint == base.fingerprint


def test_the_fingerprint_is_the_same_in_another_process():
    program = (
        "from amortnlme.data.bundled import load_bundled; print(load_bundled('theophylline').fingerprint)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == load_bundled("theophylline").fingerprint


def test_padding_keeps_ragged_measurements_apart_from_gaps():
    short = Subject.from_observations("2", Design.from_doses([Dose(0.0, 1.0)], [1.0]), np.array([5.0]))
    y, observed, censoring, limit = Dataset((subject("1", (3.0, np.nan, 1.0)), short)).y_padded()
    assert observed.tolist() == [[True, False, True], [True, False, False]]
    assert np.array_equal(np.isnan(y), ~observed)
    assert not censoring.any() and np.isnan(limit).all()


def test_covariates_follow_the_records_of_the_batch():
    changing = subject("1", w=TimeVarying(np.array([70.0, 70.0, 71.0, 72.0])))
    short = Subject.from_observations("2", Design.from_doses([], [1.0]), np.array([5.0]), {"w": 50.0})
    study = Dataset((changing, short))
    assert study.design_batch().covariates["w"].tolist() == [[70.0, 70.0, 71.0, 72.0], [50.0] * 4]
    assert study.covariate_table()["w"].to_dict() == {"1": 70.0, "2": 50.0}


def test_the_summary_counts_and_names_and_is_json():
    silent = subject("2", (np.nan, np.nan, np.nan), w=np.nan)
    censored = replace(subject("1", w=70.0), censoring=np.array([0, 0, 1]))
    study = Dataset((censored, silent), "study", (Exclusion(3, "1", "a comment"),), source="7 rows of a.csv")
    told = json.loads(json.dumps(study.to_dict(), allow_nan=False))
    counts = {
        key: told[key] for key in ("n_subjects", "n_doses", "n_observations", "n_censored", "n_not_measured")
    }
    assert counts == dict(n_subjects=2, n_doses=2, n_observations=3, n_censored=1, n_not_measured=3)
    assert told["without_observations"] == ["2"]
    assert told["exclusions"] == [{"row": 3, "id": "1", "reason": "a comment"}]
    assert told["covariates"][0]["n_missing"] == 1
    assert told["source"] == "7 rows of a.csv" and told["fingerprint"] == study.fingerprint
    text = "\n".join(study.summary().lines())
    for words in ("3 observations", "1 beyond a limit", "'2'", "a comment", "7 rows of a.csv", "70 to 70"):
        assert words in text
