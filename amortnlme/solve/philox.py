"""Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011), uniform, exponential and normal variates.

A random number is a pure function of a key and of four counter words (draw, purpose, low and high half of
the number of the simulation): there is no state, nothing to seed, and streams cannot overlap. All functions
are free of branches and tables, so that loops over lanes become SIMD code.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from amortnlme.solve.vector_math import MANTISSA_MASK, ONE_BITS, SQRT_HALF_BITS

# Second word of the counter: what the numbers are for.
PURPOSE_BROWNIAN = 1
PURPOSE_REACTIONS = 2

ROUNDS = 10
MULTIPLIER_0 = np.uint64(0xD2511F53)
MULTIPLIER_1 = np.uint64(0xCD9E8D57)
KEY_STEP_0 = np.uint64(0x9E3779B9)
KEY_STEP_1 = np.uint64(0xBB67AE85)
WORD_MASK = np.uint64(0xFFFFFFFF)
HALF_WORD = np.uint64(32)
# A uniform number keeps the 52 highest of 64 bits and adds one half: the midpoints of 2**52 equal cells.
DROPPED_BITS = np.uint64(12)
UNIFORM_BITS = 52
CELL = 2.0**-UNIFORM_BITS
QUARTER_CELL = 0.5 * math.pi * CELL
QUARTER_START = -0.25 * math.pi + 0.5 * QUARTER_CELL
SWAP_BIT = np.uint64(1)
SIGN_BIT = np.uint64(2)
SIGN_SHIFT = np.uint64(62)
MANTISSA_BITS = np.int64(52)
# Exponent bias of a float, and the 52 bits by which the whole number is larger than its uniform number.
EXPONENT_OFFSET = 1023.0 + UNIFORM_BITS
LN_2 = math.log(2.0)


@njit(forceinline=True)
def philox4x32(draw, purpose, low, high, key_0, key_1):
    """Encrypt a counter of four 32-bit words under a key of two.

    Parameters
    ----------
    draw, purpose, low, high : uint64
        Counter words, each below 2**32. (Masking here as well lets LLVM see that 32-bit products suffice.)
    key_0, key_1 : uint64
        Key words, each below 2**32.

    Returns
    -------
    tuple of four uint64
        Random words, each below 2**32.
    """
    c0, c1, c2, c3 = draw & WORD_MASK, purpose & WORD_MASK, low & WORD_MASK, high & WORD_MASK
    k0, k1 = key_0 & WORD_MASK, key_1 & WORD_MASK
    for _ in range(ROUNDS):
        a = c0 * MULTIPLIER_0
        b = c2 * MULTIPLIER_1
        c0, c1 = (b >> HALF_WORD) ^ c1 ^ k0, b & WORD_MASK
        c2, c3 = (a >> HALF_WORD) ^ c3 ^ k1, a & WORD_MASK
        k0 = (k0 + KEY_STEP_0) & WORD_MASK
        k1 = (k1 + KEY_STEP_1) & WORD_MASK
    return c0, c1, c2, c3


@njit(forceinline=True)
def random_pair(draw, purpose, low, high, key_0, key_1):
    """Encrypt a counter into two 64-bit words; see `philox4x32`.

    Parameters
    ----------
    draw, purpose, low, high, key_0, key_1 : uint64

    Returns
    -------
    tuple of two uint64
    """
    a, b, c, d = philox4x32(draw, purpose, low, high, key_0, key_1)
    return (a << HALF_WORD) | b, (c << HALF_WORD) | d


@njit(forceinline=True)
def uniform(word):
    """Turn 64 random bits into a number strictly between 0 and 1, an odd multiple of 2**-53.

    Parameters
    ----------
    word : uint64

    Returns
    -------
    float
    """
    return (np.float64(np.int64(word >> DROPPED_BITS)) + 0.5) * CELL


@njit(forceinline=True, error_model="numpy", fastmath={"contract"})
def exponential(word):
    """Turn 64 random bits into an exponential number of mean 1.

    Parameters
    ----------
    word : uint64

    Returns
    -------
    float
        Positive; at most 36.7.
    """
    whole = np.float64(np.int64(word >> DROPPED_BITS)) + 0.5
    shifted = np.float64(whole).view(np.int64) + (ONE_BITS - SQRT_HALF_BITS)
    k = np.float64(np.int64(shifted >> MANTISSA_BITS)) - EXPONENT_OFFSET
    m = np.int64((shifted & MANTISSA_MASK) + SQRT_HALF_BITS).view(np.float64)
    # -log(u) = -k ln 2 - 2 atanh(s), s = (m - 1)/(m + 1); minimax polynomial of atanh(s)/s, error 3e-14.
    s = (m - 1.0) / (m + 1.0)
    w = s * s
    w2 = w * w
    first = 0.9999999999999732 + w * 0.3333333333984833
    second = 0.1999999742994901 + w * 0.14286084592506493
    third = 0.110870659368747 + w * 0.09804850017486003
    return -LN_2 * k - (2.0 * s) * (first + w2 * (second + w2 * third))


@njit(forceinline=True, error_model="numpy", fastmath={"contract"})
def normal_pair(first, second):
    """Turn 128 random bits into two independent standard normal numbers, to 1e-13 (Box and Muller 1958).

    The angle is drawn in a quarter of the circle; two further bits choose the quarter.

    Parameters
    ----------
    first, second : uint64

    Returns
    -------
    tuple of two float
        At most 8.6 in size.
    """
    radius = math.sqrt(2.0 * exponential(first))
    x = np.float64(np.int64(second >> DROPPED_BITS)) * QUARTER_CELL + QUARTER_START
    w = x * x
    w2 = w * w
    # Minimax polynomials for |x| <= pi/4: errors 4e-15 and 6e-14.
    a = 0.9999999999999957 - w * 0.16666666666616736
    b = 0.00833333332388476 - w * 0.00019841263301390735
    c = 2.755527244921108e-06 - w * 2.475659481251281e-08
    sine = x * (a + w2 * (b + w2 * c))
    a = 0.9999999999999445 - w * 0.4999999999935188
    b = 0.04166666654401023 - w * 0.0013888880398271396
    c = 2.4798929588053135e-05 - w * 2.7173483836405067e-07
    cosine = a + w2 * (b + w2 * c)
    swapped = (second & SWAP_BIT) != np.uint64(0)
    sign = np.int64((second & SIGN_BIT) << SIGN_SHIFT)
    radius = np.int64(np.float64(radius).view(np.int64) ^ sign).view(np.float64)
    return radius * (sine if swapped else cosine), radius * (cosine if swapped else sine)
