"""Contract: paths of random dynamics belong to their numbers, and their mean follows the drift."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.stats import norm

from amortnlme.model.contract_world import N_ROWS, World, applies, require
from amortnlme.model.dynamics import Jump, Sde
from amortnlme.model.reference_ode import reference_states
from amortnlme.solve.engine import AbstractStochasticEngine

# Paths whose mean is compared, and the probability of a false alarm over all comparisons of a model.
N_PATHS = 4000
FALSE_ALARM = 1e-6


def paths_belong_to_numbers(world: World) -> str:
    """Check that a path is a function of key and number, and changes with either.

    Parameters
    ----------
    world : World

    Returns
    -------
    str
    """
    engine = world.random_engine
    typical = np.repeat(world.model.parameters.typical_phi[None], N_ROWS, axis=0)
    rows, ids = world.rows(typical, world.design), np.arange(N_ROWS)
    f, _ = engine.simulate(rows, (1, 2), ids)
    again, _ = engine.simulate(rows, (1, 2), ids)
    require(np.array_equal(f, again, equal_nan=True), "two runs with the same key differ")
    backwards, _ = engine.simulate(rows, (1, 2), ids[::-1].copy())
    require(np.array_equal(f, backwards[::-1], equal_nan=True), "a path depends on where its number stands")
    distinct = len(np.unique(np.nan_to_num(f), axis=0))
    require(distinct > N_ROWS // 2, f"{N_ROWS} numbers give {distinct} different paths")
    for key in ((2, 2), (1, 3)):
        other, _ = engine.simulate(rows, key, ids)
        same = int((np.nan_to_num(other) == np.nan_to_num(f)).all(axis=1).sum())
        require(same < N_ROWS // 2, f"{same} of {N_ROWS} paths are the same under another key")
    return f"{distinct} different paths of {N_ROWS}; other keys, other paths"


def mean_follows_drift(world: World) -> str:
    """Check the mean of many paths: against the drift where that is exact, else against half the step.

    The mean of a path obeys the mean rates exactly where they are affine in the states. Paths made in steps
    obey Euler's recursion of them, which the reference follows with the same steps.

    Parameters
    ----------
    world : World

    Returns
    -------
    str
    """
    applies(world.is_random, "the states do not move at random")
    system = world.equations.system
    moving = set(system.symbols.states)
    affine = all(not (e.free_symbols & moving) for row in system.jacobian for e in row)
    step = _step(world)
    paths = _paths(world, step)
    if affine and not _is_clamped(world, paths):
        return _against_drift(world, paths, step)
    applies(step is not None, "mean rates are not affine in the states, and reactions are exact")
    assert step is not None
    return _against_half_step(world, paths, step)


def _against_drift(world: World, paths: np.ndarray, step: float | None) -> str:
    phi, design = world.model.parameters.typical_phi, world.design
    exact = reference_states(world.model, phi, design, world.covariates)
    euler = (
        exact
        if step is None
        else reference_states(world.model, phi, design, world.covariates, euler_step=step)
    )
    mean, se = _moments(paths)
    z = norm.isf(FALSE_ALARM / (2 * mean.size))
    # Where an event lies within a step the recursions part by a fraction of what separates them from the ODE.
    allowed = z * se + 0.5 * np.abs(euler - exact) + 1e-9 * np.abs(exact).max(axis=0)
    worst = float((np.abs(mean - euler) / allowed).max())
    require(
        worst <= 1.0,
        f"the mean of {N_PATHS} paths is {worst:.1f} times as far from the drift as chance allows",
    )
    return f"mean of {N_PATHS} paths within {worst:.2f} of the allowed {z:.1f} SE"


def _against_half_step(world: World, paths: np.ndarray, step: float) -> str:
    mean, se = _moments(paths)
    other, other_se = _moments(_paths(world, step / 2.0, first=N_PATHS))
    z = norm.isf(FALSE_ALARM / (2 * mean.size))
    spread = paths.std(axis=1).T
    # First order: the step may shift the mean by a twentieth of the paths' own spread before it matters.
    allowed = z * np.hypot(se, other_se) + 0.05 * spread + 1e-9 * np.abs(mean).max(axis=0)
    worst = float((np.abs(mean - other) / allowed).max())
    require(worst <= 1.0, f"halving the step moves the mean {worst:.1f} times as far as allowed")
    return f"halving the step moves the mean by {worst:.2f} of the allowed {z:.1f} SE + 5 % of the spread"


def _step(world: World) -> float | None:
    dynamics = world.model.dynamics
    if isinstance(dynamics, Sde):
        return dynamics.dt
    assert isinstance(dynamics, Jump)
    return dynamics.tau if dynamics.method == "tau_leaping" else None


def _paths(world: World, step: float | None, first: int = 0) -> np.ndarray:
    """States of many paths at typical parameters, shape (n_states, n, m)."""
    dynamics = world.model.dynamics
    if isinstance(dynamics, Sde) and step is not None:
        dynamics = replace(dynamics, dt=step)
    elif isinstance(dynamics, Jump) and step is not None:
        dynamics = replace(dynamics, tau=step)
    engine = dynamics.build(world.equations, world.equations.system.symbols.states)
    assert isinstance(engine, AbstractStochasticEngine)
    phi = np.repeat(world.model.parameters.typical_phi[None], N_PATHS, axis=0)
    ids, m = first + np.arange(N_PATHS), world.design.n_observations
    found = []
    for state in range(len(world.model.states)):
        f, status = engine.simulate(world.rows(phi, world.design, output=state), (7, 8), ids)
        require(bool((status == 0).all()), "typical parameters cannot be simulated")
        found.append(f[:, :m])
    return np.array(found)


def _moments(paths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and its standard error, shapes (m, n_states)."""
    return paths.mean(axis=1).T, paths.std(axis=1).T / np.sqrt(paths.shape[1])


def _is_clamped(world: World, paths: np.ndarray) -> bool:
    """Whether a state that may not become negative was seen at zero after it had moved."""
    dynamics = world.model.dynamics
    if not isinstance(dynamics, Sde) or not dynamics.non_negative:
        return False
    held = [world.model.states.index(name) for name in dynamics.non_negative]
    moves = paths.std(axis=1) > 0.0
    return bool(((paths[held] == 0.0).any(axis=1) & moves[held]).any())
