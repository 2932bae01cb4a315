"""How the functions of the lanes' driver are compiled."""

from __future__ import annotations

from functools import partial
from typing import Any

from numba import njit

# Without `_nrt` Numba counts references at every array it passes or slices, by atomic operations that cost as
# much as half a step of eight lanes. Such a function cannot create arrays: it works on what it is given.
# Typed as anything, because Numba's stub of `njit` does not know the option.
_njit: Any = njit
lane_jit: Any = partial(_njit, cache=True, nogil=True, error_model="numpy", _nrt=False)
# Parts of a driver are compiled with it and kept in its cache only: see `kernel_module.load_driver`.
part_jit: Any = partial(_njit, nogil=True, error_model="numpy", _nrt=False)
