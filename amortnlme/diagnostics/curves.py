"""Smooth prediction curves for individual fits, with a band from corrected conditional draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from amortnlme.data.dataset import Dataset
from amortnlme.data.design import FIELDS, Design, EventKind
from amortnlme.data.subject import Subject, TimeVarying
from amortnlme.diagnostics.predictions import fitted_study
from amortnlme.methods.ebe import find_ebe
from amortnlme.methods.importance import effective_sample_size, normalized_weights
from amortnlme.methods.proposals import Proposal, base_numbers, freeze

if TYPE_CHECKING:
    from amortnlme.methods.population_fit import PopulationFit
    from amortnlme.model.individual import IndividualModel

Array = np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class ConditionalDraws:
    """Draws from p(phi_i | y_i, population) of every subject, exact up to Monte-Carlo error.

    Attributes
    ----------
    phi : ndarray, shape (n_subjects, n_draws, d)
    ess : ndarray, shape (n_subjects,)
        Effective number of the weighted points the draws were taken from.
    """

    phi: Array
    ess: Array


@dataclass(frozen=True, slots=True, eq=False)
class SubjectCurve:
    """Predictions of one subject and one output on a fine grid.

    Attributes
    ----------
    subject_id : str
    output : int
        1-based.
    time, pred, ipred, low, high : ndarray, shape (n_grid,)   [time unit, output unit]
        `low` and `high` bound the central band of the individual prediction (without residual error).
    """

    subject_id: str
    output: int
    time: Array
    pred: Array
    ipred: Array
    low: Array
    high: Array


def conditional_draws(
    fit: PopulationFit,
    model: IndividualModel,
    dataset: Dataset,
    n_draws: int,
    rng: np.random.Generator,
    *,
    index: Sequence[int] | None = None,
    n_points: int = 512,
) -> ConditionalDraws:
    """Draw subjects' parameters given their data and the fitted population.

    Parameters
    ----------
    fit : PopulationFit
    model : IndividualModel
        With likelihood and sensitivities.
    dataset : Dataset
    n_draws : int
    rng : numpy.random.Generator
    index : sequence of int or None
        Which subjects of the dataset; None for all.
    n_points : int
        Weighted points per subject that the draws are resampled from.

    Returns
    -------
    ConditionalDraws

    Notes
    -----
    Importance sampling in u (phi = mu + L u) with a t-mixture around the conditional mode, weighted by the
    exact likelihood and resampled systematically. Pooled parameters stay exactly at their estimates.
    """
    study = fitted_study(fit, model, dataset)
    chosen = range(dataset.n_subjects) if index is None else index
    mu, factor = study.mu[list(chosen)], study.factor
    bound = study.model.bind(_subset(study.dataset, chosen))
    mode = find_ebe(bound, mu, factor)
    nodes = freeze(
        Proposal(mode.u, np.linalg.inv(mode.precision)),
        base_numbers(len(mu), n_points, factor.shape[1], rng),
    )
    phi = mu[:, None] + nodes.u @ factor.T
    log_weight = bound.log_likelihood(phi) + nodes.log_weight
    cumulative = np.cumsum(normalized_weights(log_weight), axis=1)
    grid = (np.arange(n_draws) + rng.random((len(mu), 1))) / n_draws
    rows = np.stack([np.searchsorted(c / c[-1], g) for c, g in zip(cumulative, grid, strict=True)])
    picked = np.take_along_axis(phi, np.minimum(rows, phi.shape[1] - 1)[:, :, None], axis=1)
    return ConditionalDraws(picked, effective_sample_size(log_weight))


def subject_curves(
    fit: PopulationFit,
    model: IndividualModel,
    dataset: Dataset,
    draws: Array,
    *,
    index: Sequence[int] | None = None,
    n_grid: int = 90,
    band: float = 0.9,
) -> tuple[SubjectCurve, ...]:
    """Predict subjects on a fine time grid.

    Parameters
    ----------
    fit : PopulationFit
    model : IndividualModel
    dataset : Dataset
    draws : ndarray, shape (n_subjects, n_draws, d)
        Conditional draws of phi of these subjects, for the band.
    index : sequence of int or None
        Which subjects of the dataset; None for all.
    n_grid : int
        Grid points between two resets.
    band : float

    Returns
    -------
    tuple of SubjectCurve
        Subject by subject, and within a subject output by output.
    """
    study = fitted_study(fit, model, dataset)
    n_outputs = len(model.outputs)
    chosen = list(range(dataset.n_subjects) if index is None else index)
    dense = Dataset(tuple(_dense_subject(study.dataset.subjects[i], n_outputs, n_grid) for i in chosen))
    ebe = np.asarray(fit.individuals.ebe_phi)
    phi = np.concatenate([study.mu[chosen, None], ebe[chosen, None], draws], axis=1)
    f, _ = study.model.bind(dense).predict(phi)
    tail = 0.5 * (1.0 - band)
    curves = []
    for i, subject in enumerate(dense.subjects):
        outputs, times = subject.design.observation_outputs, subject.design.observation_times
        own = f[i, :, : len(times)]
        low, high = np.nanquantile(own[2:], [tail, 1.0 - tail], axis=0)
        for output in range(1, n_outputs + 1):
            at = outputs == output
            curves.append(
                SubjectCurve(subject.id, output, times[at], own[0, at], own[1, at], low[at], high[at])
            )
    return tuple(curves)


def _subset(dataset: Dataset, index: Sequence[int]) -> Dataset:
    return Dataset(tuple(dataset.subjects[i] for i in index), dataset.name)


def _dense_subject(subject: Subject, n_outputs: int, n_grid: int) -> Subject:
    """Replace the observations of a subject by a fine grid; doses, resets and covariates stay."""
    design, source = dense_design(subject.design, n_outputs, n_grid)
    m = design.n_observations
    covariates = {
        name: TimeVarying(value.values[source]) if isinstance(value, TimeVarying) else value
        for name, value in subject.covariates.items()
    }
    return Subject(
        id=subject.id,
        design=design,
        y=np.zeros(m),
        observed=np.ones(m, dtype=bool),
        censoring=np.zeros(m, dtype=np.int8),
        limit=np.full(m, np.nan),
        occasion=subject.occasion[source],
        covariates=covariates,
    )


def dense_design(design: Design, n_outputs: int, n_grid: int) -> tuple[Design, Array]:
    """Copy a design with its observations replaced by a fine grid between resets.

    Parameters
    ----------
    design : Design
    n_outputs : int
        Every grid time is observed on outputs 1..n_outputs.
    n_grid : int
        Regular grid points; where doses begin and infusions end, and just before, is added to them.

    Returns
    -------
    dense : Design
    source : ndarray of int, shape (n_records,)
        For every record of `dense`, the last record of `design` that precedes or is it: where covariates in
        force are looked up.
    """
    resets = np.flatnonzero(design.kind == EventKind.RESET)
    starts = np.unique(np.concatenate([[0], resets]))
    stops = np.append(starts[1:], design.n_records)
    source, is_grid, time, output = [], [], [], []
    for start, stop in zip(starts, stops, strict=True):
        keep = np.arange(start, stop)[~design.is_observation[start:stop]]
        grid = _grid(design, start, stop, n_grid)
        # On a tie the grid point follows the dose: curves show the peak, not the trough.
        last = start + np.searchsorted(design.time[start:stop], grid, side="right") - 1
        source.append(np.concatenate([keep, np.repeat(last, n_outputs)]))
        is_grid.append(np.repeat([0, 1], [len(keep), len(grid) * n_outputs]))
        time.append(np.concatenate([design.time[keep], np.repeat(grid, n_outputs)]))
        output.append(
            np.concatenate([np.zeros(len(keep), int), np.tile(np.arange(1, n_outputs + 1), len(grid))])
        )
    columns = [np.concatenate(part) for part in (source, is_grid, time, output)]
    order = np.lexsort((columns[3], columns[2], columns[1], columns[0]))
    origin, grid_row, when, outputs = (column[order] for column in columns)
    fields = {name: getattr(design, name)[origin].copy() for name in FIELDS}
    for name in ("compartment", "amount", "duration", "ii", "ss"):
        fields[name][grid_row == 1] = 0
    fields["kind"][grid_row == 1] = EventKind.OBSERVATION
    fields["time"], fields["output"] = when, outputs
    return Design(**fields), origin


def _grid(design: Design, start: int, stop: int, n_grid: int) -> Array:
    """Regular times of one stretch between resets, and those where a curve jumps or bends."""
    first, last = design.time[start], design.time[stop - 1]
    dosed = start + np.flatnonzero(design.is_dose[start:stop])
    bends = np.concatenate([design.time[dosed], (design.time + design.duration)[dosed]])
    bends = np.concatenate([bends - 1e-6 * (last - first), bends])
    inside = bends[(bends > first) & (bends < last)]
    return np.unique(np.concatenate([np.linspace(first, last, n_grid), inside]))


def pick_subjects(ids: Sequence[str], grades: Sequence[str], n_max: int) -> list[int]:
    """Choose which subjects to show when there are too many: flagged ones first, then evenly spread ones.

    Parameters
    ----------
    ids : sequence of str
    grades : sequence of str
        Trust grades in the order of `ids`, or empty.
    n_max : int

    Returns
    -------
    index : list of int
        Increasing.
    """
    n = len(ids)
    if n <= n_max:
        return list(range(n))
    order = {"red": 0, "amber": 1}
    flagged = sorted((order[grade], i) for i, grade in enumerate(grades) if grade in order)
    chosen = {i for _, i in flagged[: n_max // 2]}
    for i in np.unique(np.linspace(0, n - 1, n_max).round().astype(int)):
        if len(chosen) == n_max:
            break
        chosen.add(int(i))
    return sorted(chosen)
