"""The equal mixture of several posterior networks, as one network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

_ROOT_2 = 1.4142135623730951


class EnsembleNetwork:
    """The equal mixture of posterior networks; offers the passes of one."""

    def __init__(self, members: Sequence[Any]) -> None:
        self.members = tuple(members)
        # One number more than a member needs: it picks the member.
        self.n_noise = self.members[0].n_noise + 1
        self._log_size = float(np.log(len(self.members)))

    @property
    def weights(self) -> list[Any]:
        """Weights of all members, one member after the other."""
        return [weight for member in self.members for weight in member.weights]

    def set_weights(self, values: Sequence[np.ndarray]) -> None:
        """Take weights in the order of `weights`."""
        start = 0
        for member in self.members:
            count = len(member.weights)
            member.set_weights(list(values[start : start + count]))
            start += count

    def context(self, tokens: Any, mask: Any, conditions: Any) -> Any:
        """Return the contexts of all k members side by side.

        Parameters
        ----------
        tokens, mask, conditions : tensor (B, T, F), (B, T), (B, C)
            Network input.

        Returns
        -------
        tensor (B, k C')
        """
        found = [member.context(tokens, mask, conditions) for member in self.members]
        return ops.concatenate(found, axis=-1)

    def log_density(self, x: Any, context: Any) -> Any:
        """Log of the mean density.

        Parameters
        ----------
        x : tensor (B, d)
            Coordinates.
        context : tensor (B, k C')
            Contexts of all members.

        Returns
        -------
        tensor (B,)
        """
        parts: Any = ops.split(context, len(self.members), axis=-1)
        found = [member.log_density(x, part) for member, part in zip(self.members, parts, strict=True)]
        total: Any = ops.logsumexp(ops.stack(found, axis=0), axis=0)
        return total - self._log_size

    def draw(self, noise: Any, context: Any) -> Any:
        """Map noise to coordinates, each by one member.

        Parameters
        ----------
        noise : tensor (B, n_noise)
            Standard-normal numbers.
        context : tensor (B, k C')
            Contexts of all members.

        Returns
        -------
        tensor (B, d)
        """
        parts: Any = ops.split(context, len(self.members), axis=-1)
        # A standard-normal number is above none, some or all of these with the same probability.
        erf: Any = ops.erf(noise[:, -1:] / _ROOT_2)
        uniform = 0.5 * (1.0 + erf)
        out = self.members[0].draw(noise[:, :-1], parts[0])
        for number in range(1, len(self.members)):
            other = self.members[number].draw(noise[:, :-1], parts[number])
            out = ops.where(uniform > number / len(self.members), other, out)
        return out
