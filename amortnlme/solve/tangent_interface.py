"""What generated tangent kernels and the driver that calls them agree on: signatures and memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit, types

_REAL = types.float64
_VECTOR = types.float64[::1]

# step(t, h, y, p, x, rate, direct, rtol, atol, y_new, dense, w) -> error of the states; see
# `amortnlme.solve.rodas5p_tangent.emit_tangent_step`
STEP = _REAL(
    _REAL, _REAL, _VECTOR, _VECTOR, _VECTOR, _VECTOR, _REAL, _REAL, _REAL, _VECTOR, _VECTOR, _VECTOR
)  # fmt: skip
# field(t, y, p, x, f): writes dy/dt without infusions
FIELD = types.void(_REAL, _VECTOR, _VECTOR, _VECTOR, _VECTOR)
# observe(output, t, theta, y, p, x, by_parameter, w) -> value at the state y, which lies at the fraction
# theta of the step in w (0: the state itself); adds to by_parameter (d) how parameters enter the output
# directly, and writes into ROW_TOTAL how they enter through the states
OBSERVE_OUTPUT = _REAL(types.int64, _REAL, _REAL, _VECTOR, _VECTOR, _VECTOR, _VECTOR, _VECTOR)

# Lanes are added until their number is a multiple of this one, so that loops over them need no remainder.
LANE_MULTIPLE = 8
N_STAGES = 8
# The work array w holds blocks of n x lanes (state-major), then rows of lanes, then one n x lanes block per
# stage. One flat array with fixed offsets: LLVM sees that nothing overlaps and can use SIMD code.
BLOCK_S, BLOCK_S_NEW, BLOCK_DENSE, BLOCK_RATE = 0, 1, 2, 5
N_BLOCKS = 6
ROW_SCALE, ROW_ERROR, ROW_TOTAL, ROW_CLOCK = 0, 1, 2, 3
N_ROWS = 4
# Nothing is allocated in compiled code, so no references to arrays need to be counted: that takes a third of
# the time.
WITHOUT_COUNTING: dict[str, Any] = {"_nrt": False}
_WITHOUT_ENTRY_POINTS: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def inner_kernel(function: Callable[..., Any]) -> Any:
    """Compile a function that only compiled functions call.

    It gets no entry points for Python, which take longer to compile than most of these functions.

    Parameters
    ----------
    function : callable

    Returns
    -------
    numba dispatcher
    """
    options = WITHOUT_COUNTING | _WITHOUT_ENTRY_POINTS
    return njit(cache=True, nogil=True, error_model="numpy", **options)(function)


def count_lanes(n_sensitive: int) -> int:
    """Return the number of lanes that hold so many parameters.

    Parameters
    ----------
    n_sensitive : int

    Returns
    -------
    int
        A multiple of `LANE_MULTIPLE`, at least one of them.
    """
    return max(1, -(-n_sensitive // LANE_MULTIPLE)) * LANE_MULTIPLE


@inner_kernel
def block(index, n, lanes):
    """Offset of a block of n x lanes numbers.

    Parameters
    ----------
    index, n, lanes : int

    Returns
    -------
    int
    """
    return index * n * lanes


@inner_kernel
def lane_row(index, n, lanes):
    """Offset of a row of lanes.

    Parameters
    ----------
    index, n, lanes : int

    Returns
    -------
    int
    """
    return (N_BLOCKS * n + index) * lanes


@inner_kernel
def stage_table(stage, n, lanes):
    """Offset of a stage's derivatives with respect to the parameters themselves.

    Parameters
    ----------
    stage, n, lanes : int

    Returns
    -------
    int
    """
    return (N_BLOCKS * n + N_ROWS + stage * n) * lanes


def work_size(n: int, lanes: int) -> int:
    """Return the length of the work array.

    Parameters
    ----------
    n, lanes : int

    Returns
    -------
    int
    """
    return (N_BLOCKS * n + N_ROWS + N_STAGES * n) * lanes
