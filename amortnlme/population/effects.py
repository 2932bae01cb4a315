"""The two halves of a population model: covariate effects, and random effects around them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from amortnlme.core.errors import PopulationError

COVARIATE_TRANSFORMS = ("log", "linear", "level")
CENTERS = ("mean", "median")
STRUCTURES = ("diagonal", "full")


@dataclass(frozen=True, slots=True)
class CovariateEffect:
    """A linear effect of one covariate on one parameter: phi gains beta times the transformed covariate.

    With `transform="log"` the regressor is log(x / center), with `"linear"` it is x - center, and with
    `"level"` it is 1 where x equals center, else 0: a category has one such effect for every level but one.
    On a parameter whose own transform is the logarithm, `"log"` is a power law, psi = typical (x /
    center)^beta.

    Attributes
    ----------
    parameter : str
        Name of the individual parameter.
    covariate : str
        Name of the covariate column (case matters).
    transform : {"log", "linear", "level"}
    center : {"mean", "median"} or float
        The reference value, or the level; "mean" and "median" are taken over the subjects of the dataset, in
        covariate units.

    Raises
    ------
    PopulationError
        E_POP_COVARIATE_TRANSFORM, E_POP_COVARIATE_CENTER.
    """

    parameter: str
    covariate: str
    transform: str = "log"
    center: str | float = "mean"

    def __post_init__(self) -> None:
        """Refuse unknown transforms and unusable centers."""
        where = f"covariate effect {self.parameter}~{self.covariate}"
        if self.transform not in COVARIATE_TRANSFORMS:
            raise PopulationError(
                "E_POP_COVARIATE_TRANSFORM",
                f"{where}: unknown transform {self.transform!r}. Allowed: {', '.join(COVARIATE_TRANSFORMS)}.",
            )
        if isinstance(self.center, str):
            usable = self.center in CENTERS and self.transform != "level"
        else:
            usable = not isinstance(self.center, bool) and math.isfinite(self.center)
            usable = usable and (self.transform != "log" or self.center > 0)
        if not usable:
            raise PopulationError(
                "E_POP_COVARIATE_CENTER",
                f"{where}: center {self.center!r} cannot be used. Allowed: 'mean', 'median' or a finite "
                f"number (positive for transform 'log'; a number for transform 'level').",
            )

    @property
    def name(self) -> str:
        """Name of the coefficient, `beta_<parameter>_<covariate>`, then `_<level>` for a level."""
        level = f"_{self.center:g}" if self.transform == "level" else ""
        return f"beta_{self.parameter}_{self.covariate}{level}"

    def regressor(self, values: np.ndarray, ids: Sequence[str]) -> tuple[np.ndarray, float]:
        """Transform and center the covariate of every subject.

        Parameters
        ----------
        values : ndarray, shape (n_subjects,)
            Covariate in its own units.
        ids : sequence of str
            Subject names, for messages.

        Returns
        -------
        regressor : ndarray, shape (n_subjects,)
        center : float
            The reference value used, in covariate units.

        Raises
        ------
        PopulationError
            E_POP_COVARIATE_NON_FINITE, E_POP_COVARIATE_NON_POSITIVE, E_POP_COVARIATE_CONSTANT.
        """
        values = np.asarray(values, dtype=np.float64)
        where = f"covariate {self.covariate!r} (effect on {self.parameter})"
        _refuse(
            ~np.isfinite(values),
            ids,
            values,
            "E_POP_COVARIATE_NON_FINITE",
            f"{where} is missing or not finite",
        )
        if self.transform == "log":
            _refuse(
                values <= 0,
                ids,
                values,
                "E_POP_COVARIATE_NON_POSITIVE",
                f"{where} has transform 'log' but is <= 0",
            )
        if isinstance(self.center, str):
            center = float(np.mean(values) if self.center == "mean" else np.median(values))
        else:
            center = float(self.center)
        if len(np.unique(values == center if self.transform == "level" else values)) == 1:
            is_level = self.transform == "level"
            what = f"the level {center:g} for all or none" if is_level else "one value for all"
            raise PopulationError(
                "E_POP_COVARIATE_CONSTANT",
                f"{where} has {what} of the {len(values)} subjects (first {values[0]:g}), so its coefficient "
                f"cannot be estimated. Remove the effect.",
            )
        return self.transformed(values, center), center

    def transformed(self, values: np.ndarray, center: float) -> np.ndarray:
        """Transform and center values, without looking at them.

        Parameters
        ----------
        values : ndarray
            Covariate units.
        center : float

        Returns
        -------
        ndarray, shape of values
        """
        if self.transform == "level":
            return (values == center).astype(np.float64)
        return np.log(values / center) if self.transform == "log" else values - center


@dataclass(frozen=True, slots=True)
class RandomEffects:
    """Which parameters vary between subjects (or between occasions), and which of them vary together.

    Attributes
    ----------
    on : tuple of str
        Parameters with a random effect; every other parameter is pooled (the same for all subjects).
    structure : "diagonal", "full" or tuple of tuple of str
        Blocks of parameters with free covariances, e.g. (("ke", "V"),); parameters in no block are
        independent.

    Raises
    ------
    PopulationError
        E_POP_NO_RANDOM_EFFECTS, E_POP_RANDOM_EFFECTS, E_POP_STRUCTURE.
    """

    on: tuple[str, ...]
    structure: str | tuple[tuple[str, ...], ...] = "diagonal"

    def __post_init__(self) -> None:
        """Normalize sequences to tuples and check that the blocks fit the parameters."""
        if isinstance(self.on, str):
            raise PopulationError(
                "E_POP_RANDOM_EFFECTS",
                f"random effects `on` must be a list of names, not the text {self.on!r}.",
            )
        object.__setattr__(self, "on", tuple(self.on))
        if not self.on:
            raise PopulationError(
                "E_POP_NO_RANDOM_EFFECTS",
                "the population model has no random effects. Name at least one parameter that varies between "
                "subjects.",
            )
        if len(set(self.on)) != len(self.on):
            raise PopulationError(
                "E_POP_RANDOM_EFFECTS", f"a parameter is named twice in random effects {self.on}."
            )
        if isinstance(self.structure, str):
            if self.structure not in STRUCTURES:
                raise PopulationError(
                    "E_POP_STRUCTURE",
                    f"unknown random-effects structure {self.structure!r}. Allowed: 'diagonal', 'full', or "
                    f"blocks such "
                    f"as [['ke', 'V']].",
                )
            return
        blocks = tuple(tuple(block) for block in self.structure)
        object.__setattr__(self, "structure", blocks)
        flat = [name for block in blocks for name in block]
        if len(set(flat)) != len(flat) or not set(flat) <= set(self.on) or not all(blocks):
            raise PopulationError(
                "E_POP_STRUCTURE",
                f"blocks {[list(b) for b in blocks]} must be non-empty, must not overlap, and must use only "
                f"the "
                f"parameters with random effects ({', '.join(self.on)}).",
            )

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values, with the keys of the TOML file."""
        if isinstance(self.structure, str):
            return {"on": list(self.on), "structure": self.structure}
        return {"on": list(self.on), "blocks": [list(block) for block in self.structure]}

    def blocks(self) -> tuple[tuple[str, ...], ...]:
        """Return all blocks, single parameters included, in the order of `on`."""
        if self.structure == "full":
            return (self.on,)
        given = () if isinstance(self.structure, str) else self.structure
        # Within a block, keep the order of `on`, so that L stays lower triangular in that order.
        ordered = [tuple(name for name in self.on if name in block) for block in given]
        single = [(name,) for name in self.on if not any(name in block for block in ordered)]
        return tuple(sorted([*ordered, *single], key=lambda block: self.on.index(block[0])))


def _refuse(bad: np.ndarray, ids: Sequence[str], values: np.ndarray, code: str, what: str) -> None:
    if bad.any():
        i = int(np.flatnonzero(bad)[0])
        raise PopulationError(
            code,
            f"{what} for {int(bad.sum())} subject(s), first {ids[i]!r} (value {values[i]:g}). "
            f"Complete the data, drop the subject, or remove the effect.",
        )
