"""Every malformed table gives one named error that says where and what."""

from __future__ import annotations

import re
from dataclasses import replace

import pandas as pd
import pytest
from malformed_tables import MALFORMED_TABLES, MalformedTable

from amortnlme.core.errors import DataError
from amortnlme.data.event_table import read_csv, read_frame

_SENTENCE_END = re.compile(r"[.!?)]$")


@pytest.mark.parametrize("table", MALFORMED_TABLES, ids=lambda table: table.name)
def test_a_malformed_table_is_refused_with_its_code_and_its_place(table: MalformedTable, tmp_path):
    path = table.write(tmp_path)
    with pytest.raises(DataError) as refusal:
        read_csv(path)
    assert refusal.value.code == table.code
    assert "study.csv" in refusal.value.message
    for name in table.names:
        assert name in refusal.value.message
    # the last sentence says what to do
    assert _SENTENCE_END.search(refusal.value.message)
    assert "{}" not in refusal.value.message


def test_there_are_enough_malformed_tables_and_their_names_differ():
    assert len(MALFORMED_TABLES) >= 30
    assert len({table.name for table in MALFORMED_TABLES}) == len(MALFORMED_TABLES)
    assert len({table.code for table in MALFORMED_TABLES}) >= 30


@pytest.mark.parametrize(
    "table",
    [t for t in MALFORMED_TABLES if isinstance(t.content, bytes) and t.content.startswith(b"ID,TIME,DV")],
    ids=lambda table: table.name,
)
def test_a_data_frame_is_refused_like_the_same_file(table: MalformedTable):
    if table.code in ("E_DATA_QUOTES", "E_DATA_RAGGED", "E_DATA_ENCODING"):
        pytest.skip("a data frame has no quotes, no ragged rows and no encoding")
    assert isinstance(table.content, bytes)
    cells = [line.split(",") for line in table.content.decode().splitlines()]
    frame = pd.DataFrame(cells[1:], columns=cells[0], dtype=object)
    with pytest.raises(DataError) as refusal:
        read_frame(frame)
    assert refusal.value.code == table.code


def test_the_first_bad_row_is_named_and_the_others_are_counted(tmp_path):
    table = MalformedTable("", "", b"ID,TIME,DV\n1,0,2\n1,1,x\n1,2,y\n2,0,z\n")
    with pytest.raises(DataError, match=r"row 2 \(line 3, subject '1'\).*'x'.*2 more such rows"):
        read_csv(table.write(tmp_path))


def test_rows_are_counted_over_comments_and_blank_lines(tmp_path):
    table = replace(MALFORMED_TABLES[0], content=b"# made by hand\nID,TIME,DV\n1,0,2\n\n# a comment\n1,1,x\n")
    with pytest.raises(DataError, match=r"row 4 \(line 6, subject '1'\)"):
        read_csv(table.write(tmp_path))


@pytest.mark.parametrize("given", [None, "study.csv", {"ID": [1]}, [[1, 0, 2]]])
def test_what_is_no_data_frame_is_refused(given):
    with pytest.raises(DataError) as refusal:
        read_frame(given)
    assert refusal.value.code == "E_DATA_NOT_A_FRAME"
