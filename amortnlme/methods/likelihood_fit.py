"""What all methods that maximize a deterministic likelihood approximation share: starts, search, result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from amortnlme.core.errors import UsageError
from amortnlme.core.rng import stream
from amortnlme.core.status import FitStatus
from amortnlme.methods.assemble import Solution, assemble_fit, importance_warnings
from amortnlme.methods.base import FitProblem
from amortnlme.methods.data_start import data_starts
from amortnlme.methods.ebe import EmpiricalBayes
from amortnlme.methods.identifiability import unidentified
from amortnlme.methods.linearization import linearized_covariance, refuse_linearization
from amortnlme.methods.local_search import ModalObjective, PopulationObjective
from amortnlme.methods.maximize import maximize
from amortnlme.methods.penalized_search import maximize_penalized
from amortnlme.methods.population_fit import FitQuality, PopulationFit
from amortnlme.methods.referee import referee
from amortnlme.methods.refine import Optimum
from amortnlme.methods.stopwatch import Stopwatch
from amortnlme.methods.support import support_warning
from amortnlme.model.bound import BoundModel
from amortnlme.population.bound_population import BoundPopulation

START_STREAM, REFEREE_STREAM = 0, 1
STANDARD_ERRORS = ("hessian", "scores", "sandwich", "linearization")


@dataclass(frozen=True, slots=True)
class LikelihoodOptions:
    """Options all likelihood methods share; the method objects hold them as fields of their own.

    Attributes
    ----------
    starts : int
        Starting points: the first from individual fits under the model's prior, the others around it.
    standard_errors : {"hessian", "scores", "sandwich", "linearization"}
        From the observed information R, from the scores S (sum_i s_i s_i'), R^-1 S R^-1, or from the expected
        information of the model linearized at the conditional modes (see `linearization.py`).
    referee_points, referee_replicates : int
        Nodes per subject and replicate, and replicates, of the importance-sampled -2 log-likelihood at the
        estimates; with 0 points `ofv` is the method's own criterion.
    """

    starts: int
    standard_errors: str
    referee_points: int
    referee_replicates: int

    def __post_init__(self) -> None:
        """Refuse options outside their range."""
        for name, low, high in (
            ("starts", 1, 1000),
            ("referee_points", 0, 2**16),
            ("referee_replicates", 2, 1000),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise UsageError(
                    "E_FIT_OPTION",
                    f"{name} must be a whole number from {low} to {high}; {value!r} was given.",
                )
        if self.standard_errors not in STANDARD_ERRORS:
            raise UsageError(
                "E_FIT_OPTION",
                f"standard_errors is {self.standard_errors!r}. Allowed for maximizing methods: "
                f"{', '.join(STANDARD_ERRORS)}.",
            )


def fit_likelihood(
    kind: str,
    problem: FitProblem,
    make: Callable[[BoundModel], ModalObjective],
    options: LikelihoodOptions,
    provenance: Mapping[str, Any],
    method: str | None = None,
    has_omega: bool = True,
) -> PopulationFit:
    """Maximize a likelihood approximation and judge the result.

    Parameters
    ----------
    kind : str
        Of the criterion, a key of `OFV_KINDS`.
    problem : FitProblem
        With dataset and model.
    make : callable
        Builds a fresh objective from the bound model.
    options : LikelihoodOptions
    provenance : mapping
        The method's options, for the record.
    method : str, optional
        Name of the method, where that is not `kind`.
    has_omega : bool
        Whether the criterion knows random effects; omega is zero otherwise.

    Returns
    -------
    PopulationFit

    Raises
    ------
    UsageError
        E_FIT_NEEDS_DATASET.
    CapabilityError
        E_FIT_CENSORED, E_FIT_LINEARIZATION: see `refuse_linearization`.
    """
    from threadpoolctl import threadpool_limits

    bound, model = problem.bound_model, problem.model
    if not isinstance(bound, BoundModel) or model is None:
        raise UsageError("E_FIT_NEEDS_DATASET", f"method {kind!r} needs a dataset and a model.")
    if options.standard_errors == "linearization":
        refuse_linearization(bound, problem.bound_population)
    watch = Stopwatch()
    # Matrices here are tiny: BLAS threads would only wait for each other.
    with threadpool_limits(limits=1, user_api="blas"):
        with watch("starts"):
            rng = stream(problem.seed, START_STREAM)
            starts = data_starts(bound, model.prior, problem.bound_population, options.starts, rng)
        with watch("search"):
            if not has_omega:
                starts[:, problem.bound_population.chol_slice] = 0.0
            is_penalized = bool(problem.bound_population.networks) or not has_omega
            best, objective = _search(bound, problem, make, starts, is_penalized)
        names = (method or kind, kind)
        if not is_penalized:
            return concluded(names, problem, bound, best, objective, options, provenance, watch)
        best = _with_standard_errors(best, objective, options.standard_errors)
        with watch("individuals"):
            modes = objective.modes(best.x)
        own = -2.0 * objective.value_and_scores(best.x)[0]
        return finished(names, problem, bound, best, own, modes, options, provenance, watch)


def concluded(
    names: tuple[str, str],
    problem: FitProblem,
    bound: BoundModel,
    best: Optimum,
    objective: ModalObjective,
    options: LikelihoodOptions,
    provenance: Mapping[str, Any],
    watch: Stopwatch,
) -> PopulationFit:
    """Give an optimum its standard errors and modes, judge it and assemble the result.

    Parameters
    ----------
    names : tuple of str
        Of the method, and of the kind of its criterion.
    problem : FitProblem
    bound : BoundModel
    best : Optimum
    objective : ModalObjective
        That `best` maximizes.
    options : LikelihoodOptions
    provenance : mapping
        The method's options, for the record.
    watch : Stopwatch

    Returns
    -------
    PopulationFit
    """
    population = problem.bound_population
    with watch("search"):
        best = _with_standard_errors(best, objective, options.standard_errors)
    with watch("individuals"):
        modes = objective.modes(best.x)
        best = _identified(best, objective, bound, population, modes)
        if options.standard_errors == "linearization" and best.covariance is not None:
            covariance, warnings = linearized_covariance(bound, population, best.x, modes.phi)
            best = replace(best, covariance=covariance, warnings=[*best.warnings, *warnings])
    own = -2.0 * objective.value_and_scores(best.x)[0]
    return finished(names, problem, bound, best, own, modes, options, provenance, watch)


def _search(
    bound: BoundModel,
    problem: FitProblem,
    make: Callable[[BoundModel], ModalObjective],
    starts: np.ndarray,
    is_penalized: bool,
) -> tuple[Optimum, ModalObjective]:
    population = problem.bound_population
    found = []
    for start in starts:
        # A fresh objective each time: the memory of modes of one search must not steer the next.
        objective = make(bound)
        if is_penalized:
            optimum = maximize_penalized(objective, bound, population, start)
        else:
            optimum = maximize(objective, population, start)
        found.append((optimum, objective))
    # The penalty is zero unless there are networks.
    values = [o.value + 0.5 * float(population.penalty @ o.x**2) for o, _ in found]
    values = [value if np.isfinite(value) else np.inf for value in values]
    best, objective = found[int(np.argmin(values))]
    if len(found) > 1:
        entry = {"stage": "starts", "start_objectives": [2.0 * value for value in values]}
        best = replace(best, trace=(*best.trace, entry))
    return best, objective


def _with_standard_errors(best: Optimum, objective: PopulationObjective, kind: str) -> Optimum:
    if kind in ("hessian", "linearization") or best.covariance is None:
        return best
    scores = objective.value_and_scores(best.x)[1]
    outer = scores.T @ scores
    if kind == "sandwich":
        return replace(best, covariance=best.covariance @ outer @ best.covariance)
    if np.linalg.matrix_rank(outer) < len(outer):
        warning = (
            "[W_FIT_SCORES_RANK] the scores of so few subjects do not determine standard errors: those of "
            "the observed information are given instead."
        )
        return replace(best, warnings=[*best.warnings, warning])
    return replace(best, covariance=np.linalg.inv(outer))


def _identified(
    best: Optimum,
    objective: PopulationObjective,
    bound: BoundModel,
    population: BoundPopulation,
    modes: EmpiricalBayes,
) -> Optimum:
    """Withdraw an optimum that is one of many; one on the boundary has no standard errors to withdraw."""
    told = any(text.startswith("[W_FIT_INFORMATION]") for text in best.warnings)
    if told or best.status in (FitStatus.FAILED, FitStatus.BOUNDARY):
        return best
    scores = objective.value_and_scores(best.x)[1]
    found = unidentified(scores, bound, population, best.x, modes.phi)
    if not found:
        return best
    return replace(best, covariance=None, status=FitStatus.NOT_CONVERGED, warnings=[*found, *best.warnings])


@dataclass(frozen=True, slots=True, eq=False)
class _Value:
    """-2LL at the estimates with what belongs to it: the referee's, or the method's own."""

    ofv: float
    ofv_se: float
    ofv_kind: str
    individual: np.ndarray
    mean_u: np.ndarray
    cov_u: np.ndarray
    ess: np.ndarray
    pareto_k: np.ndarray
    n_points: int


def _value(
    kind: str,
    problem: FitProblem,
    bound: BoundModel,
    best: Optimum,
    own: np.ndarray,
    modes: EmpiricalBayes,
    options: LikelihoodOptions,
) -> _Value:
    if not options.referee_points or not np.isfinite(own).all():
        nothing = np.full(len(own), np.nan)
        cov_u = np.linalg.inv(modes.precision)
        return _Value(float(own.sum()), float("nan"), kind, own, modes.u, cov_u, nothing, nothing, 0)
    mu, factor = problem.bound_population.unpack(best.x)
    rng = stream(problem.seed, REFEREE_STREAM)
    verdict = referee(bound, mu, factor, modes, rng, options.referee_points, options.referee_replicates)
    return _Value(
        verdict.ofv,
        verdict.ofv_se,
        "importance_sampling",
        verdict.ofv_individual,
        verdict.conditional_mean_u,
        verdict.conditional_cov_u,
        verdict.ess,
        verdict.pareto_k,
        verdict.n_points,
    )


def finished(
    names: tuple[str, str],
    problem: FitProblem,
    bound: BoundModel,
    best: Optimum,
    own: np.ndarray,
    modes: EmpiricalBayes,
    options: LikelihoodOptions,
    provenance: Mapping[str, Any],
    watch: Stopwatch,
) -> PopulationFit:
    """Judge an optimum and assemble the result.

    Parameters
    ----------
    names : tuple of str
        Of the method, and of the kind of its criterion.
    problem : FitProblem
    bound : BoundModel
    best : Optimum
    own : ndarray, shape (n_subjects,)
        The criterion, as -2 log-likelihood.
    modes : EmpiricalBayes
        Conditional modes at the optimum.
    options : LikelihoodOptions
    provenance : mapping
        The method's options, for the record.
    watch : Stopwatch

    Returns
    -------
    PopulationFit
    """
    method, kind = names
    population = problem.bound_population
    lost = ~np.isfinite(own)
    why = []
    if lost.any():
        why = [support_warning(bound, population.subject_ids, population.unpack(best.x)[0], lost)]
    with watch("referee"):
        value = _value(kind, problem, bound, best, own, modes, options)
    quality = FitQuality(
        ess=value.ess,
        pareto_k=value.pareto_k,
        n_points=value.n_points,
        gradient_norm=best.gradient_norm,
        mc_shift=best.last_move,
        mc_se=None,
        surrogate_shift=0.0,
        n_clipped=0,
    )
    solution = Solution(
        x=best.x,
        covariance=best.covariance,
        status=best.status if np.isfinite(value.ofv) else FitStatus.FAILED,
        modes=modes,
        conditional_mean_u=value.mean_u,
        conditional_cov_u=value.cov_u,
        ofv=value.ofv,
        ofv_se=value.ofv_se,
        ofv_kind=value.ofv_kind,
        ofv_individual=value.individual,
        quality=quality,
        warnings=[*why, *best.warnings, *_warnings(population.subject_ids, modes, value)],
        trace=best.trace,
        seconds=watch.seconds,
        options=provenance,
        criterion=float(own.sum()),
        criterion_kind=kind,
    )
    return assemble_fit(method, problem, solution)


def _warnings(ids: tuple[str, ...], modes: EmpiricalBayes, value: _Value) -> list[str]:
    warnings = importance_warnings(ids, value.ess, value.pareto_k) if value.n_points else []
    lost = np.flatnonzero(~modes.converged)
    if len(lost):
        warnings.append(
            f"[W_FIT_EBE] the conditional mode was not found for {len(lost)} of {len(ids)} subjects, first "
            f"{ids[lost[0]]!r}: its EBE is unreliable."
        )
    return warnings
