"""Figures of joint laws: pairs of effects, correlations, information between endpoints, gains of families."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from amortnlme.report.figures import INDIVIDUAL, REFERENCE, SERIES, TREND, PanelSize, house_style, panel_grid
from amortnlme.report.numbers import fixed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from amortnlme.methods.joint_fit import FamilyResult

Array = np.ndarray
_PAGE_INCHES = 10.64


@house_style()
def dependence_pairs(draws: Array, names: Sequence[str], means: Array | None, most: int = 12) -> Figure:
    """Scatter draws of a joint law for the pairs of effects that depend most on each other.

    Parameters
    ----------
    draws : ndarray, shape (n, d)
        In standard deviations of the separate fits.
    names : sequence of str, length d
    means : ndarray, shape (n_subjects, d), or None
        Conditional means of subjects, in the same units.
    most : int
        Pairs shown, four per row.

    Returns
    -------
    matplotlib.figure.Figure
    """
    strength = {(i, j): _dependence(draws[:, i], draws[:, j]) for j in range(len(names)) for i in range(j)}
    pairs = sorted(strength, key=lambda pair: -strength[pair])[:most]
    n_columns = min(4, len(pairs))
    size = PanelSize(width=_PAGE_INCHES / 4 - 0.64, height=1.6)
    figure, axes = panel_grid(-(-len(pairs) // n_columns), n_columns, size)
    flat = [panel for line in axes for panel in line]
    for panel, (i, j) in zip(flat, pairs, strict=False):
        panel.axhline(0.0, color=REFERENCE, lw=0.8, zorder=1)
        panel.axvline(0.0, color=REFERENCE, lw=0.8, zorder=1)
        panel.plot(
            draws[:, i], draws[:, j], "o", ms=2.4, mfc=REFERENCE, mec="none", alpha=0.35, rasterized=True
        )
        if means is not None:
            panel.plot(means[:, i], means[:, j], "o", ms=2.8, mfc=INDIVIDUAL, mec="none", alpha=0.7)
        panel.set(xlim=(-3.4, 3.4), ylim=(-3.4, 3.4), xlabel=f"η {names[i]}", ylabel=f"η {names[j]}")
        text = f"r = {fixed(float(np.corrcoef(draws[:, i], draws[:, j])[0, 1]))}"
        panel.set_title(text, loc="right", fontsize=7, fontweight="normal", color="#6a7178")
    for panel in flat[len(pairs) :]:
        panel.remove()
    return figure


def _dependence(x: Array, y: Array) -> float:
    """Largest correlation of the values, of their sizes, and of one's value with the other's size."""
    forms = [(x, y), (np.abs(x), np.abs(y)), (x, np.abs(y)), (np.abs(x), y)]
    return max(abs(float(np.corrcoef(a, b)[0, 1])) for a, b in forms)


@house_style()
def matrix_picture(
    values: Array, rows: Sequence[str], columns: Sequence[str], title: str, *, signed: bool
) -> Figure:
    """Draw a matrix as colored squares with its numbers.

    Parameters
    ----------
    values : ndarray, shape (n_rows, n_columns)
        NaN stays white.
    rows, columns : sequence of str
    title : str
    signed : bool
        Colors from -1 to 1 around white; otherwise from 0 to 1.

    Returns
    -------
    matplotlib.figure.Figure
    """
    n, m = values.shape
    longest = max(len(name) for name in rows)
    size = PanelSize(
        width=0.62 * m, height=0.34 * n, left=0.25 + 0.085 * longest, bottom=0.25 + 0.06 * longest, right=0.2
    )
    figure, axes = panel_grid(1, 1, size)
    panel = axes[0][0]
    panel.pcolormesh(
        np.ma.masked_invalid(values[::-1]),
        cmap="RdBu_r" if signed else "Blues",
        vmin=-1.0 if signed else 0.0,
        vmax=1.0,
        edgecolor="white",
        linewidth=1.0,
    )
    for i in range(n):
        for j in range(m):
            value = float(values[i, j])
            if np.isfinite(value):
                color = "white" if abs(value) > 0.6 else "#31363b"
                panel.text(
                    j + 0.5, n - i - 0.5, fixed(value), ha="center", va="center", fontsize=7, color=color
                )
    panel.set_xticks(np.arange(m) + 0.5, list(columns), rotation=30, ha="right")
    panel.set_yticks(np.arange(n) + 0.5, list(rows)[::-1])
    panel.set_title(title)
    for spine in panel.spines.values():
        spine.set_visible(False)
    return figure


@house_style()
def family_gains(results: Sequence[FamilyResult]) -> Figure:
    """Draw the gain over independence of every family, per subject set, with Monte-Carlo errors.

    Parameters
    ----------
    results : sequence of FamilyResult

    Returns
    -------
    matplotlib.figure.Figure
    """
    has_held_out = not all(np.isnan(r.held_out_gain) for r in results)
    size = PanelSize(width=3.6, height=0.26 * len(results) + 0.2, left=1.35, right=0.35, bottom=0.5, top=0.3)
    figure, axes = panel_grid(1, 1 + has_held_out, size)
    position = np.arange(len(results))[::-1]
    sets = [("training subjects", [(r.train_gain, r.train_se) for r in results])]
    if has_held_out:
        sets.append(("held-out subjects", [(r.held_out_gain, r.held_out_se) for r in results]))
    for panel, (title, pairs), color in zip(axes[0], sets, (SERIES[0], TREND), strict=False):
        gain, se = np.array(pairs).T
        panel.barh(position, gain, color=color, alpha=0.75, height=0.6)
        panel.errorbar(gain, position, xerr=2.0 * se, fmt="none", ecolor="#31363b", lw=1.0, capsize=2.0)
        panel.axvline(0.0, color=REFERENCE, lw=0.9)
        panel.set_yticks(position, [r.family for r in results])
        panel.set(title=title, xlabel="gain over independent endpoints [nats]")
    return figure
