"""Whatever stands in a table, reading it gives a study or a named error, never another error."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from amortnlme.core.errors import AmortNlmeError
from amortnlme.data.columns import ColumnMap
from amortnlme.data.event_table import read_frame
from amortnlme.data.table_text import decode, split_table

HEADER = [
    "ID",
    "TIME",
    "AMT",
    "DV",
    "EVID",
    "MDV",
    "RATE",
    "ADDL",
    "II",
    "SS",
    "CMT",
    "CENS",
    "LIMIT",
    "OCC",
    "DVID",
    "wt",
]
ROWS = [
    ["1", "0", "100", ".", "1", "1", "0", "2", "12", "0", "1", "0", ".", "1", ".", "70"],
    ["1", "1", ".", "5", "0", "0", ".", ".", ".", ".", "2", "1", "1", "1", "1", "."],
    ["1", "30", ".", "3", "0", "0", ".", ".", ".", ".", "2", "0", ".", "2", "2", "71"],
    ["2", "0", "50", ".", "4", "1", "10", "0", "24", "1", "1", "0", ".", "1", ".", "60"],
    ["2", "2", ".", "4", "0", "0", ".", ".", ".", ".", "2", "0", ".", "1", "1", "."],
]
NUMBERS = ["0", "1", "-1", "-2", "3", "4", "9", "1e308", "-1e308", "1e-300", "2.5", "1e999"]
CELLS = st.one_of(
    st.sampled_from([*NUMBERS, "", ".", "nan", "1_0", "x"]),
    st.text(max_size=4),
    st.floats().map(repr),
)
CHANGES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 15), CELLS), min_size=1, max_size=4)


def read(text: str) -> None:
    table = split_table(text, "garbage")
    read_frame(pd.DataFrame(dict(zip(table.header, table.columns, strict=False))))


@settings(max_examples=400, deadline=None)
@given(CHANGES)
def test_reader_gives_a_study_or_a_named_error_when_cells_are_changed(changes):
    rows = [list(row) for row in ROWS]
    for row, column, cell in changes:
        rows[row][column] = cell
    frame = pd.DataFrame(rows, columns=HEADER)
    try:
        dataset = read_frame(frame)
    except AmortNlmeError as refusal:
        assert refusal.code.startswith(("E_DATA_", "E_DESIGN_"))
        return
    assert dataset.n_observations > 0


@settings(max_examples=200, deadline=None)
@given(st.permutations(range(5)), st.lists(st.sampled_from(HEADER), max_size=12))
def test_reader_gives_a_study_or_a_named_error_when_rows_are_shuffled_and_columns_dropped(order, dropped):
    frame = pd.DataFrame(ROWS, columns=HEADER).iloc[list(order)].drop(columns=list(set(dropped)))
    try:
        read_frame(frame)
    except AmortNlmeError as refusal:
        assert refusal.code.startswith(("E_DATA_", "E_DESIGN_"))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80))
def test_csv_reader_gives_a_named_error_when_bytes_are_random(content):
    try:
        read(decode(content, "garbage"))
    except AmortNlmeError as refusal:
        assert refusal.code.startswith("E_DATA_")


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='ID,;\t\n\r "#.1eTMEV-', max_size=60))
def test_csv_reader_gives_a_named_error_when_text_is_nearly_a_table(text):
    try:
        read("ID,TIME,DV\n1,0,1\n" + text)
    except AmortNlmeError as refusal:
        assert refusal.code.startswith("E_DATA_")


def test_reader_gives_a_named_error_when_cells_are_objects():
    for cell in ([1], {}, b"1", 1j, pd.Timestamp("2020-01-01"), np.datetime64("2020-01-01"), object()):
        for column in range(3):
            frame = pd.DataFrame({"ID": ["1", "1"], "TIME": [0.0, 1.0], "DV": [1.0, 2.0]}, dtype=object)
            frame.iat[1, column] = cell
            try:
                read_frame(frame, columns=ColumnMap())
            except AmortNlmeError as refusal:
                assert refusal.code.startswith("E_DATA_")
