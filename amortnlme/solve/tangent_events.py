"""What ordinary doses and the start do to a state and to its sensitivities.

Where the time tau of an event depends on parameters, S after it is S before, plus (f before - f after)
dtau/dp, plus the derivative of the jump itself; f includes running infusions.
"""

from __future__ import annotations

import numpy as np

from amortnlme.solve.schedule import INFUSION_END
from amortnlme.solve.tangent_interface import BLOCK_RATE, block, inner_kernel
from amortnlme.solve.tangent_memory import (
    ACTION,
    AMOUNT,
    BIOAVAILABILITY,
    COMPARTMENT,
    DOSE_SEGMENT,
    LAG,
    LANES,
    RATE,
    RECORDED,
    RUNNING,
    SLOPE,
    SLOPE_BEFORE,
    START,
    STATE,
    TIME,
)
from amortnlme.solve.tangent_stepper import clear_rates, slope_with_rates


@inner_kernel
def wake(field, entry, d_entry, p, x, v, w, lanes):
    """Let the states move from the start time on, which depends on parameters.

    Parameters
    ----------
    field : kernel of the model
    entry : ndarray, shape (1 + n,)
    d_entry : ndarray, shape (p, 1 + n)
        See `Problem`.
    p, x : ndarray
        Parameters and covariates.
    v, w : ndarray
        See `Work`.
    lanes : int
    """
    slope_with_rates(field, entry[START], v, p, x)
    for i in range(v.shape[1]):
        for lane in range(d_entry.shape[0]):
            w[i * lanes + lane] -= v[SLOPE, i] * d_entry[lane, START]


@inner_kernel
def give_bolus(field, numbers, marks, d_dose, p, x, v, w, lanes, shifts):
    """Add an amount, at a time that moves with the lag where it `shifts` anything.

    Parameters
    ----------
    field : kernel of the model
    numbers, marks : ndarray, shape (6,)
        The event; see `Problem`.
    d_dose : ndarray, shape (n_segments, 2, n, p)
    p, x : ndarray
        Parameters and covariates.
    v, w : ndarray
        See `Work`.
    lanes : int
    shifts : bool
        False while the states wait for their start, or without lag: then the time does not matter.
    """
    into = marks[COMPARTMENT]
    slopes = d_dose[marks[DOSE_SEGMENT]]
    if shifts:
        field(numbers[TIME], v[STATE], p, x, v[SLOPE_BEFORE])
    v[STATE, into] += numbers[AMOUNT]
    for lane in range(slopes.shape[2]):
        w[into * lanes + lane] += numbers[RECORDED] * slopes[BIOAVAILABILITY, into, lane]
    if shifts:
        field(numbers[TIME], v[STATE], p, x, v[SLOPE])
        for i in range(v.shape[1]):
            change = v[SLOPE_BEFORE, i] - v[SLOPE, i]
            for lane in range(slopes.shape[2]):
                w[i * lanes + lane] += change * slopes[LAG, into, lane]


@inner_kernel
def switch_infusion(numbers, marks, d_dose, v, w, tally, moving):
    """Start or end an infusion.

    Parameters
    ----------
    numbers, marks : ndarray, shape (6,)
        The event; see `Problem`.
    d_dose : ndarray, shape (n_segments, 2, n, p)
    v, w, tally : ndarray
        See `Work`.
    moving : bool
        False while the states wait for their start.
    """
    lanes = tally[LANES]
    into = marks[COMPARTMENT]
    slopes = d_dose[marks[DOSE_SEGMENT]]
    sign = np.int64(-1) if marks[ACTION] == INFUSION_END else np.int64(1)
    tally[RUNNING] += sign
    v[RATE, into] += sign * numbers[AMOUNT]
    rates = block(BLOCK_RATE, v.shape[1], lanes) + into * lanes
    for lane in range(slopes.shape[2]):
        w[rates + lane] += sign * numbers[RECORDED] * slopes[BIOAVAILABILITY, into, lane]
        if moving:
            w[into * lanes + lane] -= sign * numbers[AMOUNT] * slopes[LAG, into, lane]
    if tally[RUNNING] == 0:
        clear_rates(v, w, lanes)  # differences of rates leave rounding residues, which must not drip on
