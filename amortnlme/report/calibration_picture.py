"""The calibration of an estimator as one picture, kept in its artefact beside the record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from amortnlme.diagnostics.calibration import coverage_from_ranks, ecdf_difference
from amortnlme.report.figures import to_png
from amortnlme.report.plots_checks import calibration_figure


def calibration_png(record: Mapping[str, Any]) -> bytes:
    """Draw ranks and coverage of every parameter.

    Parameters
    ----------
    record : mapping
        Content of calibration.json.

    Returns
    -------
    bytes
        A PNG file; the same record gives the same bytes with the same version of matplotlib.
    """
    ranks, n_draws = np.asarray(record["ranks"]), int(record["n_draws"])
    figure = calibration_figure(
        list(record["parameters"]), ecdf_difference(ranks, n_draws), coverage_from_ranks(ranks, n_draws)
    )
    return to_png(figure)
