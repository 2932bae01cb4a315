"""Side-by-side comparison of population fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from amortnlme.core.errors import FitError

if TYPE_CHECKING:
    from amortnlme.methods.population_fit import PopulationFit

CRITERIA = ("ofv", "aic", "bic", "bicc")


def compare(fits: Sequence[PopulationFit]) -> pd.DataFrame:
    """Put fits of one dataset side by side, one column per fit.

    Parameters
    ----------
    fits : sequence of PopulationFit
        Fits of the same dataset. They may use different methods, as long as their objective values mean the
        same (`ofv_kind`).

    Returns
    -------
    pandas.DataFrame
        Columns: labels of the fits (see `fit_labels`). Index: MultiIndex (row, quantity), where the
        quantity is "value", "se", "rse_percent", "ci_low", "ci_high" for estimates, "percent" for
        shrinkage, and "value", "delta" for -2LL and the information criteria. `delta` is relative to
        the smallest value in its row.

    Raises
    ------
    FitError
        E_COMPARE_EMPTY, E_COMPARE_DATASET, E_COMPARE_OFV_KIND: objective values of different kinds or
        datasets are never subtracted.
    """
    labels = fit_labels(fits)
    check_comparable(fits)
    columns = [_column(fit) for fit in fits]
    order: dict[tuple[str, str], None] = {}
    for group in ("theta", "beta", "omega_sd", "omega_corr", "sigma", ""):
        for column in columns:
            order.update({key: None for key, (_, kind) in column.items() if kind == group})
    table = {
        label: [column.get(key, (None, ""))[0] for key in order]
        for label, column in zip(labels, columns, strict=True)
    }
    frame = pd.DataFrame(
        table, index=pd.MultiIndex.from_tuples(order, names=["row", "quantity"]), dtype=object
    )
    for name in CRITERIA:
        value = frame.loc[(name, "value")].astype(float)
        frame.loc[(name, "delta"), :] = (value - np.nanmin(value.to_numpy())).to_list()
    return frame


def check_comparable(fits: Sequence[PopulationFit]) -> None:
    """Refuse fits whose objective values must not be subtracted.

    Parameters
    ----------
    fits : sequence of PopulationFit

    Raises
    ------
    FitError
        E_COMPARE_EMPTY, E_COMPARE_DATASET, E_COMPARE_OFV_KIND.
    """
    if len(fits) == 0:
        raise FitError(
            "E_COMPARE_EMPTY", "there is nothing to compare - 0 fits given - pass at least one fit"
        )
    datasets = {_dataset_key(fit): fit for fit in fits}
    if len(datasets) > 1:
        shown = ", ".join(
            f"{fit.population.name!r} on {key[0] or 'a dataset without fingerprint'}"
            for key, fit in datasets.items()
        )
        raise FitError(
            "E_COMPARE_DATASET",
            f"fits of different datasets cannot be compared - {shown} - all fits need the same dataset"
            " - refit them on one dataset",
        )
    kinds = {str(fit.ofv_kind): fit for fit in fits}
    if len(kinds) > 1:
        shown = ", ".join(f"{fit.population.name!r}: {kind}" for kind, fit in kinds.items())
        raise FitError(
            "E_COMPARE_OFV_KIND",
            f"objective values of different kinds cannot be subtracted - {shown} - all fits need one kind"
            " - evaluate them by the same referee, or compare in separate calls",
        )


def fit_labels(fits: Sequence[PopulationFit]) -> tuple[str, ...]:
    """Short, unique labels of fits: the population name, with the method and a number only where needed.

    Parameters
    ----------
    fits : sequence of PopulationFit

    Returns
    -------
    tuple of str
    """
    names = [fit.population.name for fit in fits]
    labels = [
        name if names.count(name) == 1 else f"{name} [{fit.method}]"
        for name, fit in zip(names, fits, strict=True)
    ]
    counted = []
    for i, label in enumerate(labels):
        counted.append(label if labels.count(label) == 1 else f"{label} #{labels[: i + 1].count(label)}")
    return tuple(counted)


def _dataset_key(fit: PopulationFit) -> tuple[str, int, int]:
    return (str(fit.provenance.get("dataset_fingerprint", "")), fit.n_subjects, fit.n_observations)


def _column(fit: PopulationFit) -> dict[tuple[str, str], tuple[object, str]]:
    """Quantities of one fit, each with the group that decides its place in the table."""
    column: dict[tuple[str, str], tuple[object, str]] = {}
    for e in fit.estimates:
        column[(e.name, "value")] = (e.value, e.kind)
        column[(e.name, "se")] = (e.se, e.kind)
        column[(e.name, "rse_percent")] = (e.rse_percent, e.kind)
        column[(e.name, "ci_low")] = (e.ci_low, e.kind)
        column[(e.name, "ci_high")] = (e.ci_high, e.kind)
    for name, value in zip(fit.random_effects, np.atleast_1d(fit.eta_shrinkage), strict=True):
        column[(f"shrinkage_{name}", "percent")] = (100.0 * float(value), "")
    column[("shrinkage_eps", "percent")] = (100.0 * float(fit.eps_shrinkage), "")
    column[("ofv", "method")] = (str(fit.ofv_kind), "")
    column[("ofv", "mc_se")] = (fit.ofv_se, "")
    for name, value in (("ofv", fit.ofv), ("aic", fit.aic), ("bic", fit.bic), ("bicc", fit.bicc)):
        column[(name, "value")] = (float(value), "")
        column[(name, "delta")] = (None, "")
    column[("n_parameters", "value")] = (len(fit.x_names), "")
    column[("status", "value")] = (str(fit.status), "")
    column[("seconds", "value")] = (float(sum(fit.seconds.values())), "")
    return column
