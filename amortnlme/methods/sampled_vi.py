"""Variational inference with sampled expectations: few draws per step, path-derivative or standard."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np

from amortnlme.core.errors import UsageError
from amortnlme.core.rng import stream
from amortnlme.core.status import FitStatus
from amortnlme.methods.base import AbstractMethod, FitProblem
from amortnlme.methods.data_start import data_starts
from amortnlme.methods.ebe import find_ebe
from amortnlme.methods.likelihood_fit import START_STREAM, LikelihoodOptions, finished
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.methods.refine import Optimum
from amortnlme.methods.stochastic_bound import (
    ESTIMATORS,
    StochasticEnd,
    StochasticOptions,
    climb,
    weighted_bound,
)
from amortnlme.methods.stopwatch import Stopwatch
from amortnlme.methods.variational_posterior import VariationalProblem, expectation_nodes
from amortnlme.methods.vi import refuse_unknown_family
from amortnlme.model.bound import BoundModel
from amortnlme.population.bound_population import BoundPopulation

CLIMB_STREAM, NODE_STREAM = 3, 2
#: Nodes from five random effects on, and replicates of an importance-weighted bound, for the final bound.
N_NODES, N_REPLICATES = 512, 256
#: A tenth of the steps may gain so much over the tenth before it: share of the bound, and standard errors.
DRIFT, DRIFT_SE = 1e-3, 4.0

NO_ERRORS = "[W_FIT_SAMPLED] a sampled bound gives no standard errors. Fit by method 'vi' for them."


@dataclass(frozen=True, slots=True)
class SampledVi(AbstractMethod):
    """Climb the evidence bound with Adam on fresh draws; for many random effects, and for comparison.

    `Vi`, whose expectations are deterministic, is more exact and faster with few random effects.

    Attributes
    ----------
    family : {"full", "diagonal"}
        Covariance of q between the random effects of a subject.
    estimator : {"path", "standard"}
        See `stochastic_bound.py`.
    bound : {"elbo", "iwae"}
        "iwae": the importance-weighted bound of `n_samples` draws.
    n_samples : int
        Draws per subject and step.
    n_steps : int
    rate : float
        First step, in SDs; it decays to nothing.
    starts, referee_points, referee_replicates
        See `LikelihoodOptions`; the start with the best final bound is kept.

    Raises
    ------
    UsageError
        E_FIT_OPTION.
    """

    family: str = "full"
    estimator: str = "path"
    bound: str = "elbo"
    n_samples: int = 3
    n_steps: int = 2000
    rate: float = 0.05
    starts: int = 1
    referee_points: int = 512
    referee_replicates: int = 8

    name: ClassVar[str] = "sampled_vi"
    needs_draws: ClassVar[bool] = False
    requires: ClassVar[frozenset[str]] = frozenset({"predict", "sensitivity", "likelihood"})
    handles_networks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse options outside their range."""
        self._options()
        refuse_unknown_family(self.family)
        for name, allowed in (("estimator", ESTIMATORS), ("bound", ("elbo", "iwae"))):
            if getattr(self, name) not in allowed:
                raise UsageError(
                    "E_FIT_OPTION", f"{name} is {getattr(self, name)!r}. Allowed: {', '.join(allowed)}."
                )
        for name, low, high in (("n_samples", 1, 10_000), ("n_steps", 10, 1_000_000)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise UsageError(
                    "E_FIT_OPTION",
                    f"{name} must be a whole number from {low} to {high}; {value!r} was given.",
                )
        if not 0.0 < self.rate <= 1.0:
            raise UsageError("E_FIT_OPTION", f"rate must be in (0, 1]; {self.rate!r} was given.")

    def run(self, problem: FitProblem) -> PopulationFit:
        """Fit; see `AbstractMethod.run`."""
        from threadpoolctl import threadpool_limits

        bound, model, population = problem.bound_model, problem.model, problem.bound_population
        if not isinstance(bound, BoundModel) or model is None:
            raise UsageError("E_FIT_NEEDS_DATASET", f"method {self.name!r} needs a dataset and a model.")
        watch, settings = Stopwatch(), self._settings()
        with threadpool_limits(limits=1, user_api="blas"):
            with watch("starts"):
                rng = stream(problem.seed, START_STREAM)
                starts = data_starts(bound, model.prior, population, self.starts, rng)
            with watch("search"):
                ends = [
                    climb(bound, population, start, settings, stream(problem.seed, CLIMB_STREAM, k))
                    for k, start in enumerate(starts)
                ]
                bounds = [self._final_bound(bound, population, end, problem.seed) for end in ends]
            values = [_objective(population, end, value) for end, value in zip(ends, bounds, strict=True)]
            best = int(np.argmin(values))
            with watch("individuals"):
                modes = find_ebe(bound, *population.unpack(ends[best].x), start=ends[best].mean)
            return finished(
                (self.name, self.bound),
                problem,
                bound,
                _optimum(population, ends[best], values, best),
                -2.0 * bounds[best],
                modes,
                self._options(),
                {name: getattr(self, name) for name in self.__slots__},
                watch,
            )

    def _options(self) -> LikelihoodOptions:
        return LikelihoodOptions(self.starts, "hessian", self.referee_points, self.referee_replicates)

    def _settings(self) -> StochasticOptions:
        return StochasticOptions(
            estimator=self.estimator,
            n_samples=self.n_samples,
            is_weighted=self.bound == "iwae",
            is_diagonal=self.family == "diagonal",
            n_steps=self.n_steps,
            rate=self.rate,
        )

    def _final_bound(
        self, bound: BoundModel, population: BoundPopulation, end: StochasticEnd, seed: int
    ) -> np.ndarray:
        """Bound of every subject at the end: by fresh draws, or for the ELBO by deterministic nodes."""
        rng = stream(seed, NODE_STREAM)
        if self.bound == "iwae":
            return weighted_bound(bound, population, end, self.n_samples, N_REPLICATES, rng)
        nodes = expectation_nodes(population.r, None, N_NODES, rng)
        problem = VariationalProblem(bound, *population.unpack(end.x), nodes)
        return problem.expand(end.mean, end.root, np.ones(population.n_subjects, dtype=bool)).bound


def _objective(population: BoundPopulation, end: StochasticEnd, bounds: np.ndarray) -> float:
    value = -float(bounds.sum()) + 0.5 * float(population.penalty @ end.x**2)
    return value if np.isfinite(value) else np.inf


def _optimum(population: BoundPopulation, end: StochasticEnd, values: list[float], best: int) -> Optimum:
    tenth = max(len(end.bounds) // 10, 5)
    last, before = end.bounds[-tenth:], end.bounds[-2 * tenth : -tenth]
    gain = float(last.mean() - before.mean())
    noise = float(np.hypot(last.std(), before.std()) / np.sqrt(tenth))
    status, warnings = FitStatus.CONVERGED, [NO_ERRORS]
    if not abs(gain) < DRIFT * abs(float(last.mean())) + DRIFT_SE * noise:
        status = FitStatus.NOT_CONVERGED
        warnings.append(
            f"[W_FIT_NOT_CONVERGED] the bound still rose by {gain:.3g} over the last tenth of the steps. "
            "Raise n_steps."
        )
    x = population.fold_signs(end.x)
    steps = np.linspace(0, len(end.bounds), 11, dtype=int)
    trace = [
        {"stage": f"steps {a + 1} to {b}", "objective": -2.0 * float(end.bounds[a:b].mean())}
        for a, b in pairwise(steps)
    ]
    if len(values) > 1:
        trace.append({"stage": "starts", "start_objectives": [2.0 * value for value in values]})
    return Optimum(
        x=x,
        value=values[best],
        is_interior=False,
        covariance=None,
        scale=np.ones(len(x)),
        status=status,
        gradient_norm=float("nan"),
        last_move=float("nan"),
        mc_se=None,
        mc_bias=None,
        warnings=warnings,
        trace=tuple(trace),
    )
