"""Covariate effects as curves with bands over fits, and where the subjects are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from amortnlme.diagnostics.partial_effects import INNER, OUTER, PartialEffect
from amortnlme.report.figures import DATA, INDIVIDUAL, REFERENCE, TREND, PanelSize, house_style, panel_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = Callable[[np.ndarray], np.ndarray]
#: Height of the histogram, as a share of the panel.
HISTOGRAM = 0.16


@house_style()
def partial_effect_curves(
    effects: Sequence[PartialEffect], truth: Mapping[tuple[str, str], Curve] | None = None
) -> Figure:
    """Draw covariate effects side by side: median, 50 % and 90 % bands over fits, subjects below.

    Parameters
    ----------
    effects : sequence of PartialEffect
    truth : mapping of (parameter, covariate) to callable, optional
        Maps covariate values to the true typical values, where these are known.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = panel_grid(1, len(effects), PanelSize(width=3.1, height=2.3))
    for panel, effect in zip(axes[0], effects, strict=True):
        for percentiles, alpha in ((OUTER, 0.2), (INNER, 0.4)):
            low, high = effect.band(percentiles)
            panel.fill_between(effect.grid, low, high, color=INDIVIDUAL, alpha=alpha, lw=0)
        panel.plot(effect.grid, effect.median, color=TREND, label="median of the fits")
        function = (truth or {}).get((effect.parameter, effect.covariate))
        if function is not None:
            panel.plot(effect.grid, function(effect.grid), "--", color=REFERENCE, label="true")
            panel.legend(loc="upper center")
        low, high = panel.get_ylim()
        floor = low - HISTOGRAM * (high - low)
        counts, edges = np.histogram(effect.observed, bins=30, range=(effect.grid[0], effect.grid[-1]))
        heights = counts / max(counts.max(), 1) * 0.9 * (low - floor)
        panel.bar(edges[:-1], heights, np.diff(edges), floor, align="edge", color=DATA, alpha=0.35)
        panel.set_ylim(floor, high)
        unit = f" [{effect.unit}]" if effect.unit else ""
        panel.set(xlabel=effect.covariate, ylabel=f"{effect.parameter}{unit}")
    return figure
