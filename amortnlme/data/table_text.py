"""From a file to a rectangle of cells: encoding, delimiter, header, comments."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from amortnlme.core.errors import DataError

# Far above any study (some five million rows); keeps a wrong path from filling the memory.
MAX_BYTES = 256 * 2**20
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", " ": "whitespace"}
_FOREIGN = {
    b"PK\x03\x04": "an Excel workbook or a zip archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\x1f\x8b": "a gzip archive",
    b"%PDF": "a PDF",
    b"\x89HDF": "an HDF5 file",
    b"**SAS**": "a SAS file",
}


@dataclass(frozen=True, slots=True)
class RawTable:
    """A rectangle of cells, not yet understood.

    Attributes
    ----------
    source : str
        Name of the table in messages.
    header : tuple of str
    columns : tuple of ndarray, shape (n,)
        Numbers (NaN: missing) or objects (text as it stands in the file).
    rows : ndarray of int, shape (n,)
        1-based row, the header not counted; comment and blank lines count.
    comments : tuple of (int, str)
        Row and text of what was skipped.
    header_line : int or None
        1-based line of the header; None for a data frame.
    delimiter : str or None
        One of ``DELIMITERS``; None for a data frame.
    """

    source: str
    header: tuple[str, ...]
    columns: tuple[np.ndarray, ...]
    rows: np.ndarray
    comments: tuple[tuple[int, str], ...] = ()
    header_line: int | None = None
    delimiter: str | None = None

    @property
    def description(self) -> str:
        """Where the table came from, in a few words."""
        if self.delimiter is None:
            return f"{len(self.rows)} rows of a data frame"
        return f"{len(self.rows)} rows of {self.source}, separated by {DELIMITERS[self.delimiter]}"


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a UTF-8 file (with or without byte-order mark) after checks that it is a text of a sensible size.

    Parameters
    ----------
    path : str or path
        The file, at most ``MAX_BYTES`` long.

    Returns
    -------
    str

    Raises
    ------
    DataError
        ``E_DATA_NO_FILE``, ``E_DATA_FOLDER``, ``E_DATA_TOO_LARGE``, ``E_DATA_READ``, ``E_DATA_BINARY``,
        ``E_DATA_ENCODING``.
    """
    source = Path(path)
    if source.is_dir():
        raise DataError("E_DATA_FOLDER", f"{source} is a folder. Give the path of a table in it.")
    if not source.exists():
        raise DataError("E_DATA_NO_FILE", f"There is no file {source}. Check the path.")
    try:
        size = source.stat().st_size
        if size > MAX_BYTES:
            raise DataError(
                "E_DATA_TOO_LARGE",
                f"{source} has {size / 2**20:.0f} MiB; tables up to {MAX_BYTES // 2**20} MiB are read. "
                f"Leave out columns and rows that are not needed, or pass a data frame to read_frame.",
            )
        content = source.read_bytes()
    except OSError as cause:
        raise DataError(
            "E_DATA_READ",
            f"Cannot read {source}: {cause.strerror or cause}. Check the file and its permissions.",
        ) from cause
    return decode(content, source.name)


def decode(content: bytes, source: str) -> str:
    """Decode the bytes of a table.

    Parameters
    ----------
    content : bytes
    source : str
        Name of the table in messages.

    Returns
    -------
    str

    Raises
    ------
    DataError
        ``E_DATA_BINARY``, ``E_DATA_ENCODING``.
    """
    for magic, what in _FOREIGN.items():
        if content.startswith(magic):
            raise DataError(
                "E_DATA_BINARY", f"{source} is {what}, not a text. Save the table as CSV (UTF-8)."
            )
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError("E_DATA_ENCODING", f"{source} is UTF-16 text; UTF-8 is needed. Save it as CSV UTF-8.")
    if b"\x00" in content:
        raise DataError(
            "E_DATA_BINARY",
            f"{source} is a binary file (byte {content.index(0)} is zero). Save the table as CSV (UTF-8).",
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        line = content.count(b"\n", 0, cause.start) + 1
        raise DataError(
            "E_DATA_ENCODING",
            f"{source}, line {line}: byte 0x{content[cause.start]:02x} is not UTF-8. Save the table "
            f"as CSV (UTF-8).",
        ) from cause


def split_table(text: str, source: str, delimiter: str | None = None) -> RawTable:
    """Split text into a header and rows of cells.

    Lines that start with ``#`` are comments; blank lines and rows of empty cells are skipped.

    Parameters
    ----------
    text : str
    source : str
        Name of the table in messages.
    delimiter : str, optional
        ``","``, ``";"``, a tab or ``" "`` (any whitespace); found from the header if not given.

    Returns
    -------
    RawTable

    Raises
    ------
    DataError
        ``E_DATA_EMPTY_FILE``, ``E_DATA_DELIMITER``, ``E_DATA_ONE_COLUMN``, ``E_DATA_QUOTES``,
        ``E_DATA_RAGGED``, ``E_DATA_NO_ROWS``.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    numbers = [i for i, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")]
    if not numbers:
        raise DataError("E_DATA_EMPTY_FILE", f"{source} is empty. A header and at least one row are needed.")
    chosen = delimiter or _sniff(lines[numbers[0]], source)
    if chosen not in DELIMITERS:
        raise DataError(
            "E_DATA_DELIMITER",
            f"{delimiter!r} is not a known delimiter. Allowed: comma, semicolon, tab, a blank (any "
            f"whitespace).",
        )
    table = _cells([lines[i] for i in numbers], chosen, source)
    header, first = tuple(cell.strip() for cell in table[0]), numbers[0] + 1
    rows = np.array(numbers[1:], dtype=np.int64) + 1 - first
    _refuse_ragged(table, rows, source, first, chosen)
    comments = [
        (i + 1 - first, f"comment: {line.strip()[:60]}")
        for i, line in enumerate(lines)
        if i >= first and line.lstrip().startswith("#")
    ]
    body, empty = table[1:], [not "".join(row).strip() for row in table[1:]]
    if any(empty):
        comments += [(int(row), "empty row") for row, blank in zip(rows, empty, strict=True) if blank]
        body = [row for row, blank in zip(body, empty, strict=True) if not blank]
        rows = rows[~np.array(empty)]
    if not body:
        raise DataError(
            "E_DATA_NO_ROWS",
            f"{source} has a header but no row. At least one row with a measurement is needed.",
        )
    columns = tuple(np.array(column, dtype=object) for column in zip(*body, strict=True))
    return RawTable(source, header, columns, rows, tuple(sorted(comments)), first, chosen)


def _sniff(header: str, source: str) -> str:
    counts = {mark: header.count(mark) for mark in (",", ";", "\t")}
    best = max(counts.values())
    if best == 0 and len(header.split()) > 1:
        return " "
    if best == 0:
        raise DataError(
            "E_DATA_ONE_COLUMN",
            f"{source}: the header {header.strip()[:60]!r} is a single column. Columns are separated "
            f"by comma, semicolon, "
            f"tab or whitespace; use one of these, and name at least ID, TIME and DV in the first line.",
        )
    found = [mark for mark, count in counts.items() if count == best]
    if len(found) > 1:
        names = " and ".join(DELIMITERS[mark] for mark in found)
        raise DataError(
            "E_DATA_DELIMITER",
            f"{source}: {names} occur equally often in the header {header.strip()[:60]!r}, so the "
            f"delimiter is not clear. "
            f"Use only one of them, or pass delimiter=.",
        )
    return found[0]


def _cells(lines: Sequence[str], delimiter: str, source: str) -> list[list[str]]:
    if delimiter == " ":
        return [line.split() for line in lines]
    try:
        table = list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error as cause:
        raise DataError(
            "E_DATA_QUOTES", f"{source}: quotes do not match ({cause}). Close every quoted cell on its line."
        ) from cause
    if len(table) != len(lines):
        raise DataError(
            "E_DATA_QUOTES",
            f"{source}: a quoted cell runs over several lines. Close every quoted cell on its line.",
        )
    return table


def _refuse_ragged(
    table: list[list[str]], rows: np.ndarray, source: str, header_line: int, delimiter: str
) -> None:
    width = len(table[0])
    lengths = np.fromiter((len(row) for row in table[1:]), dtype=np.int64, count=len(table) - 1)
    bad = np.flatnonzero(lengths != width)
    if bad.size:
        at = int(bad[0])
        others = f" ({bad.size - 1} more such rows)" if bad.size > 1 else ""
        raise DataError(
            "E_DATA_RAGGED",
            f"{source}, row {rows[at]} (line {header_line + rows[at]}): {lengths[at]} cells{others}, "
            f"but the header has "
            f"{width} (separated by {DELIMITERS[delimiter]}). Give every row one cell per column; "
            f"write '.' where one is "
            f"missing.",
        )


def raw_frame(frame: pd.DataFrame, source: str) -> RawTable:
    """Take a data frame as a rectangle of cells.

    Parameters
    ----------
    frame : pandas.DataFrame
    source : str
        Name of the table in messages.

    Returns
    -------
    RawTable

    Raises
    ------
    DataError
        ``E_DATA_NOT_A_FRAME``, ``E_DATA_NO_ROWS``.
    """
    if not isinstance(frame, pd.DataFrame):
        raise DataError(
            "E_DATA_NOT_A_FRAME",
            f"A pandas data frame is needed; given {type(frame).__name__}. Use read_csv for the path "
            f"of a file.",
        )
    if not len(frame):
        raise DataError(
            "E_DATA_NO_ROWS", f"{source} has no row. At least one row with a measurement is needed."
        )
    columns = []
    for position in range(frame.shape[1]):
        series = frame.iloc[:, position]
        plain = isinstance(series.dtype, np.dtype) and series.dtype.kind in "fiub"
        columns.append(series.to_numpy(dtype=float) if plain else series.to_numpy(dtype=object))
    header = tuple(str(name).strip() for name in frame.columns)
    return RawTable(source, header, tuple(columns), np.arange(1, len(frame) + 1))
