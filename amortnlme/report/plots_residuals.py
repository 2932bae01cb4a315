"""Goodness-of-fit figures: observations against predictions, residuals against time and prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from amortnlme.report.figures import (
    DATA,
    INDIVIDUAL,
    POPULATION,
    REFERENCE,
    TREND,
    PanelSize,
    dot_alpha,
    house_style,
    is_crowded,
    local_trend,
    panel_grid,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray
_SIZE = PanelSize(width=2.02, height=1.62, bottom=0.44)
# Residuals in the order of the rows, with the prediction they are drawn against.
_ORDER = {"NPDE": "PRED", "IWRES": "IPRED", "CWRES": "PRED"}


@house_style()
def goodness_of_fit(rows: pd.DataFrame, time_label: str, output_label: str) -> Figure:
    """Draw the twelve standard goodness-of-fit panels of one fit.

    Parameters
    ----------
    rows : pandas.DataFrame
        Columns TIME, DV, PRED, IPRED, IWRES, CWRES, NPDE as `diagnostics.row_table` gives.
    time_label, output_label : str
        Axis texts with units.

    Returns
    -------
    matplotlib.figure.Figure
        First column: DV against PRED and IPRED, |IWRES| against IPRED. Then a row each of NPDE, IWRES, CWRES:
        against time, against the prediction they belong to, and in a normal QQ plot.
    """
    columns = {name: rows[name].to_numpy(float) for name in ("TIME", "DV", "PRED", "IPRED", *_ORDER)}
    figure, axes = panel_grid(3, 4, _SIZE)
    for panel, (name, title, color) in zip(
        (axes[0][0], axes[1][0]),
        (("PRED", "Population", POPULATION), ("IPRED", "Individual", INDIVIDUAL)),
        strict=True,
    ):
        _against_identity(panel, columns[name], columns["DV"], color)
        panel.set(title=title, xlabel=f"{name}, {output_label}", ylabel=f"DV, {output_label}")
    spread = axes[2][0]
    _scatter(spread, columns["IPRED"], np.abs(columns["IWRES"]))
    spread.set(title="Residual error model", xlabel=f"IPRED, {output_label}", ylabel="|IWRES|")
    spread.set_ylim(bottom=0.0)
    for line, (name, prediction) in zip(axes, _ORDER.items(), strict=True):
        residual = columns[name]
        _residual_panel(line[1], columns["TIME"], residual)
        line[1].set(title=f"{name} vs time", xlabel=time_label, ylabel=name)
        _residual_panel(line[2], columns[prediction], residual)
        line[2].set(title=f"{name} vs {prediction}", xlabel=f"{prediction}, {output_label}", ylabel=name)
        _normal_quantiles(line[3], residual)
        line[3].set(title=f"{name}, normal QQ", xlabel="normal quantile", ylabel=name)
    return figure


def _scatter(panel: Axes, x: Array, y: Array) -> None:
    panel.plot(
        x, y, "o", ms=3.2, mfc=DATA, mec="none", alpha=dot_alpha(len(x), 0.55), rasterized=is_crowded(x)
    )
    grid, trend = local_trend(x, y)
    if len(grid):
        panel.plot(grid, trend, color=TREND, lw=1.6)


def _against_identity(panel: Axes, prediction: Array, dv: Array, color: str) -> None:
    both = np.concatenate([prediction[np.isfinite(prediction)], dv[np.isfinite(dv)]])
    low, high = min(0.0, float(both.min())), float(both.max()) * 1.04
    panel.plot([low, high], [low, high], color=REFERENCE, lw=1.0, zorder=1)
    panel.plot(
        prediction,
        dv,
        "o",
        ms=3.2,
        mfc=color,
        mec="none",
        alpha=dot_alpha(len(dv), 0.7),
        rasterized=is_crowded(dv),
    )
    grid, trend = local_trend(prediction, dv)
    if len(grid):
        panel.plot(grid, trend, color=TREND, lw=1.6)
    panel.set_xlim(low, high)
    panel.set_ylim(low, high)


def _residual_panel(panel: Axes, x: Array, residual: Array) -> None:
    panel.axhline(0.0, color=REFERENCE, lw=1.0, zorder=1)
    for level in (-1.96, 1.96):
        panel.axhline(level, color=REFERENCE, lw=0.8, ls=(0, (4, 3)), zorder=1)
    _scatter(panel, x, residual)
    reach = max(3.2, 1.08 * float(np.nanmax(np.abs(residual)))) if np.isfinite(residual).any() else 3.2
    panel.set_ylim(-reach, reach)


def _normal_quantiles(panel: Axes, residual: Array) -> None:
    ordered = np.sort(residual[np.isfinite(residual)])
    expected = ndtri((np.arange(1, len(ordered) + 1) - 0.5) / max(len(ordered), 1))
    reach = max(3.2, 1.08 * float(np.abs(ordered).max(initial=0.0)))
    panel.plot([-reach, reach], [-reach, reach], color=REFERENCE, lw=1.0, zorder=1)
    panel.plot(
        expected, ordered, "o", ms=3.2, mfc=DATA, mec="none", alpha=0.55, rasterized=is_crowded(ordered)
    )
    panel.set_xlim(-3.2, 3.2)
    panel.set_ylim(-reach, reach)
