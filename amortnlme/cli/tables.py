"""Tables and short lines on the terminal."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 130


def console() -> Console:
    """Console on standard output; colors and width adapt to where it goes."""
    from rich.console import Console

    # A file or a pipe has no width of its own; rich would assume 80 columns and break names.
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> None:
    """Print a table.

    Parameters
    ----------
    columns : sequence of str
        Heads. A column whose cells are all numbers is aligned right.
    rows : iterable of sequences
        Cells; numbers are shown with four significant digits, None and nan as a dash.
    title : str
        Line above the table.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    body = [list(row) for row in rows]
    table = Table(
        box=box.SIMPLE_HEAD, title=title or None, title_justify="left", title_style="bold", pad_edge=False
    )
    for index, head in enumerate(columns):
        numeric = all(row[index] is None or isinstance(row[index], int | float) for row in body)
        table.add_column(head, justify="right" if numeric and body else "left", no_wrap=index == 0)
    for row in body:
        # Text, not markup: names in data files may hold square brackets.
        table.add_row(*(Text(cell_text(cell)) for cell in row))
    console().print(table)


def cell_text(value: object) -> str:
    """One cell as text.

    Parameters
    ----------
    value : object
        Text is kept; numbers get four significant digits; None and nan become a dash.

    Returns
    -------
    str
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool | str):
        return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value
    if isinstance(value, float):
        # Large values keep their units digit and two decimals: -2LL and AIC are read by differences.
        return f"{value:.2f}" if 100 <= abs(value) < 1e6 else f"{value:.4g}"
    return str(value)


def say(text: str) -> None:
    """Print one line as it is.

    Parameters
    ----------
    text : str
    """
    import typer

    typer.echo(text)


@contextmanager
def stages() -> Iterator[Callable[[str], None]]:
    """Show on a terminal which stage is under way; a file or a pipe gets nothing.

    Yields
    ------
    callable
        To be called with the name of each stage as it begins.
    """
    if not sys.stderr.isatty():
        yield lambda stage: None
        return
    from rich.console import Console

    with Console(stderr=True).status("starting") as status:
        yield lambda stage: status.update(f"{stage} - the first run ever compiles for a while")
