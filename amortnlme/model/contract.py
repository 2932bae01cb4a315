"""The contract every individual model keeps, checked by running it: `amortnlme check FILE`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from amortnlme.core.errors import AmortNlmeError
from amortnlme.model import (
    contract_declaration,
    contract_dynamics,
    contract_random,
    contract_sensitivity,
    contract_simulation,
)
from amortnlme.model.contract_world import Broken, DoesNotApply, World
from amortnlme.model.individual import IndividualModel

CHECKS: tuple[tuple[str, Callable[[World], str]], ...] = (
    ("units, text and source are present", contract_declaration.declared),
    ("transforms round-trip", contract_declaration.transforms),
    ("the prior's samples follow its density", contract_declaration.prior),
    ("sampled designs are valid and inside their own domain", contract_declaration.designs),
    ("simulations have the promised shapes", contract_simulation.shapes),
    ("prior simulations succeed", contract_simulation.solves),
    ("a batch of one equals its row in a batch", contract_simulation.batch_of_one),
    ("the same generator gives the same bytes", contract_simulation.same_bytes),
    ("bytes do not depend on order, neighbors or threads", contract_simulation.order_and_threads),
    ("absurd parameters give a status, not an error", contract_simulation.absurd),
    ("predictions agree with an independent ODE solver", contract_dynamics.agrees_with_reference),
    ("errors follow the solver's tolerance", contract_dynamics.error_follows_tolerance),
    ("no dose gives the baseline", contract_dynamics.baseline),
    ("doses of a linear system superpose", contract_dynamics.superposes),
    ("a steady state is the limit of a long series of doses", contract_dynamics.steady_state),
    ("the closed form equals the ODE", contract_dynamics.closed_form_is_the_ode),
    ("sensitivities agree with the complex step", contract_sensitivity.complex_step),
    ("sensitivities agree with extrapolated differences", contract_sensitivity.differences),
    ("a random path belongs to its key and number", contract_random.paths_belong_to_numbers),
    ("the mean path follows the drift", contract_random.mean_follows_drift),
    ("predictions of random dynamics are refused", contract_simulation.refusals),
)


@dataclass(frozen=True, slots=True)
class ContractRow:
    """One checked promise.

    Attributes
    ----------
    name : str
    passed : bool
        Also for a promise that means nothing for this model; `detail` then says so.
    detail : str
        What was measured, or what went wrong.
    """

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class ContractReport:
    """All checked promises of one model.

    Attributes
    ----------
    model_name, fingerprint : str
    rows : tuple of ContractRow
    """

    model_name: str
    fingerprint: str
    rows: tuple[ContractRow, ...]

    @property
    def passed(self) -> bool:
        """Whether every promise is kept."""
        return all(row.passed for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able report.

        Returns
        -------
        dict
        """
        return {
            "model": self.model_name,
            "fingerprint": self.fingerprint,
            "passed": self.passed,
            "rows": [{"name": r.name, "passed": r.passed, "detail": r.detail} for r in self.rows],
        }


def check_model(
    model: IndividualModel, seed: int = 1, *, only: Collection[str] | None = None
) -> ContractReport:
    """Check a model by running it.

    Parameters
    ----------
    model : IndividualModel
    seed : int
    only : collection of str, optional
        Names of the checks to make, as in `CHECKS`; all of them if not given.

    Returns
    -------
    ContractReport
        A fault of the model is a row that failed, never an exception. Every check has its row: one that means
        nothing for this model says "does not apply" and why.
    """
    try:
        world = World.of(model, seed)
    except AmortNlmeError as fault:
        row = ContractRow("the model can be sampled", False, str(fault))
        return ContractReport(model.name, model.fingerprint, (row,))
    wanted = [(name, check) for name, check in CHECKS if only is None or name in only]
    rows = tuple(_row(world, name, check) for name, check in wanted)
    return ContractReport(model.name, model.fingerprint, rows)


def _row(world: World, name: str, check: Callable[[World], str]) -> ContractRow:
    try:
        return ContractRow(name, True, check(world))
    except DoesNotApply as reason:
        return ContractRow(name, True, f"does not apply: {reason}")
    except (Broken, AmortNlmeError) as fault:
        return ContractRow(name, False, str(fault))
