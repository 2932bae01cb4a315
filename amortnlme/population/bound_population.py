"""A population model joined with the subjects' covariates: plain arrays in, plain arrays out.

Symbols: x packed population parameters; theta (d,) typical values on the phi scale; beta covariate
coefficients; L (d, r) with omega = L L'; mu_i = theta + C_i beta; phi_i = mu_i + L u_i.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from amortnlme.model.parameters import ParameterSpace
from amortnlme.population.describe import describe_estimates
from amortnlme.population.effects import CovariateEffect, RandomEffects
from amortnlme.population.estimates import Estimate


@dataclass(frozen=True, slots=True, eq=False)
class BoundPopulation:
    """Packing and unpacking of population parameters for given subjects; made by `PopulationModel.bind`.

    The packed vector x holds theta (d), beta (one per covariate effect) and the free entries of L, block by
    block, row by row. Entries of L are packed *as they are*, not as logarithms: the likelihood is an even
    function of every column of L, so a variance of zero is an ordinary point that an optimizer can reach.

    Attributes
    ----------
    parameters : ParameterSpace
    random_effects : RandomEffects
    covariates : tuple of CovariateEffect
    regressors : ndarray, shape (n_subjects, n_covariate_effects)
    centers : tuple of float
        Reference value of each effect, in covariate units.
    subject_ids : tuple of str
    """

    parameters: ParameterSpace
    random_effects: RandomEffects
    covariates: tuple[CovariateEffect, ...]
    regressors: np.ndarray
    centers: tuple[float, ...]
    subject_ids: tuple[str, ...]
    names: tuple[str, ...] = field(init=False)
    random_index: np.ndarray = field(init=False)
    pooled_index: np.ndarray = field(init=False)
    covariate_index: np.ndarray = field(init=False)
    chol_row: np.ndarray = field(init=False)
    chol_column: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """Lay out the packed vector."""
        space, on = self.parameters, self.random_effects.on
        column = {name: j for j, name in enumerate(on)}
        rows, columns, chol_names = [], [], []
        for block in self.random_effects.blocks():
            for i, row in enumerate(block):
                for name in block[: i + 1]:
                    rows.append(space.index(row))
                    columns.append(column[name])
                    chol_names.append(f"chol_{row}" if row == name else f"chol_{row}_{name}")
        random_index = np.array([space.index(name) for name in on], dtype=np.int64)
        settings = {
            "names": (
                *(f"theta_{name}" for name in space.names),
                *(e.name for e in self.covariates),
                *chol_names,
            ),
            "random_index": random_index,
            "pooled_index": np.setdiff1d(np.arange(space.d), random_index),
            "covariate_index": np.array([space.index(e.parameter) for e in self.covariates], dtype=np.int64),
            "chol_row": np.array(rows, dtype=np.int64),
            "chol_column": np.array(columns, dtype=np.int64),
            "regressors": np.array(self.regressors, dtype=np.float64),
        }
        for name, value in settings.items():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
            object.__setattr__(self, name, value)

    @property
    def d(self) -> int:
        """Number of individual parameters."""
        return self.parameters.d

    @property
    def r(self) -> int:
        """Number of random effects."""
        return len(self.random_effects.on)

    @property
    def n_subjects(self) -> int:
        """Number of subjects."""
        return len(self.subject_ids)

    @property
    def n_x(self) -> int:
        """Number of free population parameters."""
        return len(self.names)

    @property
    def theta_slice(self) -> slice:
        """Where theta sits in x."""
        return slice(0, self.d)

    @property
    def beta_slice(self) -> slice:
        """Where the covariate coefficients sit in x."""
        return slice(self.d, self.d + len(self.covariates))

    @property
    def chol_slice(self) -> slice:
        """Where the entries of L sit in x."""
        return slice(self.d + len(self.covariates), self.n_x)

    @property
    def chol_diagonal(self) -> np.ndarray:
        """Positions in x of the diagonal entries of L, in the order of the random effects."""
        start = self.chol_slice.start
        is_diagonal = self.chol_row == self.random_index[self.chol_column]
        position = start + np.flatnonzero(is_diagonal)
        return position[np.argsort(self.chol_column[is_diagonal])]

    def unpack(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the subjects' typical parameters and the factor of omega.

        Parameters
        ----------
        x : ndarray, shape (n_x,)

        Returns
        -------
        mu : ndarray, shape (n_subjects, d)
            Typical phi of each subject, covariates included.
        L : ndarray, shape (d, r)
            omega = L L' (d x d); rows of pooled parameters are exactly zero.
        """
        mu = np.tile(x[: self.d], (self.n_subjects, 1))
        for c, p in enumerate(self.covariate_index):
            mu[:, p] += self.regressors[:, c] * x[self.d + c]
        factor = np.zeros((self.d, self.r))
        factor[self.chol_row, self.chol_column] = x[self.chol_slice]
        return mu, factor

    def pullback(self, dmu: np.ndarray, dfactor: np.ndarray) -> np.ndarray:
        """Chain derivatives with respect to (mu, L) back to x.

        Parameters
        ----------
        dmu : ndarray, shape (n_subjects, d)
        dfactor : ndarray, shape (d, r), or (n_subjects, d, r) for one row of scores per subject

        Returns
        -------
        ndarray, shape (n_x,), or (n_subjects, n_x) for per-subject scores.
        """
        per_subject = dfactor.ndim == 3
        theta = dmu if per_subject else dmu.sum(axis=0)
        beta = dmu[:, self.covariate_index] * self.regressors
        chol = dfactor[..., self.chol_row, self.chol_column]
        return np.concatenate([theta, beta if per_subject else beta.sum(axis=0), chol], axis=-1)

    def omega(self, x: np.ndarray) -> np.ndarray:
        """Covariance of the random effects, shape (d, d), zero rows and columns for pooled parameters."""
        factor = self.unpack(x)[1]
        return factor @ factor.T

    def fold_signs(self, x: np.ndarray) -> np.ndarray:
        """Return the equivalent x in which every diagonal entry of L is non-negative."""
        x = np.array(x, dtype=np.float64)
        chol = x[self.chol_slice]
        sign = np.where(x[self.chol_diagonal] < 0, -1.0, 1.0)
        x[self.chol_slice] = chol * sign[self.chol_column]
        return x

    def describe(self, x: np.ndarray, covariance: np.ndarray | None) -> tuple[Estimate, ...]:
        """Return the table of estimates on natural scales.

        Parameters
        ----------
        x : ndarray, shape (n_x,)
        covariance : ndarray, shape (n_x, n_x), or None where no Wald uncertainty exists

        Returns
        -------
        tuple of Estimate
            Typical values, coefficients, SDs and correlations of random effects, residual SDs.
        """
        return describe_estimates(self, x, covariance)
