"""SAEM: stochastic approximation of EM, with standard errors and -2LL by importance sampling."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from amortnlme.core.errors import UsageError
from amortnlme.core.rng import stream
from amortnlme.core.status import FitStatus
from amortnlme.methods.assemble import Solution, assemble_fit, importance_warnings
from amortnlme.methods.base import AbstractMethod, FitProblem
from amortnlme.methods.data_start import data_starts
from amortnlme.methods.ebe import EmpiricalBayes, better_modes, find_ebe
from amortnlme.methods.guided_likelihood import guide_closely
from amortnlme.methods.identifiability import information_warning, unidentified
from amortnlme.methods.information import SINGULAR, invert_information, weak_entries
from amortnlme.methods.linearization import linearized_covariance, refuse_linearization
from amortnlme.methods.local_search import (
    boundary_warning,
    information_at,
    negative_value_and_gradient,
    rough_scale,
    vanishing_effects,
    vanishing_errors,
)
from amortnlme.methods.louis import louis_covariance
from amortnlme.methods.other_modes import other_modes, starts_at_modes
from amortnlme.methods.population_fit import FitQuality, PopulationFit
from amortnlme.methods.proposals import base_numbers
from amortnlme.methods.referee import Verdict, referee
from amortnlme.methods.saem_search import SaemPath, run_saem
from amortnlme.methods.stopwatch import Stopwatch
from amortnlme.methods.support import support_warning
from amortnlme.model.bound import BoundModel
from amortnlme.population.bound_population import BoundPopulation

START_STREAM, CHAIN_STREAM, REFEREE_STREAM, NODE_STREAM, LOUIS_STREAM, MODE_STREAM = range(6)
STANDARD_ERRORS = ("importance", "louis", "linearization")
#: Searches per subject for a better mode at the end.
N_SEARCHES = 4
#: Importance nodes of all subjects together: what matters is the error of the sums over subjects, which
#: falls with both numbers alike.
MOST_NODES, FEWEST_NODES = 16384, 16
#: Distance to the optimum, in standard errors, above which the fit warns, and above which it has failed.
NEAR, FAR = 0.2, 1.0


@dataclass(frozen=True, slots=True)
class Saem(AbstractMethod):
    """Stochastic approximation EM.

    Attributes
    ----------
    n_exploration, max_exploration : int
        Iterations with full gain: at least, and at most while the iterates drift.
    n_averaging : int
        Iterations with falling gain.
    n_chains : int or None
        Chains per subject; None: at least 200 over all subjects.
    starts : int
        Starting points; the run with the best importance-sampled likelihood is returned.
    n_points : int
        Importance nodes per subject for the information matrix, best a power of two; halved for studies of
        many subjects, down to 16, until there are at most 16384 in all.
    referee_points, referee_replicates : int
        Nodes per subject and replicate, and replicates, of the reported -2 log-likelihood.
    standard_errors : {"importance", "louis", "linearization"}
        From the observed information of the importance-sampled likelihood, which judges the end of the run in
        any case; from the observed information by Louis' method; or from the expected information of the
        model linearized at the conditional modes (see `louis.py`, `linearization.py`).

    Raises
    ------
    UsageError
        E_FIT_OPTION.
    CapabilityError
        E_FIT_CENSORED, E_FIT_LINEARIZATION from `run`: see `refuse_linearization`.
    """

    n_exploration: int = 150
    max_exploration: int = 1000
    n_averaging: int = 200
    n_chains: int | None = None
    starts: int = 1
    n_points: int = 128
    referee_points: int = 512
    referee_replicates: int = 8
    standard_errors: str = "importance"

    name: ClassVar[str] = "saem"
    needs_draws: ClassVar[bool] = False
    requires: ClassVar[frozenset[str]] = frozenset({"predict", "sensitivity", "likelihood"})

    def __post_init__(self) -> None:
        """Refuse options outside their range."""
        for name, low, high in (
            ("n_exploration", 50, 10**6),
            ("max_exploration", 50, 10**6),
            ("n_averaging", 20, 10**6),
            ("n_chains", 1, 10_000),
            ("starts", 1, 1000),
            ("n_points", 16, 2**16),
            ("referee_points", 32, 2**16),
            ("referee_replicates", 2, 1000),
        ):
            value = getattr(self, name)
            if name == "n_chains" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise UsageError(
                    "E_FIT_OPTION",
                    f"{name} must be a whole number from {low} to {high}; {value!r} was given.",
                )
        if self.standard_errors not in STANDARD_ERRORS:
            raise UsageError(
                "E_FIT_OPTION",
                f"standard_errors is {self.standard_errors!r}. Allowed for saem: "
                f"{', '.join(STANDARD_ERRORS)}.",
            )

    def run(self, problem: FitProblem) -> PopulationFit:
        """Fit; see `AbstractMethod.run`."""
        from threadpoolctl import threadpool_limits

        bound, model = problem.bound_model, problem.model
        if not isinstance(bound, BoundModel) or model is None:
            raise UsageError("E_FIT_NEEDS_DATASET", "method 'saem' needs a dataset and a model.")
        population = problem.bound_population
        if self.standard_errors == "linearization":
            refuse_linearization(bound, population)
        with threadpool_limits(limits=1, user_api="blas"):
            watch = Stopwatch()
            with watch("starts"):
                rng = stream(problem.seed, START_STREAM)
                starts = data_starts(bound, model.prior, population, self.starts, rng)
            runs = []
            for number, start in enumerate(starts):
                with watch("search"):
                    path = self._path(bound, population, start, stream(problem.seed, CHAIN_STREAM, number))
                with watch("referee"):
                    modes = _modes(bound, population, path, stream(problem.seed, MODE_STREAM))
                    verdict = self._judge(bound, population, path.x, modes, problem.seed)
                runs.append((path, modes, verdict))
            values = [v.ofv if np.isfinite(v.ofv) else np.inf for *_, v in runs]
            path, modes, verdict = runs[int(np.argmin(values))]
            with watch("information"):
                rng = stream(problem.seed, NODE_STREAM)
                ending = _ending(bound, population, path, modes.u, rng, self.n_points)
                ending = self._with_standard_errors(bound, population, modes, ending, problem.seed)
            return self._result(problem, path, modes, verdict, ending, values, watch)

    def _path(
        self, bound: BoundModel, population: BoundPopulation, start: np.ndarray, rng: np.random.Generator
    ) -> SaemPath:
        return run_saem(
            bound,
            population,
            start,
            rng,
            self.n_exploration,
            max(self.max_exploration, self.n_exploration),
            self.n_averaging,
            self.n_chains,
        )

    def _judge(
        self, bound: BoundModel, population: BoundPopulation, x: np.ndarray, modes: EmpiricalBayes, seed: int
    ) -> Verdict:
        mu, factor = population.unpack(x)
        rng = stream(seed, REFEREE_STREAM)
        return referee(bound, mu, factor, modes, rng, self.referee_points, self.referee_replicates)

    def _with_standard_errors(
        self,
        bound: BoundModel,
        population: BoundPopulation,
        modes: EmpiricalBayes,
        ending: _Ending,
        seed: int,
    ) -> _Ending:
        if ending.covariance is None or self.standard_errors == "importance":
            return ending
        if self.standard_errors == "louis":
            rng = stream(seed, LOUIS_STREAM)
            covariance, warnings = louis_covariance(bound, population, ending.x, modes, rng, self.n_points)
        else:
            covariance, warnings = linearized_covariance(bound, population, ending.x, modes.phi)
        return replace(ending, covariance=covariance, warnings=[*ending.warnings, *warnings])

    def _result(
        self,
        problem: FitProblem,
        path: SaemPath,
        modes: EmpiricalBayes,
        verdict: Verdict,
        ending: _Ending,
        values: list[float],
        watch: Stopwatch,
    ) -> PopulationFit:
        warnings = [
            *ending.warnings,
            *importance_warnings(problem.bound_population.subject_ids, verdict.ess, verdict.pareto_k),
        ]
        status = ending.status
        if not path.settled:
            warnings.append(
                f"[W_FIT_SAEM_DRIFT] the iterates still drifted after {path.n_exploration} exploring "
                "iterations. Raise max_exploration, or simplify the model."
            )
        if not np.isfinite(verdict.ofv):
            status = FitStatus.FAILED
            bound, population = problem.bound_model, problem.bound_population
            assert isinstance(bound, BoundModel)
            mu, lost = population.unpack(ending.x)[0], ~np.isfinite(verdict.ofv_individual)
            warnings.insert(0, support_warning(bound, population.subject_ids, mu, lost))
        quality = FitQuality(
            ess=verdict.ess,
            pareto_k=verdict.pareto_k,
            n_points=verdict.n_points,
            gradient_norm=ending.distance,
            mc_shift=ending.distance,
            mc_se=path.mc_se,
            surrogate_shift=0.0,
            n_clipped=0,
        )
        return assemble_fit(
            self.name,
            problem,
            Solution(
                x=ending.x,
                covariance=ending.covariance,
                status=status,
                modes=modes,
                conditional_mean_u=verdict.conditional_mean_u,
                conditional_cov_u=verdict.conditional_cov_u,
                ofv=verdict.ofv,
                ofv_se=verdict.ofv_se,
                ofv_kind="importance_sampling",
                ofv_individual=verdict.ofv_individual,
                quality=quality,
                warnings=warnings,
                trace=_trace(path, values),
                seconds=watch.seconds,
                options={name: getattr(self, name) for name in self.__slots__},
            ),
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Ending:
    """What the importance-sampled likelihood says about the end of a run."""

    x: np.ndarray
    covariance: np.ndarray | None
    status: FitStatus
    distance: float
    warnings: list[str]


def _modes(
    bound: BoundModel, population: BoundPopulation, path: SaemPath, rng: np.random.Generator
) -> EmpiricalBayes:
    """Conditional modes; the best ones of several searches, as individuals may have two modes.

    From the typical subject alone the modes of unusual individuals may be out of reach; their chains are
    there.
    """
    mu, factor = population.unpack(path.x)
    first = find_ebe(bound, mu, factor, max_iterations=20, tolerance=1e-2)
    start = np.linalg.lstsq(factor, (path.place - mu).T, rcond=None)[0].T
    first = better_modes(first, find_ebe(bound, mu, factor, start=start, max_iterations=20, tolerance=1e-2))
    found = better_modes(first, other_modes(bound, mu, factor, first, N_SEARCHES, rng)[0])
    return find_ebe(bound, mu, factor, start=found.u)


def _ending(
    bound: BoundModel,
    population: BoundPopulation,
    path: SaemPath,
    modes_u: np.ndarray,
    rng: np.random.Generator,
    n_points: int,
) -> _Ending:
    """Information, distance to the optimum and vanishing variances, from importance sampling at the end."""
    x = path.x
    while n_points > FEWEST_NODES and n_points * population.n_subjects > MOST_NODES:
        n_points //= 2
    base = base_numbers(population.n_subjects, n_points, population.r, rng, defensive=False)
    mu, factor = population.unpack(x)
    starts = starts_at_modes(bound, mu, factor, modes_u, N_SEARCHES, rng)
    objective, u = guide_closely(bound, population, x, starts, base, rng)
    value, gradient = negative_value_and_gradient(objective, x)
    if not np.isfinite(value):
        return _Ending(x, None, FitStatus.FAILED, np.inf, [])
    scores = objective.value_and_scores(x)[1]
    scale = rough_scale(scores.T @ scores + np.diag(1e-3 + 0.05 * (scores**2).sum(axis=0)))
    unknown = np.zeros(population.n_x)
    pinned = vanishing_effects(objective, population, x, unknown)
    gone = vanishing_errors(objective, population, x, unknown)
    on_boundary = bool(pinned or gone)
    free = np.setdiff1d(np.arange(population.n_x), [*pinned, *gone])
    if not on_boundary and (found := unidentified(scores, bound, population, x, mu + u[:, 0] @ factor.T)):
        return _Ending(x, None, FitStatus.NOT_CONVERGED, np.inf, found)
    information = information_at(objective, x, scale, free)
    covariance = invert_information(information)
    if covariance is None:
        weak = [population.names[free[k]] for k in weak_entries(information, SINGULAR)]
        warning = information_warning(weak)
        return _Ending(x, None, FitStatus.NOT_CONVERGED, np.inf, [warning])
    distance = float(np.max(np.abs(covariance @ gradient[free]) / np.sqrt(np.diagonal(covariance))))
    warnings, status = [], FitStatus.CONVERGED
    if on_boundary:
        warnings += boundary_warning(population, pinned, gone)
        status, covariance = FitStatus.BOUNDARY, None
    if distance > NEAR:
        warnings.append(
            f"[W_FIT_SAEM_DISTANCE] by importance sampling the optimum lies {distance:.2f} standard errors "
            "from the estimates. Raise n_averaging or n_chains."
        )
    if distance > FAR:
        status = FitStatus.NOT_CONVERGED
    return _Ending(x, covariance, status, distance, warnings)


def _trace(path: SaemPath, values: list[float]) -> tuple[dict[str, Any], ...]:
    """Every tenth iterate, and the likelihoods the starts reached."""
    stages = [
        {
            "stage": "exploration" if k < path.n_exploration else "averaging",
            "iteration": k + 1,
            "x": path.iterates[k].tolist(),
        }
        for k in range(0, len(path.iterates), 10)
    ]
    return (*stages, {"stage": "starts", "start_objectives": values})
