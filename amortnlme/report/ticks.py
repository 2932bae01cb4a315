"""Ticks and axis labels as plain lines and texts.

matplotlib keeps five artists per tick and measures them all to place the labels; on a page of small
panels, whose margins are known beforehand, that takes half of the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GRID = "#e6e8eb"
_TICK: dict[str, Any] = {"fontsize": 7.5, "color": "#4b5157"}
_LABEL: dict[str, Any] = {"fontsize": 8.0, "color": "#31363b"}
# Points: distance of tick labels from the frame, of axis labels from it, and the extent of one line or digit.
_GAP, _LABEL_GAP, _LINE, _DIGIT = 3.5, 6.0, 9.2, 4.8


def write_ticks(panel: Axes) -> None:
    """Replace ticks, grid and labels of both axes by lines and texts in the same places.

    Parameters
    ----------
    panel : matplotlib.axes.Axes
        Finished otherwise: its limits, locators and formatters are read now.
    """
    _horizontal(panel)
    _vertical(panel)


def _shown(axis: Any) -> list[tuple[float, str]]:
    """Places and texts of the major ticks inside the view."""
    low, high = sorted(axis.get_view_interval())
    place = axis.get_majorticklocs()
    formatter = axis.get_major_formatter()
    text = formatter.format_ticks(place)
    if formatter.get_offset():
        # The common factor or offset would stand apart, where nobody draws it: write the numbers whole.
        spacing = np.abs(np.diff(place)).min() if len(place) > 1 else 1.0
        n_digits = 1 + int(np.ceil(np.log10(max(np.abs(place).max() / spacing, 1.0))))
        text = [f"{p:.{n_digits}g}" for p in place]
    slack = 1e-6 * (high - low)
    return [(p, t) for p, t in zip(place, text, strict=True) if low - slack <= p <= high + slack]


def _horizontal(panel: Axes) -> None:
    axis, along = panel.xaxis, panel.get_xaxis_transform()
    ticks, settings = _shown(axis), axis.get_tick_params()
    _grid(panel, [((p, 0.0), (p, 1.0)) for p, _ in ticks], along)
    labeled = settings.get("labelbottom", True)
    for p, t in ticks if labeled else ():
        panel.text(p, 0.0, t, transform=along + _shift(panel, 0.0, -_GAP), ha="center", va="top", **_TICK)
    n_lines = max((t.count("\n") + 1 for _, t in ticks), default=0) if labeled else 0
    if axis.get_label_text():
        below = panel.transAxes + _shift(panel, 0.0, -(_LABEL_GAP + _LINE * n_lines))
        panel.text(0.5, 0.0, axis.get_label_text(), transform=below, ha="center", va="top", **_LABEL)
    axis.set_visible(False)


def _vertical(panel: Axes) -> None:
    axis, along = panel.yaxis, panel.get_yaxis_transform()
    ticks, settings = _shown(axis), axis.get_tick_params()
    _grid(panel, [((0.0, p), (1.0, p)) for p, _ in ticks], along)
    labeled = settings.get("labelleft", True)
    for p, t in ticks if labeled else ():
        panel.text(0.0, p, t, transform=along + _shift(panel, -_GAP, 0.0), ha="right", va="center", **_TICK)
    n_digits = max((len(t) for _, t in ticks), default=0) if labeled else 0
    if axis.get_label_text():
        beside = panel.transAxes + _shift(panel, -(_LABEL_GAP + _DIGIT * n_digits), 0.0)
        text = axis.get_label_text()
        panel.text(0.0, 0.5, text, transform=beside, ha="right", va="center", rotation=90, **_LABEL)
    axis.set_visible(False)


def _grid(panel: Axes, lines: list[tuple[tuple[float, float], tuple[float, float]]], along: Any) -> None:
    from matplotlib.collections import LineCollection

    if lines:
        grid = LineCollection(lines, colors=GRID, linewidths=0.6, zorder=0.5, transform=along)
        panel.add_collection(grid, autolim=False)


def _shift(panel: Axes, right: float, up: float) -> Any:
    """Offset in points."""
    from matplotlib.transforms import ScaledTranslation

    return ScaledTranslation(right / 72, up / 72, panel.figure.dpi_scale_trans)
