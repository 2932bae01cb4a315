"""Pictures of a covariate selection: inclusion matrix, ranking, path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from amortnlme.methods.selection import Selection
from amortnlme.report.figures import DATA, INDIVIDUAL, REFERENCE, house_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Steps of a path and models of a ranking that one picture can hold.
MOST_STEPS, MOST_MODELS = 60, 20


def draw_matrix(selection: Selection) -> Figure:
    """Draw which covariates act on which parameters, and how often searches said so.

    Parameters
    ----------
    selection : Selection

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    pairs = [name.split("~") for name in selection.relations]
    parameters = list(dict.fromkeys(p for p, _ in pairs))
    covariates = list(dict.fromkeys(c for _, c in pairs))
    inside = set(selection.chosen) | set(selection.forced)
    with house_style():
        figure = Figure(
            figsize=(1.6 + 1.05 * len(covariates), 0.8 + 0.55 * len(parameters)), layout="constrained"
        )
        axes = figure.add_subplot()
        for name, (parameter, covariate) in zip(selection.relations, pairs, strict=True):
            x, y = covariates.index(covariate), parameters.index(parameter)
            shares = [s[name] for s in selection.frequencies.values() if name in s]
            fill = INDIVIDUAL if name in inside else "white"
            edge = DATA if name in selection.forced else REFERENCE
            axes.add_patch(Rectangle((x - 0.46, y - 0.42), 0.92, 0.84, facecolor=fill, edgecolor=edge))
            text = " / ".join(f"{100 * share:.0f} %" for share in shares)
            if name in selection.forced:
                text = "forced"
            color = "white" if name in inside else DATA
            axes.text(x, y, text, ha="center", va="center", color=color, fontsize=7.5)
        axes.set_xlim(-0.6, len(covariates) - 0.4)
        axes.set_ylim(len(parameters) - 0.4, -0.6)
        axes.set_xticks(range(len(covariates)), covariates)
        axes.set_yticks(range(len(parameters)), parameters)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure


def draw_ranking(selection: Selection) -> Figure:
    """Draw how far the judged models are behind the best one.

    Parameters
    ----------
    selection : Selection
        With at least one score.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    scores = selection.scores[:MOST_MODELS]
    best = scores[0]
    with house_style():
        figure = Figure(figsize=(7.5, 0.6 + 0.22 * len(scores)), layout="constrained")
        axes = figure.add_subplot()
        for place, score in enumerate(scores):
            error = 2.0 * float(np.hypot(np.nan_to_num(score.ofv_se), np.nan_to_num(best.ofv_se)))
            tie = score.ties_with(best)
            axes.errorbar(
                score.bicc - best.bicc,
                place,
                xerr=error if place else 0.0,
                marker="o",
                markersize=4.5,
                color=INDIVIDUAL,
                markerfacecolor=INDIVIDUAL if tie else "white",
                elinewidth=1.0,
            )
        axes.axvline(2.0, linestyle="--", linewidth=0.8, color=REFERENCE)
        axes.set_yticks(range(len(scores)), [", ".join(s.chosen) or "none" for s in scores])
        axes.set_ylim(len(scores) - 0.5, -0.5)
        axes.set_xlabel("BICc above the best model")
    return figure


def draw_path(selection: Selection) -> Figure:
    """Draw the relations in every model of the search, and the criterion below.

    Parameters
    ----------
    selection : Selection
        With at least one step.

    Returns
    -------
    matplotlib.figure.Figure
        The last MOST_STEPS models of a longer search.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    steps = selection.steps[-MOST_STEPS:]
    shown = [n for n in selection.relations if any(n in s.chosen for s in steps)] or list(selection.relations)
    first = len(selection.steps) - len(steps) + 1
    number = np.arange(first, first + len(steps))
    with house_style():
        height = 0.22 * len(shown) + 0.3
        figure = Figure(figsize=(7.5, height + 1.7), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[height, 1.3])
        for place, name in enumerate(shown):
            there = [k for k, step in zip(number, steps, strict=True) if name in step.chosen]
            color = INDIVIDUAL if name in selection.found else REFERENCE
            top.plot(there, [place] * len(there), "s", markersize=4.5, color=color)
        top.set_yticks(range(len(shown)), shown)
        top.set_ylim(len(shown) - 0.5, -0.5)
        bottom.plot(number, [step.criterion for step in steps], "-o", markersize=3, color=DATA)
        bottom.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        bottom.set_xlabel("model")
        bottom.set_ylabel("criterion")
    return figure
