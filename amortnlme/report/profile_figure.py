"""Picture of profile likelihoods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.stats import chi2

from amortnlme.methods.profiles import Profile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

N_COLUMNS = 3


def draw_profiles(profiles: Sequence[Profile]) -> Figure:
    """Draw -2 log-likelihood over its minimum against every profiled parameter.

    Parameters
    ----------
    profiles : sequence of Profile

    Returns
    -------
    matplotlib.figure.Figure
        A dashed line per confidence level, vertical lines at the ends of the widest interval.
    """
    from matplotlib.figure import Figure

    from amortnlme.report.figures import house_style

    n_rows = -(-len(profiles) // N_COLUMNS)
    with house_style():
        figure = Figure(figsize=(9.0, 2.6 * n_rows), layout="constrained")
        for number, profile in enumerate(profiles, start=1):
            axes = figure.add_subplot(n_rows, min(N_COLUMNS, len(profiles)), number)
            axes.plot(*_curve(profile))
            axes.plot(profile.value, profile.loss, "o", markersize=3, color="C0")
            axes.axvline(profile.estimate, linewidth=0.8, color="0.4")
            for level, ends in profile.intervals.items():
                axes.axhline(float(chi2.ppf(level, 1)), linestyle="--", linewidth=0.7, color="0.5")
                axes.annotate(
                    f"{100 * level:g} %",
                    (0.52, float(chi2.ppf(level, 1))),
                    xycoords=("axes fraction", "data"),
                    ha="left",
                    va="bottom",
                    fontsize="x-small",
                    color="0.4",
                )
                for end in ends:
                    if np.isfinite(end):
                        axes.plot(end, 0.0, marker="|", markersize=9, color="0.3", clip_on=False)
            axes.set_xlabel(profile.name)
            axes.set_ylim(0.0, max(1.35 * float(chi2.ppf(max(profile.intervals), 1)), 1.0))
            if number % N_COLUMNS == 1:
                axes.set_ylabel("-2LL over its minimum")
    return figure


def _curve(profile: Profile) -> tuple[np.ndarray, np.ndarray]:
    """Smooth curve through the points: the signed root of the loss is nearly straight, the loss is not."""
    root = np.sqrt(profile.loss) * np.sign(profile.value - profile.estimate)
    grid = np.linspace(profile.value[0], profile.value[-1], 200)
    return grid, PchipInterpolator(profile.value, root)(grid) ** 2
