"""Wide tables: both orientations, gaps, conversions, and everything that is refused."""

from __future__ import annotations

import numpy as np
import pytest

from amortnlme.core.errors import DataError
from amortnlme.data.wide_table import is_wide, read_wide

BY_SUBJECT = "cell,0.5,1,2\na,1.0,2.0,4.0\nb,3.0,,5.0\n"
BY_TIME = "time_s,a,b\n3600,2.0,NA\n1800,1.0,3.0\n7200,4.0,5.0\n"


def written(tmp_path, text):
    path = tmp_path / "cells.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_both_orientations_give_the_same_study(tmp_path):
    rows = read_wide(written(tmp_path, BY_SUBJECT), name="cells")
    columns = read_wide(written(tmp_path, BY_TIME), name="cells", time_factor=1 / 3600)
    assert rows.ids == columns.ids == ("a", "b")
    for left, right in zip(rows.subjects, columns.subjects, strict=True):
        np.testing.assert_allclose(left.design.observation_times, right.design.observation_times, rtol=1e-15)
        np.testing.assert_array_equal(left.y, right.y)
    np.testing.assert_array_equal(rows.subjects[1].observed, [True, False, True])


def test_log_is_taken_of_the_measurements(tmp_path):
    dataset = read_wide(written(tmp_path, BY_SUBJECT), log=True)
    np.testing.assert_allclose(dataset.subjects[0].y, np.log([1.0, 2.0, 4.0]))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (["cell", "0.1", "0.2"], True),
        (["time_s", "cell_0", "cell_1"], True),
        (["Time", "x"], True),
        (["ID", "TIME", "DV"], False),
        (["TIME", "ID", "DV"], False),
        (["t"], False),
        (["cell", "0.1", "dose"], False),
    ],
)
def test_is_wide_tells_wide_tables_from_event_tables(header, expected):
    assert is_wide(header) is expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cell,1,2\na,1,2\na,3,4\n", "'a' occurs more than once"),
        ("cell,1,1.0\na,1,2\n", "time 1 occurs more than once"),
        ("cell,-1,2\na,1,2\n", "at least 0"),
        ("cell,1,2\na,,\n", "no measurement at all"),
        ("cell,1,2\na,0,2\n", "has no logarithm"),
        ("cell,x,2\na,1,2\n", "is no wide table"),
    ],
)
def test_read_wide_names_what_is_wrong(tmp_path, text, words):
    with pytest.raises(DataError, match=words) as caught:
        read_wide(written(tmp_path, text), log=True)
    assert caught.value.code == "E_DATA_WIDE"


def test_read_wide_points_to_a_cell_that_is_no_number(tmp_path):
    with pytest.raises(DataError, match=r"row 1 \(line 2, subject 'a'\)"):
        read_wide(written(tmp_path, "cell,1,2\na,1,two\n"))


def test_read_wide_refuses_a_factor_that_is_not_positive(tmp_path):
    with pytest.raises(DataError, match="time_factor must be positive"):
        read_wide(written(tmp_path, BY_SUBJECT), time_factor=0.0)
