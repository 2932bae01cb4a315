"""One design for many individuals, held in memory once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from amortnlme.core.errors import DesignError
from amortnlme.data.design import DesignBatch

# The arrays of a batch that describe its designs.
DESIGN_ARRAYS = tuple(name for name in DesignBatch.__dataclass_fields__ if name != "covariates")


def repeat_design(one: DesignBatch, n: int, covariates: Mapping[str, np.ndarray]) -> DesignBatch:
    """Give n individuals the same design.

    Parameters
    ----------
    one : DesignBatch
        Of one design.
    n : int
    covariates : mapping of str to ndarray, shape (n,) or (n, k)

    Returns
    -------
    DesignBatch
        Its design arrays are read-only views of one row.

    Raises
    ------
    DesignError
        E_DESIGN_REPEAT for a batch of several designs.
    """
    if one.n != 1:
        raise DesignError(
            "E_DESIGN_REPEAT", f"only one design can be repeated; {one.n} were given. Take one of them first."
        )
    arrays = {name: getattr(one, name) for name in DESIGN_ARRAYS}
    views = {name: np.broadcast_to(values, (n, *values.shape[1:])) for name, values in arrays.items()}
    shape = (n, one.time.shape[1])
    spread = {
        name: np.broadcast_to(np.asarray(values, dtype=float).reshape(n, -1), shape)
        for name, values in covariates.items()
    }
    return DesignBatch(**views, covariates=spread)
