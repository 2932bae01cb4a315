"""The look of every figure, and figures as inline SVG text."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from amortnlme.report.ticks import GRID, write_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray

# Okabe & Ito: distinguishable with every common form of color blindness, and in gray print.
DATA = "#31363b"
INDIVIDUAL = "#0072B2"
POPULATION = "#E69F00"
TREND = "#D55E00"
GOOD = "#009E73"
ACCENT = "#CC79A7"
REFERENCE = "#8b929a"
SERIES = (INDIVIDUAL, TREND, GOOD, ACCENT, POPULATION, "#56B4E9", "#5b5f66", "#a8a400")

_RC: Any = {
    "svg.fonttype": "none",  # text stays text: selectable, searchable, and a third of the size
    "svg.hashsalt": "amortnlme",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 4.0,
    "axes.titley": 1.0,  # a given height spares matplotlib measuring every tick label: a fifth of the time
    "axes.labelsize": 8.0,
    "axes.labelcolor": "#31363b",
    "axes.edgecolor": "#9aa1a8",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,  # `write_ticks` draws it
    "axes.axisbelow": True,
    "axes.unicode_minus": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.color": "#9aa1a8",
    "ytick.color": "#9aa1a8",
    "xtick.labelcolor": "#4b5157",
    "ytick.labelcolor": "#4b5157",
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
    "axes.facecolor": "white",
}


@dataclass(frozen=True, slots=True)
class PanelSize:
    """Geometry of a grid of equal panels, in inches; margins belong to every panel.

    Attributes
    ----------
    width, height : float
        Of the plotting area of one panel.
    left, right, bottom, top : float
        Room around it for tick labels, axis labels and the title.
    header, footer : float
        Extra room above all panels, for a shared legend, and below them, for axis labels that only the last
        row has.
    """

    width: float
    height: float
    left: float = 0.52
    right: float = 0.12
    bottom: float = 0.48
    top: float = 0.26
    header: float = 0.0
    footer: float = 0.0


def is_crowded(values: Array) -> bool:
    """Say whether a scatter has so many points that it should be embedded as an image.

    Parameters
    ----------
    values : ndarray, shape (n, ...)

    Returns
    -------
    bool
        Every point of a vector figure costs some 70 bytes, and time in the browser.
    """
    return len(values) > 1500


def dot_alpha(n: int, usual: float) -> float:
    """Opacity of scattered dots: the usual one for few, falling with the root of their number for many.

    Parameters
    ----------
    n : int
    usual : float

    Returns
    -------
    float
    """
    return usual if n <= 600 else max(0.06, usual * (600.0 / n) ** 0.5)


@contextmanager
def house_style() -> Iterator[None]:
    """Set the look of figures while they are drawn; the caller's settings are restored after it.

    Returns
    -------
    context manager
        Also a decorator: `@house_style()`.
    """
    import matplotlib

    with matplotlib.rc_context(_RC):
        yield


def panel_grid(n_rows: int, n_columns: int, size: PanelSize) -> tuple[Figure, list[list[Axes]]]:
    """Make a figure of equal panels with fixed margins.

    Parameters
    ----------
    n_rows, n_columns : int
    size : PanelSize

    Returns
    -------
    figure : matplotlib.figure.Figure
    axes : list of lists of matplotlib.axes.Axes
        axes[row][column].

    Notes
    -----
    Margins are known beforehand, so no layout engine has to measure text: drawing is twice as fast.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    cell_width = size.left + size.width + size.right
    cell_height = size.top + size.height + size.bottom
    width, height = n_columns * cell_width, n_rows * cell_height + size.header + size.footer
    figure = Figure(figsize=(width, height))
    axes = []
    for row in range(n_rows):
        bottom = height - size.header - (row + 1) * cell_height + size.bottom
        line = []
        for column in range(n_columns):
            left = column * cell_width + size.left
            box = (left / width, bottom / height, size.width / width, size.height / height)
            panel = figure.add_axes(box)
            panel.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 3, 4, 5, 6, 10]))
            panel.yaxis.set_major_locator(MaxNLocator(5))
            line.append(panel)
        axes.append(line)
    return figure, axes


def shared_legend(figure: Figure, panels: Sequence[Axes], size: PanelSize) -> None:
    """Put one legend above all panels.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    panels : sequence of matplotlib.axes.Axes
        Their labeled artists are shown, each label once.
    size : PanelSize
        Must have been made with a `header`.
    """
    found: dict[str, Any] = {}
    for panel in panels:
        handles, labels = panel.get_legend_handles_labels()
        for handle, label in zip(handles, labels, strict=True):
            found.setdefault(label, handle)
    figure.legend(
        list(found.values()), list(found), ncols=len(found), loc="upper left",
        bbox_to_anchor=(size.left / figure.get_figwidth(), 1.0), borderaxespad=0.15, handlelength=1.8,
        columnspacing=1.6,
    )  # fmt: skip


def to_svg(figure: Figure, key: str, description: str) -> str:
    """Render a figure as an SVG element that can stand inside an HTML page.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    key : str
        Prefix of all element ids, so that several figures can share a page.
    description : str
        Text for readers who cannot see the figure.

    Returns
    -------
    svg : str
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context(_RC):
        for panel in figure.axes:
            write_ticks(panel)
        figure.savefig(
            buffer,
            dpi=150,
            format="svg",
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    # Group ids ("axes_1", ...) repeat from figure to figure and nothing refers to them.
    text = re.sub(r'<g id="[A-Za-z0-9.]+_\d+">', "<g>", text)
    text = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{key}-", text)
    # Coordinates to a hundredth of a point; texts stand outside of attributes and stay as they are.
    text = re.sub(r'"[^"<>]*\d\.\d{3}[^"<>]*"', _shorten, text)
    text = re.sub(r"\n\s*", "\n", text)
    text = text.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, Arial")
    label = html.escape(description)
    width, height = figure.get_size_inches() * 100
    head = (
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {figure.get_figwidth() * 72:g} '
        f'{figure.get_figheight() * 72:g}" style="width:{width:.0f}px;max-width:100%;height:auto" '
        f'data-height="{height:.0f}" xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return head + text[text.index(">") + 1 :]


def to_png(figure: Figure) -> bytes:
    """Render a figure as the content of a PNG file.

    Parameters
    ----------
    figure : matplotlib.figure.Figure

    Returns
    -------
    content : bytes
        The same with every call, for one version of matplotlib.
    """
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context(_RC):
        for panel in figure.axes:
            write_ticks(panel)
        figure.savefig(buffer, format="png", dpi=100, bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()


def _shorten(attribute: re.Match[str]) -> str:
    return re.sub(r"(\d\.\d\d)\d+", r"\1", attribute[0])


def local_trend(x: Array, y: Array, n_grid: int = 40) -> tuple[Array, Array]:
    """Smooth a scatter by local linear regression with tricube weights.

    Parameters
    ----------
    x, y : ndarray, shape (n,)
    n_grid : int

    Returns
    -------
    grid, trend : ndarray, shape (n_grid,)
        With fewer than eight distinct x, these x and the mean of y at each; empty with fewer than three.

    Notes
    -----
    Cleveland (1979), JASA 74, 829-836, without robustness iterations; the span is two thirds of the
    points, and all of them below thirty, where a shorter one would draw noise.
    """
    keep = np.isfinite(x) & np.isfinite(y)
    x, y = x[keep], y[keep]
    distinct, group = np.unique(x, return_inverse=True)
    if len(distinct) < 3:
        return np.empty(0), np.empty(0)
    if len(distinct) < 8:
        return distinct, np.bincount(group, y) / np.bincount(group)
    grid = np.linspace(x.min(), x.max(), n_grid)
    distance = np.abs(x[None, :] - grid[:, None])
    span = len(x) - 1 if len(x) < 30 else int(np.ceil(2 * len(x) / 3)) - 1
    reach = np.maximum(np.partition(distance, span, axis=1)[:, span : span + 1], 1e-300) * 1.0001
    weight = np.clip(1.0 - (distance / reach) ** 3, 0.0, None) ** 3
    total = weight.sum(axis=1)
    x_mean, y_mean = weight @ x / total, weight @ y / total
    dx = x[None, :] - x_mean[:, None]
    spread = (weight * dx**2).sum(axis=1)
    slope = (weight * dx * (y[None, :] - y_mean[:, None])).sum(axis=1) / np.where(spread > 0, spread, 1.0)
    return grid, y_mean + slope * (grid - x_mean)
