"""Fits to several imputations of one data set, pooled by Rubin's rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from amortnlme.core.errors import FitError, UsageError
from amortnlme.data.dataset import Dataset
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.model.individual import IndividualModel
from amortnlme.population.effects import CENTERS
from amortnlme.population.estimates import Estimate


@dataclass(frozen=True, slots=True, eq=False)
class PooledFit:
    """Estimates over imputations.

    Attributes
    ----------
    fits : tuple of PopulationFit
    x : ndarray, shape (n_x,)
        Mean of the estimates.
    covariance, within, between : ndarray, shape (n_x, n_x)
        Total covariance W + (1 + 1/m) B, its mean over the fits W, and that between them B.
    missing_information : ndarray, shape (n_x,)
        Share of the variance that is due to the missing values, (1 + 1/m) B / T.
    degrees_of_freedom : ndarray, shape (n_x,)
        Of the t distribution of every entry, (m - 1) / share^2.
    estimates : tuple of Estimate
        The table, on natural scales; its intervals are normal ones.
    """

    fits: tuple[PopulationFit, ...]
    x: np.ndarray
    covariance: np.ndarray
    within: np.ndarray
    between: np.ndarray
    missing_information: np.ndarray
    degrees_of_freedom: np.ndarray
    estimates: tuple[Estimate, ...]


def pool_fits(
    fits: Sequence[PopulationFit], datasets: Sequence[Dataset], model: IndividualModel
) -> PooledFit:
    """Pool fits of one population model to several imputations (Rubin 1987).

    Parameters
    ----------
    fits : sequence of PopulationFit
        At least two, with standard errors.
    datasets : sequence of Dataset
        The imputations, in the same order.
    model : IndividualModel

    Returns
    -------
    PooledFit

    Raises
    ------
    UsageError
        E_POOL_FITS: fewer than two fits, as many data sets as fits not given, or other populations.
    FitError
        E_POOL_NO_ERRORS where a fit has no standard errors; E_POOL_CENTER where a reference value is taken
        from imputed covariates, so that typical values mean something else in every fit.
    """
    m, first = len(fits), fits[0] if fits else None
    if first is None or m < 2 or len(datasets) != m or any(f.x_names != first.x_names for f in fits):
        raise UsageError(
            "E_POOL_FITS",
            f"{m} fits and {len(datasets)} data sets cannot be pooled. Give at least two fits of one "
            "population model, and the data set of each.",
        )
    _refuse_moving_centers(first, datasets)
    covariances = []
    for k, one in enumerate(fits):
        if one.covariance is None:
            raise FitError(
                "E_POOL_NO_ERRORS",
                f"fit {k + 1} has no standard errors (status {one.status.value}), so that its variance is "
                "unknown. Simplify the population model; fits of networks are shown together by "
                "partial_effect.",
            )
        covariances.append(one.covariance)
    x = np.stack([one.x for one in fits])
    within, between = np.mean(covariances, axis=0), np.atleast_2d(np.cov(x.T))
    total = within + (1.0 + 1.0 / m) * between
    share = (1.0 + 1.0 / m) * np.diagonal(between) / np.diagonal(total)
    with np.errstate(divide="ignore"):
        freedom = (m - 1.0) / share**2
    joined = first.population.bind(datasets[0].covariate_table(), model.parameters)
    return PooledFit(
        fits=tuple(fits),
        x=x.mean(axis=0),
        covariance=total,
        within=within,
        between=between,
        missing_information=share,
        degrees_of_freedom=freedom,
        estimates=joined.describe(x.mean(axis=0), total),
    )


def _refuse_moving_centers(fit: PopulationFit, datasets: Sequence[Dataset]) -> None:
    tables = [dataset.covariate_table() for dataset in datasets]
    for effect in fit.population.covariates:
        columns = [table[effect.covariate].to_numpy() for table in tables]
        if effect.center in CENTERS and any(not np.array_equal(columns[0], c) for c in columns[1:]):
            raise FitError(
                "E_POOL_CENTER",
                f"effect {effect.name} is centered on the {effect.center} of {effect.covariate!r}, which "
                "differs between the imputations. Give the reference value as a number and fit again.",
            )
