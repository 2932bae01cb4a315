"""Profile likelihoods of population parameters, and the confidence intervals they bound.

The profile of an entry of x is the maximum of the log-likelihood over all others; a value belongs to the
interval of a level when twice the loss against the maximum stays below that quantile of chi-squared with one
degree of freedom. Unlike Wald intervals these need not be symmetric, and may be open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.stats import chi2
from tqdm import tqdm

from amortnlme.core.errors import UsageError
from amortnlme.methods.information import whitening
from amortnlme.methods.local_search import minimize_whitened
from amortnlme.methods.near_optimum import NearOptimum
from amortnlme.population.bound_population import BoundPopulation

#: An end is found when the root of twice the loss is this close to its target, in standard errors.
ACCURACY = 0.02
#: Points per direction, at most; and the furthest one, in units of the Wald half width.
MOST_POINTS, FURTHEST = 16, 6.0


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """Profile likelihood of one population parameter.

    Attributes
    ----------
    name : str
        As in the table of estimates ("ka", "omega_ka", "beta_V_weight"); that of the packed entry where an
        entry of L is no SD of its own.
    estimate : float
    value : ndarray, shape (n_points,)
        Values of the parameter, ascending, on the scale of the table of estimates.
    loss : ndarray, shape (n_points,)
        Increase of -2 log-likelihood over its minimum.
    intervals : mapping of float to (float, float)
        Ends per confidence level; NaN where the likelihood does not bound the parameter within reach. An SD
        that may be zero has 0.
    """

    name: str
    estimate: float
    value: np.ndarray
    loss: np.ndarray
    intervals: Mapping[float, tuple[float, float]]


def profile_names(population: BoundPopulation) -> tuple[str, ...]:
    """Names that `profiles` knows, one per entry of x.

    Parameters
    ----------
    population : BoundPopulation

    Returns
    -------
    tuple of str
    """
    layout, names = population.layout, list(population.names)
    rows = layout.row_effect[layout.first_place]
    for k, position in enumerate(range(population.chol_slice.start, population.n_x)):
        n_in_row = np.count_nonzero(rows == rows[k])
        if position in population.chol_diagonal and n_in_row == 1:
            names[position] = _omega_name(population, position)
    return tuple(name.removeprefix("theta_") for name in names)


def profiles(
    near: NearOptimum,
    names: Sequence[str] | None = None,
    levels: Sequence[float] = (0.95,),
    *,
    progress: bool = False,
) -> tuple[Profile, ...]:
    """Profile the likelihood of population parameters.

    Parameters
    ----------
    near : NearOptimum
    names : sequence of str, optional
        Of `profile_names`; all that are not on the boundary where not given.
    levels : sequence of float
        Confidence levels.
    progress : bool
        Show a bar.

    Returns
    -------
    tuple of Profile

    Raises
    ------
    UsageError
        E_PROFILE_NAME, E_PROFILE_LEVEL.
    """
    known = profile_names(near.population)
    if any(not 0.0 < level < 1.0 for level in levels) or not levels:
        raise UsageError(
            "E_PROFILE_LEVEL", f"confidence levels lie between 0 and 1; {list(levels)} was given."
        )
    wanted = [known[k] for k in near.free] if names is None else list(names)
    for name in wanted:
        if name not in known or known.index(name) not in near.free:
            raise UsageError(
                "E_PROFILE_NAME",
                f"there is no profile of {name!r}. Allowed: {', '.join(known[k] for k in near.free)}.",
            )
    bar = tqdm(wanted, desc="profiles", disable=not progress)
    return tuple(_profile(near, known.index(name), name, tuple(sorted(levels))) for name in bar)


def _profile(near: NearOptimum, position: int, name: str, levels: tuple[float, ...]) -> Profile:
    targets = np.sqrt(chi2.ppf(levels, 1))
    is_sd = position in near.population.chol_diagonal
    left = _walk(near, position, -1.0, targets, floor=0.0 if is_sd else -np.inf)
    right = _walk(near, position, 1.0, targets, floor=-np.inf)
    at = near.x[position]
    points = {at: 0.0, **left, **right}
    entry = np.array(sorted(points))
    root = np.array([points[e] for e in entry])
    ends = {
        level: (_end(left, at, target, is_sd), _end(right, at, target, False))
        for level, target in zip(levels, targets, strict=True)
    }
    natural = {e: _natural(near, position, e) for e in (at, *entry, *np.ravel(list(ends.values())))}
    value = np.array([natural[e] for e in entry])
    order = np.argsort(value)
    intervals = {}
    for level, pair in ends.items():
        both = [natural[e] for e in pair]
        intervals[level] = (both[0], both[1]) if np.isnan(both).any() else (min(both), max(both))
    return Profile(name, natural[at], value[order], root[order] ** 2, intervals)


def _walk(
    near: NearOptimum, position: int, sign: float, targets: np.ndarray, floor: float
) -> dict[float, float]:
    """Points of one side: entry of x -> root of twice the loss, which near the maximum is linear."""
    at = near.x[position]
    where = int(np.flatnonzero(near.free == position)[0])
    se = near.se[where]
    others = near.free[near.free != position]
    keep = near.free != position
    block = near.information[np.ix_(keep, keep)]
    transform = whitening(block)
    slope = -np.linalg.solve(block, near.information[keep, where])  # of the others along the profile
    points, ends = {at: 0.0}, {at: near.x}
    for target in targets:
        step = target * se
        for _ in range(MOST_POINTS):
            entry = max(at + sign * step, floor)
            if entry not in points:
                from_entry = min(ends, key=lambda e: abs(e - entry))
                start = np.array(ends[from_entry])
                start[others] += slope * (entry - from_entry)
                start[position] = entry
                found = minimize_whitened(near.objective, start, transform, others, max_iterations=30)
                points[entry] = float(np.sqrt(2.0 * max(found.value - near.value, 0.0)))
                ends[entry] = found.x
            if abs(points[entry] - target) < ACCURACY or (entry <= floor and points[entry] < target):
                break
            step = _next_step(points, at, float(target), se)
            if step > FURTHEST * target * se:
                break
    del points[at]
    return points


def _next_step(points: Mapping[float, float], at: float, target: float, se: float) -> float:
    """Distance at which the target is expected: between the points around it, or beyond the last one."""
    pairs = sorted((abs(e - at), r) for e, r in points.items())
    distance, root = (np.array(part) for part in zip(*pairs, strict=True))
    beyond = np.flatnonzero(root > target)
    if len(beyond):
        k = beyond[0]
        share = (target - root[k - 1]) / (root[k] - root[k - 1])
        # Not at an end of the bracket, or a bent profile would be approached in ever smaller steps.
        return float(distance[k - 1] + np.clip(share, 0.05, 0.95) * (distance[k] - distance[k - 1]))
    gain = (root[-1] - root[-2]) / (distance[-1] - distance[-2])
    ahead = (target - root[-1] + 0.5 * ACCURACY) / max(gain, 1e-3 / se)
    return float(distance[-1] + np.clip(ahead, 0.02 * se, 2.0 * target * se))


def _end(points: Mapping[float, float], at: float, target: float, may_be_zero: bool) -> float:
    """Entry of x at which the loss reaches its target; NaN where none does."""
    if not points:
        return float("nan")
    pairs = sorted([(0.0, 0.0), *((abs(e - at), r) for e, r in points.items())])
    distance, root = (np.array(part) for part in zip(*pairs, strict=True))
    rising = np.concatenate([[True], root[1:] > np.maximum.accumulate(root)[:-1]])
    sign = 1.0 if max(points) > at else -1.0
    if root.max() < target - ACCURACY:
        return 0.0 if may_be_zero and min(points) <= 0.0 else float("nan")
    inverse = PchipInterpolator(root[rising], distance[rising])
    return at + sign * float(inverse(min(target, root.max())))


def _natural(near: NearOptimum, position: int, entry: float) -> float:
    """Value of an entry of x on the scale of the table of estimates."""
    population = near.population
    if position >= population.theta_slice.stop or np.isnan(entry):
        return float(entry)
    x = np.array(near.x)
    x[position] = entry
    psi = population.parameters.to_psi(population.typical_phi(x))
    return float(psi[population.theta_index[position]])


def _omega_name(population: BoundPopulation, position: int) -> str:
    effect = int(np.flatnonzero(population.chol_diagonal == position)[0])
    kind = "iov" if population.layout.occasion_of[effect] >= 0 else "omega"
    on = [*population.random_effects.on]
    if population.occasion_effects is not None:
        on += population.occasion_effects.on
    return f"{kind}_{on[effect]}"
