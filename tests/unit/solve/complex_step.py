"""Oracle of sensitivities: complex steps through an implicit integrator that shares no code with the engine.

Right-hand sides, outputs and event times are plain Python on complex numbers. The integrator is Radau IIA of
order five, L-stable, with steps fixed beforehand: short after an event, then growing up to a bound. One run
carries a step of every parameter: times, states and parameters have a trailing axis for them, along which
real parts are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

ROOT = np.sqrt(6.0)
NODES = np.array([(4 - ROOT) / 10, (4 + ROOT) / 10, 1.0])
COLLOCATION = np.array(
    [
        [(88 - 7 * ROOT) / 360, (296 - 169 * ROOT) / 1800, (-2 + 3 * ROOT) / 225],
        [(296 + 169 * ROOT) / 1800, (88 + 7 * ROOT) / 360, (-2 - 3 * ROOT) / 225],
        [(16 - ROOT) / 36, (16 + ROOT) / 36, 1 / 9],
    ]
)
WEIGHTS = COLLOCATION[-1]
# Small enough to leave real parts alone, which makes the derivative exact.
STEP = 1e-40
# Lengths of the steps after an event.
FIRST_STEP, GROWTH = 1e-6, 1.6


@dataclass(frozen=True)
class Event:
    """`time(p)`, and what happens then to the state and the rates: `jump(y, rate, p) -> (y, rate)`.

    `covariates` replaces those in force; `reset` starts again from the initial state, at a time that may be
    earlier.
    """

    time: Callable
    jump: Callable | None = None
    covariates: tuple | None = None
    reset: bool = False
    observe: Callable | None = None


@dataclass(frozen=True)
class Course:
    """A row: `rhs(t, y, p, x)`, `initial(p)`, `start(p)` or None, and its events in order of time."""

    rhs: Callable
    initial: Callable
    events: list[Event]
    start: Callable | None = None
    covariates: tuple = ()
    max_step: float = 0.1


def real(value) -> float:
    """The real part, which all steps share."""
    return float(np.real(np.ravel(value)[0]))


def _stage_slopes(rhs, t, h, y, rate, p, x):
    """Newton's method for the three stage slopes, shape (3, n, steps)."""
    n, B = y.shape
    k = np.tile(rhs(t, y, p, x) + rate, (3, 1, 1))
    J = np.zeros((n, n))
    for j in range(n):
        width = np.zeros((n, 1))
        width[j] = 1e-7 * max(abs(y[j, 0]), 1e-3)
        change = rhs(t + h / 2, y + width, p, x) - rhs(t + h / 2, y - width, p, x)
        J[:, j] = change[:, 0].real / (2 * width[j])
    M = np.linalg.inv(np.eye(3 * n) - real(h) * np.kron(COLLOCATION, J))
    for _ in range(60):
        z = y + h * np.tensordot(COLLOCATION, k, 1)
        residual = np.array([rhs(t + c * h, z[i], p, x) + rate for i, c in enumerate(NODES)]) - k
        change = (M @ residual.reshape(3 * n, B)).reshape(k.shape)
        k = k + change
        # Real and imaginary parts, and the steps of all parameters, have scales of their own.
        if all(
            (abs(part(change)).max(axis=(0, 1)) <= 1e-13 * abs(part(k)).max(axis=(0, 1))).all()
            for part in (np.real, np.imag)
        ):
            break
    return k


def advance(course: Course, t, target, y, rate, p, x):
    """Integrate between two times, either of which may be complex."""
    span = target - t
    if not np.any(span):
        return y
    lengths = [FIRST_STEP]
    while sum(lengths) < real(span):
        lengths.append(min(lengths[-1] * GROWTH, course.max_step))
    scale = span / sum(lengths)
    for length in lengths:
        h = length * scale
        y = y + h * np.tensordot(WEIGHTS, _stage_slopes(course.rhs, t, h, y, rate, p, x), 1)
        t = t + h
    return y


def solve(course: Course, p) -> np.ndarray:
    """Observations of a row, shape (m, steps), at parameters of shape (d, steps)."""
    x = course.covariates
    start = -np.inf if course.start is None else course.start(p)
    y = course.initial(p)
    rate = np.zeros_like(y)
    clock = course.events[0].time(p)
    if -np.inf < real(start) < real(clock):
        clock = start
    values = []
    for event in course.events:
        time = event.time(p)
        x = x if event.covariates is None or not event.reset else event.covariates
        if event.reset:
            y, rate, clock = course.initial(p), rate * 0, time
            continue
        if real(time) > real(start):
            y = advance(course, start if real(clock) < real(start) else clock, time, y, rate, p, x)
        clock = time
        x = x if event.covariates is None else event.covariates
        if event.jump is not None:
            y, rate = event.jump(y, rate, p)
        if event.observe is not None:
            values.append(event.observe(time, y, p, x))
    return np.array(values)


def sensitivities(course: Course, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Observations and their derivatives, shapes (m,) and (m, d), by one complex step per parameter."""
    values = solve(course, p[:, None] + 1j * STEP * np.eye(len(p)))
    return values[:, 0].real, values.imag / STEP
