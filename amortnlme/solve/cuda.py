"""Engine of traced ODEs on a CUDA device: one simulation per thread, the next one taken from a queue.

Importing this module needs no device and no CUDA library. With NUMBA_ENABLE_CUDASIM=1 in the environment,
everything runs in Numba's simulator: slow, but the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import numpy as np
import sympy
from numba import config, cuda

from amortnlme.core.errors import DesignError, SolveError
from amortnlme.core.status import SolveStatus
from amortnlme.solve import scalar_walk
from amortnlme.solve.cuda_source import module_source
from amortnlme.solve.engine import AbstractEngine, Rows
from amortnlme.solve.entry import Entry
from amortnlme.solve.kernel_module import load_kernels
from amortnlme.solve.ode import OdeOptions
from amortnlme.solve.scalar_walk import Batch
from amortnlme.solve.schedule import Events, copies_running
from amortnlme.solve.trace import TracedSystem
from amortnlme.solve.untraced import make_batch

THREADS_PER_BLOCK = 64
# More blocks than run at once: the device hides the latency of its memory behind them.
BLOCKS_PER_PROCESSOR = 16
# Simulations per launch; bounds the memory of event lists of their own (lag, bioavailability).
ROWS_PER_LAUNCH = 1 << 18

# What the walk is made of, each after what it calls.
_WALK = (
    scalar_walk.first_step,
    scalar_walk.advance,
    scalar_walk.clear,
    copies_running,
    scalar_walk.follow_regimen,
    scalar_walk.apply_dose,
    scalar_walk.enter_segment,
    scalar_walk.walk,
)


def _settle(model, k, arrival, steps, p, w, batch, row, out):
    """Steady states are refused before the launch; the walk still needs a function of this name."""
    return steps, np.int64(SolveStatus.NO_STEADY_STATE)


def bind_kernel(system: TracedSystem, outputs: Sequence[sympy.Expr]) -> Callable[..., Any]:
    """Join the generated step of a model with the walk from event to event.

    Parameters
    ----------
    system : TracedSystem
    outputs : sequence of sympy.Expr

    Returns
    -------
    callable
        `kernel(queue, batch, out, status)`, not compiled yet; functions that it calls are.
    """
    module = load_kernels(f"cuda_{'_'.join(system.names.states)}", module_source(system, outputs))
    bound: dict[str, Any] = {}

    def rebound(function: Any) -> FunctionType:
        """Return the same code, seeing the device's version of what it calls."""
        names = {**function.__globals__, **bound}
        return FunctionType(function.__code__, names, function.__name__)

    def on_device(name: str, function: Any) -> None:
        bound[name] = cuda.jit(device=True)(rebound(function))

    for name in ("slope", "step", "record"):
        on_device(name, getattr(module, name))
    on_device("settle", _settle)
    for function in _WALK:
        on_device(function.py_func.__name__, function.py_func)
    return rebound(module.kernel)


@dataclass(frozen=True, slots=True, eq=False)
class CudaOdeEngine(AbstractEngine):
    """Rodas5P on a CUDA device in double precision; observables are computed there too.

    Steady states and sensitivities are left to the processor's engines.

    Attributes
    ----------
    entry : Entry
    options : OdeOptions
    dtype : numpy.dtype
        Of the predictions that leave the device.
    """

    entry: Entry
    options: OdeOptions
    dtype: Any
    _kernel: Any

    @classmethod
    def build(
        cls,
        system: TracedSystem,
        entry: Entry,
        outputs: Sequence[sympy.Expr],
        options: OdeOptions,
        dtype: type = np.float64,
    ) -> CudaOdeEngine:
        """Generate the kernel of a model; it is compiled at the first prediction.

        Parameters
        ----------
        system : TracedSystem
        entry : Entry
        outputs : sequence of sympy.Expr
        options : OdeOptions
            Method and tolerances; the method is Rodas5P.
        dtype : type
            numpy.float64 or numpy.float32, of the predictions.

        Returns
        -------
        CudaOdeEngine

        Raises
        ------
        SolveError
            E_GPU_METHOD for a method other than Rodas5P; E_GPU_DEVICE without a device.
        """
        if options.method != "rodas5p":
            raise SolveError(
                "E_GPU_METHOD",
                f"method {options.method!r} does not run on the GPU, which has 'rodas5p' alone. Choose that.",
            )
        require_device()
        kernel = cuda.jit(bind_kernel(system, outputs))
        return cls(entry, options, np.dtype(dtype), kernel)

    @property
    def has_sensitivities(self) -> bool:
        """No: there are none on the device."""
        return False

    def predict(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Predict; see `AbstractEngine.predict`."""
        if (rows.schedule.events.ss[rows.design_index] > 0).any():
            raise DesignError(
                "E_GPU_STEADY_STATE",
                "a dose is given at steady state (SS), which the GPU does not solve for. Predict these "
                "designs on the CPU, or give the doses that lead there one by one.",
            )
        f = np.full((rows.n_rows, rows.schedule.n_observations), np.nan, self.dtype)
        status = np.zeros(rows.n_rows, dtype=np.int64)
        for first in range(0, rows.n_rows, ROWS_PER_LAUNCH):
            last = min(first + ROWS_PER_LAUNCH, rows.n_rows)
            batch, status[first:last] = make_batch(rows, first, last, self.entry, self.options)
            f[first:last], status[first:last] = self._launch(batch, f[first:last], status[first:last])
        return f, status

    def predict_with_sensitivity(self, rows: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Refuse; see `AbstractEngine.predict_with_sensitivity`."""
        raise SolveError(
            "E_GPU_SENSITIVITY",
            "the GPU predicts and simulates, but it has no sensitivities. Use the model without `on_gpu`.",
        )

    def _launch(self, batch: Batch, f: np.ndarray, status: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        events = Events._make(cuda.to_device(a) for a in batch.events)
        arrays = [cuda.to_device(a) for a in batch if isinstance(a, np.ndarray)]
        numbers = (batch.rtol, batch.atol, batch.max_steps)
        on_device = Batch._make([events, *arrays, *numbers])
        out, found = cuda.to_device(f), cuda.to_device(status)
        queue = cuda.to_device(np.zeros(1, dtype=np.int64))
        blocks = min(-(-status.shape[0] // THREADS_PER_BLOCK), _blocks_at_once())
        self._kernel[blocks, THREADS_PER_BLOCK](queue, on_device, out, found)
        return out.copy_to_host(), found.copy_to_host()


def require_device() -> None:
    """Refuse to go on without a device.

    Raises
    ------
    SolveError
        E_GPU_DEVICE.
    """
    if cuda.is_available():
        return
    raise SolveError(
        "E_GPU_DEVICE",
        "no CUDA device can be used here: Numba finds no driver or no GPU. On a machine with an NVIDIA GPU, "
        "install the extra `pip install amortnlme[gpu]`; elsewhere use the model without `on_gpu`.",
    )


def _blocks_at_once() -> int:
    if config.ENABLE_CUDASIM:  # pyright: ignore[reportAttributeAccessIssue]
        return 1
    return cuda.get_current_device().MULTIPROCESSOR_COUNT * BLOCKS_PER_PROCESSOR
