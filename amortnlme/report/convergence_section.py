"""Convergence: starts, stages, and how far the optimum still moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from amortnlme.report.content import Cell, Picture, Table, cells, picture, row
from amortnlme.report.numbers import MISSING, fixed, significant
from amortnlme.report.plots_checks import traces

if TYPE_CHECKING:
    from amortnlme.methods.population_fit import PopulationFit


def convergence_section(fits: Sequence[PopulationFit], labels: Sequence[str]) -> dict[str, Any]:
    """Collect the contents of the convergence section.

    Parameters
    ----------
    fits : sequence of PopulationFit
    labels : sequence of str

    Returns
    -------
    dict
        For the template.
    """
    return {"table": _table(fits, labels), "figures": _figures(fits, labels)}


def _table(fits: Sequence[PopulationFit], labels: Sequence[str]) -> Table:
    rows = []
    for fit, label in zip(fits, labels, strict=True):
        quality = fit.quality
        ess, khat = np.asarray(quality.ess, float), np.asarray(quality.pareto_k, float)
        known = np.isfinite(ess).any()
        evaluations = sum(int(stage.get("n_evaluations", 0)) for stage in fit.trace)
        rows.append(
            row(
                [
                    label,
                    Cell(str(fit.status), tag=str(fit.status)),
                    str(len(fit.trace)),
                    str(evaluations) if evaluations else MISSING,
                    significant(quality.gradient_norm, 2),
                    significant(quality.mc_shift, 2),
                    significant(quality.surrogate_shift, 2),
                    fixed(float(np.nanmin(ess)) / quality.n_points)
                    if known and quality.n_points
                    else MISSING,
                    fixed(float(np.nanmax(khat))) if np.isfinite(khat).any() else MISSING,
                ]
            )
        )
    header = cells(
        [
            "Fit",
            "Status",
            "Stages",
            "Evaluations",
            Cell("Gradient", "in SE"),
            Cell("Last move", "in SE"),
            Cell("Correction", "in SE"),
            Cell("Smallest ESS", "share of points"),
            Cell("Largest", "k-hat"),
        ]
    )
    caption = (
        "Gradient: largest entry at the solution, in standard errors. Last move: change of the"
        " estimates when the"
        " importance points were placed anew. Correction: largest change from the network's"
        " draws to the exact"
        " likelihood. ESS and k-hat belong to the independent evaluation of −2LL."
    )
    return Table(header, tuple(rows), frozenset({0, 1}), caption=caption)


def _figures(fits: Sequence[PopulationFit], labels: Sequence[str]) -> list[Picture]:
    starts: dict[str, np.ndarray] = {}
    path: dict[str, np.ndarray] = {}
    for fit, label in zip(fits, labels, strict=True):
        for stage in fit.trace:
            value = np.sort(np.asarray(stage.get("start_objectives", ()), dtype=np.float64))
            value = value[np.isfinite(value)]
            if len(value) > 1:
                starts[label] = value - value[0]
        points = [np.asarray(stage["x"], dtype=np.float64) for stage in fit.trace if "x" in stage]
        if len(points) > 1:
            path[label] = _distance(points, fit)
    series = {}
    if starts:
        series["Starts: objective above the best|start, sorted"] = starts
    if path:
        series["Largest distance to the final estimates, in SE|stage"] = path
    if not series:
        return []
    text = (
        "Left: objective of every start of the first stage, sorted (a flat beginning means that"
        " many starts found"
        " the same optimum). Right: largest distance of the estimates from their final values,"
        " stage by stage."
    )
    return [picture(traces(series), "convergence", text)]


def _distance(points: Sequence[np.ndarray], fit: PopulationFit) -> np.ndarray:
    """Largest distance from the final x in standard errors, or relative to |x| where there are none."""
    final = np.asarray(fit.x, dtype=np.float64)
    if fit.covariance is None:
        scale = np.maximum(np.abs(final), 0.1)
    else:
        scale = np.sqrt(np.maximum(np.diagonal(fit.covariance), 1e-12))
    return np.array([float(np.max(np.abs(point - final) / scale)) for point in points])
