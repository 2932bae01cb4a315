"""The iteration of the variational autoencoder (Rohleff et al. 2025): gradient steps of the encoder, M-steps.

The encoder gives q_i = N(m_i, C_i C_i') for the parameters of subject i that vary. Its weights fall along

    sum_i  w KL(q_i || N(mu_i, omega)) - E_q[log p(y_i | phi)],   phi = m_i + C_i eps,

the divergence and its derivatives in closed form, the expectation by a few draws in mirrored pairs, whose
gradient by phi comes from the sensitivities of the simulator in float64. Only the derivative by (m_i, C_i)
enters the network. The weight w rises from almost nothing to one; at the end the statistics are averaged.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from amortnlme.core.errors import UsageError
from amortnlme.methods.saem_statistics import Layout, Statistics, average, floored, maximize_random, not_below
from amortnlme.methods.vae_statistics import (
    PooledPart,
    VaeStatistics,
    average_variance,
    law_statistics,
    other_pooled_step,
    without_covariates,
)
from amortnlme.model.bound import BoundModel
from amortnlme.population.bound_population import BoundPopulation

if TYPE_CHECKING:
    from amortnlme.neural.gaussian_head import GaussianHead
    from amortnlme.neural.recognition_step import RecognitionTrainer

#: Starting SDs are stretched by this while the encoder finds the individuals.
STRETCH = 2.0
#: No variance, in any direction, falls below this share of its last value in one iteration.
LOWEST_SHARE = 0.1
#: No SD falls below this share of its first value: the bound has no floor where omega and C vanish together.
SMALLEST_SHARE = 1e-3


#: Coefficients and omega from averaged statistics: (statistics, layout, last omega, iteration).
RandomStep = Callable[[Statistics, Layout, np.ndarray, int], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, slots=True)
class VaeSchedule:
    """How long the encoder is trained, and how.

    Attributes
    ----------
    n_burn_in, n_annealing, n_main, n_smoothing : int
        Iterations with almost no prior, with a rising one, with all of it, and with averaging.
    n_steps : int
        Gradient steps per iteration.
    n_samples : int
        Draws per subject and step; an even number is drawn in mirrored pairs.
    burn_in_rate, rate : float
        Of Adam.
    burn_in_weight, first_weight : float
        Of the divergence, in the burn-in and at the beginning of the annealing.

    Raises
    ------
    UsageError
        E_FIT_OPTION.
    """

    n_burn_in: int = 20
    n_annealing: int = 20
    n_main: int = 20
    n_smoothing: int = 10
    n_steps: int = 3
    n_samples: int = 4
    burn_in_rate: float = 2e-2
    rate: float = 1e-2
    burn_in_weight: float = 0.1
    first_weight: float = 0.1

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            if isinstance(value, bool):
                fine = False
            elif field.type == "int":
                low = 1 if name in ("n_steps", "n_samples") else 0
                fine = isinstance(value, int) and low <= value <= 10**6
            else:
                fine = 0.0 < value <= 1.0
            if not fine:
                raise UsageError(
                    "E_FIT_OPTION",
                    f"{name} of the schedule is {value!r}. Allowed: "
                    + ("a whole number up to 10^6." if field.type == "int" else "a number in (0, 1]."),
                )
        if self.n_iterations < 1:
            raise UsageError("E_FIT_OPTION", "the schedule has no iterations. Give n_main at least 1.")

    @property
    def n_iterations(self) -> int:
        """All of them."""
        return self.n_burn_in + self.n_annealing + self.n_main + self.n_smoothing

    def weight(self, number: int) -> float:
        """Weight of the divergence in iteration `number` (from 0)."""
        if number < self.n_burn_in:
            return self.burn_in_weight
        share = (number - self.n_burn_in + 1) / max(self.n_annealing, 1)
        return min(1.0, self.first_weight + (1.0 - self.first_weight) * share)

    def gain(self, number: int) -> float:
        """Weight of new statistics in iteration `number`."""
        return 1.0 / max(1, number - (self.n_iterations - self.n_smoothing) + 1)


@dataclass(frozen=True, slots=True, eq=False)
class VaePath:
    """What the iteration leaves.

    Attributes
    ----------
    x : ndarray, shape (n_x,)
    mean, root : ndarray, shape (n, r) and (n, r, r)
        Of the encoder's laws, on the phi scale.
    iterates : ndarray, shape (n_iterations, n_x)
    bounds : ndarray, shape (n_iterations,)   [nats]
        Evidence bound by the draws of the last gradient step, at the full weight of the divergence.
    """

    x: np.ndarray
    mean: np.ndarray
    root: np.ndarray
    iterates: np.ndarray
    bounds: np.ndarray


@dataclass(slots=True)
class _State:
    fixed: np.ndarray  # typical values and coefficients
    omega: np.ndarray  # (r, r)
    statistics: VaeStatistics | None
    least_omega: np.ndarray  # (r, r)


@dataclass(frozen=True, slots=True, eq=False)
class _Draws:
    """Draws of q with what the simulator says there."""

    mean: np.ndarray
    root: np.ndarray
    phi: np.ndarray  # (n, S, d)
    score: np.ndarray  # (d,): of the expected log-likelihood of all subjects
    bound: float


class _Vae:
    def __init__(
        self,
        target: BoundModel,
        population: BoundPopulation,
        trainer: RecognitionTrainer,
        head: GaussianHead,
        schedule: VaeSchedule,
        rng: np.random.Generator,
    ) -> None:
        self.target, self.population = target, population
        self.trainer, self.head = trainer, head
        self.schedule, self.rng = schedule, rng
        self.layout = Layout.of(population)
        self.bare = without_covariates(self.layout)
        self.pooled = PooledPart.of(target, self.layout)
        places = population.layout
        self.first = (places.row_effect[places.first_place], places.chol_column[places.first_place])

    def begin(self, start: np.ndarray) -> _State:
        fixed = start[: self.population.chol_slice.start].copy()
        omega = np.diag((STRETCH * np.abs(start[self.population.chol_diagonal])) ** 2 + 1e-6)
        return _State(fixed, omega, None, SMALLEST_SHARE**2 * omega)

    def pack(self, state: _State) -> np.ndarray:
        return np.concatenate([state.fixed, np.linalg.cholesky(state.omega)[self.first]])

    def draw(self, state: _State, weight: float, rate: float) -> _Draws:
        """One gradient step of the encoder; returns the draws it rests on."""
        population, index = self.population, self.population.random_index
        numbers = self.trainer.numbers
        mean, root = self.head.law(numbers)
        eps = self._noise(mean.shape)
        mu = population.unpack(self.pack(state))[0]
        phi = np.repeat(mu[:, None], eps.shape[1], axis=1)
        phi[:, :, index] = mean[:, None] + eps @ np.swapaxes(root, 1, 2)
        value, slope = self.target.log_likelihood_and_gradient(phi)
        # A draw at which the model fails pulls nowhere; the others stand for it.
        alive = np.isfinite(value)
        share = alive / np.maximum(alive.sum(axis=1, keepdims=True), 1)
        slope = np.where(alive[..., None], slope, 0.0) * share[..., None]
        pull = slope[:, :, index]
        precision = np.linalg.inv(state.omega)
        gap = mean - mu[:, index]
        by_mean = weight * gap @ precision - pull.sum(axis=1)
        diagonal = np.arange(population.r)
        by_root = weight * np.tril(precision @ root) - np.tril(np.swapaxes(pull, 1, 2) @ eps)
        by_root[:, diagonal, diagonal] -= weight / root[:, diagonal, diagonal]
        derivative = self.head.pull(numbers, root, by_mean, by_root)
        self.trainer.step(np.where(np.isfinite(derivative), derivative, 0.0), rate)
        expected = (np.where(alive, value, 0.0) * share).sum()
        bound = float(expected - _divergence(gap, root, precision, state.omega))
        return _Draws(mean, root, phi, slope.sum(axis=(0, 1)), bound)

    def _noise(self, shape: tuple[int, int]) -> np.ndarray:
        (n, r), S = shape, self.schedule.n_samples
        if S % 2:
            return self.rng.standard_normal((n, S, r))
        half = self.rng.standard_normal((n, S // 2, r))
        return np.concatenate([half, -half], axis=1)

    def maximize(self, state: _State, draws: _Draws, number: int, random_step: RandomStep) -> None:
        population, layout, gain = self.population, self.layout, self.schedule.gain(number)
        burning = number < self.schedule.n_burn_in
        typical = population.typical_phi(self.pack(state))
        variance = average_variance(self.pooled, typical, draws.score)
        new = law_statistics(draws.mean, draws.root, len(layout.pooled_columns))
        new, step = other_pooled_step(self.target, self.pooled, draws.phi, new, gain)
        last = state.statistics
        if last is None:
            state.statistics = VaeStatistics(new, variance)
        else:
            mixed = last.variance + gain * (variance - last.variance)
            state.statistics = VaeStatistics(average(last.random, new, gain), mixed)
        fixed = state.fixed.copy()
        if burning:
            found, _ = maximize_random(state.statistics.random, self.bare, state.omega)
            fixed[self.bare.random_columns] = found
        else:
            found, omega = random_step(state.statistics.random, layout, state.omega, number)
            fixed[layout.random_columns] = found
            state.omega = not_below(floored(omega, state.omega, LOWEST_SHARE), state.least_omega)
        fixed[layout.pooled_columns] += step
        fixed[layout.pooled_columns[self.pooled.scale]] = 0.5 * np.log(state.statistics.variance)
        state.fixed = fixed


def plain_random_step(
    statistics: Statistics, layout: Layout, omega: np.ndarray, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Regression on all covariates of the population model, and omega.

    Parameters
    ----------
    statistics : Statistics
    layout : Layout
    omega : ndarray, shape (r, r)
    number : int
        Of the iteration; does not matter here.

    Returns
    -------
    coefficients : ndarray, shape (p,)
    omega : ndarray, shape (r, r)
    """
    return maximize_random(statistics, layout, omega)


def run_vae(
    target: BoundModel,
    population: BoundPopulation,
    start: np.ndarray,
    trainer: RecognitionTrainer,
    head: GaussianHead,
    schedule: VaeSchedule,
    rng: np.random.Generator,
    random_step: RandomStep = plain_random_step,
) -> VaePath:
    """Train the encoder and maximize the population parameters in turns.

    Parameters
    ----------
    target : BoundModel
    population : BoundPopulation
    start : ndarray, shape (n_x,)
    trainer : RecognitionTrainer
        Encoder on the subjects of the study; its weights move.
    head : GaussianHead
    schedule : VaeSchedule
    rng : numpy.random.Generator
    random_step : callable
        M-step of what varies; selection of covariates has its own.

    Returns
    -------
    VaePath
    """
    run = _Vae(target, population, trainer, head, schedule, rng)
    state = run.begin(start)
    iterates, bounds = [], []
    # Only somebody who watches a terminal is shown the progress.
    steps: Any = tqdm(range(schedule.n_iterations), desc="vae", unit="it", disable=not sys.stderr.isatty())
    for number in steps:
        weight = schedule.weight(number)
        rate = schedule.burn_in_rate if number < schedule.n_burn_in else schedule.rate
        draws = run.draw(state, weight, rate)
        for _ in range(schedule.n_steps - 1):
            draws = run.draw(state, weight, rate)
        run.maximize(state, draws, number, random_step)
        iterates.append(run.pack(state))
        bounds.append(draws.bound)
    mean, root = head.law(trainer.numbers)
    x = population.fold_signs(iterates[-1])
    return VaePath(x, mean, root, np.array(iterates), np.array(bounds))


def _divergence(gap: np.ndarray, root: np.ndarray, precision: np.ndarray, omega: np.ndarray) -> float:
    """Sum over subjects of KL(N(m, CC') || N(mu, omega))."""
    n, r = gap.shape
    log_det = np.log(np.diagonal(root, axis1=1, axis2=2)).sum()
    spread = np.swapaxes(root, 1, 2) @ precision @ root
    trace = np.diagonal(spread, axis1=1, axis2=2).sum()
    quadratic = ((gap @ precision) * gap).sum()
    return 0.5 * float(trace + quadratic - n * r + n * np.linalg.slogdet(omega)[1]) - float(log_det)
