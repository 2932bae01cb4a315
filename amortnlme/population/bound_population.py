"""A population model joined with the subjects' covariates: plain arrays in, plain arrays out.

Symbols: x packed population parameters; theta typical values on the phi scale; beta covariate coefficients;
L (d, r) with omega = L L'; mu_i = theta + C_i beta; phi_i = mu_i + L u_i.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from amortnlme.core.errors import PopulationError
from amortnlme.model.parameters import ParameterSpace
from amortnlme.population.describe import describe_estimates
from amortnlme.population.effects import CovariateEffect, RandomEffects
from amortnlme.population.estimates import Estimate
from amortnlme.population.groups import GroupedSpace
from amortnlme.population.layout import Layout, lay_out
from amortnlme.population.networks import BoundNetwork, covariate_column

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, eq=False)
class BoundPopulation:
    """Packing and unpacking of population parameters for given subjects; made by `PopulationModel.bind`.

    The packed vector x holds the typical values that are not fixed, beta (one per covariate effect), the
    weights of the networks and the free entries of L, block by block, row by row. Entries of L are packed *as
    they are*, not as logarithms: the likelihood is an even function of every column of L, so a variance of
    zero is an ordinary point that an optimizer can reach. The blocks of the occasions come last and share
    their entries.

    Attributes
    ----------
    parameters : ParameterSpace
        d of them; with occasion effects those of all occasions come last.
    random_effects : RandomEffects
    covariates : tuple of CovariateEffect
    regressors : ndarray, shape (n_subjects, n_covariate_effects)
    centers : tuple of float
        Reference value of each effect, in covariate units.
    subject_ids : tuple of str
    fixed : mapping of int to float
        Column of phi -> typical value that is given, phi scale.
    occasion_effects : RandomEffects or None
    n_occasions : ndarray of int, shape (n_subjects,), or None
    grouped : GroupedSpace or None
        How `parameters` come from those of the model, where some are grouped.
    apart : set of frozenset of str
        See `lay_out`.
    networks : tuple of BoundNetwork
    """

    parameters: ParameterSpace
    random_effects: RandomEffects
    covariates: tuple[CovariateEffect, ...]
    regressors: np.ndarray
    centers: tuple[float, ...]
    subject_ids: tuple[str, ...]
    fixed: Mapping[int, float] = field(default_factory=dict)
    occasion_effects: RandomEffects | None = None
    n_occasions: np.ndarray | None = None
    grouped: GroupedSpace | None = None
    apart: AbstractSet[frozenset[str]] = frozenset()
    networks: tuple[BoundNetwork, ...] = ()
    layout: Layout = field(init=False)
    names: tuple[str, ...] = field(init=False)
    pooled_index: np.ndarray = field(init=False)
    covariate_index: np.ndarray = field(init=False)
    base_phi: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """Lay out the packed vector."""
        space, d = self.parameters, self.parameters.d
        K = 0 if self.n_occasions is None else int(self.n_occasions.max())
        layout = lay_out(space, self.random_effects, self.occasion_effects, K, tuple(self.fixed), self.apart)
        base = np.zeros(d)
        for column, value in self.fixed.items():
            base[column] = value
        settings = {
            "layout": layout,
            "names": (
                *(f"theta_{space.names[p]}" for p in layout.theta_index),
                *(e.name for e in self.covariates),
                *(name for network in self.networks for name in network.effect.weight_names()),
                *layout.chol_names,
            ),
            "pooled_index": np.setdiff1d(np.arange(d), layout.random_index),
            "covariate_index": np.array([space.index(e.parameter) for e in self.covariates], dtype=np.int64),
            "regressors": np.array(self.regressors, dtype=np.float64),
            "base_phi": base,
        }
        for name, value in settings.items():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
            object.__setattr__(self, name, value)

    @property
    def d(self) -> int:
        """Number of individual parameters, effects of occasions included."""
        return self.parameters.d

    @property
    def r(self) -> int:
        """Number of random effects of a subject, those of all its occasions included."""
        return len(self.layout.random_names)

    @property
    def n_subjects(self) -> int:
        """Number of subjects."""
        return len(self.subject_ids)

    @property
    def n_x(self) -> int:
        """Number of free population parameters."""
        return len(self.names)

    @property
    def random_index(self) -> np.ndarray:
        """Column of phi of each random effect, shape (r,)."""
        return self.layout.random_index

    @property
    def theta_index(self) -> np.ndarray:
        """Column of phi of each typical value in x, shape (n_theta,)."""
        return self.layout.theta_index

    @property
    def theta_slice(self) -> slice:
        """Where the typical values sit in x."""
        return slice(0, len(self.layout.theta_index))

    @property
    def beta_slice(self) -> slice:
        """Where the covariate coefficients sit in x."""
        start = self.theta_slice.stop
        return slice(start, start + len(self.covariates))

    @property
    def weight_slice(self) -> slice:
        """Where the weights of all networks sit in x."""
        start = self.beta_slice.stop
        return slice(start, start + sum(network.effect.n_weights for network in self.networks))

    @property
    def chol_slice(self) -> slice:
        """Where the entries of L sit in x."""
        return slice(self.weight_slice.stop, self.n_x)

    @property
    def penalty(self) -> np.ndarray:
        """Ridge of every entry of x on -2 log-likelihood, shape (n_x,); zero but for weights of networks."""
        penalty = np.zeros(self.n_x)
        if self.networks:
            penalty[self.weight_slice] = np.concatenate([n.effect.penalty for n in self.networks])
        return penalty

    @property
    def chol_diagonal(self) -> np.ndarray:
        """Positions in x of the diagonal entries of L, one per random effect: occasions share theirs."""
        return self.chol_slice.start + self.layout.chol_diagonal

    @property
    def owner(self) -> np.ndarray:
        """Column of phi that each typical value and coefficient of x moves, shape (n_theta + n_beta,)."""
        return np.concatenate([self.theta_index, self.covariate_index])

    @property
    def has_occasion(self) -> np.ndarray:
        """Whether a subject has the occasion or group of a random effect, shape (n_subjects, r)."""
        if self.grouped is not None:
            return self.grouped.present[:, self.random_index]
        if self.n_occasions is None:
            return np.ones((self.n_subjects, self.r), dtype=bool)
        return self.layout.occasion_of < self.n_occasions[:, None]

    def typical_phi(self, x: np.ndarray) -> np.ndarray:
        """Typical values of all individual parameters, without covariates.

        Parameters
        ----------
        x : ndarray, shape (n_x,)

        Returns
        -------
        ndarray, shape (d,)
            Fixed ones at their values, effects of occasions at 0.
        """
        phi = np.array(self.base_phi)
        phi[self.theta_index] = x[self.theta_slice]
        return phi

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
        mu = np.tile(self.typical_phi(x), (self.n_subjects, 1))
        for c, (p, beta) in enumerate(zip(self.covariate_index, x[self.beta_slice], strict=True)):
            mu[:, p] += self.regressors[:, c] * beta
        for network, columns, where in self._branches():
            mu[:, columns] += network.outputs(x[where])
        layout = self.layout
        factor = np.zeros((self.d, self.r))
        factor[layout.chol_row, layout.chol_column] = x[self.chol_slice][layout.chol_entry]
        return mu, factor

    def pullback(self, dmu: np.ndarray, dfactor: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Chain derivatives with respect to (mu, L) back to x.

        Parameters
        ----------
        dmu : ndarray, shape (n_subjects, d)
        dfactor : ndarray, shape (d, r), or (n_subjects, d, r) for one row of scores per subject
        x : ndarray, shape (n_x,)
            Where; matters to networks only, as everything else is linear.

        Returns
        -------
        ndarray, shape (n_x,), or (n_subjects, n_x) for per-subject scores.
        """
        rows = np.concatenate(
            [dmu[:, self.theta_index], dmu[:, self.covariate_index] * self.regressors]
            + [
                (dmu[:, None, columns] @ network.outputs_and_jacobian(x[where])[1])[:, 0]
                for network, columns, where in self._branches()
            ],
            axis=1,
        )
        entries = self.layout.gather(dfactor)
        if dfactor.ndim == 3:
            return np.concatenate([rows, entries], axis=1)
        return np.concatenate([rows.sum(axis=0), entries])

    def weight_jacobian(self, x: np.ndarray) -> np.ndarray:
        """Differentiate the subjects' typical parameters by the weights of all networks.

        Parameters
        ----------
        x : ndarray, shape (n_x,)

        Returns
        -------
        ndarray, shape (n_subjects, d, n_weights)
        """
        start = self.weight_slice.start
        jacobian = np.zeros((self.n_subjects, self.d, self.weight_slice.stop - start))
        for network, columns, where in self._branches():
            part = slice(where.start - start, where.stop - start)
            jacobian[:, columns, part] = network.outputs_and_jacobian(x[where])[1]
        return jacobian

    def for_subjects(self, covariate_table: pd.DataFrame) -> BoundPopulation:
        """Take other subjects, with the reference values of these: for prediction, never for a fit.

        Parameters
        ----------
        covariate_table : pandas.DataFrame
            As for `PopulationModel.bind`; covariates may be constant here.

        Returns
        -------
        BoundPopulation

        Raises
        ------
        PopulationError
            E_POP_NEW_SUBJECTS, E_POP_COVARIATE_MISSING.
        """
        if self.n_occasions is not None or self.grouped is not None:
            raise PopulationError(
                "E_POP_NEW_SUBJECTS",
                "a population with occasion effects or groups cannot be moved to other subjects, whose "
                "occasions and groups may differ. Bind the population model to their data.",
            )
        columns = [
            e.transformed(covariate_column(covariate_table, e.covariate, e.name), center)
            for e, center in zip(self.covariates, self.centers, strict=True)
        ]
        n = len(covariate_table)
        return replace(
            self,
            regressors=np.stack(columns, axis=1) if columns else np.zeros((n, 0)),
            subject_ids=tuple(str(name) for name in covariate_table.index),
            networks=tuple(network.for_subjects(covariate_table) for network in self.networks),
        )

    def _branches(self) -> Iterator[tuple[BoundNetwork, list[int], slice]]:
        """Every network with the columns of phi it moves and the place of its weights in x."""
        first = self.beta_slice.stop
        for network in self.networks:
            last = first + network.effect.n_weights
            yield network, [self.parameters.index(name) for name in network.effect.on], slice(first, last)
            first = last

    def pullback_rows(self, dmu: np.ndarray, dfactor: np.ndarray, regressors: np.ndarray) -> np.ndarray:
        """Chain derivatives of any number of rows back to x, each with its own covariates.

        Parameters
        ----------
        dmu : ndarray, shape (n, d)
        dfactor : ndarray, shape (n, d, r)
        regressors : ndarray, broadcastable to (n, n_covariate_effects)

        Returns
        -------
        ndarray, shape (n, n_x)
        """
        beta = dmu[..., self.covariate_index] * regressors
        return np.concatenate([dmu[..., self.theta_index], beta, self.layout.gather(dfactor)], axis=-1)

    def omega(self, x: np.ndarray) -> np.ndarray:
        """Covariance of the random effects, shape (d, d), zero rows and columns for pooled parameters."""
        factor = self.unpack(x)[1]
        return factor @ factor.T

    def fold_signs(self, x: np.ndarray) -> np.ndarray:
        """Return the equivalent x in which every diagonal entry of L is non-negative."""
        x = np.array(x, dtype=np.float64)
        sign = np.where(x[self.chol_diagonal] < 0, -1.0, 1.0)
        x[self.chol_slice] *= sign[self.layout.chol_column[self.layout.first_place]]
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
