"""Stepwise searches with a population fit per model: SCM, COSSAC and SAMBA, on any method that fits data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from scipy import stats

from amortnlme.core.errors import UsageError
from amortnlme.core.rng import stream
from amortnlme.methods.base import AbstractMethod
from amortnlme.methods.classical import Focei
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.methods.relation_search import RelationSearch
from amortnlme.methods.selection import AbstractSelection, SearchResult, SelectionProblem, SelectionStep

CRITERIA = ("bicc", "p-value")
#: Draws from the individuals' conditional laws that the tests of COSSAC average over.
N_DRAWS = 20
TEST_STREAM = 5
#: The referee need not work hard for models on the way.
QUICK = Focei(referee_points=64, referee_replicates=4)


def _check(criterion: str, alphas: tuple[float, ...]) -> None:
    if criterion not in CRITERIA:
        raise UsageError(
            "E_SELECT_OPTION", f"criterion is {criterion!r}. Allowed: {', '.join(CRITERIA)}."
        )
    for alpha in alphas:
        if not 0.0 < alpha < 1.0:
            raise UsageError("E_SELECT_OPTION", f"a level must lie between 0 and 1; {alpha!r} was given.")


class _Models:
    """Fits on the way of one search, each made once."""

    def __init__(self, problem: SelectionProblem, fitter: AbstractMethod, criterion: str) -> None:
        self.problem, self.fitter, self.criterion = problem, fitter, criterion
        self.fits: dict[frozenset[str], PopulationFit] = {}
        self.steps: list[SelectionStep] = []

    def fit(self, chosen: frozenset[str], action: str) -> PopulationFit:
        if chosen not in self.fits:
            self.fits[chosen] = self.problem.fit(chosen, self.fitter)
            names = tuple(n for n in self.problem.free if n in chosen)
            self.steps.append(SelectionStep(names, self.bicc(chosen), action))
        return self.fits[chosen]

    def ofv(self, chosen: frozenset[str]) -> float:
        """Return what the method maximized where it says so, as users of stepwise methods compare it."""
        found = self.fits[chosen]
        value = found.criterion if np.isfinite(found.criterion) else found.ofv
        return value if np.isfinite(value) else np.inf

    def bicc(self, chosen: frozenset[str]) -> float:
        found = self.fits[chosen]
        return self.ofv(chosen) + found.bicc - found.ofv if np.isfinite(found.ofv) else np.inf

    def width(self, name: str) -> int:
        return int(self.problem.bound.width[self.problem.bound.names.index(name)])

    def p_value(self, larger: frozenset[str], smaller: frozenset[str]) -> float:
        """Likelihood-ratio test of nested models."""
        df = sum(self.width(name) for name in larger - smaller)
        return float(stats.chi2.sf(max(self.ofv(smaller) - self.ofv(larger), 0.0), df))

    def result(self, chosen: frozenset[str], warnings: tuple[str, ...] = ()) -> SearchResult:
        bad = [chosen for chosen, found in self.fits.items() if not found.status.is_success]
        if bad:
            names = ", ".join(sorted(bad[0])) or "no covariates"
            warnings += (
                f"[W_SELECT_FITS] {len(bad)} of {len(self.fits)} fits on the way did not succeed, first that "
                f"with {names}: the path may have turned wrong there.",
            )
        kinds = {f.criterion_kind or f.ofv_kind for f in self.fits.values()}
        return SearchResult(
            tuple(n for n in self.problem.free if n in chosen),
            tuple(self.steps),
            len(self.fits),
            f"BICc ({', '.join(sorted(kinds))})",
            warnings,
        )


@dataclass(frozen=True, slots=True)
class Scm(AbstractSelection):
    """Stepwise covariate modeling: the best single addition, then the least loss by a removal.

    Attributes
    ----------
    criterion : {"p-value", "bicc"}
        Likelihood-ratio tests at the two levels, or BICc that must fall.
    forward, backward : float
        Levels of the tests.
    fitter : AbstractMethod

    Raises
    ------
    UsageError
        E_SELECT_OPTION.

    Notes
    -----
    Jonsson & Karlsson (1998), Pharm. Res. 15, 1463-1468.
    """

    criterion: str = "p-value"
    forward: float = 0.05
    backward: float = 0.01
    fitter: AbstractMethod = field(default=QUICK)

    name: ClassVar[str] = "scm"

    def __post_init__(self) -> None:
        """Refuse options outside their range."""
        _check(self.criterion, (self.forward, self.backward))

    def search(self, problem: SelectionProblem) -> SearchResult:
        """Search; see `AbstractSelection.search`."""
        models = _Models(problem, self.fitter, self.criterion)
        now: frozenset[str] = frozenset()
        models.fit(now, "start")
        while (new := self._best_addition(models, now)) is not None:
            now = new
        while (new := self._best_removal(models, now)) is not None:
            now = new
        return models.result(now)

    def _best_addition(self, models: _Models, now: frozenset[str]) -> frozenset[str] | None:
        bound = models.problem.bound
        trials = [now | {name} for name in models.problem.free if name not in now]
        trials = [trial for trial in trials if not bound.is_dependent(trial)]
        for trial in trials:
            models.fit(trial, f"add {next(iter(trial - now))}")
        if not trials:
            return None
        if self.criterion == "bicc":
            best = min(trials, key=models.bicc)
            return best if models.bicc(best) < models.bicc(now) else None
        best = min(trials, key=lambda trial: (models.p_value(trial, now), models.ofv(trial)))
        return best if models.p_value(best, now) < self.forward else None

    def _best_removal(self, models: _Models, now: frozenset[str]) -> frozenset[str] | None:
        trials = [now - {name} for name in now]
        for trial in trials:
            models.fit(trial, f"drop {next(iter(now - trial))}")
        if not trials:
            return None
        if self.criterion == "bicc":
            best = min(trials, key=models.bicc)
            return best if models.bicc(best) < models.bicc(now) else None
        best = max(trials, key=lambda trial: (models.p_value(now, trial), -models.ofv(trial)))
        return best if models.p_value(now, best) > self.backward else None


@dataclass(frozen=True, slots=True)
class Cossac(AbstractSelection):
    """Stepwise search guided by tests on the individuals of one fit, which decide what is tried next.

    Attributes
    ----------
    criterion : {"bicc", "p-value"}
        What decides whether a tried model is accepted.
    tried : float
        Relations whose test on the individuals has a larger p-value are not tried.
    forward, backward : float
        Levels of the likelihood-ratio tests; relations in the model whose test on the individuals has a p-
        value below `backward` are not tried to be dropped.
    fitter : AbstractMethod

    Raises
    ------
    UsageError
        E_SELECT_OPTION.

    Notes
    -----
    Ayral, Si Abdallah, Magnard & Chauvin (2021), CPT PSP 10, 318-329: additions in the order of the p-values
    of random effects against covariates, removals in that of the parameters against theirs. Random effects
    are drawn from normal laws with the conditional moments of each subject, against shrinkage.
    """

    criterion: str = "bicc"
    tried: float = 0.3
    forward: float = 0.05
    backward: float = 0.01
    fitter: AbstractMethod = field(default=QUICK)

    name: ClassVar[str] = "cossac"

    def __post_init__(self) -> None:
        """Refuse options outside their range."""
        _check(self.criterion, (self.tried, self.forward, self.backward))

    def search(self, problem: SelectionProblem) -> SearchResult:
        """Search; see `AbstractSelection.search`."""
        models = _Models(problem, self.fitter, self.criterion)
        now: frozenset[str] = frozenset()
        models.fit(now, "start")
        refused: set[frozenset[str]] = set()
        while True:
            new = self._addition(models, now, refused)
            new = self._removal(models, now if new is None else new, refused) or new
            if new is None or new == now:
                return models.result(now)
            now = new

    def _better(self, models: _Models, new: frozenset[str], now: frozenset[str]) -> bool:
        if self.criterion == "bicc":
            return models.bicc(new) < models.bicc(now)
        if new > now:
            return models.p_value(new, now) < self.forward
        return models.p_value(now, new) > self.backward

    def _addition(
        self, models: _Models, now: frozenset[str], refused: set[frozenset[str]]
    ) -> frozenset[str] | None:
        p_values = _tests(models.problem, models.fits[now], now, inside=False)
        for name in sorted(p_values, key=lambda n: p_values[n]):
            new = now | {name}
            if p_values[name] > self.tried or new in refused or models.problem.bound.is_dependent(new):
                continue
            models.fit(new, f"add {name} (p = {p_values[name]:.2g})")
            if self._better(models, new, now):
                return new
            refused.add(new)
        return None

    def _removal(
        self, models: _Models, now: frozenset[str], refused: set[frozenset[str]]
    ) -> frozenset[str] | None:
        p_values = _tests(models.problem, models.fits[now], now, inside=True)
        for name in sorted(p_values, key=lambda n: -p_values[n]):
            new = now - {name}
            if p_values[name] < self.backward or new in refused:
                continue
            models.fit(new, f"drop {name} (p = {p_values[name]:.2g})")
            if self._better(models, new, now):
                return new
            refused.add(new)
        return None


@dataclass(frozen=True, slots=True)
class Samba(AbstractSelection):
    """Fit, choose the best relations for the individuals of the fit by BIC, and again until nothing changes.

    Attributes
    ----------
    most_fits : int
    fitter : AbstractMethod

    Raises
    ------
    UsageError
        E_SELECT_OPTION.

    Notes
    -----
    Prague & Lavielle (2022), CPT PSP 11, 161-172. The regression uses the conditional mean and variance of
    every subject (`RelationSearch`), the limit of many draws from its conditional law.
    """

    most_fits: int = 20
    fitter: AbstractMethod = field(default=QUICK)

    name: ClassVar[str] = "samba"

    def __post_init__(self) -> None:
        """Refuse options outside their range."""
        if isinstance(self.most_fits, bool) or not isinstance(self.most_fits, int) or self.most_fits < 1:
            raise UsageError(
                "E_SELECT_OPTION", f"most_fits must be a whole number from 1; {self.most_fits!r} was given."
            )

    def search(self, problem: SelectionProblem) -> SearchResult:
        """Search; see `AbstractSelection.search`."""
        models, search = _Models(problem, self.fitter, "bicc"), RelationSearch(problem.bound)
        now: frozenset[str] = frozenset()
        best = now
        for number in range(self.most_fits):
            found = models.fit(now, f"round {number + 1}")
            if models.bicc(now) < models.bicc(best):
                best = now
            mean, sd = _conditional(found)
            choice = search.select(mean, np.diag((sd**2).sum(axis=0)), problem.penalty)
            names = zip(problem.bound.names, choice.chosen & ~problem.bound.forced, strict=True)
            new = frozenset(name for name, inside in names if inside)
            if new in models.fits:
                return models.result(best)
            now = new
        warning = f"[W_SELECT_NOT_SETTLED] the model still changed after {self.most_fits} fits."
        return models.result(best, (warning,))


def _conditional(found: PopulationFit) -> tuple[np.ndarray, np.ndarray]:
    """Conditional means and SDs of the parameters with random effects, each (n, r)."""
    index = [found.parameter_names.index(name) for name in found.random_effects]
    people = found.individuals
    return people.conditional_mean_phi[:, index], people.conditional_sd_phi[:, index]


def _tests(
    problem: SelectionProblem, found: PopulationFit, now: frozenset[str], *, inside: bool
) -> dict[str, float]:
    """p-values of F-tests: random effects against relations out, or parameters against relations in.

    The statistic is averaged over draws from the conditional laws.
    """
    bound, rng = problem.bound, stream(problem.seed, TEST_STREAM, len(now))
    mean, sd = _conditional(found)
    draws = mean + sd * rng.standard_normal((N_DRAWS, *mean.shape))
    if not inside:
        index = [found.parameter_names.index(name) for name in found.random_effects]
        people = found.individuals
        draws = draws - (people.ebe_phi[:, index] - people.ebe_eta)
    p_values = {}
    for m, name in enumerate(bound.names):
        if bound.forced[m] or (name in now) != inside:
            continue
        x = bound.regressors[:, bound.first[m] : bound.first[m + 1]]
        y = draws[:, :, bound.owner[m]]
        y, x = y - y.mean(axis=1, keepdims=True), x - x.mean(axis=0)
        q, df = np.linalg.qr(x)[0], x.shape[1]
        explained, total = ((y @ q) ** 2).sum(axis=1), (y**2).sum(axis=1)
        rest = len(x) - 1 - df
        statistic = float(np.mean(explained / df / ((total - explained) / rest)))
        p_values[name] = float(stats.f.sf(statistic, df, rest))
    return p_values
