"""Contract: predictions agree with an independent integration, and with what linear systems promise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from amortnlme.core.errors import SolveError
from amortnlme.core.status import SolveStatus
from amortnlme.data.design import Design, Dose
from amortnlme.model.contract_world import (
    World,
    applies,
    largest_error,
    require,
    with_amounts,
    without_doses,
)
from amortnlme.model.dynamics import Ode
from amortnlme.model.reference_integrator import Individual
from amortnlme.model.reference_ode import reference_prediction

# A global error is at most this many times the tolerance of a step: it adds up over tens to a few hundred
# steps, and models that are shipped damp it.
STEPS = 100.0
# Tolerances at which the error is followed, and the error at which the reference itself is in doubt.
LADDER = (1e-4, 1e-6, 1e-8, 1e-10)
REFERENCE_FLOOR = 1e-9
# A series of doses counts as settled when one more changes nothing by more than this (relative).
SETTLED = 1e-9
SHARP = 1e-11
MANY_DOSES = (20, 150, 1200)
# Fractions of a dosing interval at which outputs are compared.
WATCHED = (0.0, 0.1, 0.35, 0.7, 0.999)


def agrees_with_reference(world: World) -> str:
    """Check predictions against the untraced functions, integrated by SciPy from event to event.

    Parameters
    ----------
    world : World

    Returns
    -------
    str
    """
    applies(not world.is_random, "the states move at random, so there is no prediction")
    phi, exact = _references(world, world.design)
    found = world.model.predict(phi, world.design, world.covariates).f
    worst = largest_error(found, exact, world.design.observation_outputs)
    tolerance = STEPS * world.rtol
    require(worst <= tolerance, f"predictions differ from the ODE solver by {worst:.1e} relative")
    return f"largest relative difference {worst:.1e} (allowed {tolerance:.0e}), {len(phi)} individuals"


def error_follows_tolerance(world: World) -> str:
    """Check that the error of a numerical solver is proportional to the tolerance it is given.

    Parameters
    ----------
    world : World

    Returns
    -------
    str
    """
    applies(not world.is_random, "the states move at random, so there is no prediction")
    applies(not world.is_closed_form, "predictions come from a closed form")
    phi, exact = _references(world, world.design)
    rows = world.rows(phi, world.design)
    errors = []
    for rtol in LADDER:
        engine = world.sharp_program(rtol).engine
        found, _ = engine.predict(rows)  # pyright: ignore[reportAttributeAccessIssue]
        m = world.design.n_observations
        errors.append(largest_error(found[:, :m], exact, world.design.observation_outputs))
        require(
            errors[-1] <= STEPS * rtol + REFERENCE_FLOOR,
            f"at a tolerance of {rtol:.0e} the error is {errors[-1]:.1e}",
        )
    require(
        errors[-1] <= errors[0] / 100.0 + REFERENCE_FLOOR,
        f"the error falls from {errors[0]:.1e} to {errors[-1]:.1e} only",
    )
    pairs = ", ".join(f"{e:.0e} at {rtol:.0e}" for rtol, e in zip(LADDER, errors, strict=True))
    return f"error {pairs}"


def baseline(world: World) -> str:
    """Check predictions without doses: those of the reference, constant where nothing moves the states.

    Parameters
    ----------
    world : World

    Returns
    -------
    str
    """
    applies(not world.is_random, "the states move at random, so there is no prediction")
    design = without_doses(world.design)
    phi, exact = _references(world, design)
    found = world.model.predict(phi, design, world.covariates)
    require(bool((found.status == 0).all()), "the model cannot be solved without a dose")
    worst = largest_error(found.f, exact, design.observation_outputs)
    require(
        worst <= STEPS * world.rtol, f"without a dose predictions differ from the reference by {worst:.1e}"
    )
    if not _rests(world, phi[0]):
        return f"states move without a dose, as the reference says: largest difference {worst:.1e}"
    drift = 0.0
    for output in np.unique(design.observation_outputs):
        f = found.f[:, design.observation_outputs == output]
        drift = max(drift, float((np.ptp(f, axis=1) / (1.0 + np.abs(f).max(axis=1))).max()))
    require(drift <= STEPS * world.rtol, f"without a dose predictions drift by {drift:.1e}")
    return f"nothing moves without a dose: baseline {float(found.f[0, 0]):g}, drift {drift:.1e}"


def superposes(world: World) -> str:
    """Check that states of a linear system add up over doses.

    Parameters
    ----------
    world : World

    Returns
    -------
    str
    """
    applies(not world.is_random, "the states move at random, so there is no prediction")
    applies(bool(world.design.is_dose.any()), "its designs have no doses")
    applies(world.equations.system.is_linear_constant, "the states do not move linearly")
    design = world.design
    share = np.where(np.arange(design.n_records) % 2, 0.3, 0.8)
    designs = (
        design,
        with_amounts(design, design.amount * share),
        with_amounts(design, design.amount * (1.0 - share)),
        with_amounts(design, 0.0 * design.amount),
    )
    both, first, second, none = (_states(world, world.some_phi, d) for d in designs)
    gap = np.abs(both - none - (first - none) - (second - none)).max(axis=2)
    worst = float((gap / (np.abs(both).max(axis=2) + 1e-300)).max())
    require(worst <= STEPS * world.rtol, f"responses to two parts of the doses miss their sum by {worst:.1e}")
    return f"largest relative difference {worst:.1e} over {both.shape[0]} states"


def steady_state(world: World) -> str:
    """Check a dose with SS=1 against a long series of the same doses.

    Parameters
    ----------
    world : World

    Returns
    -------
    str
    """
    applies(not world.is_random, "the states move at random, so there is no prediction")
    applies(bool(world.design.is_dose.any()), "its designs have no doses")
    applies(
        world.model.dynamics.entry.start is None, "the states wait for a start, so doses do not settle alone"
    )
    time = world.equations.system.symbols.time
    applies(
        all(time not in e.free_symbols for e in world.equations.system.derivatives),
        "the right-hand side depends on time, so no regimen settles",
    )
    dose, period = _regimen(world.design)
    outputs = tuple(range(1, len(world.model.outputs) + 1))
    settled = _after(replace(dose, ii=period, ss=1), 0.0, period, outputs)
    phi = world.some_phi
    found, status = _sharply(world, phi, settled)
    series, done, number = _long_series(world, phi, dose, period, outputs)
    require(bool(done.any()), f"no individual settles within {MANY_DOSES[-1]} doses every {period:g}")
    wrong = ~done & (status != SolveStatus.OK) & (status != SolveStatus.NO_STEADY_STATE)
    require(not wrong.any(), f"a steady state ends with status {status[wrong]}")
    require(bool((status[done] == SolveStatus.OK).all()), "a regimen that settles ends with a status")
    worst = largest_error(found[done], series[done], settled.observation_outputs)
    # What is left of the approach: one period's change, at most 1 / (1 - 0.99) times.
    tolerance = STEPS * SHARP + 100.0 * SETTLED
    require(worst <= tolerance, f"SS=1 differs from {number} doses by {worst:.1e}")
    return (
        f"SS=1 every {period:g} against {number} doses: {worst:.1e}, {int(done.sum())} of {len(phi)} settle"
    )


def closed_form_is_the_ode(world: World) -> str:
    """Check the closed form of a linear system against Rodas5P on the same equations.

    Parameters
    ----------
    world : World

    Returns
    -------
    str
    """
    applies(not world.is_random, "the states move at random, so there is no prediction")
    applies(world.is_closed_form, "predictions come from a numerical solver")
    dynamics = world.model.dynamics
    numerical = Ode(
        dynamics.rhs,  # pyright: ignore[reportAttributeAccessIssue]
        dynamics.dose_state,
        *(getattr(dynamics.entry, name) for name in ("initial", "start", "lag", "bioavailability")),
        method="rodas5p",
        rtol=1e-9,
        atol=1e-12,
    )
    engine = numerical.build(world.equations, world.output_expressions)
    rows = world.rows(world.some_phi, world.design)
    exact, _ = world.engine.predict(rows)
    found, status = engine.predict(rows)  # pyright: ignore[reportAttributeAccessIssue]
    require(bool((status == 0).all()), f"Rodas5P ends with status {status}")
    m = world.design.n_observations
    worst = largest_error(found[:, :m], exact[:, :m], world.design.observation_outputs)
    require(worst <= STEPS * 1e-9, f"closed form and Rodas5P differ by {worst:.1e}")
    return f"largest relative difference {worst:.1e} (allowed {STEPS * 1e-9:.0e})"


def _references(world: World, design: Design) -> tuple[np.ndarray, np.ndarray]:
    """Typical parameters and the first from the prior that SciPy can solve, with its predictions."""
    phi, exact = [], []
    for row in np.vstack([world.model.parameters.typical_phi, world.phi[:8]]):
        try:
            exact.append(reference_prediction(world.model, row, design, world.covariates_of(design)))
        except SolveError:
            require(bool(phi), "the reference cannot be solved at typical parameters")
            continue
        phi.append(row)
        if len(phi) == 3:
            break
    require(len(phi) >= 2, "the reference can be solved at typical parameters only")
    return np.array(phi), np.array(exact)


def _rests(world: World, phi: np.ndarray) -> bool:
    """Whether the initial states have no slope at any observation, so that only doses move them."""
    model, design = world.model, world.design
    values = dict(zip(model.parameters.names, model.parameters.to_psi(phi).tolist(), strict=True))
    individual = Individual(model, values, 1e-12)
    entry = model.dynamics.entry
    for i in range(design.n_records):
        p = individual.parameters({name: float(v[i]) for name, v in world.covariates.items()})
        x = np.zeros(individual.n) if entry.initial is None else np.array(entry.initial(p), dtype=float)
        slope = individual.slope(float(design.time[i]), x.reshape(individual.n), p)
        span = float(np.ptp(design.time)) or 1.0
        if float(np.abs(slope).max()) * span > 1e-12 * (float(np.abs(x).max()) + 1e-300):
            return False
        if any(
            o.fn(float(design.time[i]), individual.states(x), p)
            != o.fn(float(design.time[0]), individual.states(x), p)
            for o in model.outputs
        ):
            return False
    return True


def _states(world: World, phi: np.ndarray, design: Design) -> np.ndarray:
    """Every state at the observations, shape (n_states, n, m)."""
    program, m = world.state_program, design.n_observations
    found = []
    for state in range(len(program.states)):
        rows = world.rows(phi, design, output=state)
        f, _ = program.engine.predict(rows)  # pyright: ignore[reportAttributeAccessIssue]
        found.append(f[:, :m])
    return np.array(found)


def _regimen(design: Design) -> tuple[Dose, float]:
    """Return the first dose and an interval: the usual one, or how long a single dose is watched."""
    at = int(np.flatnonzero(design.is_dose)[0])
    dose = Dose(0.0, float(design.amount[at]), int(design.compartment[at]), float(design.duration[at]))
    gaps = np.diff(design.dose_times)
    gaps = gaps[gaps > 0.0]
    period = float(np.median(gaps)) if gaps.size else float(design.time[-1] - design.time[at])
    return dose, period


def _sharply(world: World, phi: np.ndarray, design: Design) -> tuple[np.ndarray, np.ndarray]:
    """Predict at a tolerance below the changes that are looked for; return status too."""
    engine = world.sharp_program(SHARP).engine
    f, status = engine.predict(world.rows(phi, design))  # pyright: ignore[reportAttributeAccessIssue]
    return f[:, : design.n_observations], status


def _long_series(
    world: World, phi: np.ndarray, dose: Dose, period: float, outputs: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, int]:
    """Predict what follows the last of many doses; say who has settled, and how many doses there were."""
    output, number = np.tile(outputs, len(WATCHED)), MANY_DOSES[0]

    def after(n: int) -> np.ndarray:
        design = _after(replace(dose, ii=period, addl=n), n * period, period, outputs)
        return _sharply(world, phi, design)[0]

    last, done = np.empty(0), np.zeros(0, dtype=bool)
    for number in MANY_DOSES:
        last, before = after(number), after(number - 1)
        change = [largest_error(a[None], b[None], output) for a, b in zip(last, before, strict=True)]
        done = np.array(change) <= SETTLED
        if done.all():
            break
    return last, done, number


def _after(dose: Dose, begin: float, period: float, outputs: tuple[int, ...]) -> Design:
    """Observe every output over the interval after a dose."""
    times = begin + period * np.array(WATCHED)
    return Design.from_doses([dose], np.repeat(times, len(outputs)), list(outputs) * len(times))
