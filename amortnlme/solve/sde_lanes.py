"""The memory that generated SDE steps and their driver share: simulations side by side in flat arrays.

Quantity q of lane l stands at `q * LANES + l` of `work`. The generated step has the offsets as literals; the
driver computes them from the number of states.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Bytes of a cache line; vectors that straddle two lines are read and written at half the speed.
CACHE_LINE = 64

# Fewer than 16 lanes are unrolled and stay scalar; more than 32 leave the first-level cache.
LANES = 32
# Steps drawn for at once; no run of steps without a look at the step size is longer.
LEG = 32

# Quantities of every model in `work`, in units of LANES.
BEGIN = 0  # time at which the present plan began
DONE = 1  # steps since then
STEP = 2  # length of one step
BOUND = 3  # fastest rate at the present state, set by the generated `fastest_rate`
START = 4  # time from which on the states move
N_CLOCK = 5

# Rows of `drawn`, in units of LANES: lengths and their roots of every step of a leg, then the first numbers
# of all pairs of normal numbers, then the second.
LENGTHS = 0
ROOTS = LEG
NORMALS = 2 * LEG


@dataclass(frozen=True, slots=True)
class SdeLayout:
    """Where the quantities of one model stand in `work`, in units of LANES.

    Attributes
    ----------
    n_states, n_constants, n_noises : int
    """

    n_states: int
    n_constants: int
    n_noises: int

    @property
    def state(self) -> int:
        """Present states."""
        return N_CLOCK

    @property
    def rate(self) -> int:
        """Infusion rates."""
        return self.state + self.n_states

    @property
    def constant(self) -> int:
        """What is computed from parameters and covariates once per covariate segment."""
        return self.rate + self.n_states

    @property
    def size(self) -> int:
        """Length of `work`."""
        return self.constant + self.n_constants

    @property
    def n_pairs(self) -> int:
        """Pairs of normal numbers per step."""
        return (self.n_noises + 1) // 2

    def normal_offset(self, noise: int) -> int:
        """Place of the normal numbers of a Brownian motion behind those of the first one."""
        return (noise % 2 * LEG * self.n_pairs + noise // 2) * LANES


def aligned_zeros(size: int, dtype: type[np.generic]) -> np.ndarray:
    """Allocate memory that begins with a cache line.

    Parameters
    ----------
    size : int
    dtype : numpy scalar type
        Of eight bytes.

    Returns
    -------
    ndarray, shape (size,)
    """
    memory = np.zeros(size + CACHE_LINE // 8, dtype=dtype)
    first = -memory.ctypes.data % CACHE_LINE // 8
    return memory[first : first + size]
