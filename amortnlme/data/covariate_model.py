"""A learned law of covariates, and data sets completed by it: multiple imputation.

A Gaussian copula: every covariate has its observed distribution, on normal scores they are jointly normal.
Mean and covariance of the scores are the maximum-likelihood ones for data missing at random, by
expectation-maximization. Columns that tell of the outcome, such as conditional modes of a fit without the
covariate, belong into it: an imputation that does not know the outcome pulls the covariate's effect to zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import norm, rankdata

from amortnlme.core.errors import DataError
from amortnlme.data.dataset import Dataset
from amortnlme.data.subject import Subject, TimeVarying

if TYPE_CHECKING:
    import pandas as pd

MAX_ITERATIONS, TOLERANCE = 500, 1e-6
#: Keeps the covariance of the scores regular.
JITTER = 1e-6
#: Values of a covariate that are needed to learn its distribution.
FEWEST = 5


@dataclass(frozen=True, slots=True, eq=False)
class CovariateModel:
    """A Gaussian copula of covariates.

    Attributes
    ----------
    names : tuple of str
    values, scores : tuple of ndarray
        Distinct values of every covariate, rising, and their normal scores.
    mean : ndarray, shape (k,)
        Of the scores.
    covariance : ndarray, shape (k, k)
    """

    names: tuple[str, ...]
    values: tuple[np.ndarray, ...]
    scores: tuple[np.ndarray, ...]
    mean: np.ndarray
    covariance: np.ndarray

    def complete(self, table: pd.DataFrame, rng: np.random.Generator | None) -> pd.DataFrame:
        """Fill in what is missing, given what is not.

        Parameters
        ----------
        table : pandas.DataFrame
            With the columns of `names`; NaN where missing.
        rng : numpy.random.Generator or None
            Draws from the conditional law; None takes its median.

        Returns
        -------
        pandas.DataFrame
            Values lie within the range of those observed; a covariate of few values keeps to them.
        """
        z = np.column_stack(
            [
                np.interp(table[name], value, score)
                for name, value, score in zip(self.names, self.values, self.scores, strict=True)
            ]
        )
        missing = table[list(self.names)].isna().to_numpy()
        for row in np.flatnonzero(missing.any(axis=1)):
            gap, known = np.flatnonzero(missing[row]), np.flatnonzero(~missing[row])
            mean, covariance = _conditional(self.mean, self.covariance, z[row], gap, known)
            if rng is not None:
                mean = mean + np.linalg.cholesky(covariance) @ rng.standard_normal(len(gap))
            z[row, gap] = mean
        out = table.copy()
        for k, name in enumerate(self.names):
            drawn = np.interp(z[:, k], self.scores[k], self.values[k])
            if len(self.values[k]) < FEWEST:
                drawn = self.values[k][np.abs(drawn[:, None] - self.values[k]).argmin(axis=1)]
            out[name] = np.where(missing[:, k], drawn, table[name])
        return out


def learn_covariates(table: pd.DataFrame) -> CovariateModel:
    """Learn the joint law of covariates from subjects in whom some may be missing.

    Parameters
    ----------
    table : pandas.DataFrame
        One row per subject; NaN where missing.

    Returns
    -------
    CovariateModel

    Raises
    ------
    DataError
        E_DATA_IMPUTATION for a covariate with hardly any value.
    """
    values, scores, columns = [], [], []
    for name in table.columns:
        column = table[name].to_numpy(dtype=np.float64)
        known = np.isfinite(column)
        if known.sum() < FEWEST or np.ptp(column[known]) == 0:
            raise DataError(
                "E_DATA_IMPUTATION",
                f"{name!r} has {int(known.sum())} values in {len(column)} subjects, or only one value: its "
                f"distribution cannot be learned. At least {FEWEST} that differ are needed; drop the column.",
            )
        score = np.full(len(column), np.nan)
        score[known] = norm.ppf(rankdata(column[known]) / (known.sum() + 1.0))
        each, first = np.unique(column[known], return_index=True)
        values.append(each)
        scores.append(score[known][first])
        columns.append(score)
    mean, covariance = normal_law(np.column_stack(columns))
    return CovariateModel(tuple(map(str, table.columns)), tuple(values), tuple(scores), mean, covariance)


def normal_law(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maximum-likelihood mean and covariance of normal data with missing entries.

    Parameters
    ----------
    z : ndarray, shape (n, k)
        NaN where missing at random.

    Returns
    -------
    mean : ndarray, shape (k,)
    covariance : ndarray, shape (k, k)
    """
    missing, k = np.isnan(z), z.shape[1]
    mean, covariance = np.nanmean(z, axis=0), np.diag(np.nanvar(z, axis=0))
    patterns, member = np.unique(missing, axis=0, return_inverse=True)
    member = member.ravel()
    for _ in range(MAX_ITERATIONS):
        filled, extra = np.where(missing, 0.0, z), np.zeros((k, k))
        for p, pattern in enumerate(patterns):
            rows, gap, known = np.flatnonzero(member == p), np.flatnonzero(pattern), np.flatnonzero(~pattern)
            if len(gap):
                slope, rest = _regression(covariance, gap, known)
                filled[np.ix_(rows, gap)] = mean[gap] + (z[np.ix_(rows, known)] - mean[known]) @ slope.T
                extra[np.ix_(gap, gap)] += len(rows) * rest
        new_mean = filled.mean(axis=0)
        centered = filled - new_mean
        new = (centered.T @ centered + extra) / len(z) + JITTER * np.eye(k)
        change = max(np.abs(new - covariance).max(), np.abs(new_mean - mean).max())
        mean, covariance = new_mean, new
        if change < TOLERANCE:
            break
    return mean, covariance


def impute(
    dataset: Dataset, n: int, rng: np.random.Generator, auxiliary: pd.DataFrame | None = None
) -> tuple[Dataset, ...]:
    """Complete a data set several times by draws from the learned law of its covariates.

    Parameters
    ----------
    dataset : Dataset
        Covariates are NaN where they are missing.
    n : int
        Data sets; each law is learned from other resampled subjects, so that its error is felt too.
    rng : numpy.random.Generator
    auxiliary : pandas.DataFrame, optional
        More columns that tell of the missing values, by subject id: conditional modes of a fit, above all.

    Returns
    -------
    tuple of Dataset

    Raises
    ------
    DataError
        E_DATA_IMPUTATION.
    """
    table = dataset.covariate_table()
    if n < 1 or not table.isna().to_numpy().any():
        raise DataError(
            "E_DATA_IMPUTATION",
            f"{n} imputations of a data set with {int(table.isna().to_numpy().sum())} missing values were "
            "asked for. At least one of each is needed.",
        )
    names = list(table.columns)
    if auxiliary is not None:
        table = table.join(auxiliary.reindex(table.index), how="left")
    moving = [str(name) for name in table.columns if _varies(table[name].to_numpy())]
    part, made = table.loc[:, moving], []
    for _ in range(n):
        rows = rng.integers(len(table), size=len(table))
        filled = learn_covariates(part.iloc[rows]).complete(part, rng)
        subjects = tuple(
            _completed(subject, {name: filled.at[subject.id, name] for name in names if name in moving})
            for subject in dataset.subjects
        )
        made.append(replace(dataset, subjects=subjects))
    return tuple(made)


def _varies(values: np.ndarray) -> bool:
    return bool(np.ptp(values[np.isfinite(values)], axis=0) > 0) if np.isfinite(values).any() else True


def _completed(subject: Subject, values: dict[str, float]) -> Subject:
    covariates = dict(subject.covariates)
    for name, value in values.items():
        recorded = subject.covariate_values(name)
        if np.isnan(recorded).any():
            covariates[name] = TimeVarying(np.where(np.isnan(recorded), value, recorded))
    return replace(subject, covariates=covariates)


def _regression(covariance: np.ndarray, gap: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slopes of the missing on the known, and what they leave unexplained."""
    cross = covariance[np.ix_(gap, known)]
    slope = np.linalg.solve(covariance[np.ix_(known, known)], cross.T).T
    return slope, covariance[np.ix_(gap, gap)] - slope @ cross.T


def _conditional(
    mean: np.ndarray, covariance: np.ndarray, z: np.ndarray, gap: np.ndarray, known: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    slope, rest = _regression(covariance, gap, known)
    return mean[gap] + slope @ (z[known] - mean[known]), rest + JITTER * np.eye(len(gap))
