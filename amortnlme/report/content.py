"""What a page is made of: tables and figures as plain data, ready for the template."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from amortnlme.report.figures import to_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Cell:
    """One table cell: its text, a smaller remark after it, and the color class of a badge (or "")."""

    text: str
    small: str = ""
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One table row: cells, or the title of a group of rows."""

    cells: Sequence[Cell] = ()
    group: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the page.

    Attributes
    ----------
    header : tuple of Cell
    rows : tuple of Row
    text_columns, wrap_columns : frozenset of int
        Left-aligned columns, and those whose text may break.
    best_column : int or None
        Column to highlight.
    caption : str
    """

    header: tuple[Cell, ...]
    rows: tuple[Row, ...]
    text_columns: frozenset[int] = frozenset({0})
    wrap_columns: frozenset[int] = frozenset()
    best_column: int | None = None
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure of the page as inline SVG, with its caption."""

    svg: Markup
    caption: str


def cells(values: Iterable[str | Cell]) -> tuple[Cell, ...]:
    """Turn texts into cells.

    Parameters
    ----------
    values : iterable of str or Cell

    Returns
    -------
    tuple of Cell
    """
    return tuple(value if isinstance(value, Cell) else Cell(value) for value in values)


def row(values: Iterable[str | Cell]) -> Row:
    """Make a row from texts.

    Parameters
    ----------
    values : iterable of str or Cell

    Returns
    -------
    Row
    """
    return Row(cells(values))


def facts(pairs: Sequence[tuple[str, object]]) -> list[tuple[str, str]]:
    """Keep the pairs that have something to say, as texts.

    Parameters
    ----------
    pairs : sequence of (str, object)
        Empty texts and None are left out.

    Returns
    -------
    list of (str, str)
    """
    return [(key, str(value)) for key, value in pairs if value is not None and str(value) != ""]


def picture(figure: Figure, key: str, caption: str) -> Picture:
    """Render a figure for the page.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    key : str
        Unique on the page.
    caption : str
        Also the text for readers who cannot see the figure.

    Returns
    -------
    Picture
    """
    # The SVG is made by this package from escaped texts; only it is exempt from the template's escaping.
    return Picture(Markup(to_svg(figure, key, caption)), caption)
