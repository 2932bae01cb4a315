"""Malformed event tables: each gives a named error through the command line, never a traceback."""

from __future__ import annotations

import pytest
from cli.refused import refusal

HEAD = "ID,TIME,DV,AMT,EVID,weight\n"
DOSE = "1,0,.,320,1,70\n"
OBSERVATION = "1,1.5,4.2,.,0,70\n"

TABLES = {
    "empty file": "",
    "only a header": HEAD,
    "no ID column": "TIME,DV,AMT,EVID\n0,.,320,1\n1,4.2,.,0\n",
    "no TIME column": "ID,DV,AMT,EVID\n1,.,320,1\n1,4.2,.,0\n",
    "no DV column": "ID,TIME,AMT,EVID\n1,0,320,1\n1,1,.,0\n",
    "two ID columns": "ID,id,TIME,DV,AMT,EVID\n1,1,0,.,320,1\n1,1,1,4.2,.,0\n",
    "a column without a name": "ID,TIME,DV,AMT,EVID,\n1,0,.,320,1,5\n1,1,4.2,.,0,5\n",
    "no observations": HEAD + DOSE,
    "a dose without AMT": HEAD + "1,0,.,.,1,70\n" + OBSERVATION,
    "a dose of zero": HEAD + "1,0,.,0,1,70\n" + OBSERVATION,
    "a negative dose": HEAD + "1,0,.,-320,1,70\n" + OBSERVATION,
    "unsorted time": HEAD + DOSE + "1,3,4.2,.,0,70\n1,2,5.1,.,0,70\n",
    "time missing": HEAD + DOSE + "1,.,4.2,.,0,70\n",
    "unknown EVID": HEAD + DOSE + "1,1,4.2,.,7,70\n",
    "EVID not whole": HEAD + DOSE + "1,1,4.2,.,0.5,70\n",
    "a row twice": HEAD + DOSE + OBSERVATION + OBSERVATION,
    "text in TIME": HEAD + DOSE + "1,noon,4.2,.,0,70\n",
    "text in DV": HEAD + DOSE + "1,1,BLQ,.,0,70\n",
    "text in AMT": HEAD + "1,0,.,one pill,1,70\n" + OBSERVATION,
    "text in a covariate": HEAD + "1,0,.,320,1,heavy\n1,1,4.2,.,0,heavy\n",
    "an infinite measurement": HEAD + DOSE + "1,1,inf,.,0,70\n",
    "ID missing": HEAD + DOSE + ",1,4.2,.,0,70\n",
    "a subject split in two": HEAD + DOSE + OBSERVATION + "2,0,.,300,1,60\n2,1,3.3,.,0,60\n1,9,1.0,.,0,70\n",
    "RATE -1": "ID,TIME,DV,AMT,RATE,EVID\n1,0,.,320,-1,1\n1,1,4.2,.,.,0\n",
    "RATE -2": "ID,TIME,DV,AMT,RATE,EVID\n1,0,.,320,-2,1\n1,1,4.2,.,.,0\n",
    "ADDL without II": "ID,TIME,DV,AMT,ADDL,EVID\n1,0,.,320,3,1\n1,1,4.2,.,.,0\n",
    "negative ADDL": "ID,TIME,DV,AMT,ADDL,II,EVID\n1,0,.,320,-3,12,1\n1,1,4.2,.,.,.,0\n",
    "SS without II": "ID,TIME,DV,AMT,SS,EVID\n1,0,.,320,1,1\n1,1,4.2,.,.,0\n",
    "unknown SS": "ID,TIME,DV,AMT,SS,II,EVID\n1,0,.,320,5,12,1\n1,1,4.2,.,.,.,0\n",
    "unknown CENS": "ID,TIME,DV,AMT,CENS,EVID\n1,0,.,320,.,1\n1,1,4.2,.,3,0\n",
    "negative CMT": "ID,TIME,DV,AMT,CMT,EVID\n1,0,.,320,-1,1\n1,1,4.2,.,1,0\n",
    "cells missing": HEAD + DOSE + "1,1\n",
    "cells too many": HEAD + DOSE + "1,1,4.2,.,0,70,99,98\n",
}


@pytest.mark.parametrize("text", TABLES.values(), ids=TABLES.keys())
def test_data_check_refuses_a_malformed_table_by_name(text, tmp_path, capsys):
    path = tmp_path / "data.csv"
    path.write_text(text, encoding="utf-8")
    assert refusal(["data", "check", str(path)], capsys).startswith(("E_DATA_", "E_DESIGN_"))


def test_data_check_refuses_a_file_that_is_not_text(tmp_path, capsys):
    path = tmp_path / "data.csv"
    path.write_bytes(bytes(range(256)) * 4)
    assert refusal(["data", "check", str(path)], capsys).startswith("E_DATA_")


def test_data_check_refuses_a_folder(tmp_path, capsys):
    assert refusal(["data", "check", str(tmp_path)], capsys) == "E_INPUT_NO_FILE"


def test_a_message_stays_on_one_line_whatever_the_table_holds(tmp_path, capsys):
    path = tmp_path / "data.csv"
    path.write_text(HEAD + DOSE + '1,1,"4.2\nBLQ",.,0,70\n', encoding="utf-8")
    assert refusal(["data", "check", str(path)], capsys).startswith("E_DATA_")
