"""A study written as a table and read back is the same study, to the last bit."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amortnlme.core.errors import DataError
from amortnlme.data.bundled import load_bundled
from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design, Dose
from amortnlme.data.event_table import read_csv, read_frame, to_csv, to_frame
from amortnlme.data.subject import Subject

AMOUNTS = st.floats(0, 1e4, allow_subnormal=False)
VALUES = st.floats(-1e6, 1e6)
POSITIVE = st.floats(1e-3, 1e3)


@st.composite
def observation(draw) -> dict[str, object]:
    cens = draw(st.sampled_from([0, 0, 0, 1, -1]))
    value = draw(VALUES)
    limit = draw(st.sampled_from([None, value - cens * 2.0])) if cens else None
    return {
        "EVID": 0,
        "DV": value,
        "MDV": draw(st.sampled_from([0, 0, 0, 1, None])),
        "CENS": cens,
        "LIMIT": limit,
        "DVID": draw(st.integers(1, 3)),
        "CMT": draw(st.integers(0, 3)),
        "OCC": draw(st.integers(1, 3)),
    }


@st.composite
def dose(draw) -> dict[str, object]:
    steady, extra = draw(st.sampled_from([0, 0, 1, 2])), draw(st.sampled_from([0, 0, 1, 5]))
    amount = draw(AMOUNTS)
    infusion = draw(st.sampled_from(["bolus", "rate", "tinf"]))
    return {
        "EVID": draw(st.sampled_from([1, 1, 4])),
        "AMT": amount,
        "RATE": draw(POSITIVE) if infusion == "rate" and amount > 0 else 0.0,
        "TINF": draw(POSITIVE) if infusion == "tinf" else 0.0,
        "SS": steady,
        "ADDL": extra,
        "II": draw(POSITIVE) if steady or extra else 0.0,
        "CMT": draw(st.integers(0, 3)),
    }


EVENTS = st.one_of(observation(), dose(), st.sampled_from([{"EVID": 2}, {"EVID": 3}]))


NAMES = [
    "ID",
    "TIME",
    "DV",
    "EVID",
    "AMT",
    "RATE",
    "TINF",
    "ADDL",
    "II",
    "SS",
    "CMT",
    "CENS",
    "LIMIT",
    "DVID",
    "OCC",
    "wt",
    "crcl",
]
FIRST = {"EVID": 0, "DV": 1.0, "DVID": 1, "OCC": 1, "CMT": 0}


@st.composite
def tables(draw) -> pd.DataFrame:
    """Event tables with every kind of row, clocks that restart at resets and covariates that change."""
    rows = []
    for subject in range(draw(st.integers(1, 3))):
        clock = draw(st.floats(-5, 5))
        for at, event in enumerate([FIRST, *draw(st.lists(EVENTS, max_size=8))]):
            if event["EVID"] in (3, 4):
                clock = draw(st.floats(0, 5))
            else:
                clock += draw(st.sampled_from([0, 0.1, 2.5]))
            crcl = draw(st.sampled_from([90.0, 80.25, None])) if at else 95.0
            rows.append({"ID": f"s{subject}", "TIME": clock, "wt": 60.5 + subject, "crcl": crcl, **event})
        rows.append({"ID": f"s{subject}", "TIME": clock, "EVID": 1, "AMT": 1.0})
    return pd.DataFrame(rows, columns=NAMES)


@settings(max_examples=150, deadline=None)
@given(tables())
def test_reader_gives_the_same_study_when_it_reads_what_was_written(frame):
    dataset = read_frame(frame, allow_duplicates=True)
    again = read_frame(to_frame(dataset), allow_duplicates=True)
    assert again == dataset
    assert again.fingerprint == dataset.fingerprint


@settings(max_examples=40, deadline=None)
@given(tables())
def test_csv_reader_gives_the_same_study_when_it_reads_what_was_written(frame):
    dataset = read_frame(frame, allow_duplicates=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "study.csv")
        to_csv(dataset, path)
        again = read_csv(path, allow_duplicates=True)
        to_csv(again, Path(folder, "again.csv"))
        assert path.read_bytes() == Path(folder, "again.csv").read_bytes()
    assert again == dataset
    assert again.fingerprint == dataset.fingerprint


def test_reader_gives_the_same_study_when_the_bundled_table_was_written():
    dataset = load_bundled("theophylline")
    assert read_frame(to_frame(dataset)) == dataset


def test_reader_gives_the_same_study_when_it_was_made_in_python():
    times = np.array([0.5, 3.0, 0.1 + 0.2])
    doses = [
        Dose(0.0, 100.0, duration=1 / 3),
        Dose(1.0, 7.3, compartment=2, duration=0.7),
        Dose(2.0, 5.0, ss=1, ii=0.3),
    ]
    design = Design.from_doses(doses, times, outputs=[1, 2, 1])
    subject = Subject.from_observations("A 1", design, np.array([1.0, np.nan, 1e-300]), {"wt": 0.1 + 0.2})
    dataset = Dataset((subject,), "python")
    again = read_frame(to_frame(dataset))
    assert again == dataset
    assert again.fingerprint == dataset.fingerprint


def test_writer_joins_a_reset_and_a_dose_to_one_row():
    frame = pd.DataFrame(
        {
            "ID": 1,
            "TIME": [0.0, 1, 0, 1],
            "AMT": [9.0, np.nan, 8, np.nan],
            "DV": [np.nan, 1, np.nan, 2],
            "EVID": [1, 0, 4, 0],
        }
    )
    written = to_frame(read_frame(frame))
    assert written["EVID"].tolist() == [1, 0, 4, 0]
    assert written.columns.tolist() == ["ID", "TIME", "AMT", "DV", "EVID"]


@pytest.mark.parametrize("name", ["", ".", "NA", " 1", "1.0", "#1", "a\nb"])
def test_writer_refuses_an_identifier_that_would_not_come_back(name):
    design = Design.from_doses([Dose(0.0, 1.0)], [1.0])
    dataset = Dataset((Subject.from_observations(name, design, np.array([1.0])),))
    with pytest.raises(DataError, match="E_DATA_NOT_WRITABLE"):
        to_frame(dataset)


@pytest.mark.parametrize("name", ["dose", "C", "wt "])
def test_writer_refuses_a_covariate_that_would_not_come_back(name):
    design = Design.from_doses([Dose(0.0, 1.0)], [1.0])
    dataset = Dataset((Subject.from_observations("1", design, np.array([1.0]), {name: 1.0}),))
    if name == "dose":
        assert read_frame(to_frame(dataset)) == dataset
        return
    with pytest.raises(DataError, match="E_DATA_NOT_WRITABLE"):
        to_frame(dataset)
