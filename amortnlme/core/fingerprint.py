"""Fingerprints: short names for exact contents, the same on every machine and in every process."""

import hashlib
import json

import numpy as np

from amortnlme.core.errors import UsageError


def fingerprint_arrays(*arrays: np.ndarray) -> str:
    """Return the fingerprint of arrays: their dtypes (little endian), shapes and bytes, in order.

    Parameters
    ----------
    *arrays : ndarray
        Numeric or boolean, any shape.

    Returns
    -------
    str
        ``"sha256:<hex>"``.

    Raises
    ------
    UsageError
        If an array holds objects or text, whose bytes are not their value (``E_FINGERPRINT``).
    """
    digest = hashlib.sha256()
    for array in arrays:
        values = np.asarray(array, order="C")
        if values.dtype.kind not in "biufc":
            raise UsageError(
                "E_FINGERPRINT",
                f"An array of {values.dtype} has no fingerprint. Pass numbers or booleans; text has "
                "fingerprint_json.",
            )
        values = values.astype(values.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{values.dtype.str}{values.shape}".encode())
        digest.update(values.tobytes())
    return f"sha256:{digest.hexdigest()}"


def fingerprint_json(value: object) -> str:
    """Return the fingerprint of a JSON-able value; the order of keys does not matter.

    Parameters
    ----------
    value : object
        Nested dicts, lists, strings, numbers, booleans, None.

    Returns
    -------
    str
        ``"sha256:<hex>"``.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
