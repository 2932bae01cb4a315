"""Individual fits: data, individual and population predictions, and the band of the corrected draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from amortnlme.report.figures import (
    DATA,
    INDIVIDUAL,
    POPULATION,
    TREND,
    PanelSize,
    house_style,
    panel_grid,
    shared_legend,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = np.ndarray
_SIZE = PanelSize(
    width=2.04, height=1.35, left=0.5, right=0.12, bottom=0.12, top=0.23, header=0.26, footer=0.24
)


@dataclass(frozen=True, slots=True)
class IndividualCurve:
    """Everything one panel shows.

    Attributes
    ----------
    subject_id : str
    note : str
        Appended to the title, for example the covariates.
    grade : str
        Trust grade ("green", "amber", "red"), or "" where not graded.
    time, ipred, pred, low, high : ndarray, shape (n_grid,)   [time unit, output unit]
    data_time, data : ndarray, shape (n_observations,)
    censored : ndarray of bool, shape (n_observations,)
        Observations below the limit of quantification (drawn as open triangles at the limit).
    dose_time : ndarray, shape (n_doses,)
    """

    subject_id: str
    note: str
    grade: str
    time: Array
    ipred: Array
    pred: Array
    low: Array
    high: Array
    data_time: Array
    data: Array
    censored: Array
    dose_time: Array


@house_style()
def individual_fits(curves: Sequence[IndividualCurve], time_label: str, output_label: str) -> Figure:
    """Draw one panel per subject on common axes.

    Parameters
    ----------
    curves : sequence of IndividualCurve
    time_label, output_label : str

    Returns
    -------
    matplotlib.figure.Figure
        Four panels per row.
    """
    n_columns = min(4, len(curves))
    n_rows = -(-len(curves) // n_columns)
    figure, axes = panel_grid(n_rows, n_columns, _SIZE)
    top = max(_highest(curve) for curve in curves) * 1.06
    bottom = min(0.0, *(float(np.nanmin(curve.low)) for curve in curves))
    right = max(float(curve.time.max()) for curve in curves)
    flat = [panel for line in axes for panel in line]
    for i, (panel, curve) in enumerate(zip(flat, curves, strict=False)):
        panel.fill_between(
            curve.time, curve.low, curve.high, color=INDIVIDUAL, alpha=0.2, lw=0, label="90 % band"
        )
        panel.plot(curve.time, curve.pred, color=POPULATION, ls=(0, (5, 2)), label="PRED")
        panel.plot(curve.time, curve.ipred, color=INDIVIDUAL, label="IPRED at EBE")
        seen = ~curve.censored
        panel.plot(
            curve.data_time[seen], curve.data[seen], "o", ms=4.0, mfc=DATA, mec="white", mew=0.4, label="data"
        )
        if curve.censored.any():
            panel.plot(
                curve.data_time[~seen], curve.data[~seen], "v", ms=4, mfc="none", mec=TREND, label="BLQ"
            )
        inside = curve.dose_time[curve.dose_time <= right]
        panel.plot(
            inside, np.zeros(len(inside)), "|", color=TREND, ms=5, mew=1.3, clip_on=False, label="dose"
        )
        panel.set_xlim(-0.02 * right, right * 1.02)
        panel.set_ylim(bottom, top)
        panel.set_title(curve.subject_id, pad=3)
        if curve.note:
            panel.set_title(curve.note, loc="right", fontsize=7, fontweight="normal", color="#6a7178", pad=3)
        if i % n_columns == 0:
            panel.set_ylabel(output_label)
        else:
            panel.tick_params(labelleft=False)
        if i + n_columns >= len(curves):
            panel.set_xlabel(time_label, labelpad=1.5)
        else:
            panel.tick_params(labelbottom=False)
    for panel in flat[len(curves) :]:
        panel.remove()
    shared_legend(figure, flat[: len(curves)], _SIZE)
    return figure


def _highest(curve: IndividualCurve) -> float:
    parts = [curve.high, curve.data, curve.pred]
    return max(float(np.nanmax(part)) for part in parts if len(part))
