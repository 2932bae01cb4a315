"""Exponential, logarithm and power without branches or library calls: loops over lanes become SIMD code.

Each function is a polynomial after an exact reduction of its argument by the bits of the number; special
cases (zero, infinity, NaN, subnormal numbers, overflow) are chosen at the end by comparison. The bits do not
depend on a vector library of the machine.

`fastmath=False` is spelled out where rounding is put to use: a function without the option takes that of the
first caller that compiles it, and a reordered `x + ROUND - ROUND` is x.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

INFINITY = math.inf
NAN = math.nan
# Adding 1.5 * 2**52 leaves the nearest whole number in the low bits of the sum.
ROUND = 6755399441055744.0
ROUND_BITS = np.float64(ROUND).view(np.int64)
LOG2_E = 1.4426950408889634
# ln 2 in two parts; the first has so many trailing zeros that its product with an exponent is exact.
LN2_HIGH = 6.93147180369123816490e-01
LN2_LOW = 1.90821492927058770002e-10
SQRT2 = 1.4142135623730951
TWO_54 = 18014398509481984.0
SMALLEST_NORMAL = 2.2250738585072014e-308
MANTISSA_BITS = 52
EXPONENT_BIAS = 1023
ONE_BITS = np.int64(0x3FF0000000000000)
ONE_AS_FLOAT = float(ONE_BITS)
SQRT_HALF_BITS = np.int64(0x3FE6A09E667F3BCD)
MANTISSA_MASK = np.int64(0x000FFFFFFFFFFFFF)
# 2**52, whose low bits hold a whole number as it is.
WHOLE = 4503599627370496.0
WHOLE_BITS = np.float64(WHOLE).view(np.int64)
# 2**27 + 1 splits a number into halves whose products are exact (Dekker 1971).
SPLITTER = 134217729.0
# Beyond, exp overflows or underflows to zero whatever the rest.
EXP_LIMIT = 800.0


@njit(forceinline=True, error_model="numpy", fastmath={"contract"})
def _exp_reduced(r):
    """exp(r) for |r| <= ln(2)/2: Taylor's series to r**13 (remainder 4e-18), summed pairwise for speed."""
    r2 = r * r
    r4 = r2 * r2
    a = 0.5 + r * 0.16666666666666666
    b = 0.041666666666666664 + r * 0.008333333333333333
    c = 0.001388888888888889 + r * 0.0001984126984126984
    d = 2.48015873015873e-05 + r * 2.7557319223985893e-06
    e = 2.755731922398589e-07 + r * 2.505210838544172e-08
    f = 2.08767569878681e-09 + r * 1.6059043836821613e-10
    return 1.0 + (r + r2 * ((a + r2 * b) + r4 * ((c + r2 * d) + r4 * (e + r2 * f))))


@njit(forceinline=True, error_model="numpy", fastmath=False)
def _exp_of_sum(x, rest):
    """exp(x + rest) for a rest that is tiny beside one."""
    bounded = EXP_LIMIT if x > EXP_LIMIT else x
    bounded = -EXP_LIMIT if bounded < -EXP_LIMIT else bounded
    shifted = bounded * LOG2_E + ROUND
    n = shifted - ROUND
    r = (bounded - n * LN2_HIGH) - n * LN2_LOW + rest
    # Two factors, because 2**n itself may overflow or underflow where the product does not.
    whole = np.float64(shifted).view(np.int64) - ROUND_BITS
    half = np.float64(n * 0.5 + ROUND).view(np.int64) - ROUND_BITS
    first = np.int64((half << MANTISSA_BITS) + ONE_BITS).view(np.float64)
    second = np.int64(((whole - half) << MANTISSA_BITS) + ONE_BITS).view(np.float64)
    return _exp_reduced(r) * first * second


@njit(forceinline=True, error_model="numpy", fastmath=False)
def vexp(x):
    """Exponential function, to about 1 ulp.

    Parameters
    ----------
    x : float

    Returns
    -------
    float
        0 and infinity where the result underflows and overflows; NaN for NaN.
    """
    return _exp_of_sum(x, 0.0)


@njit(forceinline=True, error_model="numpy", fastmath=False)
def _split(x):
    """Exponent k and mantissa m in [sqrt(1/2), sqrt(2)) of a positive finite number: x = 2**k m."""
    tiny = x < SMALLEST_NORMAL
    bits = np.float64(x * TWO_54 if tiny else x).view(np.int64)
    shifted = bits + (ONE_BITS - SQRT_HALF_BITS)
    exponent = np.int64((shifted >> MANTISSA_BITS) + WHOLE_BITS).view(np.float64)
    k = exponent - (WHOLE + EXPONENT_BIAS)
    k = k - 54.0 if tiny else k
    m = np.int64((shifted & MANTISSA_MASK) + SQRT_HALF_BITS).view(np.float64)
    return k, m


@njit(forceinline=True, error_model="numpy", fastmath={"contract"})
def _atanh_tail(w):
    """2 atanh(s)/s - 2 for w = s**2, s in [-0.172, 0.172] (fdlibm's minimax polynomial, error 2**-58)."""
    w2 = w * w
    even = w2 * (0.3999999999940941908 + w2 * (0.2222219843214978396 + w2 * 0.1531383769920937332))
    odd = 0.2857142874366239149 + w2 * (0.1818357216161805012 + w2 * 0.1479819860511658591)
    return w * (0.6666666666666735130 + w2 * odd) + even


@njit(forceinline=True, error_model="numpy", fastmath=False)
def vlog(x):
    """Natural logarithm, to about 1 ulp.

    Parameters
    ----------
    x : float

    Returns
    -------
    float
        -infinity at 0, infinity at infinity, NaN for negative numbers and NaN.
    """
    k, m = _split(x)
    f = m - 1.0
    s = f / (2.0 + f)
    half_square = 0.5 * f * f
    tail = _atanh_tail(s * s)
    value = k * LN2_HIGH - ((half_square - (s * (half_square + tail) + k * LN2_LOW)) - f)
    value = value if x < INFINITY else x  # infinity, and NaN, which no comparison holds for
    value = -INFINITY if x == 0.0 else value
    return NAN if x < 0.0 else value


@njit(forceinline=True, error_model="numpy", fastmath=False)
def _product_error(a, b, product):
    """Return a * b - product, exactly (Dekker 1971)."""
    t = SPLITTER * a
    a_high = t - (t - a)
    a_low = a - a_high
    t = SPLITTER * b
    b_high = t - (t - b)
    b_low = b - b_high
    return ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


@njit(forceinline=True, error_model="numpy", fastmath=False)
def _log_in_two_parts(x):
    """log(x) as high + low, with an error of about 2**-60: the power function multiplies it."""
    k, m = _split(x)
    f = m - 1.0
    d = 2.0 + f
    d_rest = f - (d - 2.0)
    s = f / d
    product = s * d
    s_rest = ((f - product) - _product_error(s, d, product) - s * d_rest) / d
    tail = s * _atanh_tail(s * s)
    first = k * LN2_HIGH
    second = 2.0 * s
    total = first + second
    back = total - first
    rest = (first - (total - back)) + (second - back)  # exact (Knuth's two-sum)
    rest = rest + ((tail + 2.0 * s_rest) + k * LN2_LOW)
    high = total + rest
    return high, rest - (high - total)


@njit(forceinline=True, error_model="numpy", fastmath=False)
def vpow(x, y):
    """Power x**y, to a few ulp, with the special cases of C's `pow`.

    Parameters
    ----------
    x, y : float

    Returns
    -------
    float
        NaN for a negative x and a y that is not whole.
    """
    size = -x if x < 0.0 else x
    high, low = _log_in_two_parts(size)
    exponent = y * high
    rest = _product_error(y, high, exponent) + y * low
    # Where the splitting overflows, so does the result (or it is exactly one): the rest is beside the point.
    rest = rest if -1.0 < rest < 1.0 else 0.0
    value = _exp_of_sum(exponent, rest)
    grows = INFINITY if y > 0.0 else 0.0
    shrinks = 0.0 if y > 0.0 else INFINITY
    value = grows if size == INFINITY else value
    value = shrinks if size == 0.0 else value
    value = 1.0 if size == 1.0 else value
    bounded = 0.0 if y > WHOLE or y < -WHOLE else y  # larger numbers are whole and even
    is_whole = (bounded + ROUND) - ROUND == bounded
    half = 0.5 * bounded
    is_odd = (half + ROUND) - ROUND != half
    negative = -value if is_whole & is_odd else value
    negative = negative if is_whole or size == INFINITY else NAN
    value = negative if x < 0.0 else value
    value = x + y if x != x or y != y else value
    return 1.0 if x == 1.0 or y == 0.0 else value


@njit(forceinline=True, error_model="numpy", fastmath=False)
def rough_inverse_fifth_root(x):
    """Return x**(-1/5) of a positive normal number within 8 %, by arithmetic on its exponent bits.

    Parameters
    ----------
    x : float

    Returns
    -------
    float
    """
    bits = np.float64(np.float64(x).view(np.int64))
    return np.int64(1.2 * ONE_AS_FLOAT - 0.2 * bits).view(np.float64)
