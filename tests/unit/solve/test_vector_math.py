"""Exponential, logarithm and power of the generated kernels: accuracy, special cases, SIMD code."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from numba import njit

from amortnlme.solve.vector_math import rough_inverse_fifth_root, vexp, vlog, vpow

# What the generated modules allow.
FASTMATH = {"contract", "reassoc", "arcp", "nsz"}
SPECIAL = [
    0.0,
    -0.0,
    math.inf,
    -math.inf,
    math.nan,
    1.0,
    -1.0,
    0.5,
    -0.5,
    2.0,
    -2.0,
    3.0,
    -3.0,
    1e308,
    -1e308,
]
SPECIAL += [5e-324, 1e300, -1e300, 2.0**53, -(2.0**60), 1e16 + 2.0]


@njit(error_model="numpy", fastmath=FASTMATH)
def exp_all(x, out):
    for i in range(x.size):
        out[i] = vexp(x[i])


@njit(error_model="numpy", fastmath=FASTMATH)
def log_all(x, out):
    for i in range(x.size):
        out[i] = vlog(x[i])


@njit(error_model="numpy", fastmath=FASTMATH)
def pow_all(x, y, out):
    for i in range(x.size):
        out[i] = vpow(x[i], y[i])


@njit(error_model="numpy")
def root_all(x, out):
    for i in range(x.size):
        out[i] = rough_inverse_fifth_root(x[i])


def call(kernel, *arguments):
    out = np.empty_like(arguments[0])
    kernel(*arguments, out)
    return out


def worst_ulp(found, exact):
    """Largest error in units of the last place of the exact value."""
    with mpmath.workprec(160):
        return max(
            float(abs(mpmath.mpf(float(f)) - e) / mpmath.mpf(float(np.spacing(abs(float(e))))))
            for f, e in zip(found, exact, strict=True)
        )


def exact(function, *arguments):
    with mpmath.workprec(160):
        return [function(*(mpmath.mpf(float(a)) for a in values)) for values in zip(*arguments, strict=True)]


def test_exp_is_accurate_to_one_unit_in_the_last_place():
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.uniform(-708.0, 709.7, 2000), rng.uniform(-1.0, 1.0, 1000)])
    # Half a unit of rounding, and as much of the polynomial's evaluation.
    assert worst_ulp(call(exp_all, x), exact(mpmath.exp, x)) < 1.0


def test_log_is_accurate_to_one_unit_in_the_last_place():
    rng = np.random.default_rng(2)
    x = [np.exp(rng.uniform(-700.0, 709.0, 2000)), 1.0 + rng.uniform(-0.3, 0.3, 1000)]
    x = np.concatenate([*x, 1.0 + rng.uniform(-1e-6, 1e-6, 200), 5e-324 * rng.integers(1, 10**6, 100)])
    assert worst_ulp(call(log_all, x), exact(mpmath.log, x)) < 1.0


@pytest.mark.parametrize("largest", [1.0, 10.0, 60.0])
def test_pow_is_accurate_to_a_few_units_when_the_exponent_is_large(largest):
    rng = np.random.default_rng(3)
    x, y = np.exp(rng.uniform(-10.0, 10.0, 2000)), rng.uniform(-largest, largest, 2000)
    # exp(y log x) of plain doubles would be off by up to 600 units.
    assert worst_ulp(call(pow_all, x, y), exact(mpmath.power, x, y)) < 2.0


def test_exp_and_log_agree_with_numpy_when_the_argument_is_special():
    x = np.array([*SPECIAL, 800.0, -800.0, 709.79, -745.2, -745.1, -708.5, -740.0])
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(call(exp_all, x), np.exp(x), rtol=4e-16, atol=5e-324)
        np.testing.assert_allclose(call(log_all, x), np.log(x), rtol=4e-16)


def test_pow_agrees_with_c_when_base_or_exponent_is_special():
    x, y = (grid.ravel().copy() for grid in np.meshgrid(SPECIAL, SPECIAL))
    with np.errstate(all="ignore"):
        wanted = np.power(x, y)
    found = call(pow_all, x, y)
    # The sign of zero and of infinity at odd powers of a negative zero or infinity is not kept.
    wanted[x == 0.0] = np.abs(wanted[x == 0.0])
    found[x == 0.0] = np.abs(found[x == 0.0])
    np.testing.assert_allclose(found, wanted, rtol=4e-16)


def test_rough_root_stays_within_its_bounds():
    x = np.exp(np.linspace(math.log(1e-10), math.log(1e10), 5001))
    # Linear interpolation is off by up to 0.086 for log2, a fifth of which is 1.2 %, and by 6.2 % for 2**x.
    np.testing.assert_allclose(call(root_all, x), x**-0.2, rtol=0.075)


@pytest.mark.parametrize("kernel", [exp_all, log_all, pow_all], ids=["exp", "log", "pow"])
def test_loops_become_simd_code(kernel):
    x = np.ones(16)
    call(kernel, *([x, x] if kernel is pow_all else [x]))
    (assembly,) = kernel.inspect_asm().values()
    packed = sum(assembly.count(name) for name in ("mulpd", "213pd", "231pd", "132pd"))
    assert packed > 10
    assert not any(f"\t{name}" in assembly or f"${name}," in assembly for name in ("exp", "log", "pow"))
