"""The variational autoencoder: an encoder network gives every subject's law, M-steps the population."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from amortnlme.core.errors import UsageError
from amortnlme.core.rng import stream
from amortnlme.core.status import FitStatus
from amortnlme.methods.base import AbstractMethod, FitProblem
from amortnlme.methods.data_start import data_starts
from amortnlme.methods.likelihood_fit import START_STREAM, LikelihoodOptions, concluded, finished
from amortnlme.methods.linearization import refuse_linearization
from amortnlme.methods.maximize import maximize
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.methods.refine import Optimum
from amortnlme.methods.stopwatch import Stopwatch
from amortnlme.methods.vae_search import RandomStep, VaePath, VaeSchedule, plain_random_step, run_vae
from amortnlme.methods.variational_likelihood import VariationalLikelihood
from amortnlme.methods.variational_posterior import expectation_nodes
from amortnlme.model.bound import BoundModel
from amortnlme.population.bound_population import BoundPopulation

if TYPE_CHECKING:
    from amortnlme.neural.recognition_model import RecognitionModel

NODE_STREAM, DRAW_STREAM = 2, 4
ENCODERS, FINISHES = ("lstm", "conv-gru"), ("newton", "none")
#: SD of the first laws, in SDs between subjects, of which none is taken to be below SMALLEST_SCALE.
FIRST_SD, SMALLEST_SCALE = 0.5, 0.05
#: Without refinement: the last tenth of the iterations may gain so much over the tenth before it, as a share
#: of the bound and in standard errors.
DRIFT, DRIFT_SE = 1e-3, 4.0

NO_ERRORS = (
    "[W_FIT_SAMPLED] the laws of the encoder give no standard errors. Refine them (finish='newton') for them."
)


@dataclass(frozen=True, slots=True)
class Vae(AbstractMethod):
    """Variational autoencoder (Rohleff et al. 2025), refined subject by subject.

    The encoder's laws are the start of Newton steps on every subject's bound, at whose optimum the fit
    ends: that of `Vi`, reached from the encoder. The bound is reported as `criterion` ("elbo", as -2 ELBO);
    `ofv` is the referee's, as of every method.

    Attributes
    ----------
    encoder : {"lstm", "conv-gru"}
        As published; or for long series.
    width : int
        Of the encoder.
    schedule : VaeSchedule
        Iterations, gradient steps and rates.
    finish : {"newton", "none"}
        Refine every subject's law and maximize the bound, or end with the encoder's laws (as published).
    n_nodes : int or None
        Gauss-Hermite nodes per random effect for the refinement, up to four of them; None: up to five.
    n_quasi : int
        Quasi-Monte Carlo nodes from five random effects on.
    encoder_file : str or None
        HDF5 file the trained encoder is written to; see `RecognitionModel`.
    standard_errors, referee_points, referee_replicates
        See `LikelihoodOptions`.

    Raises
    ------
    UsageError
        E_FIT_OPTION.
    """

    encoder: str = "lstm"
    width: int = 25
    schedule: VaeSchedule = field(default_factory=VaeSchedule)
    finish: str = "newton"
    n_nodes: int | None = 3
    n_quasi: int = 128
    encoder_file: str | None = None
    standard_errors: str = "hessian"
    referee_points: int = 512
    referee_replicates: int = 8

    name: ClassVar[str] = "vae"
    needs_draws: ClassVar[bool] = False
    requires: ClassVar[frozenset[str]] = frozenset({"predict", "sensitivity", "likelihood"})

    def __post_init__(self) -> None:
        """Refuse options outside their range."""
        self._options()
        for name, allowed in (("encoder", ENCODERS), ("finish", FINISHES)):
            if getattr(self, name) not in allowed:
                raise UsageError(
                    "E_FIT_OPTION", f"{name} is {getattr(self, name)!r}. Allowed: {', '.join(allowed)}."
                )
        for name, low, high in (("width", 1, 4096), ("n_nodes", 2, 50), ("n_quasi", 32, 2**16)):
            value = getattr(self, name)
            if name == "n_nodes" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise UsageError(
                    "E_FIT_OPTION",
                    f"{name} must be a whole number from {low} to {high}; {value!r} was given.",
                )
        if self.n_quasi % 2:
            raise UsageError("E_FIT_OPTION", f"n_quasi must be an even number; {self.n_quasi!r} was given.")

    def run(self, problem: FitProblem) -> PopulationFit:
        """Fit; see `AbstractMethod.run`."""
        from threadpoolctl import threadpool_limits

        watch, bound = Stopwatch(), self.checked(problem)
        with threadpool_limits(limits=1, user_api="blas"):
            path = self.train(bound, problem.bound_population, problem.seed, watch)[0]
            return self.conclude(problem, bound, path, watch)

    def checked(self, problem: FitProblem) -> BoundModel:
        """Refuse a problem that lacks something.

        Parameters
        ----------
        problem : FitProblem

        Returns
        -------
        BoundModel
            Of the problem.

        Raises
        ------
        UsageError
            E_FIT_NEEDS_DATASET.
        CapabilityError
            E_FIT_CENSORED, E_FIT_LINEARIZATION: see `refuse_linearization`.
        """
        bound = problem.bound_model
        if not isinstance(bound, BoundModel) or problem.model is None:
            raise UsageError("E_FIT_NEEDS_DATASET", f"method {self.name!r} needs a dataset and a model.")
        if self.standard_errors == "linearization":
            refuse_linearization(bound, problem.bound_population)
        return bound

    def conclude(
        self, problem: FitProblem, bound: BoundModel, path: VaePath, watch: Stopwatch
    ) -> PopulationFit:
        """Refine the encoder's laws, or take them as they are, and judge the end.

        Parameters
        ----------
        problem : FitProblem
        bound : BoundModel
        path : VaePath
            Its `x` belongs to the population model of the problem.
        watch : Stopwatch

        Returns
        -------
        PopulationFit
        """
        population, names = problem.bound_population, (self.name, "elbo")
        rng = stream(problem.seed, NODE_STREAM)
        nodes = expectation_nodes(population.r, self.n_nodes, self.n_quasi, rng)
        objective = VariationalLikelihood(bound, population, nodes)
        options, record = self._options(), self._record()
        if self.finish == "newton":
            with watch("refinement"):
                best = _refined(objective, path)
            return concluded(names, problem, bound, best, objective, options, record, watch)
        with watch("individuals"):
            everyone = np.ones(population.n_subjects, dtype=bool)
            laws = objective.problem(path.x).expand(*_standardized(population, path), everyone)
            modes = objective.modes(path.x)
        best = _as_it_is(path, -float(laws.bound.sum()))
        return finished(names, problem, bound, best, -2.0 * laws.bound, modes, options, record, watch)

    def train(
        self,
        bound: BoundModel,
        population: BoundPopulation,
        seed: int,
        watch: Stopwatch,
        random_step: RandomStep = plain_random_step,
    ) -> tuple[VaePath, RecognitionModel]:
        """Train the encoder, with the M-steps of the population between its steps.

        Parameters
        ----------
        bound : BoundModel
        population : BoundPopulation
        seed : int
        watch : Stopwatch
        random_step : callable
            See `run_vae`.

        Returns
        -------
        path : VaePath
        encoder : RecognitionModel
            Trained; also written to `encoder_file`, where that is given.
        """
        from amortnlme.neural.gaussian_head import GaussianHead
        from amortnlme.neural.recognition_model import RecognitionModel
        from amortnlme.neural.recognition_step import RecognitionTrainer

        index, model = population.random_index, bound.model
        with watch("starts"):
            rng = stream(seed, START_STREAM)
            start = data_starts(bound, model.prior, population, 1, rng)[0]
        with watch("compilation"):
            scale = np.maximum(np.abs(start[population.chol_diagonal]), SMALLEST_SCALE)
            center = population.typical_phi(start)[index]
            head = GaussianHead(center, scale, np.full(population.r, np.log(FIRST_SD)))
            encoder = RecognitionModel.untrained(
                model,
                bound.dataset,
                [population.parameters.names[k] for k in index],
                sorted({effect.covariate for effect in population.covariates}),
                head,
                kind=self.encoder,
                width=self.width,
                seed=seed,
            )
            given = encoder.input(model, bound.dataset)
            trainer = RecognitionTrainer(
                encoder.network, encoder.shape, given.tokens, given.mask, given.conditions
            )
        with watch("encoder"):
            rng = stream(seed, DRAW_STREAM)
            path = run_vae(bound, population, start, trainer, head, self.schedule, rng, random_step)
        trainer.store()
        if self.encoder_file is not None:
            encoder.save(Path(self.encoder_file))
        return path, encoder

    def _options(self) -> LikelihoodOptions:
        return LikelihoodOptions(1, self.standard_errors, self.referee_points, self.referee_replicates)

    def _record(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__} | {"schedule": asdict(self.schedule)}


def _standardized(population: BoundPopulation, path: VaePath) -> tuple[np.ndarray, np.ndarray]:
    """Turn the encoder's laws into laws of u, phi = mu + L u."""
    mu, factor = population.unpack(path.x)
    mine = factor[population.random_index]
    mean = np.linalg.solve(mine, (path.mean - mu[:, population.random_index])[..., None])[..., 0]
    return mean, np.linalg.solve(mine, path.root)


def _refined(objective: VariationalLikelihood, path: VaePath) -> Optimum:
    """Optimum of the bound, found from the encoder's laws."""
    population = objective.population
    mean, root = _standardized(population, path)
    everyone = np.ones(population.n_subjects, dtype=bool)
    amortized = objective.problem(path.x).expand(mean, root, everyone).bound
    refined = objective.posteriors_from(path.x, mean, root).bound
    best = maximize(objective, population, path.x)
    gap = float((refined - amortized).sum())
    stage = {
        "stage": "laws refined",
        "x": path.x.tolist(),
        "objective": -2.0 * float(refined.sum()),
        # What one network for all subjects costs, in -2 ELBO.
        "amortization_gap": 2.0 * gap if np.isfinite(gap) else None,
    }
    return replace(best, trace=(*_trace(path), stage, *best.trace))


def _as_it_is(path: VaePath, value: float) -> Optimum:
    """End of the encoder's iterations."""
    tenth = max(len(path.bounds) // 10, 5)
    last, before = path.bounds[-tenth:], path.bounds[-2 * tenth : -tenth]
    gain = float(last.mean() - before.mean()) if len(before) else float("inf")
    noise = float(np.hypot(last.std(), before.std()) / np.sqrt(tenth)) if len(before) else 0.0
    status, warnings = FitStatus.CONVERGED, [NO_ERRORS]
    if not abs(gain) < DRIFT * abs(float(last.mean())) + DRIFT_SE * noise:
        status = FitStatus.NOT_CONVERGED
        warnings.append(
            f"[W_FIT_NOT_CONVERGED] the bound still rose by {gain:.3g} over the last tenth of the "
            "iterations. Give the schedule more of them, or refine (finish='newton')."
        )
    return Optimum(
        x=path.x,
        value=value,
        is_interior=False,
        covariance=None,
        scale=np.ones(len(path.x)),
        status=status,
        gradient_norm=float("nan"),
        last_move=float("nan"),
        mc_se=None,
        mc_bias=None,
        warnings=warnings,
        trace=_trace(path),
    )


def _trace(path: VaePath) -> tuple[dict[str, Any], ...]:
    """Every tenth of the iterations, with the bound averaged over it."""
    edges = np.unique(np.linspace(0, len(path.bounds), 11, dtype=int))
    return tuple(
        {
            "stage": f"encoder, iterations {a + 1} to {b}",
            "x": path.iterates[b - 1].tolist(),
            "objective": -2.0 * float(path.bounds[a:b].mean()),
        }
        for a, b in pairwise(edges)
    )
