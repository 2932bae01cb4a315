"""Selection as M-step: relations, coefficients and omega from conditional means and covariances of phi.

Given every subject's conditional mean m_i and covariance C_i of the parameters with random effects, the
expected complete-data -2 log-likelihood, profiled over omega, is n log det((E'E + sum C_i) / n) with
residuals E of a regression of m on the covariates. With a penalty per coefficient it is minimized over
relations, coefficients and omega at once. Parameters that are not correlated with others decouple: one best
subset each (`best_subset.py`). Those of a block are searched together (`coupled_search.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amortnlme.methods.best_subset import Subset, cheapest_subset, columns_of, profiled_subset
from amortnlme.methods.coupled_search import CoupledSearch
from amortnlme.population.candidates import BoundCandidates


@dataclass(frozen=True, slots=True, eq=False)
class RelationChoice:
    """What a search over relations found.

    Attributes
    ----------
    chosen : ndarray of bool, shape (m,)
        Relations in the model, forced ones among them.
    intercept : ndarray, shape (r,)
        Typical values of the parameters with random effects, phi scale.
    coefficients : ndarray, shape (p,)
        Of `BoundCandidates.regressors`; zero where the relation is out.
    mean : ndarray, shape (n, r)
        Typical value of every subject.
    omega : ndarray, shape (r, r)
    objective : float
        n log det omega + penalty x coefficients of the relations in, forced ones counted; with given omega
        n log det omega - n r + trace(omega^-1 (E'E + sum C)) instead of the first term.
    proven : bool
        Whether no other choice can be better; see `RelationSearch.select`.
    """

    chosen: np.ndarray
    intercept: np.ndarray
    coefficients: np.ndarray
    mean: np.ndarray
    omega: np.ndarray
    objective: float
    proven: bool


class RelationSearch:
    """Searches among candidate relations, prepared once for many statistics of the same subjects."""

    def __init__(self, candidates: BoundCandidates) -> None:
        self.candidates = candidates
        self.n, self.r = len(candidates.regressors), len(candidates.anchor)
        self._single = [_OneParameter(candidates, int(b[0])) for b in candidates.blocks if len(b) == 1]
        self._coupled = [CoupledSearch(candidates, block) for block in candidates.blocks if len(block) > 1]

    def select(
        self,
        mean: np.ndarray,
        spread: np.ndarray,
        penalty: float,
        omega: np.ndarray | None = None,
        *,
        thorough: bool = True,
    ) -> RelationChoice:
        """Choose relations.

        Parameters
        ----------
        mean : ndarray, shape (n, r)
            Conditional means of the parameters with random effects, phi scale.
        spread : ndarray, shape (r, r)
            Conditional covariances, summed over the subjects.
        penalty : float
            Of a coefficient, in units of -2 log-likelihood: log n for BICc, 2 for AIC.
        omega : ndarray, shape (r, r), optional
            Given covariance of the random effects, for the step that keeps it (as published); it is replaced
            by the best one for the coefficients afterwards. Without it omega is profiled out.
        thorough : bool
            Parameters of a block only: search globally, not from `omega` or the full model downhill. Without
            blocks the answer is exact in either case.

        Returns
        -------
        RelationChoice
            `proven` is true for uncorrelated parameters but for very many correlated covariates, and for
            blocks where all models could be enumerated or bounded (`coupled_search.EXACT` relations).
        """
        candidates = self.candidates
        chosen = candidates.forced.copy()
        coefficients = np.zeros(candidates.regressors.shape[1])
        intercept, fitted = np.zeros(self.r), np.zeros((self.n, self.r))
        proven = True
        for part in self._single:
            given = None if omega is None else float(omega[part.k, part.k])
            subset = part.choose(mean[:, part.k], float(spread[part.k, part.k]), penalty, given)
            chosen[part.free[subset.members]] = True
            proven &= subset.proven
            intercept[part.k], fitted[:, part.k] = part.regress(mean[:, part.k], chosen, coefficients)
        for search in self._coupled:
            index = search.block
            within = np.ix_(index, index)
            found = search.choose(
                mean[:, index], spread[within], penalty, None if omega is None else omega[within], thorough
            )
            chosen[search.relations] = found.chosen
            proven &= found.proven
            intercept[index], fitted[:, index] = found.intercept, found.mean
            for k, columns in zip(index, found.columns, strict=True):
                coefficients[columns] = found.coefficients[list(index).index(k)]
        residual = mean - fitted
        total = (residual.T @ residual + spread) / self.n
        new = np.zeros_like(total)
        for block in candidates.blocks:
            new[np.ix_(block, block)] = total[np.ix_(block, block)]
        cost = penalty * float(candidates.width[chosen].sum())
        if omega is None:
            value = self.n * float(np.linalg.slogdet(new)[1]) + cost
        else:
            weight = float(np.trace(np.linalg.solve(omega, total)))
            value = self.n * (float(np.linalg.slogdet(omega)[1]) + weight - self.r) + cost
        return RelationChoice(chosen, intercept, coefficients, fitted, new, value, proven)


class _OneParameter:
    """The regression of one parameter on its candidates, what is always in projected out."""

    def __init__(self, candidates: BoundCandidates, k: int) -> None:
        self.k, self.candidates = k, candidates
        mine = candidates.owner == k
        self.free = np.flatnonzero(mine & ~candidates.forced)
        self.anchor = candidates.anchor[k]
        n = len(candidates.regressors)
        always = [np.ones((n, 1))] if np.isnan(self.anchor) else [np.zeros((n, 0))]
        forced = columns_of(np.flatnonzero(mine & candidates.forced), candidates.first)
        always.append(candidates.regressors[:, forced])
        self.basis = np.linalg.qr(np.concatenate(always, axis=1))[0]
        self.first = np.concatenate([[0], np.cumsum(candidates.width[self.free])]).astype(np.int64)
        x = candidates.regressors[:, columns_of(self.free, candidates.first)]
        self.x = x - self.basis @ (self.basis.T @ x)
        self.gram = self.x.T @ self.x

    def choose(self, mean: np.ndarray, extra: float, penalty: float, omega: float | None) -> Subset:
        y = self._response(mean)
        y = y - self.basis @ (self.basis.T @ y)
        cross = self.x.T @ y
        products = np.block([[self.gram, cross[:, None]], [cross[None], np.full((1, 1), y @ y)]])
        if omega is None:
            return profiled_subset(products, self.first, len(y), extra, penalty)
        return cheapest_subset(products, self.first, penalty * omega)

    def regress(
        self, mean: np.ndarray, chosen: np.ndarray, coefficients: np.ndarray
    ) -> tuple[float, np.ndarray]:
        """Typical value and fitted values; the coefficients are written into their places."""
        candidates = self.candidates
        columns = columns_of(np.flatnonzero(chosen & (candidates.owner == self.k)), candidates.first)
        x = candidates.regressors[:, columns]
        free = np.isnan(self.anchor)
        design = np.column_stack([np.ones(len(x)), x]) if free else x
        beta = np.linalg.lstsq(design, self._response(mean), rcond=None)[0]
        coefficients[columns] = beta[1:] if free else beta
        intercept = float(beta[0]) if free else float(self.anchor)
        return intercept, intercept + x @ coefficients[columns]

    def _response(self, mean: np.ndarray) -> np.ndarray:
        return mean if np.isnan(self.anchor) else mean - self.anchor
