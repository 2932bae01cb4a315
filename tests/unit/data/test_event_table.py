"""What the rows of an event table become."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from amortnlme.core.errors import DataError
from amortnlme.data.columns import ColumnMap
from amortnlme.data.design import EventKind
from amortnlme.data.event_table import read_csv, read_frame
from amortnlme.data.subject import Subject, TimeVarying

OBS, BOLUS, INFUSION, RESET, OTHER = EventKind


def table(text: str) -> pd.DataFrame:
    """A data frame from lines of cells separated by blanks; a dot is NaN."""
    header, *rows = [line.split() for line in text.strip().splitlines()]
    return pd.DataFrame(
        [[np.nan if cell == "." else float(cell) for cell in row] for row in rows], columns=header
    )


def only(text: str, **options) -> Subject:
    """The only subject of a table."""
    (subject,) = read_frame(table(text), **options).subjects
    return subject


def kinds(subject: Subject) -> list[int]:
    return subject.design.kind.tolist()


def test_reader_takes_a_row_with_an_amount_as_a_dose_when_there_is_no_evid():
    subject = only("ID TIME AMT DV\n1 0 100 .\n1 1 . 5\n1 2 0 4")
    assert kinds(subject) == [BOLUS, OBS, OBS]
    assert subject.y.tolist() == [5, 4]


def test_reader_reads_undosed_studies():
    subject = only("ID TIME DV\n1 0 1\n1 1 2")
    assert subject.design.n_doses == 0
    assert subject.y.tolist() == [1, 2]


def test_reader_matches_standard_names_without_case_and_covariates_with_case():
    dataset = read_frame(table("id Time dv Amt wt WT\n1 0 . 9 70 1\n1 1 2 . 70 1"))
    assert dataset.covariate_names == ("wt", "WT")
    assert dataset.subjects[0].covariates == {"wt": 70.0, "WT": 1.0}


def test_reader_uses_other_names_when_a_column_map_gives_them():
    frame = table("Subject hours conc Dose wt note\n1 0 . 9 70 3\n1 1 2 . 70 4")
    names = ColumnMap(id="Subject", time="hours", dv="conc", amt="Dose", ignore=("note",))
    dataset = read_frame(frame, columns=names)
    assert dataset.covariate_names == ("wt",)
    assert dataset.subjects[0].design.dose_amounts.tolist() == [9]


def test_reader_keeps_row_order_when_a_dose_and_a_measurement_share_their_time():
    assert kinds(only("ID TIME AMT DV EVID\n1 0 9 . 1\n1 0 . 1 0")) == [BOLUS, OBS]
    assert kinds(only("ID TIME AMT DV EVID\n1 0 . 1 0\n1 0 9 . 1")) == [OBS, BOLUS]


def test_reader_makes_infusions_of_rates_and_of_durations():
    by_rate = only("ID TIME AMT RATE DV EVID\n1 0 100 20 . 1\n1 1 . . 5 0")
    by_duration = only("ID TIME AMT TINF DV EVID\n1 0 100 5 . 1\n1 1 . . 5 0")
    assert kinds(by_rate) == [INFUSION, OBS]
    assert by_rate.design.duration.tolist() == [5, 0]
    assert by_rate == by_duration


def test_reader_writes_additional_doses_out():
    subject = only("ID TIME AMT ADDL II DV EVID\n1 0 100 3 12 . 1\n1 1 . . . 5 0\n1 40 . . . 2 0")
    assert kinds(subject) == [BOLUS, OBS, BOLUS, BOLUS, BOLUS, OBS]
    assert subject.design.dose_times.tolist() == [0, 12, 24, 36]
    assert subject.design.dose_amounts.tolist() == [100] * 4
    assert not subject.design.ii.any()


def test_reader_gives_an_additional_dose_before_the_row_at_its_time():
    # mrgsolve, compared with NONMEM in its issue 424: ADDL doses come prior to the observation
    subject = only("ID TIME AMT ADDL II DV EVID\n1 0 100 1 12 . 1\n1 12 . . . 5 0")
    assert kinds(subject) == [BOLUS, BOLUS, OBS]


def test_reader_gives_an_additional_dose_at_the_row_when_rounding_alone_parts_them():
    subject = only("ID TIME AMT ADDL II DV EVID\n1 0.1 100 2 0.1 . 1\n1 0.3 . . . 5 0")
    assert 0.1 + 2 * 0.1 > 0.3
    assert subject.design.time.tolist() == [0.1, 0.2, 0.3, 0.3]
    assert kinds(subject) == [BOLUS, BOLUS, BOLUS, OBS]


def test_reader_drops_additional_doses_and_says_so_when_they_come_after_the_last_row():
    dataset = read_frame(table("ID TIME AMT ADDL II DV EVID\n1 0 100 9 12 . 1\n1 13 . . . 5 0"))
    assert dataset.subjects[0].design.dose_times.tolist() == [0, 12]
    (note,) = dataset.exclusions
    assert (note.row, note.id) == (1, "1")
    assert "8 of its additional doses" in note.reason


@pytest.mark.parametrize("evid", [3, 4])
def test_reader_cancels_additional_doses_when_a_reset_follows(evid):
    amount = "50" if evid == 4 else "."
    rows = f"1 0 100 9 12 . 1\n1 13 . . . 5 0\n1 30 {amount} . . . {evid}\n1 60 . . . 2 0"
    subject = only(f"ID TIME AMT ADDL II DV EVID\n{rows}")
    assert subject.design.dose_times.tolist() == [0, 12] + ([30] if evid == 4 else [])
    assert kinds(subject) == [BOLUS, BOLUS, OBS, RESET] + ([BOLUS] if evid == 4 else []) + [OBS]


def test_reader_cancels_additional_doses_when_a_steady_state_dose_follows():
    rows = "1 0 100 9 12 0 . 1\n1 13 . . . . 5 0\n1 20 50 . 24 1 . 1\n1 60 . . . . 2 0"
    subject = only(f"ID TIME AMT ADDL II SS DV EVID\n{rows}")
    assert subject.design.dose_times.tolist() == [0, 12, 20]
    assert subject.design.ss.tolist() == [0, 0, 0, 1, 0]
    assert subject.design.ii.tolist() == [0, 0, 0, 24, 0]


def test_reader_gives_plain_additional_doses_after_a_steady_state_dose():
    subject = only("ID TIME AMT ADDL II SS DV EVID\n1 0 100 1 12 1 . 1\n1 20 . . . . 5 0")
    assert subject.design.ss.tolist() == [1, 0, 0]
    assert subject.design.ii.tolist() == [12, 0, 0]


def test_reader_restarts_the_clock_at_a_reset():
    subject = only("ID TIME AMT DV EVID\n1 0 9 . 1\n1 24 . 2 0\n1 0 8 . 4\n1 1 . 3 0")
    assert kinds(subject) == [BOLUS, OBS, RESET, BOLUS, OBS]
    assert subject.design.time.tolist() == [0, 24, 0, 0, 1]


def test_reader_keeps_other_events_as_records():
    assert kinds(only("ID TIME AMT DV EVID\n1 0 9 . 1\n1 1 . . 2\n1 2 . 3 0")) == [BOLUS, OTHER, OBS]


def test_reader_carries_covariates_forward():
    subject = only("ID TIME AMT DV EVID crcl\n1 0 9 . 1 90\n1 1 . 2 0 .\n1 2 . 3 0 80\n1 3 . 3 0 .")
    assert subject.covariates["crcl"] == TimeVarying(np.array([90.0, 90.0, 80.0, 80.0]))


def test_reader_gives_additional_doses_the_covariates_of_the_row_before_them():
    rows = "1 0 9 2 12 . 1 90\n1 15 . . . 2 0 80\n1 30 . . . 3 0 70"
    subject = only(f"ID TIME AMT ADDL II DV EVID crcl\n{rows}")
    assert kinds(subject) == [BOLUS, BOLUS, OBS, BOLUS, OBS]
    assert subject.covariate_values("crcl").tolist() == [90, 90, 80, 80, 70]


def test_reader_never_carries_covariates_into_the_next_subject():
    frame = table("ID TIME DV wt\n1 0 1 70\n2 0 1 .\n2 1 2 60")
    with pytest.raises(DataError, match="E_DATA_COVARIATE_MISSING"):
        read_frame(frame)
    kept = read_frame(frame, allow_missing_covariates=True)
    assert np.isnan(kept.covariate_table().loc["2", "wt"])


def test_reader_keeps_the_time_and_says_so_when_a_measurement_is_missing():
    dataset = read_frame(table("ID TIME DV MDV\n1 0 1 0\n1 1 7 1\n1 2 . ."))
    assert dataset.subjects[0].observed.tolist() == [True, False, False]
    assert np.isnan(dataset.subjects[0].y[1:]).all()
    assert [note.row for note in dataset.exclusions] == [2, 3]


def test_reader_reads_censoring_with_its_limits():
    subject = only("ID TIME DV CENS LIMIT\n1 0 1 0 0\n1 1 0.5 1 .\n1 2 0.5 1 0.1\n1 3 9 -1 .")
    assert subject.censoring.tolist() == [0, 1, 1, -1]
    np.testing.assert_array_equal(subject.limit, [np.nan, np.nan, 0.1, np.nan])
    assert subject.n_censored == 3


def test_reader_reads_outcomes_occasions_and_compartments():
    rows = "1 0 9 . 1 2 0 1\n1 1 . 3 0 1 2 1\n1 2 . 4 0 . 1 2"
    subject = only(f"ID TIME AMT DV EVID CMT DVID OCC\n{rows}")
    assert subject.design.compartment.tolist() == [2, 1, 0]
    assert subject.design.output.tolist() == [0, 2, 1]
    assert subject.occasion.tolist() == [1, 1, 2]


def test_reader_gives_doses_without_an_occasion_that_of_the_row_before():
    rows = "1 0 9 . 1 .\n1 1 . 3 0 7\n1 2 9 . 1 .\n1 3 . 4 0 5"
    subject = only(f"ID TIME AMT DV EVID OCC\n{rows}")
    assert subject.occasion.tolist() == [7, 7, 7, 5]
    assert subject.occasion_number.tolist() == [0, 0, 0, 1]


def test_reader_lets_an_additional_dose_fall_into_the_occasion_in_force():
    rows = "1 0 9 . 1 2 2 1\n1 1 . 3 0 0 0 1\n1 3 . 3 0 0 0 2\n1 5 . 4 0 0 0 2"
    subject = only(f"ID TIME AMT DV EVID ADDL II OCC\n{rows}")
    assert subject.design.time.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert subject.occasion.tolist() == [1, 1, 1, 2, 2, 2]


def test_reader_accepts_a_repeated_row_only_when_asked():
    frame = table("ID TIME DV\n1 0 1\n1 0 1")
    with pytest.raises(DataError, match="E_DATA_DUPLICATE_ROW"):
        read_frame(frame)
    assert read_frame(frame, allow_duplicates=True).n_observations == 2


def test_reader_refuses_an_additional_dose_that_another_row_gives_again():
    rows = "1 0 100 2 12 . 1\n1 12 100 . . . 1\n1 40 . . . 2 0"
    frame = table(f"ID TIME AMT ADDL II DV EVID\n{rows}")
    with pytest.raises(DataError, match=r"row 1 \(subject '1'\).*t = 12 .*row 2.*E_DATA_DOUBLE_DOSE"):
        read_frame(frame)
    assert read_frame(frame, allow_duplicates=True).subjects[0].design.n_doses == 4


def test_reader_calls_subjects_the_same_whether_their_number_is_written_with_decimals_or_not():
    for ids in ([1.0, 2.0], [1, 2], ["1", "2.0"], [" 1", "2 "]):
        assert read_frame(pd.DataFrame({"ID": ids, "TIME": 0, "DV": 1})).ids == ("1", "2")
    assert read_frame(pd.DataFrame({"ID": ["01", "2"], "TIME": 0, "DV": 1})).ids == ("01", "2")
    assert read_frame(pd.DataFrame({"ID": ["A-1", "1.0"], "TIME": 0, "DV": 1})).ids == ("A-1", "1.0")


def test_reader_reads_every_numeric_kind_of_column():
    frame = pd.DataFrame(
        {
            "ID": pd.Categorical([1, 1]),
            "TIME": pd.array([0, 1], dtype="Int64"),
            "DV": np.array([1.5, 2.5], dtype=np.float32),
            "AMT": [None, None],
            "sex": [True, True],
            "wt": ["70.5", "."],
        }
    )
    subject = read_frame(frame).subjects[0]
    assert subject.y.tolist() == [1.5, 2.5]
    assert subject.covariates == {"sex": 1.0, "wt": 70.5}


def test_csv_reader_skips_comments_and_blank_lines_and_counts_rows_as_the_file_does(tmp_path):
    path = tmp_path / "study.csv"
    rows = ["# made today", "C,ID,TIME,DV", ".,1,0,1", "# no sample", "", "C,1,1,99", ",1,2,3", ",,,", ""]
    path.write_text("\n".join(rows), encoding="utf-8")
    dataset = read_csv(path)
    assert dataset.name == "study"
    assert dataset.subjects[0].y.tolist() == [1, 3]
    assert [note.row for note in dataset.exclusions] == [2, 4, 6]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", " "])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_csv_reader_reads_the_same_study_whatever_the_delimiter_and_line_ends(tmp_path, delimiter, newline):
    path = tmp_path / "study.csv"
    rows = ["ID,TIME,AMT,DV", "1,0,9,.", "1,1,.,2.5"]
    path.write_bytes(("\ufeff" + newline.join(row.replace(",", delimiter) for row in rows)).encode())
    assert read_csv(path) == read_frame(table("ID TIME AMT DV\n1 0 9 .\n1 1 . 2.5"))


def test_csv_reader_reads_numbers_to_the_last_bit(tmp_path):
    values = np.random.default_rng(1).uniform(size=200) ** 30
    path = tmp_path / "study.csv"
    rows = [f"1,{i},{value!r}" for i, value in enumerate(values.tolist())]
    path.write_text("\n".join(["ID,TIME,DV", *rows]), encoding="utf-8")
    np.testing.assert_array_equal(read_csv(path).subjects[0].y, values)


def test_reader_reads_a_hundred_thousand_rows_without_work_per_cell():
    """Ten thousand rows in well under a second of processor time; the bound allows for a slow machine."""
    import time

    n_subjects, per_subject = 400, 25
    rng = np.random.default_rng(0)
    shape = (n_subjects, per_subject)
    frame = pd.DataFrame(
        {
            "ID": np.repeat(np.arange(n_subjects), per_subject),
            "TIME": np.sort(rng.uniform(0, 100, shape), axis=1).ravel(),
            "DV": rng.normal(5, 1, n_subjects * per_subject),
            "crcl": rng.normal(90, 5, n_subjects * per_subject),
        }
    )
    started = time.process_time()
    assert read_frame(frame).n_observations == len(frame)
    assert time.process_time() - started < 2.0
