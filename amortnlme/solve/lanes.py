"""The memory that generated steps and the driver share: eight simulations side by side in one flat array.

Quantity q of lane l stands at `q * LANES + l`, so that one quantity of all lanes is one SIMD register. The
generated step has the offsets as literals; the driver computes them from the numbers of states and parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

# Eight doubles fill an AVX-512 register or two of AVX2; results depend on it in their last bits.
LANES = 8

# Quantities of every model, in units of LANES.
TIME = 0  # where the lane stands; moved by the step
STOP = 1  # where the driver wants to land exactly
PROPOSED = 2  # length of the next step; set by the step
REJECTED = 3  # whether the previous step was rejected
N_STEPS = 4  # steps so far, accepted or not
OUTCOME = 5  # of the last step: REJECTED_STEP, ACCEPTED_STEP or LANDED_STEP
TROUBLE = 6  # NO_TROUBLE, TOO_MANY_STEPS or TOO_SMALL_STEPS
ERROR = 7  # weighted error of the last step; accepted up to 1
BEFORE = 8  # where the last step began
LENGTH = 9  # its length
RTOL = 10
ATOL = 11
N_CLOCK = 12

REJECTED_STEP, ACCEPTED_STEP, LANDED_STEP = 0.0, 1.0, 2.0
NO_TROUBLE, TOO_MANY_STEPS, TOO_SMALL_STEPS = 0.0, 1.0, 2.0

# An observed state at the fraction s of the last step is d0 + s (d1 + s (d2 + s (d3 + s d4))).
N_DENSE = 5


@dataclass(frozen=True, slots=True)
class LaneLayout:
    """Where the quantities of one model stand, in units of LANES.

    Attributes
    ----------
    n_states, n_inputs, n_observed : int
        `n_inputs` counts parameters and covariates; `n_observed` the states that outputs use.
    """

    n_states: int
    n_inputs: int
    n_observed: int

    @property
    def state(self) -> int:
        """Present states."""
        return N_CLOCK

    @property
    def rate(self) -> int:
        """Infusion rates, added to the derivatives."""
        return self.state + self.n_states

    @property
    def slope(self) -> int:
        """Derivatives at the present state (kept by Tsit5, and for the first step after an event)."""
        return self.rate + self.n_states

    @property
    def input(self) -> int:
        """Parameters, then covariates."""
        return self.slope + self.n_states

    @property
    def dense(self) -> int:
        """Interpolation of the observed states over the last step, N_DENSE quantities each."""
        return self.input + self.n_inputs

    @property
    def size(self) -> int:
        """Length of the flat array."""
        return (self.dense + N_DENSE * self.n_observed) * LANES
