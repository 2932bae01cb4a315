"""Errors that name row, subject, column and value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from amortnlme.core.errors import DataError


@dataclass(frozen=True, slots=True)
class Places:
    """Where the rows of a table come from, so that an error can point there.

    Attributes
    ----------
    source : str
        Name of the table in messages.
    rows : ndarray of int, shape (n,)
        1-based row of the table, the header not counted.
    ids : sequence of str, length n, or None
        Subject of each row, once known.
    header_line : int or None
        Line of the header in the file, so that row r is on line `header_line` + r; None for a data frame.
    """

    source: str
    rows: np.ndarray
    ids: Sequence[str] | None = None
    header_line: int | None = None

    def name(self, at: int) -> str:
        """Name a row, its line and its subject.

        Parameters
        ----------
        at : int
            Position among the rows in use.

        Returns
        -------
        str
            Such as ``row 7 (line 8, subject '2')``.
        """
        row = int(self.rows[at])
        details = [] if self.header_line is None else [f"line {self.header_line + row}"]
        details += [] if self.ids is None else [f"subject {self.id_at(at)!r}"]
        return f"row {row} ({', '.join(details)})" if details else f"row {row}"

    def id_at(self, at: int) -> str:
        """Return the subject of a row.

        Parameters
        ----------
        at : int
            Position among the rows in use.

        Returns
        -------
        str
            Empty if subjects are not known yet.
        """
        return "" if self.ids is None else str(self.ids[at])

    def refuse(
        self,
        code: str,
        bad: np.ndarray,
        problem: str,
        remedy: str,
        values: Sequence[object] | np.ndarray | None = None,
    ) -> None:
        """Raise if any row is bad, naming the first one and counting the others.

        Parameters
        ----------
        code : str
            Stable code of the error.
        bad : ndarray of bool, shape (n,)
            Which rows are bad.
        problem : str
            What is wrong; ``{}`` is replaced by the value given.
        remedy : str
            What is allowed and what to do.
        values : sequence, optional
            Values given, length n.

        Raises
        ------
        DataError
            With that code.
        """
        found = np.flatnonzero(bad)
        if not found.size:
            return
        at = int(found[0])
        given = problem if values is None else problem.replace("{}", show(values[at]))
        others = f" ({found.size - 1} more such rows)" if found.size > 1 else ""
        raise DataError(code, f"{self.source}, {self.name(at)}: {given}{others}. {remedy}")

    def take(self, keep: np.ndarray) -> Places:
        """Return the places of some of the rows.

        Parameters
        ----------
        keep : ndarray of bool, shape (n,)

        Returns
        -------
        Places
        """
        ids = None if self.ids is None else [i for i, kept in zip(self.ids, keep, strict=True) if kept]
        return Places(self.source, self.rows[keep], ids, self.header_line)


def show(value: object) -> str:
    """Write a cell as a person would.

    Parameters
    ----------
    value : object
        Text or a number.

    Returns
    -------
    str
        Long text is cut.
    """
    if isinstance(value, (float, np.floating)):
        return "missing" if np.isnan(value) else f"{value:.15g}"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
