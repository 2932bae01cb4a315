"""The published amortized estimator, as a named reference method: simulated likelihood over fixed draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from amortnlme.core.errors import CapabilityError, UsageError
from amortnlme.core.rng import stream
from amortnlme.core.status import FitStatus
from amortnlme.methods.assemble import Solution, assemble_fit
from amortnlme.methods.base import AbstractMethod, FitProblem
from amortnlme.methods.density_targets import SurrogateTarget
from amortnlme.methods.ebe import EmpiricalBayes, find_ebe
from amortnlme.methods.monte_carlo_gate import error_reasons, gate_warnings, weight_reasons
from amortnlme.methods.monte_carlo_likelihood import MonteCarloLikelihood, tabulate_draws
from amortnlme.methods.population_fit import FitQuality, PopulationFit
from amortnlme.methods.referee import Verdict, referee
from amortnlme.methods.refine import Optimum, failed, finish
from amortnlme.methods.stopwatch import Stopwatch
from amortnlme.methods.surrogate import build_surrogate, gaussian_prior_moments
from amortnlme.population.posterior_draws import PosteriorDraws
from amortnlme.population.starts import natural_reach, search_box, start_points

#: Smallest SD of a random effect that is searched, as a share of the typical individual posterior SD.
SMALLEST_SD = 1e-3
# Purposes of the random streams of one fit.
SURROGATE_STREAM, START_STREAM, REFEREE_STREAM = range(3)


@dataclass(frozen=True, slots=True)
class MonteCarlo(AbstractMethod):
    """Maximize the mean of p(phi | theta) / p(phi) over the draws of every subject (Arruda et al. 2024).

    Kept for comparison, and for judging published figures. Variances are inflated, the narrow ones most, by
    an error that grows like sqrt(n_subjects) in standard errors; `Amortized` removes it. Every fit says how
    far its draws carry: effective draws and k-hat per subject, Monte-Carlo error and bias per estimate.

    Attributes
    ----------
    pooled_variance : float or None
        The variance given to pooled parameters, on the phi scale; 0.001 as published. None refuses pooled
        parameters, which have no place in this objective.
    starts : int
        Starting points.
    referee_points, referee_replicates : int
        As in `Amortized`.

    Raises
    ------
    UsageError
        E_FIT_OPTION.
    """

    pooled_variance: float | None = None
    starts: int = 5
    referee_points: int = 512
    referee_replicates: int = 8

    name: ClassVar[str] = "monte-carlo"
    needs_draws: ClassVar[bool] = True
    requires: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        """Refuse options outside their range."""
        variance = self.pooled_variance
        if variance is not None and not (isinstance(variance, int | float) and 0 < variance < np.inf):
            raise UsageError(
                "E_FIT_OPTION",
                f"pooled_variance must be positive, or None; {variance!r} was given. Published: 0.001.",
            )
        for name, low, high in (
            ("starts", 1, 1000),
            ("referee_points", 32, 2**16),
            ("referee_replicates", 2, 1000),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise UsageError(
                    "E_FIT_OPTION",
                    f"{name} must be a whole number from {low} to {high}; {value!r} was given.",
                )

    def run(self, problem: FitProblem) -> PopulationFit:
        """Estimate the population parameters.

        Parameters
        ----------
        problem : FitProblem
            With draws.

        Returns
        -------
        PopulationFit

        Raises
        ------
        CapabilityError
            E_FIT_POOLED where there are pooled parameters and no variance is given for them.
        UsageError
            E_FIT_NEEDS_DRAWS.
        """
        from threadpoolctl import threadpool_limits

        if problem.draws is None:
            raise UsageError("E_FIT_NEEDS_DRAWS", "method 'monte-carlo' needs posterior draws. Sample first.")
        _check_pooled(problem, self.pooled_variance)
        with threadpool_limits(limits=1, user_api="blas"):
            return self._run(problem, problem.draws)

    def _run(self, problem: FitProblem, draws: PosteriorDraws) -> PopulationFit:
        watch, population = Stopwatch(), problem.bound_population
        sd = float(np.sqrt(self.pooled_variance or 0.0))
        with watch("objective"):
            quick = MonteCarloLikelihood(tabulate_draws(draws), population, sd)
            exact = MonteCarloLikelihood(tabulate_draws(draws, "double"), population, sd)
            best = _maximize(quick, exact, draws, self.starts, stream(problem.seed, START_STREAM))
        with watch("diagnostics"):
            quality, reasons = _judge_draws(exact, best)
        with watch("individuals"):
            surrogate = build_surrogate(draws, 1, stream(problem.seed, SURROGATE_STREAM))
            judge = SurrogateTarget(surrogate) if problem.bound_model is None else problem.bound_model
            mu, factor = population.unpack(best.x)
            modes = find_ebe(judge, mu, factor, start=surrogate.likely_effects(mu, factor))
        with watch("referee"):
            verdict = referee(
                judge,
                mu,
                factor,
                modes,
                stream(problem.seed, REFEREE_STREAM),
                n_points=self.referee_points,
                n_replicates=self.referee_replicates,
            )
        warnings = best.warnings + gate_warnings(
            reasons, "More draws help slowly; fit with method 'amortized', which corrects them."
        )
        if len(population.pooled_index):
            warnings.append(_pooled_warning(problem, self.pooled_variance))
        values = -2.0 * exact.value_and_scores(best.x)[0]
        return assemble_fit(
            self.name,
            problem,
            self._solution(problem, best, quality, values, modes, verdict, warnings, watch),
        )

    def _solution(
        self,
        problem: FitProblem,
        best: Optimum,
        quality: FitQuality,
        values: np.ndarray,
        modes: EmpiricalBayes,
        verdict: Verdict,
        warnings: list[str],
        watch: Stopwatch,
    ) -> Solution:
        """`values` are the published objective of every subject, as -2 log."""
        has_likelihood = problem.bound_model is not None
        ofv, ofv_se, individual = (
            (verdict.ofv, verdict.ofv_se, verdict.ofv_individual)
            if has_likelihood
            else (float(values.sum()), _objective_se(quality), values)
        )
        return Solution(
            x=best.x,
            covariance=best.covariance,
            status=best.status if np.isfinite(ofv) else FitStatus.FAILED,
            modes=modes,
            conditional_mean_u=verdict.conditional_mean_u,
            conditional_cov_u=verdict.conditional_cov_u,
            ofv=ofv,
            ofv_se=ofv_se,
            ofv_kind="importance_sampling" if has_likelihood else "monte_carlo",
            ofv_individual=individual,
            quality=quality,
            warnings=warnings,
            trace=best.trace,
            seconds=watch.seconds,
            options={name: getattr(self, name) for name in self.__slots__},
            criterion=float(values.sum()) if has_likelihood else float("nan"),
            criterion_kind="monte_carlo" if has_likelihood else "",
        )


def _check_pooled(problem: FitProblem, variance: float | None) -> None:
    population = problem.bound_population
    if variance is not None or not len(population.pooled_index):
        return
    names = ", ".join(population.parameters.names[p] for p in population.pooled_index)
    raise CapabilityError(
        "E_FIT_POOLED",
        f"method 'monte-carlo' has no place for pooled parameters ({names}): draws have no density at a "
        "point. Give them a small variance, MonteCarlo(pooled_variance=0.001) as published, or use "
        "Amortized(), which needs none.",
    )


def _maximize(
    quick: MonteCarloLikelihood,
    exact: MonteCarloLikelihood,
    draws: PosteriorDraws,
    n_starts: int,
    rng: np.random.Generator,
) -> Optimum:
    """Search in single precision from all starts, then end in double precision from the best of them."""
    from amortnlme.methods._pypesto import minimize_multistart

    population = quick.population
    prior_mean, prior_covariance = gaussian_prior_moments(draws.prior)
    lower, upper = search_box(population, draws, prior_mean, np.sqrt(np.diagonal(prior_covariance)))
    typical = np.median(draws.phi.std(axis=1), axis=0)
    lower[population.chol_diagonal] = SMALLEST_SD * typical[population.random_index]
    starts = start_points(population, draws, n_starts, rng)
    # Single precision resolves sums of logarithms to 1e-7 of their size.
    rough = minimize_multistart(
        quick.value_and_gradient, starts, lower, upper, population.names, value_tolerance=1e-7
    )
    trace: dict[str, Any] = {
        "stage": "single precision",
        "x": rough.x.tolist(),
        "objective": 2.0 * rough.value,
        "n_evaluations": rough.n_evaluations,
        "start_objectives": (2.0 * rough.values).tolist(),
    }
    if not np.isfinite(rough.value):
        return failed(rough.x, [trace])
    best = minimize_multistart(exact.value_and_gradient, rough.x[None], lower, upper, population.names)
    end = {"stage": "double precision", "x": best.x.tolist(), "objective": 2.0 * best.value}
    scale = natural_reach(population, draws) / np.sqrt(population.n_subjects)
    return finish(exact, population, best.x, scale, 0.0, [trace, end], at_limit=[])


def _judge_draws(objective: MonteCarloLikelihood, best: Optimum) -> tuple[FitQuality, list[str]]:
    ess, pareto_k = objective.subject_quality(best.x)
    reasons = weight_reasons(ess, pareto_k)
    mc_se, mc_bias = best.mc_se, best.mc_bias
    if best.covariance is not None and mc_se is not None and mc_bias is not None:
        names = objective.population.names
        reasons = error_reasons(names, np.sqrt(np.diagonal(best.covariance)), mc_se, mc_bias) + reasons
    quality = FitQuality(
        ess=ess,
        pareto_k=pareto_k,
        n_points=objective.table.n_draws,
        gradient_norm=best.gradient_norm,
        mc_shift=best.last_move,
        mc_se=mc_se,
        surrogate_shift=0.0,
        n_clipped=0,
        mc_bias=mc_bias,
    )
    return quality, reasons


def _objective_se(quality: FitQuality) -> float:
    """Monte-Carlo standard error of -2 sum_i log Zhat_i; the squared variation coefficient is M/ESS - 1."""
    with np.errstate(divide="ignore"):
        variance = (1.0 / quality.ess - 1.0 / quality.n_points).sum()
    return float(2.0 * np.sqrt(max(variance, 0.0)))


def _pooled_warning(problem: FitProblem, variance: float | None) -> str:
    population = problem.bound_population
    names = ", ".join(population.parameters.names[p] for p in population.pooled_index)
    return (
        f"[W_FIT_POOLED_VARIANCE] pooled parameters ({names}) were given a variance of {variance:g} on the "
        "phi scale during the search; results are stated as if it were zero."
    )
