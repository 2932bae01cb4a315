"""The one place that chooses the array library under Keras, and the only way the package imports Keras.

BayesFlow prefers JAX when `KERAS_BACKEND` is unset, and a Keras that is already imported cannot change its
mind. So the choice is made here, before the first import, and a later contradiction is refused rather than
ignored.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from amortnlme.core.errors import UsageError

BACKENDS = ("tensorflow", "jax")
DEFAULT_BACKEND = "tensorflow"

_LOADED: list[ModuleType] = []


def use_backend(name: str | None = None) -> ModuleType:
    """Import Keras and BayesFlow on the chosen backend and return the `keras` module.

    Parameters
    ----------
    name : str or None
        "tensorflow" or "jax"; None keeps `KERAS_BACKEND`, or takes TensorFlow when it is unset.

    Returns
    -------
    module
        The imported `keras`.

    Raises
    ------
    UsageError
        E_BACKEND_UNKNOWN for another name, E_BACKEND_LATE when Keras already runs on a different backend,
        E_BACKEND_MISSING when the backend is not installed.
    """
    wanted = name or os.environ.get("KERAS_BACKEND") or DEFAULT_BACKEND
    if wanted not in BACKENDS:
        raise UsageError(
            "E_BACKEND_UNKNOWN",
            f"the neural backend {wanted!r} is not supported. Allowed: {', '.join(BACKENDS)}. "
            "Set KERAS_BACKEND to one of them, or unset it.",
        )
    if "keras" in sys.modules:
        running = sys.modules["keras"].backend.backend()
        # Without an explicit name the running backend is accepted: another library of the user chose it
        # first.
        if name is None and running in BACKENDS:
            wanted = running
        if running != wanted:
            raise UsageError(
                "E_BACKEND_LATE",
                f"the neural backend cannot become {wanted!r}: Keras is already running on {running!r}. "
                "Set KERAS_BACKEND before Python starts.",
            )
    if not _LOADED:
        os.environ["KERAS_BACKEND"] = wanted
        _LOADED.append(_import_quietly(wanted))
    return _LOADED[0]


def backend_name() -> str:
    """Name of the running backend ("tensorflow" or "jax"), starting it if needed."""
    return str(use_backend().backend.backend())


def values_of(variables: Iterable[Any]) -> list[np.ndarray]:
    """Copy Keras variables into NumPy arrays.

    Parameters
    ----------
    variables : iterable of keras.Variable
        Weights of a network or an optimizer.

    Returns
    -------
    list of ndarray
        Their values, in order.
    """
    # Each backend has one road that avoids the array protocol NumPy 2 deprecates; `get_weights` takes
    # neither on JAX.
    if backend_name() == "tensorflow":
        return [np.array(variable.numpy()) for variable in variables]
    return [np.array(variable.value) for variable in variables]


def _import_quietly(name: str) -> ModuleType:
    """Import keras and bayesflow with their import-time chatter and side effects undone."""
    # TensorFlow's C++ start-up notices are informational; warnings (2) and errors (3) of later calls stay
    # visible.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    flow_logger = logging.getLogger("bayesflow")
    previous = flow_logger.level
    try:
        with warnings.catch_warnings(), _without_native_notices():
            # Deprecation notices raised while third-party modules import concern their authors, not our
            # users.
            warnings.simplefilter("ignore")
            logging.disable(logging.INFO)
            import keras

            if name == "jax":
                import jax  # noqa: F401
            import bayesflow  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "E_BACKEND_MISSING",
            f"the neural backend {name!r} could not be imported: {error}. "
            f"Install it (pip install 'amortnlme[{name}]') or set KERAS_BACKEND to another of "
            f"{', '.join(BACKENDS)}.",
        ) from error
    finally:
        logging.disable(logging.NOTSET)
        # bayesflow calls logging.basicConfig at import, which would reconfigure the user's root logger.
        root.handlers[:] = handlers
        root.setLevel(level)
        flow_logger.setLevel(max(previous, logging.WARNING))
    return keras


# Lines that TensorFlow's C++ libraries write before their own log level applies: information (I0000 ...),
# and the remark that they do so.
_NATIVE_NOTICE = re.compile(rb"I\d{4} |WARNING: All log messages before absl")


@contextmanager
def _without_native_notices() -> Iterator[None]:
    """Divert standard error of the process for a moment, and pass on everything but native notices."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as diverted:
        os.dup2(diverted.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            diverted.seek(0)
            for line in diverted:
                if not _NATIVE_NOTICE.match(line):
                    os.write(2, line)
