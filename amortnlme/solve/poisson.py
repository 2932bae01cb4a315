"""Poisson random numbers from a counter-based stream: exact, by inversion or by transformed rejection."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from amortnlme.solve.philox import PURPOSE_REACTIONS, random_pair, uniform

# Below, the number is found by summing probabilities; above, by rejection, whose constants need mean >= 10.
INVERSION_LIMIT = 10.0
# The chance that an attempt is rejected is below 0.3, so that no stream ever gets here.
MOST_ATTEMPTS = 1000
LAST_COUNT = 200.0


@njit(cache=True, nogil=True, error_model="numpy")
def _invert(mean, u):
    """Return the first count whose cumulative probability reaches u."""
    count = 0.0
    probability = math.exp(-mean)
    total = probability
    # The sum may end below u by rounding; the bound is beyond every count of probability 2**-53.
    while total < u and count < LAST_COUNT:
        count += 1.0
        probability *= mean / count
        total += probability
    return count


@njit(cache=True, nogil=True, error_model="numpy")
def poisson(mean, draw, low, high, key_0, key_1):
    """Draw a Poisson number.

    Parameters
    ----------
    mean : float
        Not negative.
    draw : uint64
        Next draw of the stream.
    low, high, key_0, key_1 : uint64
        See `amortnlme.solve.philox.philox4x32`.

    Returns
    -------
    count : float
        NaN where the mean is not finite.
    draw : uint64
        The draw after those used: one, or one per attempt.

    Notes
    -----
    Rejection is algorithm PTRS of Hoermann (1993), Insurance: Mathematics and Economics 12, 39-45.
    """
    purpose = np.uint64(PURPOSE_REACTIONS)
    one = np.uint64(1)
    if not mean < math.inf:
        return math.nan, draw
    if mean == 0.0:
        return 0.0, draw
    if mean < INVERSION_LIMIT:
        first, _ = random_pair(draw, purpose, low, high, key_0, key_1)
        return _invert(mean, uniform(first)), draw + one
    slope = math.sqrt(mean)
    log_mean = math.log(mean)
    b = 0.931 + 2.53 * slope
    a = -0.059 + 0.02483 * b
    inverse_alpha = 1.1239 + 1.1328 / (b - 3.4)
    quick = 0.9277 - 3.6224 / (b - 2.0)
    for _ in range(MOST_ATTEMPTS):
        first, second = random_pair(draw, purpose, low, high, key_0, key_1)
        draw += one
        u = uniform(first) - 0.5
        v = uniform(second)
        us = 0.5 - abs(u)
        count = math.floor((2.0 * a / us + b) * u + mean + 0.43)
        if us >= 0.07 and v <= quick:
            return count, draw
        if count < 0.0 or (us < 0.013 and v > us):
            continue
        likelihood = count * log_mean - mean - math.lgamma(count + 1.0)
        if math.log(v * inverse_alpha / (a / (us * us) + b)) <= likelihood:
            return count, draw
    return math.nan, draw
