"""Status codes: kernels never raise, they return a member whose sentence is shown to the user."""

from enum import IntEnum, StrEnum


class SolveStatus(IntEnum):
    """How one simulation ended."""

    OK = 0
    MAX_STEPS = 1
    NON_FINITE = 2
    STEP_UNDERFLOW = 3
    NO_STEADY_STATE = 4
    INVALID_ENTRY = 5

    @property
    def sentence(self) -> str:
        """The status as a sentence for people."""
        return _SOLVE_SENTENCES[self]


class FitStatus(StrEnum):
    """How a population fit ended."""

    CONVERGED = "converged"
    BOUNDARY = "boundary"
    NOT_CONVERGED = "not_converged"
    FAILED = "failed"

    @property
    def sentence(self) -> str:
        """The status as a sentence for people."""
        return _FIT_SENTENCES[self]

    @property
    def is_success(self) -> bool:
        """Whether the estimates may be used (an optimum was reached, inside or on the boundary)."""
        return self in (FitStatus.CONVERGED, FitStatus.BOUNDARY)


_SOLVE_SENTENCES = {
    SolveStatus.OK: "The simulation succeeded.",
    SolveStatus.MAX_STEPS: "The solver reached its maximum number of steps. Loosen its tolerance.",
    SolveStatus.NON_FINITE: "The simulation became infinite or not a number. Check parameters and doses.",
    SolveStatus.STEP_UNDERFLOW: "The solver's step became too small to advance. Check the model near there.",
    SolveStatus.NO_STEADY_STATE: "A steady-state regimen did not settle: something accumulates without end.",
    SolveStatus.INVALID_ENTRY: "A lag time is negative, or a lag or start time is not finite.",
}

_FIT_SENTENCES = {
    FitStatus.CONVERGED: "The optimizer reached an interior optimum.",
    FitStatus.BOUNDARY: (
        "The optimum lies on the boundary of the parameter space "
        "(omega has no full rank): Wald standard errors do not exist."
    ),
    FitStatus.NOT_CONVERGED: "The optimizer stopped before it reached an optimum; do not use the estimates.",
    FitStatus.FAILED: "The fit failed; the warnings say why.",
}
