"""Figures of the predictive check, of convergence, and of the calibration and trust page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from amortnlme.report.figures import (
    DATA,
    GOOD,
    INDIVIDUAL,
    POPULATION,
    REFERENCE,
    SERIES,
    TREND,
    PanelSize,
    dot_alpha,
    house_style,
    is_crowded,
    panel_grid,
    shared_legend,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from amortnlme.diagnostics.calibration import Coverage, EcdfDifference
    from amortnlme.diagnostics.trust import SubjectTrust, TrustThresholds
    from amortnlme.diagnostics.vpc import VisualPredictiveCheck

Array = np.ndarray
_VPC_SIZE = PanelSize(width=4.55, height=2.7, header=0.26)
_SIZE = PanelSize(width=2.02, height=1.6)
GRADE_COLOR = {"green": GOOD, "amber": POPULATION, "red": TREND}
# Traces that stay below this are drawn flat, not blown up to the size of rounding errors.
FLAT = 0.01


@house_style()
def predictive_checks(checks: Sequence[VisualPredictiveCheck], time_label: str, output_label: str) -> Figure:
    """Draw visual predictive checks side by side, with a panel below for the censored fraction.

    Parameters
    ----------
    checks : sequence of VisualPredictiveCheck
    time_label, output_label : str

    Returns
    -------
    matplotlib.figure.Figure
        Bands hold the simulated percentiles with the probability of the check; lines are observed
        percentiles.
    """
    censored = any(check.censored is not None for check in checks)
    figure, axes = panel_grid(2 if censored else 1, len(checks), _VPC_SIZE)
    for j, check in enumerate(checks):
        panel = axes[0][j]
        _check_panel(panel, check)
        panel.set_title("Prediction-corrected VPC" if check.prediction_corrected else "VPC")
        label = f"prediction-corrected {output_label}" if check.prediction_corrected else output_label
        panel.set(xlabel=time_label, ylabel=label)
    for j, panel in enumerate(axes[1] if censored else ()):
        if j > 0:
            panel.remove()  # prediction correction does not change what is below the limit
            continue
        _censored_panel(panel, checks[0])
        panel.set(title="Below the limit of quantification", xlabel=time_label, ylabel="fraction BLQ")
        panel.set_xlim(axes[0][0].get_xlim())
    shared_legend(figure, axes[0], _VPC_SIZE)
    return figure


def _check_panel(panel: Axes, check: VisualPredictiveCheck) -> None:
    n_levels = len(check.levels)
    middle = n_levels // 2
    seen = check.value[np.isfinite(check.value)]
    ends = np.concatenate([check.lower[np.isfinite(check.lower)], seen])
    bottom = min(0.0, float(ends.min(initial=0.0)))
    for k in range(n_levels):
        color = TREND if k == middle else INDIVIDUAL
        name = None
        if k == middle:
            name = "simulated median"
        elif k == 0:
            name = f"simulated {100 * check.levels[0]:g}th, {100 * check.levels[-1]:g}th percentile"
        # A band that reaches below the limit of quantification is drawn down to the axis.
        low = np.where(np.isneginf(check.lower[k]) & np.isfinite(check.upper[k]), bottom, check.lower[k])
        panel.fill_between(check.center, low, check.upper[k], color=color, alpha=0.2, lw=0,
                           label=f"{name} ({100 * check.band:g} % band)" if name else None)  # fmt: skip
    panel.plot(
        check.time,
        check.value,
        "o",
        ms=2.8,
        mfc=DATA,
        mec="none",
        alpha=dot_alpha(len(check.time), 0.4),
        label="observations",
        rasterized=is_crowded(check.time),
    )
    for k in range(n_levels):
        style = "-" if k == middle else (0, (4, 2))
        label = {middle: "observed median", 0: "observed outer percentiles"}.get(k)
        line = np.where(np.isfinite(check.observed[k]), check.observed[k], np.nan)
        panel.plot(check.center, line, color=DATA, lw=1.4, ls=style, label=label)
    high = max(float(seen.max(initial=0.0)), float(check.upper[np.isfinite(check.upper)].max(initial=0.0)))
    panel.set_ylim(bottom, 1.05 * high if high > bottom else bottom + 1.0)
    for edge in check.edges:
        panel.plot([edge, edge], [0.0, 0.02], color=REFERENCE, lw=0.8, transform=panel.get_xaxis_transform())


def _censored_panel(panel: Axes, check: VisualPredictiveCheck) -> None:
    if check.censored is None:
        return
    observed, low, middle, high = check.censored
    panel.fill_between(check.center, low, high, color=GOOD, alpha=0.25, lw=0)
    panel.plot(check.center, middle, color=GOOD, lw=1.2)
    panel.plot(check.center, observed, "o-", color=DATA, lw=1.2, ms=3.5)
    top = min(1.02, max(0.1, 1.25 * float(np.nanmax(check.censored))))
    panel.set_ylim(-0.02 * top, top)


@house_style()
def calibration_figure(
    names: Sequence[str], ecdf: EcdfDifference | None, coverage: Coverage | None
) -> Figure:
    """Draw the SBC rank check and the coverage of credible intervals, one column per parameter.

    Parameters
    ----------
    names : sequence of str, length n_params
    ecdf : EcdfDifference or None
    coverage : Coverage or None

    Returns
    -------
    matplotlib.figure.Figure
        Top: ECDF difference with its simultaneous band; bottom: empirical against nominal coverage.
    """
    n_columns = min(len(names), 5)
    blocks = -(-len(names) // n_columns)
    kinds = [kind for kind, part in (("ecdf", ecdf), ("coverage", coverage)) if part is not None]
    figure, axes = panel_grid(len(kinds) * blocks, n_columns, _SIZE)
    used = set()
    for i, name in enumerate(names):
        for k, kind in enumerate(kinds):
            row, column = (i // n_columns) * len(kinds) + k, i % n_columns
            used.add((row, column))
            panel = axes[row][column]
            if kind == "ecdf" and ecdf is not None:
                _ecdf_panel(panel, ecdf, i)
            elif coverage is not None:
                _coverage_panel(panel, coverage, i)
            panel.set_title(name)
            if column == 0:
                panel.set_ylabel("ECDF difference" if kind == "ecdf" else "empirical coverage")
            panel.set_xlabel("normalized rank" if kind == "ecdf" else "nominal coverage")
    for row, line in enumerate(axes):
        for column, panel in enumerate(line):
            if (row, column) not in used:
                panel.remove()
    return figure


def _ecdf_panel(panel: Axes, ecdf: EcdfDifference, i: int) -> None:
    panel.axhline(0.0, color=REFERENCE, lw=0.9, zorder=1)
    panel.fill_between(ecdf.level, ecdf.lower, ecdf.upper, color=REFERENCE, alpha=0.3, lw=0, step="mid")
    panel.plot(
        ecdf.level, ecdf.difference[i], color=INDIVIDUAL if ecdf.inside[i] else TREND, drawstyle="steps-mid"
    )
    reach = 1.25 * max(float(np.abs(ecdf.upper).max()), float(np.abs(ecdf.difference[i]).max()))
    panel.set_xlim(0.0, 1.0)
    panel.set_ylim(-reach, reach)


def _coverage_panel(panel: Axes, coverage: Coverage, i: int) -> None:
    low, high = max(0.0, float(coverage.nominal.min()) - 0.12), 1.02
    panel.plot([low, high], [low, high], color=REFERENCE, lw=1.0, zorder=1)
    gap = np.stack([coverage.empirical[i] - coverage.lower[i], coverage.upper[i] - coverage.empirical[i]])
    panel.errorbar(
        coverage.nominal, coverage.empirical[i], yerr=np.maximum(gap, 0.0),
        fmt="o", ms=3.6, color=INDIVIDUAL, ecolor=INDIVIDUAL, elinewidth=1.1, capsize=2,
    )  # fmt: skip
    panel.set_xlim(low, high)
    panel.set_ylim(low, high)


@house_style()
def trust_figure(subjects: Sequence[SubjectTrust], limits: TrustThresholds) -> Figure:
    """Draw effective sample share and Pareto k-hat of every subject against their limits.

    Parameters
    ----------
    subjects : sequence of SubjectTrust
    limits : TrustThresholds

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = panel_grid(1, 2, PanelSize(width=4.55, height=1.5, left=0.52, right=0.12))
    position = np.arange(len(subjects))
    colors = [GRADE_COLOR[str(subject.grade)] for subject in subjects]
    series = (
        (
            axes[0][0],
            [s.ess_share for s in subjects],
            limits.ess_green,
            limits.ess_red,
            "Effective share of draws",
            "ESS / M",
        ),
        (
            axes[0][1],
            [s.pareto_k for s in subjects],
            limits.khat_green,
            limits.khat_red,
            "Pareto k-hat",
            "k-hat",
        ),
    )
    for panel, value, green, red, title, label in series:
        panel.scatter(position, value, s=22, c=colors, linewidths=0, zorder=3)
        panel.axhline(green, color=GRADE_COLOR["green"], lw=1.0, ls=(0, (4, 2)))
        panel.axhline(red, color=GRADE_COLOR["red"], lw=1.0, ls=(0, (4, 2)))
        panel.set(title=title, ylabel=label, xlabel="subject")
        if len(subjects) <= 40:
            panel.set_xticks(position, [s.subject_id for s in subjects])
    axes[0][0].set_ylim(0.0, 1.05)
    finite = [s.pareto_k for s in subjects if np.isfinite(s.pareto_k)]
    axes[0][1].set_ylim(min(-0.3, *finite, 0.0), max(1.15, *finite, 0.0))
    return figure


@house_style()
def traces(series: Mapping[str, Mapping[str, Array]]) -> Figure:
    """Draw convergence traces, one panel per quantity and one line per fit.

    Parameters
    ----------
    series : mapping of quantity -> mapping of fit label -> ndarray, shape (n_points,)
        A quantity is written "title|label of the horizontal axis".

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.ticker import MaxNLocator

    n_columns = min(2, len(series))
    size = PanelSize(width=4.55, height=1.6, header=0.26)
    figure, axes = panel_grid(-(-len(series) // n_columns), n_columns, size)
    flat = [panel for line in axes for panel in line]
    labels = list(dict.fromkeys(label for lines in series.values() for label in lines))
    for panel, (quantity, lines) in zip(flat, series.items(), strict=False):
        for label, value in lines.items():
            color = SERIES[labels.index(label) % len(SERIES)]
            panel.plot(
                np.arange(1, len(value) + 1), value, color=color, lw=1.2, marker="o", ms=2.2, label=label
            )
        title, _, label = quantity.partition("|")
        panel.set(title=title, xlabel=label)
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if max(float(np.max(value)) for value in lines.values()) < FLAT:
            panel.set_ylim(-0.05 * FLAT, FLAT)
    for panel in flat[len(series) :]:
        panel.remove()
    shared_legend(figure, flat[: len(series)], size)
    return figure
