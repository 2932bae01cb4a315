"""Selection where random effects are correlated: regressions with different covariates, one covariance.

The residuals of the parameters of a block share an omega, so that a relation on one of them changes what the
others gain ("seemingly unrelated regressions", Zellner 1962). At a given omega the problem is one best subset
among all relations of the block. Profiled over omega it is not: the search walks downhill from several
covariances, each step a best subset (log det is concave, so none goes up), then adds, drops and exchanges
single relations. Up to EXACT relations the optimum is proven by branch and bound over complete models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amortnlme.methods.best_subset import cheapest_subset, columns_of
from amortnlme.population.candidates import BoundCandidates

#: Free relations of a block up to which the optimum is proven.
EXACT = 12
MOST_STEPS, MOST_REGRESSIONS, TOLERANCE = 100, 500, 1e-9
#: Exchanges are tried for models of at most so many pairs of a relation in and one out.
MOST_EXCHANGES = 400


@dataclass(frozen=True, slots=True, eq=False)
class CoupledChoice:
    """What the search in one block found.

    Attributes
    ----------
    chosen : ndarray of bool, shape (m_block,)
    intercept : ndarray, shape (b,)
    columns, coefficients : list of ndarray
        For every parameter of the block: columns of the regressors, and their coefficients.
    mean : ndarray, shape (n, b)
    proven : bool
    """

    chosen: np.ndarray
    intercept: np.ndarray
    columns: list[np.ndarray]
    coefficients: list[np.ndarray]
    mean: np.ndarray
    proven: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Regression:
    """Maximum likelihood for given relations; `beta` (columns, b) is zero where a column is not used."""

    value: float
    beta: np.ndarray
    omega: np.ndarray


class CoupledSearch:
    """Searches among the relations of the parameters of one block."""

    def __init__(self, candidates: BoundCandidates, block: np.ndarray) -> None:
        self.candidates, self.block = candidates, block
        self.relations = np.flatnonzero(np.isin(candidates.owner, block))
        self.forced = candidates.forced[self.relations]
        self.width = candidates.width[self.relations]
        n = len(candidates.regressors)
        # The constant comes first; a given typical value is taken off the response instead.
        self.z = np.column_stack([np.ones(n), candidates.regressors])
        self.used = [columns_of(np.array([m]), candidates.first) + 1 for m in self.relations]
        self.owner = np.array([int(np.flatnonzero(block == candidates.owner[m])[0]) for m in self.relations])
        self.anchor = candidates.anchor[block]
        self.zz = self.z.T @ self.z

    def choose(
        self,
        mean: np.ndarray,
        spread: np.ndarray,
        penalty: float,
        omega: np.ndarray | None,
        thorough: bool,
    ) -> CoupledChoice:
        """Choose relations of the block.

        Parameters
        ----------
        mean : ndarray, shape (n, b)
        spread : ndarray, shape (b, b)
        penalty : float
        omega : ndarray, shape (b, b), or None
            Given covariance; None: profiled.
        thorough : bool
            Several starts, exchanges and, for few relations, a proof.

        Returns
        -------
        CoupledChoice
        """
        y = mean - np.where(np.isnan(self.anchor), 0.0, self.anchor)
        work = _Work(self, y, spread, penalty)
        if omega is not None:
            chosen, proven = work.at_omega(omega)
            found = work.regression(chosen, omega)
            return self._choice(chosen, found.beta, proven)
        chosen, proven = work.downhill(np.ones(len(self.forced), dtype=bool)), False
        if thorough:
            other = work.downhill(self.forced)
            if work.value(other) < work.value(chosen):
                chosen = other
            chosen = work.exchanged(chosen)
            if (~self.forced).sum() <= EXACT:
                chosen, proven = work.proven(chosen), True
        return self._choice(chosen, work.fit(chosen).beta, proven)

    def _choice(self, chosen: np.ndarray, beta: np.ndarray, proven: bool) -> CoupledChoice:
        b = len(self.block)
        columns = []
        for k in range(b):
            mine = [self.used[m] for m in np.flatnonzero(chosen & (self.owner == k))]
            columns.append(np.concatenate(mine) if mine else np.array([], dtype=np.int64))
        intercept = np.where(np.isnan(self.anchor), beta[0], self.anchor)
        mean = self.z[:, 1:] @ beta[1:] + intercept
        coefficients = [beta[columns[k], k] for k in range(b)]
        return CoupledChoice(chosen, intercept, [c - 1 for c in columns], coefficients, mean, proven)


class _Work:
    """One set of statistics; complete models are remembered."""

    def __init__(self, search: CoupledSearch, y: np.ndarray, spread: np.ndarray, penalty: float) -> None:
        self.search, self.n, self.spread, self.penalty = search, len(y), spread, penalty
        self.zy, self.yy = search.z.T @ y, y.T @ y
        self.memory: dict[bytes, _Regression] = {}

    def value(self, chosen: np.ndarray) -> float:
        """Profiled objective of a model."""
        return self.fit(chosen).value + self.penalty * float(self.search.width[chosen].sum())

    def fit(self, chosen: np.ndarray) -> _Regression:
        """Maximize over coefficients and omega in turn."""
        key = np.packbits(chosen).tobytes()
        if key not in self.memory:
            found = self.regression(chosen, (self.yy + self.spread) / self.n)
            for _ in range(MOST_REGRESSIONS):
                last, found = found.value, self.regression(chosen, found.omega)
                if last - found.value < TOLERANCE * max(1.0, abs(found.value)):
                    break
            self.memory[key] = found
        return self.memory[key]

    def regression(self, chosen: np.ndarray, omega: np.ndarray) -> _Regression:
        """Generalized least squares at a covariance, and the covariance that follows."""
        search = self.search
        weight, b = np.linalg.inv(omega), len(omega)
        columns, owner = self._always()
        for m in np.flatnonzero(chosen):
            columns += search.used[m].tolist()
            owner += [int(search.owner[m])] * len(search.used[m])
        c, k = np.array(columns, dtype=np.int64), np.array(owner, dtype=np.int64)
        beta = np.zeros((len(search.zz), b))
        if len(c):
            gram = search.zz[np.ix_(c, c)] * weight[np.ix_(k, k)]
            cross = (self.zy[c] * weight[k]).sum(axis=1)
            beta[c, k] = np.linalg.lstsq(gram, cross, rcond=1e-12)[0]
        mixed = beta.T @ self.zy
        square = self.yy - mixed - mixed.T + beta.T @ search.zz @ beta
        new = (square + self.spread) / self.n
        return _Regression(self.n * float(np.linalg.slogdet(new)[1]), beta, new)

    def _always(self) -> tuple[list[int], list[int]]:
        """Column and parameter of the typical values that are estimated."""
        free = np.flatnonzero(np.isnan(self.search.anchor)).tolist()
        return [0] * len(free), free

    def at_omega(self, omega: np.ndarray) -> tuple[np.ndarray, bool]:
        """Best subset of all relations of the block at a given covariance, and whether it is proven."""
        search = self.search
        weight = np.linalg.inv(omega)
        free = np.flatnonzero(~search.forced)
        columns, owner = self._always()
        for m in np.flatnonzero(search.forced):
            columns += search.used[m].tolist()
            owner += [int(search.owner[m])] * len(search.used[m])
        n_always = len(columns)
        for m in free:
            columns += search.used[m].tolist()
            owner += [int(search.owner[m])] * len(search.used[m])
        c, k = np.array(columns, dtype=np.int64), np.array(owner, dtype=np.int64)
        products = np.empty((len(c) + 1, len(c) + 1))
        products[:-1, :-1] = search.zz[np.ix_(c, c)] * weight[np.ix_(k, k)]
        products[-1, :-1] = products[:-1, -1] = (self.zy[c] * weight[k]).sum(axis=1)
        products[-1, -1] = (weight * self.yy).sum()
        head = products[:n_always]
        rest = products[n_always:, n_always:]
        solved = np.linalg.lstsq(head[:, :n_always], head[:, n_always:], rcond=1e-12)[0]
        rest = rest - head[:, n_always:].T @ solved
        first = np.concatenate([[0], np.cumsum(search.width[free])])
        subset = cheapest_subset(rest, first, self.penalty)
        chosen = search.forced.copy()
        chosen[free[subset.members]] = True
        return chosen, subset.proven

    def downhill(self, chosen: np.ndarray) -> np.ndarray:
        """Alternate between the best covariance of a model and the best model at that covariance."""
        for _ in range(MOST_STEPS):
            new, _ = self.at_omega(self.fit(chosen).omega)
            if (new == chosen).all() or self.value(new) >= self.value(chosen):
                # The start may hold more relations than it pays for; then its own value does not count.
                return new if self.value(new) < self.value(chosen) else chosen
            chosen = new
        return chosen

    def exchanged(self, chosen: np.ndarray) -> np.ndarray:
        """Add, drop and exchange single relations as long as that pays."""
        while True:
            trials = [flipped(chosen, int(m)) for m in np.flatnonzero(~self.search.forced)]
            inside = np.flatnonzero(chosen & ~self.search.forced).tolist()
            outside = np.flatnonzero(~chosen).tolist()
            if len(inside) * len(outside) <= MOST_EXCHANGES:
                trials += [flipped(flipped(chosen, a), b) for a in inside for b in outside]
            if not trials:
                return chosen
            best = min(trials, key=self.value)
            if self.value(best) >= self.value(chosen) - 1e-9:
                return chosen
            chosen = best

    def proven(self, chosen: np.ndarray) -> np.ndarray:
        """Branch and bound: no model of a branch beats the fit of all its relations at the price of few."""
        best, value = chosen, self.value(chosen)
        free = [int(m) for m in np.flatnonzero(~self.search.forced)]
        stack = [(np.ones(len(chosen), dtype=bool), 0)]
        while stack:
            most, depth = stack.pop()
            sure = most.copy()
            sure[free[depth:]] = False
            if self.fit(most).value + self.penalty * self.search.width[sure].sum() >= value - 1e-9:
                continue
            if self.value(most) < value:
                best, value = most, self.value(most)
            if depth < len(free):
                stack += [(most, depth + 1), (flipped(most, free[depth]), depth + 1)]
        return best


def flipped(chosen: np.ndarray, relation: int) -> np.ndarray:
    """Take a relation in if it is out, else out.

    Parameters
    ----------
    chosen : ndarray of bool, shape (m,)
    relation : int

    Returns
    -------
    ndarray of bool, shape (m,)
    """
    new = chosen.copy()
    new[relation] = not new[relation]
    return new
