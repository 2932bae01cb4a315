"""Population inference from amortized posteriors: a surrogate, corrected by the true likelihood.

Steps 1-2: the draws of every subject are refitted by a Gaussian mixture and divided by the prior; the
population likelihood is then closed-form (`surrogate.py`) and is maximized from several starts. Step 3: the
likelihood itself is importance-sampled on nodes that follow the conditional law of each subject
(`guided_likelihood.py`), which removes the errors of refit and network alike; the nodes are guided anew from
each optimum until it stops moving. The objective value that is reported comes from an independent evaluation
(`referee.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import numpy as np

from amortnlme.core.errors import CapabilityError, UsageError
from amortnlme.core.rng import stream
from amortnlme.core.status import FitStatus
from amortnlme.data.subject import TimeVarying
from amortnlme.methods.assemble import Solution, assemble_fit, importance_warnings
from amortnlme.methods.base import AbstractMethod, FitProblem
from amortnlme.methods.correction import correct_surrogate
from amortnlme.methods.density_targets import DensityTarget, SurrogateTarget
from amortnlme.methods.draws_error import with_halves_error
from amortnlme.methods.ebe import EmpiricalBayes, IndividualTarget, find_ebe
from amortnlme.methods.escalation import PARETO_LIMIT, correct_draws
from amortnlme.methods.grouped import GroupedTarget, grouped_draws, grouped_surrogate
from amortnlme.methods.monte_carlo_gate import error_reasons, gate_warnings
from amortnlme.methods.population_fit import FitQuality, PopulationFit
from amortnlme.methods.referee import Verdict, referee
from amortnlme.methods.refine import Optimum, fit_surrogate
from amortnlme.methods.stopwatch import Stopwatch
from amortnlme.methods.surrogate import Surrogate, SurrogateLikelihood, build_surrogate
from amortnlme.methods.surrogate_networks import fit_networks_to_surrogate
from amortnlme.population.bound_population import BoundPopulation
from amortnlme.population.posterior_draws import PosteriorDraws

MIN_MIXTURE_DRAWS = 500
AUTOMATIC = ("n_components", "n_points", "referee_points", "referee_replicates")
#: Nodes of all subjects together that a fit, or a replicate of the referee, spends by default.
NODE_BUDGET, REFEREE_BUDGET = 2**18, 2**18
#: From here on half the replicates do.
MANY_SUBJECTS = 1000
CORRECTIONS = ("auto", "likelihood", "density", "draws", "none")
# Purposes of the random streams of one fit: the referee never shares numbers with the fit it judges.
MIXTURE_STREAM, START_STREAM, NODE_STREAM, REFEREE_STREAM, DONOR_STREAM, DRAWS_STREAM = range(6)


@dataclass(frozen=True, slots=True)
class Amortized(AbstractMethod):
    """Fit a population model to posterior draws, corrected by the exact likelihood where the model has one.

    Attributes
    ----------
    correction : {"auto", "likelihood", "density", "draws", "none"}
        "likelihood": importance sampling with the model's likelihood, which cancels the error of the network
        (needs `dataset` and a model with a likelihood). "density": the same with the estimator's own density
        (needs `log_density`). "draws": the surrogate of draws that were themselves corrected by the
        likelihood, by importance resampling and by `escalate` where their weights are bad; leaves the error
        of the refit, and costs the same whatever the population model. "none": the surrogate alone, which
        shows the network's own quality. "auto": "likelihood", "density" or "none", the first that is
        possible; falling short of "likelihood" gives a warning. With networks of covariates:
        "draws" or "none".
    n_components : int or None
        Mixture components per subject in the surrogate. None: two from 500 draws on, else one, because few
        draws determine a single, debiased Gaussian far better than a mixture.
    starts : int
        Starting points of the surrogate fit.
    n_points : int or None
        Frozen nodes per subject, best a power of two. None: 256, fewer with many subjects (32 from 8000 on),
        whose errors average out.
    max_rounds : int
        How often nodes may be placed anew.
    tolerance : float
        The optimum has settled when a new placement moves it by less than this many standard errors.
    referee_points, referee_replicates : int or None
        Nodes per subject and replicate, and replicates, of the independent -2 log-likelihood. None: 512 and
        8, fewer with many subjects (16 and 4 from 16 000 on).
    log_density : callable, optional
        Maps phi (n_subjects, n_points, d) to log q(phi | y_i) (n_subjects, n_points), e.g.
        ``lambda phi: estimator.log_prob(dataset, phi)``.

    Raises
    ------
    UsageError
        E_FIT_OPTION.
    """

    correction: str = "auto"
    n_components: int | None = None
    starts: int = 5
    n_points: int | None = None
    max_rounds: int = 12
    tolerance: float = 0.01
    referee_points: int | None = None
    referee_replicates: int | None = None
    log_density: Callable[[np.ndarray], np.ndarray] | None = field(default=None, compare=False, repr=False)

    name: ClassVar[str] = "amortized"
    needs_draws: ClassVar[bool] = True
    handles_groups: ClassVar[bool] = True
    handles_networks: ClassVar[bool] = True
    requires: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        """Refuse options outside their range."""
        if self.correction not in CORRECTIONS:
            raise UsageError(
                "E_FIT_OPTION",
                f"correction {self.correction!r} is unknown. Allowed: {', '.join(CORRECTIONS)}.",
            )
        for name, low, high in (
            ("n_components", 1, 10),
            ("starts", 1, 1000),
            ("n_points", 16, 2**16),
            ("max_rounds", 1, 100),
            ("referee_points", 16, 2**16),
            ("referee_replicates", 2, 1000),
        ):
            value = getattr(self, name)
            if value is None and name in AUTOMATIC:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise UsageError(
                    "E_FIT_OPTION",
                    f"{name} must be a whole number from {low} to {high}; {value!r} was given.",
                )
        if not 0 < self.tolerance < 1:
            raise UsageError(
                "E_FIT_OPTION", f"tolerance must lie between 0 and 1; {self.tolerance!r} was given."
            )

    def run(self, problem: FitProblem) -> PopulationFit:
        """Estimate the population parameters.

        Parameters
        ----------
        problem : FitProblem
            With draws; with a bound model for the likelihood correction.

        Returns
        -------
        PopulationFit

        Raises
        ------
        CapabilityError
            E_FIT_CAPABILITY when the requested correction is not possible.
        UsageError
            E_FIT_NEEDS_DRAWS.
        """
        from threadpoolctl import threadpool_limits

        # Matrices here are tiny: BLAS threads only wait for each other, on a busy machine for most of the
        # fit.
        with threadpool_limits(limits=1, user_api="blas"):
            return self._run(problem)

    def _run(self, problem: FitProblem) -> PopulationFit:
        if problem.draws is None:
            raise UsageError("E_FIT_NEEDS_DRAWS", "method 'amortized' needs posterior draws. Sample first.")
        watch = Stopwatch()
        correction, warnings = self._choose_correction(problem)
        draws, population = problem.draws, problem.bound_population
        if correction == "draws":
            with watch("draws"):
                draws, found = _corrected_draws(problem)
            warnings += found
        ungrouped = draws
        warnings += [*_draw_warnings(draws), *_covariate_warnings(problem)]
        with watch("surrogate"):
            surrogate = self._surrogate(draws, draws.n_draws, problem.seed)
            target = self._target(correction, problem, surrogate)
            # Whoever can evaluate the true likelihood judges, also a fit that was not corrected by it.
            judge = target if problem.bound_model is None else problem.bound_model
            if population.grouped is not None:
                target, judge = (GroupedTarget(part, population.grouped) for part in (target, judge))
                surrogate = grouped_surrogate(surrogate, population.grouped)
                draws = grouped_draws(draws, population.grouped, stream(problem.seed, DONOR_STREAM))
            rng = stream(problem.seed, START_STREAM)
            if population.networks:
                rough = fit_networks_to_surrogate(surrogate, population, draws, self.starts, rng)
            else:
                rough = fit_surrogate(SurrogateLikelihood(surrogate, population), draws, self.starts, rng)
        best = rough
        if correction in ("none", "draws"):
            with watch("error of the draws"):
                best = rough = with_halves_error(
                    rough, ungrouped, population, partial(self._half_surrogate, problem)
                )
        else:
            with watch("correction"):
                best = correct_surrogate(
                    target=target,
                    population=population,
                    draws=draws,
                    rough=rough,
                    start_u=surrogate.likely_effects(*population.unpack(rough.x)),
                    rng=stream(problem.seed, NODE_STREAM),
                    n_points=self.n_points or nodes_per_subject(draws.n_subjects, NODE_BUDGET, 32, 256),
                    max_rounds=self.max_rounds,
                    tolerance=self.tolerance,
                )
        with watch("individuals"):
            mu, factor = population.unpack(best.x)
            modes = find_ebe(judge, mu, factor, start=surrogate.likely_effects(mu, factor))
        with watch("referee"):
            verdict = self._verdict(judge, mu, factor, modes, problem.seed)
        warnings += best.warnings + _mode_warnings(modes, population.subject_ids)
        warnings += _noise_warnings(best, population.names)
        solution = _solution(self, problem, rough, best, modes, verdict, surrogate, warnings, watch)
        return assemble_fit(f"{self.name} ({correction} correction)", problem, solution)

    def _verdict(
        self, judge: IndividualTarget, mu: np.ndarray, factor: np.ndarray, modes: EmpiricalBayes, seed: int
    ) -> Verdict:
        """Evaluate the likelihood at the estimates anew."""
        n_subjects = len(modes.converged)
        return referee(
            judge,
            mu,
            factor,
            modes,
            stream(seed, REFEREE_STREAM),
            n_points=self.referee_points or nodes_per_subject(n_subjects, REFEREE_BUDGET, 16, 512),
            n_replicates=self.referee_replicates or (8 if n_subjects < MANY_SUBJECTS else 4),
        )

    def _surrogate(self, draws: PosteriorDraws, n_draws: int, seed: int) -> Surrogate:
        """Refit the draws by as many components as `n_draws` of them determine."""
        n_components = self.n_components or (2 if n_draws >= MIN_MIXTURE_DRAWS else 1)
        return build_surrogate(draws, n_components, stream(seed, MIXTURE_STREAM))

    def _half_surrogate(self, problem: FitProblem, half: PosteriorDraws) -> Surrogate:
        """Refit half of the draws as all of them were."""
        found = self._surrogate(half, 2 * half.n_draws, problem.seed)
        grouped = problem.bound_population.grouped
        return found if grouped is None else grouped_surrogate(found, grouped)

    def _choose_correction(self, problem: FitProblem) -> tuple[str, list[str]]:
        has_likelihood, networks = problem.bound_model is not None, problem.bound_population.networks
        if networks:
            self._refuse_networks(problem.bound_population)
        if self.correction in ("likelihood", "draws") and not has_likelihood:
            why = (
                "no dataset was given"
                if problem.dataset is None
                else "no model is known for the draws"
                if problem.model is None
                else f"model {problem.model.name!r} has no likelihood"
            )
            raise CapabilityError(
                "E_FIT_CAPABILITY",
                f"correction {self.correction!r} is not possible: {why}. Pass dataset=... and a model with a "
                f"likelihood, or "
                f"choose correction 'density' or 'none'.",
            )
        if self.correction == "density" and self.log_density is None:
            raise CapabilityError(
                "E_FIT_CAPABILITY",
                "correction 'density' needs the estimator's density. Pass "
                "Amortized(correction='density', log_density=lambda phi: estimator.log_prob(dataset, phi)).",
            )
        if self.correction != "auto":
            return self.correction, []
        if has_likelihood:
            return "draws" if networks else "likelihood", []
        if self.log_density is not None and not networks:
            return "density", [
                "[W_FIT_DENSITY_CORRECTION] the model's likelihood is not available: corrected by the "
                "estimator's "
                "own density, so that the error of the network remains."
            ]
        return "none", [
            "[W_FIT_UNCORRECTED] neither a likelihood (dataset and model) nor a density is available: these "
            "are the "
            "estimates of the surrogate, uncorrected. Pass dataset=... (and model=...) to fit()."
        ]

    def _refuse_networks(self, population: BoundPopulation) -> None:
        """Only the search on the surrogate knows penalties."""
        if population.grouped is None and self.correction not in ("likelihood", "density"):
            return
        what = "groups" if population.grouped is not None else f"correction {self.correction!r}"
        raise CapabilityError(
            "E_FIT_NETWORKS",
            f"method 'amortized' does not combine networks of covariates with {what}. Correct the draws "
            "instead (correction 'draws'), or fit the data by fo, foce, focei, laplace, agq or vi.",
        )

    def _target(self, correction: str, problem: FitProblem, surrogate: Surrogate) -> IndividualTarget:
        if correction == "likelihood" and problem.bound_model is not None:
            return problem.bound_model
        stand_in = SurrogateTarget(surrogate)
        if correction == "density" and self.log_density is not None and problem.draws is not None:
            step = 0.02 * np.median(problem.draws.phi.std(axis=1), axis=0)
            return DensityTarget(self.log_density, problem.draws.prior, stand_in, step)
        return stand_in


def nodes_per_subject(n_subjects: int, budget: int, low: int, high: int) -> int:
    """Nodes that every subject gets of a budget for all, a power of two.

    Parameters
    ----------
    n_subjects, budget : int
    low, high : int
        Powers of two.

    Returns
    -------
    int
    """
    return int(np.clip(2 ** int(np.log2(max(budget / n_subjects, 1.0))), low, high))


def _solution(
    method: Amortized,
    problem: FitProblem,
    rough: Optimum,
    best: Optimum,
    modes: EmpiricalBayes,
    verdict: Verdict,
    surrogate: Surrogate,
    warnings: list[str],
    watch: Stopwatch,
) -> Solution:
    exact = problem.bound_model is not None
    corrected = best is not rough
    kind = "importance_sampling" if exact else ("density_importance_sampling" if corrected else "surrogate")
    ofv, ofv_se, individual = verdict.ofv, verdict.ofv_se, verdict.ofv_individual
    if kind == "surrogate":
        # The closed form is exact for the surrogate; sampling it would only add noise.
        individual = (
            -2.0 * SurrogateLikelihood(surrogate, problem.bound_population).value_and_scores(best.x)[0]
        )
        ofv, ofv_se = float(individual.sum()), float("nan")
    warnings = warnings + importance_warnings(
        problem.bound_population.subject_ids, verdict.ess, verdict.pareto_k
    )
    status = best.status
    if not np.isfinite(ofv):
        status = FitStatus.FAILED
        warnings = [*warnings, "[W_FIT_NO_SUPPORT] the likelihood is zero for at least one subject."]
    options = {name: getattr(method, name) for name in method.__slots__ if name != "log_density"}
    quality = FitQuality(
        ess=verdict.ess,
        pareto_k=verdict.pareto_k,
        n_points=verdict.n_points,
        gradient_norm=best.gradient_norm,
        mc_shift=best.last_move,
        mc_se=best.mc_se,
        surrogate_shift=float(np.max(np.abs(best.x - rough.x) / best.scale)) if corrected else 0.0,
        n_clipped=surrogate.n_clipped,
        mc_bias=best.mc_bias,
    )
    return Solution(
        x=best.x,
        covariance=best.covariance,
        status=status,
        modes=modes,
        conditional_mean_u=verdict.conditional_mean_u,
        conditional_cov_u=verdict.conditional_cov_u,
        ofv=ofv,
        ofv_se=ofv_se,
        ofv_kind=kind,
        ofv_individual=individual,
        quality=quality,
        warnings=warnings,
        trace=best.trace if not corrected else (*rough.trace, *best.trace),
        seconds=watch.seconds,
        options=options,
    )


def _corrected_draws(problem: FitProblem) -> tuple[PosteriorDraws, list[str]]:
    """Draws corrected by the likelihood, and for whom that did not work."""
    assert problem.draws is not None and problem.model is not None and problem.dataset is not None
    rng = stream(problem.seed, DRAWS_STREAM)
    corrected = correct_draws(problem.draws, problem.model, problem.dataset, rng)
    lost = np.flatnonzero(corrected.pareto_k > PARETO_LIMIT)
    if not len(lost):
        return corrected.draws, []
    return corrected.draws, [
        f"[W_FIT_DRAWS_UNCORRECTED] the draws of {len(lost)} of {problem.draws.n_subjects} subjects could "
        f"not be corrected (k-hat above {PARETO_LIMIT}), first {problem.draws.subject_ids[lost[0]]!r}: the "
        "estimates are those of a surrogate that is wrong for them. Use correction 'likelihood'."
    ]


def _draw_warnings(draws: PosteriorDraws) -> list[str]:
    outside = [i for i, reasons in enumerate(draws.out_of_domain) if reasons]
    if not outside:
        return []
    first = draws.out_of_domain[outside[0]][0]
    return [
        f"[W_DRAWS_OUT_OF_DOMAIN] {len(outside)} of {draws.n_subjects} subjects lie outside what the "
        f"estimator was "
        f"trained on, first {draws.subject_ids[outside[0]]!r}: {first}"
    ]


def _covariate_warnings(problem: FitProblem) -> list[str]:
    """Say where a population model takes a covariate that changes within subjects at its first value."""
    used = {effect.covariate for effect in problem.bound_population.covariates}
    subjects = () if problem.dataset is None else problem.dataset.subjects
    changing = sorted(c for c in used if any(isinstance(s.covariates.get(c), TimeVarying) for s in subjects))
    if not changing:
        return []
    return [
        f"[W_FIT_COVARIATE_BASELINE] {', '.join(changing)} changes within subjects: the population model "
        f"uses its value at each subject's first record."
    ]


def _noise_warnings(best: Optimum, names: tuple[str, ...]) -> list[str]:
    if best.covariance is None or best.mc_se is None or best.mc_bias is None:
        return []
    reasons = error_reasons(names, np.sqrt(np.diagonal(best.covariance)), best.mc_se, best.mc_bias)
    return gate_warnings(
        reasons, "Raise n_points; without a correction, sample more draws or give a likelihood."
    )


def _mode_warnings(modes: EmpiricalBayes, ids: tuple[str, ...]) -> list[str]:
    lost = np.flatnonzero(~modes.converged)
    if not len(lost):
        return []
    return [
        f"[W_FIT_EBE] the conditional mode was not found for {len(lost)} of {len(ids)} subjects, first "
        f"{ids[lost[0]]!r}: its EBE and importance proposal are unreliable."
    ]
