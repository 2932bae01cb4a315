"""Calibrate an estimator on fresh simulations: ranks, coverage, recovery, contraction, efficiency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from amortnlme.core.errors import UsageError
from amortnlme.core.rng import stream
from amortnlme.neural.estimator import Estimator
from amortnlme.neural.sentinel import simulated_dataset
from amortnlme.neural.summary_domain import SummaryDomain
from amortnlme.population.posterior_draws import PosteriorDraws

FORMAT_VERSION = 1
_LEVELS = (0.5, 0.8, 0.95)
_RANK_BINS = 20
# Every check has this chance to fail for a perfectly calibrated estimator.
_FALSE_ALARM = 1e-4
# What we ask beyond chance: coverage off by less than this, and this share of effective draws in the median.
_COVERAGE_SLACK = 0.03
_MEDIAN_EFFICIENCY = 0.3
_EFFICIENCY_SUBJECTS = 200
# Subjects for each number of a summary from which on their covariance is worth keeping.
_ROWS_EACH = 10


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationResult:
    """Outcome of simulation-based calibration.

    Attributes
    ----------
    n, n_draws, seed : int
        Simulated subjects, draws for each, seed.
    names : tuple of str
        Parameters, d of them.
    ranks : ndarray (n, d)
        Draws below the true value, 0 to n_draws; uniform for a calibrated estimator (Talts et al. 2018,
        theorem 1).
    coverage : ndarray (d, 3)
        Share of true values inside central 50, 80 and 95 % intervals.
    contraction : ndarray (d,)
        1 - posterior variance / prior variance, averaged.
    recovery : ndarray (d,)
        Correlation of posterior means with true values.
    rank_p_value : ndarray (d,)
        Chi-square p-value of uniform ranks.
    n_rejected : int
        Wild draws that were redrawn.
    efficiency : ndarray (k,)
        ESS / n_draws of importance weights under the exact likelihood, for the first subjects; empty without
        likelihood.
    checks : dict of str to bool
        Verdicts.
    summaries : SummaryDomain or None
        Where the summaries of the simulated subjects lie; None where there are too few subjects to tell.
    """

    n: int
    n_draws: int
    seed: int
    names: tuple[str, ...]
    ranks: np.ndarray
    coverage: np.ndarray
    contraction: np.ndarray
    recovery: np.ndarray
    rank_p_value: np.ndarray
    n_rejected: int
    efficiency: np.ndarray
    checks: dict[str, bool]
    summaries: SummaryDomain | None

    def to_dict(self) -> dict[str, Any]:
        """Content of calibration.json."""
        rows = {}
        for i, name in enumerate(self.names):
            rows[name] = {
                "coverage": {f"{100 * p:.0f}": float(self.coverage[i, j]) for j, p in enumerate(_LEVELS)},
                "contraction": float(self.contraction[i]),
                "recovery": float(self.recovery[i]),
                "rank_p_value": float(self.rank_p_value[i]),
            }
        quantiles = {}
        if self.efficiency.size:
            quantiles = {f"{p}": float(np.quantile(self.efficiency, p / 100)) for p in (5, 25, 50, 75)}
        document = {
            "format_version": FORMAT_VERSION,
            "n": self.n,
            "n_draws": self.n_draws,
            "seed": self.seed,
            "parameters": rows,
            "n_rejected": self.n_rejected,
            "importance_efficiency_percentiles": quantiles,
            "checks": dict(self.checks),
            "ranks": [[int(value) for value in row] for row in self.ranks],
        }
        return document if self.summaries is None else document | {"summaries": self.summaries.to_config()}


def calibrate(estimator: Estimator, n: int = 1000, seed: int = 0, *, n_draws: int = 500) -> CalibrationResult:
    """Check an estimator on fresh simulations from its own prior and designs.

    Parameters
    ----------
    estimator : Estimator
        Trained estimator.
    n : int
        Simulated subjects, at least 20; 1000 or more for a verdict worth having.
    seed : int
        Seed of simulations and draws; use one that was not used for training.
    n_draws : int
        Posterior draws for each subject.

    Returns
    -------
    CalibrationResult
        Ranks, coverage, contraction, recovery, efficiency and verdicts.

    Raises
    ------
    UsageError
        E_CALIBRATE_SIZE for too few subjects or draws.
    """
    if n < _RANK_BINS or n_draws < _RANK_BINS:
        raise UsageError(
            "E_CALIBRATE_SIZE",
            f"calibration with n = {n} subjects and {n_draws} draws says nothing. Allowed: at least "
            f"{_RANK_BINS} of both.",
        )
    model = estimator.model
    phi = model.prior.sample(n, stream(seed, 0))
    designs = model.design_sampler.sample(n, stream(seed, 1))
    simulated = model.simulate_batch(phi, designs, stream(seed, 2))
    usable = (simulated.status == 0) & np.isfinite(simulated.y).any(axis=1)
    phi, dataset = phi[usable], simulated_dataset(designs.take(usable), simulated.y[usable])
    draws = estimator.sample(dataset, n_draws, stream(seed, 3))
    n_rejected = 0 if draws.n_rejected is None else int(draws.n_rejected.sum())
    ranks = (draws.phi < phi[:, None, :]).sum(axis=1)
    coverage = _coverage(draws.phi, phi)
    prior_variance = model.prior.sample(100_000, stream(seed, 4)).var(axis=0)
    first = [str(name) for name in dataset.ids[:_EFFICIENCY_SUBJECTS]]
    efficiency = np.empty(0)
    if "likelihood" in model.capabilities:
        log_likelihood = model.bind(dataset.select(first)).log_likelihood(draws.phi[: len(first)])
        efficiency = importance_efficiency(draws.select(first), log_likelihood)
    summaries = estimator.summaries(dataset)
    is_enough = len(summaries) >= _ROWS_EACH * summaries.shape[1]
    p_value = np.array([_uniform_p_value(column, n_draws) for column in ranks.T])
    return CalibrationResult(
        n=len(phi),
        n_draws=n_draws,
        seed=seed,
        names=tuple(model.parameters.names),
        ranks=ranks,
        coverage=coverage,
        contraction=1.0 - (draws.phi.var(axis=1) / prior_variance).mean(axis=0),
        recovery=np.array(
            [np.corrcoef(draws.phi[..., i].mean(axis=1), phi[:, i])[0, 1] for i in range(model.d)]
        ),
        rank_p_value=p_value,
        n_rejected=n_rejected,
        efficiency=efficiency,
        checks=_checks(coverage, p_value, efficiency, n_rejected, len(phi), n_draws),
        summaries=SummaryDomain.measure(summaries) if is_enough else None,
    )


def importance_efficiency(draws: PosteriorDraws, log_likelihood: np.ndarray) -> np.ndarray:
    """ESS / M of self-normalized importance weights likelihood x prior / q.

    Parameters
    ----------
    draws : PosteriorDraws
        S subjects, M draws.
    log_likelihood : ndarray (S, M), nats
        Exact log likelihood of every draw.

    Returns
    -------
    ndarray (S,)
        Effective share of the draws, 1 for a perfect posterior.
    """
    log_weight = log_likelihood + draws.log_prior - draws.log_q
    weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
    return weight.sum(axis=1) ** 2 / (weight**2).sum(axis=1) / weight.shape[1]


def _coverage(draws: np.ndarray, truth: np.ndarray) -> np.ndarray:
    columns = []
    for level in _LEVELS:
        low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=1)
        columns.append(((truth >= low) & (truth <= high)).mean(axis=0))
    return np.stack(columns, axis=-1)


def _uniform_p_value(ranks: np.ndarray, n_draws: int) -> float:
    edges = np.linspace(0, n_draws + 1, _RANK_BINS + 1).round()
    counts, _ = np.histogram(ranks, bins=edges)
    expected = len(ranks) * np.diff(edges) / (n_draws + 1)
    return float(stats.chisquare(counts, expected).pvalue)


def _checks(
    coverage: np.ndarray, p_value: np.ndarray, efficiency: np.ndarray, n_rejected: int, n: int, n_draws: int
) -> dict[str, bool]:
    level = np.array(_LEVELS)
    # Chance alone moves an observed share by this much with the given false-alarm rate.
    chance = stats.norm.isf(_FALSE_ALARM / 2) * np.sqrt(level * (1 - level) / n)
    checks = {
        "ranks_uniform": bool((p_value > _FALSE_ALARM).all()),
        "coverage": bool((np.abs(coverage - level) <= _COVERAGE_SLACK + chance).all()),
        "wild_draws_below_1_percent": n_rejected <= 0.01 * n * n_draws,
    }
    if efficiency.size:
        checks["median_importance_efficiency"] = bool(np.median(efficiency) >= _MEDIAN_EFFICIENCY)
    return checks
