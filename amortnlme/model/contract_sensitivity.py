"""Contract: sensitivities agree with the complex step and with extrapolated differences."""

from __future__ import annotations

from time import perf_counter

import numpy as np

from amortnlme.core.errors import SolveError
from amortnlme.model.contract_world import World, applies, require
from amortnlme.model.reference_ode import reference_sensitivity

# Relative to the largest sensitivity of an output to a parameter over the design.
TOLERANCE = 1e-6
# The reference's own tolerance, and seconds after which one individual suffices (stiff equations are slow).
REFERENCE_RTOL = 1e-10
ENOUGH = 4.0
# A sensitivity below this part of the prediction itself is noise.
FLOOR = 1e-9
# Largest step of the differences in phi (numerical solver, closed form); the smallest is a quarter of it.
STEP = 0.02
EXACT_STEP = 0.005
# Tolerance at which differences of a numerical solver are taken, ...
SHARP = 1e-11
# ... and what its errors, which change with every step it chooses, leave of a zero sensitivity: tens of
# tolerances over the smallest step.
NUMERICAL_FLOOR = 20.0 * SHARP / (STEP / 4.0) / TOLERANCE
# Two extrapolations that differ by more than this say that a kink lies within the steps.
CONVERGED = 1e-7
MOST_KINKS = 0.2


def complex_step(world: World) -> str:
    """Check df/dphi against the reference integrated in complex numbers.

    Parameters
    ----------
    world : World

    Returns
    -------
    str
    """
    applies("sensitivity" in world.model.capabilities, "the model has no sensitivities")
    design, worst, where = world.design, 0.0, ""
    checked, begin = 0, perf_counter()
    for phi in np.vstack([world.model.parameters.typical_phi, world.phi[:4]]):
        try:
            exact = reference_sensitivity(world.model, phi, design, world.covariates, rtol=REFERENCE_RTOL)
        except TypeError as fault:
            applies(False, f"the model's functions do not take complex numbers ({fault})")
            raise
        except SolveError:
            continue
        found = world.model.predict_with_sensitivity(phi[None], design, world.covariates)
        assert found.df_dphi is not None
        error, column = _largest(found.df_dphi[0], exact, found.f[0], design.observation_outputs)
        if error >= worst:
            worst, where = error, world.model.parameters.names[column]
        checked += 1
        if checked == 2 or perf_counter() - begin > ENOUGH:
            break
    require(checked > 0, "the reference cannot be solved at any of 5 individuals")
    require(worst < TOLERANCE, f"df/dphi of {where!r} differs from the complex step by {worst:.1e} relative")
    return f"largest relative difference {worst:.1e} ({where}), {checked} individuals"


def differences(world: World) -> str:
    """Check df/dphi against Richardson-extrapolated central differences of the predictions.

    Parameters
    ----------
    world : World

    Returns
    -------
    str
    """
    applies("sensitivity" in world.model.capabilities, "the model has no sensitivities")
    model, design = world.model, world.design
    phi = world.some_phi
    prediction = model.predict_with_sensitivity(phi, design, world.covariates)
    df_dphi = prediction.df_dphi
    assert df_dphi is not None
    floor, step = (FLOOR, EXACT_STEP) if world.is_closed_form else (NUMERICAL_FLOOR, STEP)
    worst, where, kinks, total = 0.0, "", 0, 0
    for column in range(model.d):
        first, second = _extrapolated(world, phi, column, step)
        numeric = second + (second - first) / 15
        for row in range(phi.shape[0]):
            scale = _scale(numeric[row], prediction.f[row], design.observation_outputs, floor)
            smooth = np.abs(second[row] - first[row]) <= CONVERGED * scale
            kinks, total = kinks + int((~smooth).sum()), total + smooth.size
            error = np.abs(numeric[row] - df_dphi[row, :, column])[smooth] / scale[smooth]
            if error.size and float(error.max()) >= worst:
                worst, where = float(error.max()), model.parameters.names[column]
    require(worst < TOLERANCE, f"df/dphi of {where!r} differs from differences by {worst:.1e} relative")
    require(
        kinks <= MOST_KINKS * total, f"{kinks} of {total} differences do not converge, so nothing is checked"
    )
    return f"largest relative difference {worst:.1e} ({where}); {kinks} of {total} at a kink left out"


def _extrapolated(world: World, phi: np.ndarray, column: int, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Extrapolate once from the steps (h, h/2) and (h/2, h/4); their errors are of order h^4."""
    program, design = world.sharp_program(SHARP), world.design
    direction = np.zeros(world.model.d)
    direction[column] = 1.0

    def predict(shift: float) -> np.ndarray:
        f, _ = program.engine.predict(  # pyright: ignore[reportAttributeAccessIssue]
            world.rows(phi + shift * direction, design)
        )
        return f[:, : design.n_observations]

    s1, s2, s4 = ((predict(h) - predict(-h)) / (2 * h) for h in (step, step / 2, step / 4))
    return (4 * s2 - s1) / 3, (4 * s4 - s2) / 3


def _scale(slope: np.ndarray, f: np.ndarray, output: np.ndarray, floor: float) -> np.ndarray:
    """Per observation, the largest slope of its output over the design."""
    scale = np.empty_like(slope)
    for which in np.unique(output):
        here = output == which
        scale[here] = np.abs(slope[here]).max() + floor * np.abs(f[here]).max() + 1e-300
    return scale


def _largest(found: np.ndarray, exact: np.ndarray, f: np.ndarray, output: np.ndarray) -> tuple[float, int]:
    errors = np.array(
        [
            (np.abs(found[:, j] - exact[:, j]) / _scale(exact[:, j], f, output, FLOOR)).max()
            for j in range(exact.shape[1])
        ]
    )
    column = int(np.argmax(errors))
    return float(errors[column]), column
