"""Random-effect figures: distribution, dependence on covariates, pairs; and estimates across fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from amortnlme.report.figures import (
    DATA,
    INDIVIDUAL,
    REFERENCE,
    SERIES,
    TREND,
    PanelSize,
    house_style,
    is_crowded,
    local_trend,
    panel_grid,
)
from amortnlme.report.numbers import fixed

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from amortnlme.population.estimates import Estimate

Array = np.ndarray
_PAGE_INCHES = 10.64


def _size(n_columns: int) -> PanelSize:
    """Panels that fill the width of the page, never wider than a third of it."""
    return PanelSize(width=_PAGE_INCHES / max(n_columns, 3) - 0.64, height=1.6)


@house_style()
def eta_distribution(eta: Array, omega_sd: Array, names: Sequence[str], shrinkage: Array) -> Figure:
    """Histogram and normal QQ plot of the empirical Bayes estimates of every random effect.

    Parameters
    ----------
    eta : ndarray, shape (n_subjects, n_effects)
    omega_sd : ndarray, shape (n_effects,)
    names : sequence of str, length n_effects
    shrinkage : ndarray, shape (n_effects,)
        Fractions.

    Returns
    -------
    matplotlib.figure.Figure
    """
    n, r = eta.shape
    # Two effects fit side by side with their QQ plots; more go below each other.
    n_rows, n_columns = (1, 2 * r) if r <= 2 else (2, r)
    figure, axes = panel_grid(n_rows, n_columns, _size(n_columns))
    for j, name in enumerate(names):
        reach = 1.1 * max(float(np.abs(eta[:, j]).max()), 2.6 * float(omega_sd[j]), 1e-6)
        top, bottom = (axes[0][2 * j], axes[0][2 * j + 1]) if r <= 2 else (axes[0][j], axes[1][j])
        n_bins = int(np.clip(np.ceil(2.0 * n ** (1 / 3)) + 2, 7, 25))
        top.hist(
            eta[:, j],
            bins=np.linspace(-reach, reach, n_bins + 1).tolist(),
            density=True,
            color=INDIVIDUAL,
            alpha=0.45,
        )
        top.plot(eta[:, j], np.zeros(n), "|", color=DATA, ms=6, mew=0.8)
        if omega_sd[j] > 0:
            grid = np.linspace(-reach, reach, 120)
            density = np.exp(-0.5 * (grid / omega_sd[j]) ** 2) / (omega_sd[j] * np.sqrt(2 * np.pi))
            top.plot(grid, density, color=TREND)
        top.set(title=f"η {name}", xlabel=f"η {name}", ylabel="density" if j == 0 else "")
        text = "shrinkage n/a" if np.isnan(shrinkage[j]) else f"shrinkage {100 * shrinkage[j]:.0f} %"
        _remark(top, text)
        expected = ndtri((np.arange(1, n + 1) - 0.5) / n)
        edge = max(2.2, 1.1 * float(np.abs(expected).max()))
        bottom.plot([-edge, edge], [-edge * omega_sd[j], edge * omega_sd[j]], color=TREND, lw=1.1)
        bottom.plot(
            expected,
            np.sort(eta[:, j]),
            "o",
            ms=3.4,
            mfc=INDIVIDUAL,
            mec="none",
            alpha=0.85,
            rasterized=is_crowded(eta),
        )
        bottom.set(xlabel="normal quantile", ylabel=f"η {name}")
    return figure


@house_style()
def eta_against_covariates(eta: Array, names: Sequence[str], covariates: pd.DataFrame) -> Figure:
    """Scatter of every random effect against every covariate.

    Parameters
    ----------
    eta : ndarray, shape (n_subjects, n_effects)
    names : sequence of str, length n_effects
    covariates : pandas.DataFrame
        One row per subject, in the order of `eta`; a column with at most five distinct values is shown
        as groups.

    Returns
    -------
    matplotlib.figure.Figure
    """
    pairs = [(str(covariate), j) for covariate in covariates.columns for j in range(len(names))]
    # Whole rows of effects, as many covariates side by side as fit four panels.
    figure, flat = _panels(len(pairs), len(names) * max(1, 4 // len(names)))
    for panel, (covariate, j) in zip(flat, pairs, strict=True):
        value = covariates[covariate].to_numpy(float)
        levels = np.unique(value[np.isfinite(value)])
        panel.axhline(0.0, color=REFERENCE, lw=1.0, zorder=1)
        if len(levels) <= 5:
            _groups(panel, value, eta[:, j], levels)
        else:
            panel.plot(
                value,
                eta[:, j],
                "o",
                ms=3.6,
                mfc=INDIVIDUAL,
                mec="none",
                alpha=0.85,
                rasterized=is_crowded(eta),
            )
            grid, trend = local_trend(value, eta[:, j])
            panel.plot(grid, trend, color=TREND, lw=1.6)
            _remark(panel, _correlation(value, eta[:, j]))
        panel.set(xlabel=covariate, ylabel=f"η {names[j]}")
    return figure


def _panels(n: int, n_columns: int) -> tuple[Figure, list[Axes]]:
    """Make n panels row by row, without empty ones at the end."""
    n_columns = min(n, n_columns)
    figure, axes = panel_grid(-(-n // n_columns), n_columns, _size(n_columns))
    flat = [panel for line in axes for panel in line]
    for panel in flat[n:]:
        panel.remove()
    return figure, flat[:n]


def _remark(panel: Axes, text: str) -> None:
    panel.set_title(text, loc="right", fontsize=7, fontweight="normal", color="#6a7178")


def _groups(panel: Axes, value: Array, eta: Array, levels: Array) -> None:
    for position, level in enumerate(levels):
        mine = eta[value == level]
        # A fixed fan instead of random jitter: the same page twice gives the same bytes.
        offset = 0.12 * (((np.arange(len(mine)) * 0.618) % 1.0) - 0.5)
        panel.plot(
            position + offset,
            mine,
            "o",
            ms=3.6,
            mfc=INDIVIDUAL,
            mec="none",
            alpha=0.85,
            rasterized=is_crowded(eta),
        )
        panel.plot([position - 0.22, position + 0.22], [np.median(mine)] * 2, color=TREND, lw=1.8)
    panel.set_xlim(-0.6, len(levels) - 0.4)
    panel.set_xticks(
        range(len(levels)), [f"{level:g}\nn = {int((value == level).sum())}" for level in levels]
    )


def _correlation(x: Array, y: Array) -> str:
    keep = np.isfinite(x) & np.isfinite(y)
    if keep.sum() < 3 or np.ptp(x[keep]) == 0 or np.ptp(y[keep]) == 0:
        return ""
    return f"r = {fixed(float(np.corrcoef(x[keep], y[keep])[0, 1]))}"


@house_style()
def eta_pairs(eta: Array, names: Sequence[str]) -> Figure:
    """Scatter of every pair of random effects.

    Parameters
    ----------
    eta : ndarray, shape (n_subjects, n_effects)
    names : sequence of str, length n_effects >= 2

    Returns
    -------
    matplotlib.figure.Figure
        Up to twelve pairs, four per row.
    """
    pairs = [(i, j) for j in range(len(names)) for i in range(j)][:12]
    figure, flat = _panels(len(pairs), 4)
    for panel, (i, j) in zip(flat, pairs, strict=True):
        panel.axhline(0.0, color=REFERENCE, lw=0.9, zorder=1)
        panel.axvline(0.0, color=REFERENCE, lw=0.9, zorder=1)
        panel.plot(
            eta[:, i],
            eta[:, j],
            "o",
            ms=3.6,
            mfc=INDIVIDUAL,
            mec="none",
            alpha=0.85,
            rasterized=is_crowded(eta),
        )
        panel.set(xlabel=f"η {names[i]}", ylabel=f"η {names[j]}")
        _remark(panel, _correlation(eta[:, i], eta[:, j]))
    return figure


@house_style()
def estimates_across_fits(labels: Sequence[str], estimates: Sequence[Sequence[Estimate]]) -> Figure:
    """Draw the estimates of several fits with their 95 % intervals, one panel per parameter.

    Parameters
    ----------
    labels : sequence of str, length n_fits
    estimates : sequence of sequences of Estimate, length n_fits

    Returns
    -------
    matplotlib.figure.Figure
        Typical values, covariate effects, random-effect SDs and error parameters that at least one fit has.
    """
    shown: dict[str, str] = {}
    for rows in estimates:
        shown.update({e.name: e.unit for e in rows if e.kind != "omega_corr"})
    n_rows = -(-len(shown) // 5)
    n_columns = -(-len(shown) // n_rows)
    height = 0.22 * len(labels) + 0.15
    width = _PAGE_INCHES / max(n_columns, 4) - 0.45
    size = PanelSize(width, height, left=0.12, right=0.33, bottom=0.34, top=0.26, header=0.28)
    figure, axes = panel_grid(n_rows, n_columns, size)
    flat = [panel for line in axes for panel in line]
    for panel, (name, unit) in zip(flat, shown.items(), strict=False):
        for i, (label, rows) in enumerate(zip(labels, estimates, strict=True)):
            found = [e for e in rows if e.name == name]
            color = SERIES[i % len(SERIES)]
            position = len(labels) - 1 - i
            value = found[0].value if found else np.nan
            panel.plot([value], [position], "o", ms=4.5, mfc=color, mec="none", label=label)
            if found and found[0].ci_low is not None and found[0].ci_high is not None:
                panel.plot([found[0].ci_low, found[0].ci_high], [position, position], color=color, lw=1.6)
        panel.set_yticks([])
        panel.spines["left"].set_visible(False)
        panel.set_ylim(-0.6, len(labels) - 0.4)
        symbol = name.replace("omega_", "ω ").replace("beta_", "β ").replace("_", " · ")
        panel.set_title(f"{symbol} ({unit})" if unit else symbol)
    for panel in flat[len(shown) :]:
        panel.remove()
    handles, texts = flat[0].get_legend_handles_labels()
    figure.legend(
        handles, texts, loc="upper left", bbox_to_anchor=(0.0, 1.0), ncols=len(labels),
        borderaxespad=0.15, handletextpad=0.2, columnspacing=1.4,
    )  # fmt: skip
    return figure
