"""Options of joint laws with networks: plain numbers, apart from what trains them."""

from __future__ import annotations

from dataclasses import dataclass

from amortnlme.core.errors import TrainingError


@dataclass(frozen=True, slots=True)
class JointNetworkSpec:
    """Networks of joint laws and how they are trained.

    Attributes
    ----------
    couplings : int
        Of a flow.
    components : int
        Of a conditional mixture.
    hidden, width : int
        Layers and their size.
    learning_rate, weight_decay : float
    steps : int
        At most.
    patience : int
        Looks at the held-out subjects without a rise before training stops.
    batch_subjects, batch_nodes : int
        Subjects and nodes of each in a step.

    Raises
    ------
    TrainingError
        E_SPEC_VALUE.
    """

    couplings: int = 4
    components: int = 3
    hidden: int = 1
    width: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    steps: int = 800
    patience: int = 15
    batch_subjects: int = 200
    batch_nodes: int = 32

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, bool) or not value > 0:
                raise TrainingError("E_SPEC_VALUE", f"{name} must be positive; {value!r} was given.")
