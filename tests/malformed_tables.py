"""Event tables that must be refused, each with the code of its refusal; shared by tests of reader and verbs.

A table is given by its bytes, or by a function that makes something at a path.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class MalformedTable:
    """One wrong input: what it is called, what is in it, how it is refused, what the message names."""

    name: str
    code: str
    content: bytes | Callable[[Path], None]
    names: tuple[str, ...] = ()

    def write(self, folder: Path) -> Path:
        """Make the input in a folder and return its path."""
        path = folder / "study.csv"
        if isinstance(self.content, bytes):
            path.write_bytes(self.content)
        else:
            self.content(path)
        return path


def _table(header: str, *rows: str) -> bytes:
    return "\n".join([header, *rows, ""]).encode()


def _oversized(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**29)  # sparse: half a gigabyte that takes no space


def _nothing(path: Path) -> None:
    path.unlink(missing_ok=True)


# What the files themselves are.
_FILES = [
    MalformedTable("no file", "E_DATA_NO_FILE", _nothing, ("study.csv",)),
    MalformedTable("a folder", "E_DATA_FOLDER", Path.mkdir, ("study.csv",)),
    MalformedTable("too large", "E_DATA_TOO_LARGE", _oversized, ("512 MiB", "256 MiB")),
    MalformedTable("an empty file", "E_DATA_EMPTY_FILE", b""),
    MalformedTable("only blank lines", "E_DATA_EMPTY_FILE", b"\n\n  \n"),
    MalformedTable("only comments", "E_DATA_EMPTY_FILE", b"# ID,TIME,DV\n# 1,0,2\n"),
    MalformedTable("binary garbage", "E_DATA_BINARY", bytes(range(256)) * 4),
    MalformedTable("an Excel workbook", "E_DATA_BINARY", b"PK\x03\x04" + b"xl/workbook.xml" * 9, ("Excel",)),
    MalformedTable("UTF-16", "E_DATA_ENCODING", "ID,TIME,DV\n1,0,2\n".encode("utf-16"), ("UTF-16",)),
    MalformedTable(
        "Latin-1", "E_DATA_ENCODING", "ID,TIME,DV\nJosé,0,2\n".encode("latin-1"), ("line 2", "0xe9")
    ),
    MalformedTable("a single column", "E_DATA_ONE_COLUMN", b"ID\n1\n2\n", ("'ID'",)),
    MalformedTable("a wrong delimiter", "E_DATA_ONE_COLUMN", b"ID|TIME|DV\n1|0|2\n", ("ID|TIME|DV",)),
    MalformedTable("two delimiters", "E_DATA_DELIMITER", b"ID,TIME;DV\n1,0;2\n", ("comma", "semicolon")),
    MalformedTable("header only", "E_DATA_NO_ROWS", b"ID,TIME,DV\n"),
    MalformedTable("every row a comment", "E_DATA_NO_ROWS", b"C,ID,TIME,DV\nC,1,0,2\nC,1,1,2\n"),
    MalformedTable("no header", "E_DATA_NO_HEADER", b"1,0,2.5\n1,1,3.5\n", ("'2.5'",)),
    MalformedTable("an open quote", "E_DATA_QUOTES", b'ID,TIME,DV\n"1,0,2\n1,1,2\n'),
    MalformedTable("a cell over two lines", "E_DATA_QUOTES", b'ID,TIME,DV\n"1\n",0,2\n1,1,2\n'),
    MalformedTable(
        "a short row", "E_DATA_RAGGED", b"ID,TIME,DV\n1,0,2\n1,1\n", ("row 2", "line 3", "2 cells", "has 3")
    ),
    MalformedTable("a long row", "E_DATA_RAGGED", b"ID,TIME,DV\n1,0,2,7\n", ("row 1", "4 cells")),
]

# What the header says.
_HEADERS = [
    MalformedTable("no TIME", "E_DATA_COLUMN_MISSING", b"ID,HOURS,DV\n1,0,2\n", ("'TIME'", "'HOURS'")),
    MalformedTable("no ID and no DV", "E_DATA_COLUMN_MISSING", b"SUBJ,TIME,CONC\n1,0,2\n", ("'ID', 'DV'",)),
    MalformedTable("a name twice", "E_DATA_COLUMN_TWICE", b"ID,TIME,DV,wt,wt\n1,0,2,70,70\n", ("'wt'",)),
    MalformedTable(
        "a name in two cases", "E_DATA_COLUMN_TWICE", b"ID,Time,TIME,DV\n1,0,0,2\n", ("'Time'", "'TIME'")
    ),
    MalformedTable("a column without name", "E_DATA_COLUMN_NAME", b"ID,TIME,,DV\n1,0,3,2\n", ("Column 3",)),
]

_DOSED = "ID,TIME,DV,AMT,EVID"
_INFUSED = "ID,TIME,DV,AMT,EVID,RATE"
_REPEATED = "ID,TIME,DV,AMT,EVID,ADDL,II,SS"
_CENSORED = "ID,TIME,DV,CENS,LIMIT"
_DOSE = "1,0,.,100,1"

# What the cells hold. Rows are counted from the header.
_CELLS = [
    MalformedTable(
        "text in TIME",
        "E_DATA_NOT_NUMERIC",
        _table(_DOSED, _DOSE, "1,noon,2,.,0"),
        ("row 2", "'1'", "TIME", "noon"),
    ),
    MalformedTable(
        "a clock time", "E_DATA_NOT_NUMERIC", _table("ID,TIME,DV", "1,08:30,2"), ("TIME", "08:30")
    ),
    MalformedTable(
        "text in a covariate",
        "E_DATA_NOT_NUMERIC",
        _table("ID,TIME,DV,arm", "1,0,2,placebo"),
        ("arm", "placebo"),
    ),
    MalformedTable(
        "BLQ as text",
        "E_DATA_NOT_NUMERIC",
        _table("ID,TIME,DV", "1,0,2", "1,1,<0.5"),
        ("row 2", "DV", "<0.5"),
    ),
    MalformedTable(
        "a decimal comma", "E_DATA_NOT_NUMERIC", b"ID;TIME;DV\n1;0,5;2\n", ("0,5", "decimal point")
    ),
    MalformedTable("thousands", "E_DATA_NOT_NUMERIC", _table("ID,TIME,DV", "1,0,1_000"), ("1_000",)),
    MalformedTable("infinity", "E_DATA_NOT_FINITE", _table("ID,TIME,DV", "1,0,inf"), ("row 1", "DV", "inf")),
    MalformedTable("overflow", "E_DATA_NOT_FINITE", _table("ID,TIME,DV", "1,0,1e999"), ("1e999",)),
    MalformedTable(
        "NaN as text", "E_DATA_NAN_TEXT", _table("ID,TIME,DV", "1,0,2", "1,1,NaN"), ("row 2", "DV", "NaN")
    ),
    MalformedTable(
        "missing ID", "E_DATA_ID_MISSING", _table("ID,TIME,DV", "1,0,2", ".,1,2"), ("row 2", "ID")
    ),
    MalformedTable(
        "missing TIME", "E_DATA_TIME_MISSING", _table("ID,TIME,DV", "1,.,2"), ("row 1", "'1'", "TIME")
    ),
    MalformedTable(
        "an ID that returns",
        "E_DATA_ID_RETURNS",
        _table("ID,TIME,DV", "1,0,2", "2,0,2", "1,1,2"),
        ("row 3", "'1'"),
    ),
    MalformedTable(
        "falling TIME",
        "E_DATA_TIME_ORDER",
        _table("ID,TIME,DV", "1,0,2", "1,5,2", "1,4,2"),
        ("row 3", "from 5 to 4"),
    ),
    MalformedTable(
        "the same row twice",
        "E_DATA_DUPLICATE_ROW",
        _table("ID,TIME,DV", "1,0,2", "1,1,3", "1,1,3"),
        ("row 3", "'1'"),
    ),
    MalformedTable(
        "the same dose twice", "E_DATA_DUPLICATE_ROW", _table(_DOSED, _DOSE, _DOSE, "1,1,2,.,0"), ("row 2",)
    ),
    MalformedTable(
        "unknown EVID",
        "E_DATA_EVID",
        _table(_DOSED, "1,0,.,100,5", "1,1,2,.,0"),
        ("row 1", "'1'", "EVID", "5"),
    ),
    MalformedTable("fractional EVID", "E_DATA_EVID", _table(_DOSED, "1,0,.,100,1.5", "1,1,2,.,0"), ("1.5",)),
    MalformedTable(
        "missing EVID", "E_DATA_EVID", _table(_DOSED, "1,0,.,100,.", "1,1,2,.,0"), ("row 1", "EVID")
    ),
    MalformedTable("unknown MDV", "E_DATA_MDV", _table("ID,TIME,DV,MDV", "1,0,2,2"), ("row 1", "MDV", "2")),
    MalformedTable(
        "MDV 0 on a dose", "E_DATA_MDV", _table(f"{_DOSED},MDV", f"{_DOSE},0", "1,1,2,.,0,0"), ("row 1",)
    ),
    MalformedTable(
        "MDV 0 without DV", "E_DATA_DV_MISSING", _table("ID,TIME,DV,MDV", "1,0,2,0", "1,1,.,0"), ("row 2",)
    ),
    MalformedTable(
        "fractional CMT", "E_DATA_CMT", _table("ID,TIME,DV,CMT", "1,0,2,1.5"), ("row 1", "CMT", "1.5")
    ),
    MalformedTable("negative CMT", "E_DATA_CMT", _table("ID,TIME,DV,CMT", "1,0,2,-1"), ("CMT", "-1")),
    MalformedTable("DVID 0", "E_DATA_DVID", _table("ID,TIME,DV,DVID", "1,0,2,0"), ("row 1", "DVID")),
    MalformedTable(
        "missing OCC", "E_DATA_OCC", _table("ID,TIME,DV,OCC", "1,0,2,1", "1,1,2,."), ("row 2", "OCC")
    ),
    MalformedTable("unknown CENS", "E_DATA_CENS", _table(_CENSORED, "1,0,2,2,."), ("row 1", "CENS", "2")),
    MalformedTable(
        "CENS without DV",
        "E_DATA_CENS_WITHOUT_DV",
        _table(_CENSORED, "1,0,2,0,.", "1,1,.,1,."),
        ("row 2", "'1'"),
    ),
    MalformedTable(
        "LIMIT without CENS",
        "E_DATA_LIMIT_WITHOUT_CENS",
        _table("ID,TIME,DV,LIMIT", "1,0,2,1"),
        ("row 1", "CENS"),
    ),
    MalformedTable("LIMIT above DV", "E_DATA_LIMIT", _table(_CENSORED, "1,0,2,1,3"), ("row 1", "LIMIT", "3")),
    MalformedTable(
        "a covariate never known",
        "E_DATA_COVARIATE_MISSING",
        _table("ID,TIME,DV,wt", "1,0,2,70", "2,0,2,."),
        ("row 2", "'2'", "wt"),
    ),
]

# What the rows mean.
_MEANINGS = [
    MalformedTable("no observation", "E_DATA_NO_OBSERVATIONS", _table(_DOSED, _DOSE, "2,0,.,100,1")),
    MalformedTable(
        "no measurement", "E_DATA_NO_OBSERVATIONS", _table("ID,TIME,DV,MDV", "1,0,2,1", "1,1,3,1")
    ),
    MalformedTable(
        "a dose without AMT",
        "E_DATA_DOSE_WITHOUT_AMT",
        _table(_DOSED, "1,0,.,.,1", "1,1,2,.,0"),
        ("row 1", "'1'", "AMT"),
    ),
    MalformedTable(
        "doses without an AMT column",
        "E_DATA_DOSE_WITHOUT_AMT",
        _table("ID,TIME,DV,EVID", "1,0,.,1", "1,1,2,0"),
        ("row 1", "AMT"),
    ),
    MalformedTable(
        "negative AMT",
        "E_DATA_AMT_NEGATIVE",
        _table(_DOSED, "1,0,.,-100,1", "1,1,2,.,0"),
        ("row 1", "AMT", "-100"),
    ),
    MalformedTable("all doses zero", "E_DATA_DOSES_ZERO", _table(_DOSED, "1,0,.,0,1", "1,1,2,.,0"), ("AMT",)),
    MalformedTable(
        "AMT on an observation",
        "E_DATA_DOSE_ITEM",
        _table(_DOSED, _DOSE, "1,1,2,50,0"),
        ("row 2", "AMT", "50"),
    ),
    MalformedTable(
        "DV on a dose",
        "E_DATA_DV_ELSEWHERE",
        _table(_DOSED, "1,0,3.5,100,1", "1,1,2,.,0"),
        ("row 1", "DV", "3.5"),
    ),
    MalformedTable(
        "dose and DV without EVID",
        "E_DATA_DV_ELSEWHERE",
        _table("ID,TIME,DV,AMT", "1,0,3.5,100", "1,1,2,."),
        ("row 1",),
    ),
    MalformedTable(
        "RATE -1",
        "E_DATA_RATE_MODELED",
        _table(_INFUSED, f"{_DOSE},-1", "1,1,2,.,0,."),
        ("row 1", "RATE", "-1", "rate"),
    ),
    MalformedTable(
        "RATE -2",
        "E_DATA_RATE_MODELED",
        _table(_INFUSED, f"{_DOSE},-2", "1,1,2,.,0,."),
        ("RATE", "-2", "duration"),
    ),
    MalformedTable(
        "negative RATE", "E_DATA_RATE", _table(_INFUSED, f"{_DOSE},-7", "1,1,2,.,0,."), ("RATE", "-7")
    ),
    MalformedTable(
        "RATE without AMT",
        "E_DATA_RATE_WITHOUT_AMT",
        _table(_INFUSED, "1,0,.,0,1,5", f"{_DOSE},0", "1,1,2,.,0,."),
        ("row 1", "AMT"),
    ),
    MalformedTable(
        "RATE and TINF",
        "E_DATA_RATE_AND_TINF",
        _table(f"{_INFUSED},TINF", f"{_DOSE},5,2", "1,1,2,.,0,.,."),
        ("row 1",),
    ),
    MalformedTable(
        "negative TINF", "E_DATA_TINF", _table(f"{_DOSED},TINF", f"{_DOSE},-2", "1,1,2,.,0,."), ("TINF", "-2")
    ),
    MalformedTable(
        "ADDL without II",
        "E_DATA_ADDL_WITHOUT_II",
        _table(_REPEATED, f"{_DOSE},3,0,0", "1,1,2,.,0,.,.,."),
        ("row 1", "ADDL", "II"),
    ),
    MalformedTable(
        "negative ADDL",
        "E_DATA_ADDL",
        _table(_REPEATED, f"{_DOSE},-3,12,0", "1,1,2,.,0,.,.,."),
        ("ADDL", "-3"),
    ),
    MalformedTable(
        "SS without II",
        "E_DATA_SS_WITHOUT_II",
        _table(_REPEATED, f"{_DOSE},0,0,1", "1,1,2,.,0,.,.,."),
        ("row 1", "SS", "II"),
    ),
    MalformedTable("SS 3", "E_DATA_SS", _table(_REPEATED, f"{_DOSE},0,12,3", "1,1,2,.,0,.,.,."), ("SS", "3")),
    MalformedTable(
        "negative II", "E_DATA_II", _table(_REPEATED, f"{_DOSE},2,-12,0", "1,1,2,.,0,.,.,."), ("II", "-12")
    ),
    MalformedTable(
        "II without ADDL or SS",
        "E_DATA_II_UNUSED",
        _table(_REPEATED, f"{_DOSE},0,12,0", "1,1,2,.,0,.,.,."),
        ("II", "12"),
    ),
    MalformedTable(
        "an additional dose given twice",
        "E_DATA_DOUBLE_DOSE",
        _table(_REPEATED, f"{_DOSE},2,12,0", "1,12,.,100,1,.,.,.", "1,25,2,.,0,.,.,."),
        ("t = 12", "row 2"),
    ),
    MalformedTable(
        "doses without end",
        "E_DATA_TOO_MANY_DOSES",
        _table(_REPEATED, f"{_DOSE},2000000000,1e-9,0", "1,99,2,.,0,.,.,."),
        ("row 1",),
    ),
]

MALFORMED_TABLES = (*_FILES, *_HEADERS, *_CELLS, *_MEANINGS)
