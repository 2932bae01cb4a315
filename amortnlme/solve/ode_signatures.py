"""Types of the functions that a generated ODE module offers to the driver of the lanes."""

from __future__ import annotations

from numba import types

# step(W, max_steps): one step of every lane
STEP = types.void(types.float64[::1], types.float64)
# derivative(W, l): slopes of one lane at its present state
DERIVATIVE = types.void(types.float64[::1], types.int64)
# outputs(count, l, row, design, buffer, psi, time, output, covariates, f): all observations of one simulation
OUTPUTS = types.void(
    types.int64,
    types.int64,
    types.int64,
    types.int64,
    types.float64[:, :, ::1],
    types.float64[:, ::1],
    types.float64[:, ::1],
    types.int64[:, ::1],
    types.float64[:, :, ::1],
    types.float64[:, ::1],
)
