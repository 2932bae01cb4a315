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
    house_style,
    local_trend,
    panel_grid,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray
_SIZE = PanelSize(width=2.02, height=1.78)


@house_style()
def goodness_of_fit(rows: pd.DataFrame, time_label: str, output_label: str) -> Figure:
    """Draw the eight standard goodness-of-fit panels of one fit.

    Parameters
    ----------
    rows : pandas.DataFrame
        Columns TIME, DV, PRED, IPRED, IWRES, CWRES, NPDE as `diagnostics.row_table` gives.
    time_label, output_label : str
        Axis texts with units.

    Returns
    -------
    matplotlib.figure.Figure
        Top: DV against PRED and IPRED, |IWRES| against IPRED, normal QQ of CWRES and NPDE. Bottom:
        CWRES and NPDE against time and PRED.
    """
    time, dv = rows["TIME"].to_numpy(float), rows["DV"].to_numpy(float)
    pred, ipred = rows["PRED"].to_numpy(float), rows["IPRED"].to_numpy(float)
    iwres, cwres = rows["IWRES"].to_numpy(float), rows["CWRES"].to_numpy(float)
    npde = rows["NPDE"].to_numpy(float)
    figure, axes = panel_grid(2, 4, _SIZE)
    _against_identity(axes[0][0], pred, dv, POPULATION)
    axes[0][0].set(title="Population", xlabel=f"PRED, {output_label}", ylabel=f"DV, {output_label}")
    _against_identity(axes[0][1], ipred, dv, INDIVIDUAL)
    axes[0][1].set(title="Individual", xlabel=f"IPRED, {output_label}", ylabel=f"DV, {output_label}")
    _scatter(axes[0][2], ipred, np.abs(iwres))
    axes[0][2].set(title="Residual error model", xlabel=f"IPRED, {output_label}", ylabel="|IWRES|")
    axes[0][2].set_ylim(bottom=0.0)
    _normal_quantiles(axes[0][3], {"CWRES": cwres, "NPDE": npde})
    panels = (
        ("CWRES", cwres, time, time_label),
        ("CWRES", cwres, pred, f"PRED, {output_label}"),
        ("NPDE", npde, time, time_label),
        ("NPDE", npde, pred, f"PRED, {output_label}"),
    )
    for panel, (name, value, x, label) in zip(axes[1], panels, strict=True):
        _residual_panel(panel, x, value)
        panel.set(title=f"{name} vs {'time' if x is time else 'PRED'}", xlabel=label, ylabel=name)
    return figure


def _scatter(panel: Axes, x: Array, y: Array) -> None:
    panel.plot(x, y, "o", ms=3.2, mfc=DATA, mec="none", alpha=0.55)
    grid, trend = local_trend(x, y)
    if len(grid):
        panel.plot(grid, trend, color=TREND, lw=1.6)


def _against_identity(panel: Axes, prediction: Array, dv: Array, color: str) -> None:
    both = np.concatenate([prediction[np.isfinite(prediction)], dv[np.isfinite(dv)]])
    low, high = min(0.0, float(both.min())), float(both.max()) * 1.04
    panel.plot([low, high], [low, high], color=REFERENCE, lw=1.0, zorder=1)
    panel.plot(prediction, dv, "o", ms=3.2, mfc=color, mec="none", alpha=0.7)
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


def _normal_quantiles(panel: Axes, residuals: dict[str, Array]) -> None:
    reach = 3.2
    for (name, value), color in zip(residuals.items(), (INDIVIDUAL, TREND), strict=False):
        ordered = np.sort(value[np.isfinite(value)])
        if len(ordered) == 0:
            continue
        expected = ndtri((np.arange(1, len(ordered) + 1) - 0.5) / len(ordered))
        panel.plot(expected, ordered, "o", ms=2.8, mfc=color, mec="none", alpha=0.7, label=name)
        reach = max(reach, 1.08 * float(np.abs(ordered).max()))
    panel.plot([-reach, reach], [-reach, reach], color=REFERENCE, lw=1.0, zorder=1)
    panel.set_xlim(-3.2, 3.2)
    panel.set_ylim(-reach, reach)
    panel.legend(loc="upper left", borderaxespad=0.1, handletextpad=0.1, labelspacing=0.2)
    panel.set(title="Normal QQ", xlabel="normal quantile", ylabel="CWRES, NPDE")
