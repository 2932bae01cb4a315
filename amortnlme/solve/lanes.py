"""The memory that generated steps and the driver share: eight simulations side by side in one flat array.

Quantity q of lane l stands at `q * LANES + l`, so that one quantity of all lanes is one SIMD register. The
generated step has the offsets as literals; the driver gets them from `LaneLayout.sizes`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
WATCH = 12  # time from which on the driver wants to see the lane: of its next observation
ATTENTION = 13  # whether the driver has to look at the lane after the last step
N_CLOCK = 14

REJECTED_STEP, ACCEPTED_STEP, LANDED_STEP = 0.0, 1.0, 2.0
NO_TROUBLE, TOO_MANY_STEPS, TOO_SMALL_STEPS = 0.0, 1.0, 2.0

# An observed state at the fraction s of the last step is d0 + s (d1 + s (d2 + s (d3 + s d4))).
N_DENSE = 5

# Elements of `LaneLayout.sizes`: numbers, then first quantities.
N_STATES, N_INPUTS, N_OBSERVED, N_PARAMETERS, STATE, RATE, SLOPE, INPUT, DENSE, FIRST_OBSERVED = range(10)

# Integers of a lane that only the driver knows.
ROW = 0  # simulation, or NOBODY
LIST = 1  # its event list
DESIGN = 2
NEXT = 3  # its next observation
END = 4  # the first observation that has to wait for a later stop
NEXT_STOP = 5
N_RUNNING = 6  # infusions
MODE = 7
KIND = 8  # of the event before the step, plus one; 0 once a step has been accepted
PERIODS = 9  # simulated so far in search of a steady state
KEPT = 10  # periods remembered for the acceleration
N_LANE_INTEGERS = 11

NOBODY = -1
# Modes: on the way to a stop; in the two parts of a period, and of the time after the last arrival, of a
# steady-state regimen (an infusion may end between the parts).
TRAVEL, PERIOD_PART, PERIOD_REST, PHASE_PART, PHASE_REST = range(5)

# Numbers of a lane that only the driver knows: first steps after each kind of event, and the time to which a
# lane returns from the search of a steady state.
FIRST_STEPS, RESUME, REACH, N_LANE_NUMBERS = 0, 6, 7, 8

# Rows of a lane's memory of states in search of a steady state: what is kept for ss=2, the initial state of
# the period, the remembered iterates and residuals, an orthonormal basis of the differences of residuals with
# the changes of state that belong to it, the next iterate.
DEPTH = 6
SAVED_STATE, SAVED_RATE, ORIGIN, ITERATES, RESIDUALS = 0, 1, 2, 3, 3 + DEPTH
BASIS, CHANGES, NEXT_ITERATE = 3 + 2 * DEPTH, 3 + 3 * DEPTH, 3 + 4 * DEPTH
N_STATE_ROWS = NEXT_ITERATE + 1

# Elements of the solver's options.
OPTION_RTOL, OPTION_ATOL, OPTION_MAX_STEPS = range(3)

# States of a lane after an event: a status ends the simulation, ON_THE_WAY means that steps are needed.
ON_THE_WAY = -1
OK, MAX_STEPS, NON_FINITE, STEP_UNDERFLOW, NO_STEADY_STATE = range(5)


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

    def sizes(self, n_parameters: int, observed: tuple[int, ...]) -> np.ndarray:
        """Collect the layout for the driver.

        Parameters
        ----------
        n_parameters : int
        observed : tuple of int
            States that outputs use.

        Returns
        -------
        ndarray of int, shape (9 + n_observed,)
            In the order N_STATES ... DENSE, then the observed states.
        """
        numbers = (self.n_states, self.n_inputs, self.n_observed, n_parameters)
        places = (self.state, self.rate, self.slope, self.input, self.dense)
        return np.array((*numbers, *places, *observed), dtype=np.int64)

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


def lane_memory(sizes: np.ndarray, width: int) -> tuple[np.ndarray, ...]:
    """Allocate the memory of eight lanes.

    Parameters
    ----------
    sizes : ndarray of int
        See `LaneLayout.sizes`.
    width : int
        Padded number of observations.

    Returns
    -------
    tuple of ndarray
        The flat array of the generated step; integers and numbers of the lanes; rows of states for the search
        of steady states; observed states.
    """
    n, n_observed = int(sizes[N_STATES]), int(sizes[N_OBSERVED])
    return (
        np.ones((int(sizes[DENSE]) + N_DENSE * n_observed) * LANES),
        np.full((LANES, N_LANE_INTEGERS), NOBODY, dtype=np.int64),
        np.zeros((LANES, N_LANE_NUMBERS)),
        np.zeros((LANES, N_STATE_ROWS, n)),
        np.zeros((LANES, max(1, n_observed), width)),
    )
