"""Where the entries of L and the typical values sit in the packed population parameters.

Symbols: d individual parameters, r random effects, L (d, r). With K occasions the random effects between
occasions follow those between subjects, occasion by occasion, and all occasions share the entries of L.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np

from amortnlme.model.occasions import effect_names
from amortnlme.model.parameters import ParameterSpace
from amortnlme.population.effects import RandomEffects


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Index arrays of the packed vector.

    Attributes
    ----------
    theta_index : ndarray of int, shape (n_theta,)
        Columns of phi whose typical value is estimated.
    random_names : tuple of str, length r
    random_index : ndarray of int, shape (r,)
        Column of phi of each random effect.
    occasion_of : ndarray of int, shape (r,)
        0-based occasion of each random effect; -1 between subjects.
    chol_row, chol_column : ndarray of int, shape (n_places,)
        Places of L that may differ from zero: column of phi, random effect.
    chol_entry : ndarray of int, shape (n_places,)
        Packed entry that stands in each place.
    chol_names : tuple of str, length n_entries
    first_place : ndarray of int, shape (n_entries,)
        A place of each entry.
    """

    theta_index: np.ndarray
    random_names: tuple[str, ...]
    random_index: np.ndarray
    occasion_of: np.ndarray
    chol_row: np.ndarray
    chol_column: np.ndarray
    chol_entry: np.ndarray
    chol_names: tuple[str, ...]
    first_place: np.ndarray

    @property
    def n_entries(self) -> int:
        """Number of packed entries of L."""
        return len(self.chol_names)

    @property
    def row_effect(self) -> np.ndarray:
        """Random effect whose row of L each place belongs to, shape (n_places,)."""
        position = {int(p): j for j, p in enumerate(self.random_index)}
        return np.array([position[int(p)] for p in self.chol_row], dtype=np.int64)

    @property
    def chol_diagonal(self) -> np.ndarray:
        """Packed entry on the diagonal of L, one per random effect, shape (r,)."""
        on_diagonal = np.flatnonzero(self.row_effect == self.chol_column)
        diagonal = np.empty(len(self.random_names), dtype=np.int64)
        diagonal[self.chol_column[on_diagonal]] = self.chol_entry[on_diagonal]
        return diagonal

    @property
    def shares(self) -> np.ndarray:
        """1 where an entry stands in a place, shape (n_places, n_entries)."""
        return np.eye(self.n_entries)[self.chol_entry]

    @property
    def block(self) -> np.ndarray:
        """Entries of omega that may differ from zero, as labels of what is equal, -1 elsewhere: (r, r)."""
        label = np.full((len(self.random_names),) * 2, -1, dtype=np.int64)
        for row, column, entry in zip(self.row_effect, self.chol_column, self.chol_entry, strict=True):
            label[row, column] = label[column, row] = entry
        return label

    def gather(self, dfactor: np.ndarray) -> np.ndarray:
        """Sum derivatives by L over the places of every entry.

        Parameters
        ----------
        dfactor : ndarray, shape (..., d, r)

        Returns
        -------
        ndarray, shape (..., n_entries)
        """
        by_place = dfactor[..., self.chol_row, self.chol_column]
        # Without occasions every entry has one place, in order.
        return by_place if len(self.chol_entry) == self.n_entries else by_place @ self.shares


def lay_out(
    space: ParameterSpace,
    random_effects: RandomEffects,
    occasion_effects: RandomEffects | None,
    n_occasions: int,
    fixed: Sequence[int],
    apart: AbstractSet[frozenset[str]] = frozenset(),
) -> Layout:
    """Lay out the packed vector.

    Parameters
    ----------
    space : ParameterSpace
    random_effects : RandomEffects
    occasion_effects : RandomEffects or None
    n_occasions : int
        The largest number of occasions of a subject.
    fixed : sequence of int
        Columns of phi whose typical value is given.
    apart : set of frozenset of str
        Pairs of random effects whose entry of L is zero although they share a block.

    Returns
    -------
    Layout
    """
    random_names, occasion_of = list(random_effects.on), [-1] * len(random_effects.on)
    blocks = [(block, block, "") for block in random_effects.blocks()]
    if occasion_effects is not None:
        effects = {name: effect_names(name, n_occasions) for name in occasion_effects.on}
        for k in range(n_occasions):
            random_names += [effects[name][k] for name in occasion_effects.on]
            occasion_of += [k] * len(occasion_effects.on)
            blocks += [
                (tuple(effects[name][k] for name in block), block, "iov_")
                for block in occasion_effects.blocks()
            ]
    column = {name: j for j, name in enumerate(random_names)}
    rows, columns, entries, names = [], [], [], []
    for members, base, prefix in blocks:
        for i, row in enumerate(members):
            for j in range(i + 1):
                if frozenset((row, members[j])) in apart:
                    continue
                name = f"chol_{prefix}{base[i]}" + ("" if i == j else f"_{base[j]}")
                if name not in names:
                    names.append(name)
                rows.append(space.index(row))
                columns.append(column[members[j]])
                entries.append(names.index(name))
    effects_of_occasions = {space.index(name) for name in random_names[len(random_effects.on) :]}
    taken = effects_of_occasions | set(fixed)
    chol_row, chol_column, chol_entry = (np.array(p, dtype=np.int64) for p in (rows, columns, entries))
    layout = Layout(
        np.array([p for p in range(space.d) if p not in taken], dtype=np.int64),
        tuple(random_names),
        np.array([space.index(name) for name in random_names], dtype=np.int64),
        np.array(occasion_of, dtype=np.int64),
        chol_row,
        chol_column,
        chol_entry,
        tuple(names),
        np.unique(chol_entry, return_index=True)[1],
    )
    for name in Layout.__slots__:
        value = getattr(layout, name)
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
    return layout
