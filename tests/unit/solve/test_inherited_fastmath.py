"""The functions of SIMD kernels keep their rounding, whoever compiles them first."""

import math
import subprocess
import sys

CODE = """
from numba import njit
from amortnlme.solve.vector_math import vexp, vlog, vpow

@njit(error_model="numpy", fastmath={"contract", "reassoc", "arcp", "nsz"})
def first_caller(x):
    return vexp(x), vlog(x), vpow(x, 1.3)

print(*first_caller(1.7))
"""


def test_functions_do_not_inherit_the_reordering_of_their_first_caller():
    """In a fresh process, because the first caller compiles them for all; a few ulp are allowed."""
    found = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True)
    values = [float(word) for word in found.stdout.split()]
    for value, expected in zip(values, (math.exp(1.7), math.log(1.7), 1.7**1.3), strict=True):
        assert abs(value / expected - 1) < 1e-15
