"""Simulations per second of the detailed mRNA model: 4000 prior draws, 180 outputs, rtol 1e-6, atol 1e-9.

    python benchmarks/simulation/mrna_ode.py

Error: largest difference of the log fluorescence over the 180 outputs, against the same equations at rtol
1e-12. The reference is itself compared with LSODA at rtol 1e-12.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from measure import race, save, show, use_one_core

N, N_SCIPY, N_DIFFRAX = 4000, 40, 256
RTOL, ATOL = 1e-6, 1e-9
SEED = 1


def model_at(rtol: float, atol: float):
    """The shipped model at other tolerances."""
    from amortnlme.model.registry import load_model

    model = load_model("mrna_transfection_detailed")
    return replace(model, dynamics=replace(model.dynamics, rtol=rtol, atol=atol))


def draws() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """phi (N, 11), psi (N, 11) and the times of the 180 outputs."""
    from amortnlme.core.rng import generator

    model = model_at(RTOL, ATOL)
    phi = model.prior.sample(N, generator(SEED))
    times = model.design_sampler.sample(1, generator(SEED)).observation_times[0]
    return phi, model.parameters.to_psi(phi), times


def ours(rtol: float, atol: float, phi: np.ndarray, times: np.ndarray) -> Callable[[], np.ndarray]:
    """Predictions of the package."""
    from amortnlme.data.design import Design

    model, design = model_at(rtol, atol), Design.from_doses([], times)

    def work() -> np.ndarray:
        prediction = model.predict(phi, design)
        prediction.f[prediction.status != 0] = np.nan
        return prediction.f

    return work


def numbalsoda_lsoda(
    psi: np.ndarray, times: np.ndarray, rtol: float, atol: float
) -> Callable[[], np.ndarray]:
    """LSODA without Python in the loop."""
    import numba
    from numbalsoda import lsoda, lsoda_sig

    @numba.cfunc(lsoda_sig)
    def rhs(t, y, dy, p):
        degraded = p[0] * y[0] * y[1]
        bound = p[6] - y[2]
        binding = p[5] * y[0] * y[2] - p[4] * bound
        dy[0] = -degraded - binding
        dy[1] = -degraded + p[1] * (p[2] - y[1])
        dy[2] = -binding
        dy[3] = p[3] * bound - p[7] * y[3]

    address = rhs.address

    @numba.njit
    def run(psi, times, out):
        for s in range(psi.shape[0]):
            p = psi[s].copy()
            k = 0
            while k < times.shape[0] and times[k] <= p[8]:
                out[s, k] = np.log(p[9])
                k += 1
            if k == times.shape[0]:
                continue
            grid = np.empty(times.shape[0] - k + 1)
            grid[0] = p[8]
            grid[1:] = times[k:]
            start = np.array([1.0, p[2], p[6], 0.0])
            y, success = lsoda(address, start, grid, p, rtol, atol, 100000)
            for q in range(1, grid.shape[0]):
                out[s, k + q - 1] = np.log(y[q, 3] + p[9]) if success else np.nan

    def work() -> np.ndarray:
        out = np.empty((len(psi), len(times)))
        run(psi, times, out)
        return out

    return work


def scipy_lsoda(psi: np.ndarray, times: np.ndarray) -> Callable[[], np.ndarray]:
    """SciPy's LSODA with a compiled right-hand side."""
    import numba
    from scipy.integrate import solve_ivp

    @numba.njit
    def rhs(t, y, p):
        degraded = p[0] * y[0] * y[1]
        bound = p[6] - y[2]
        binding = p[5] * y[0] * y[2] - p[4] * bound
        dy = np.empty(4)
        dy[0] = -degraded - binding
        dy[1] = -degraded + p[1] * (p[2] - y[1])
        dy[2] = -binding
        dy[3] = p[3] * bound - p[7] * y[3]
        return dy

    def one(p: np.ndarray) -> np.ndarray:
        out = np.full(len(times), np.log(p[9]))
        k = int(np.searchsorted(times, p[8], side="right"))
        if k == len(times):
            return out
        start = [1.0, p[2], p[6], 0.0]
        found = solve_ivp(
            rhs, (p[8], times[-1]), start, method="LSODA", t_eval=times[k:], args=(p,), rtol=RTOL, atol=ATOL
        )
        out[k:] = np.log(found.y[3] + p[9]) if found.success else np.nan
        return out

    return lambda: np.array([one(p) for p in psi])


def diffrax_kvaerno5(psi: np.ndarray, times: np.ndarray) -> Callable[[], np.ndarray]:
    """diffrax, an implicit method, one batch by vmap."""
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)

    def rhs(t, y, p):
        mrna, enzyme, ribosomes, protein = y
        degraded = p[0] * mrna * enzyme
        bound = p[6] - ribosomes
        binding = p[5] * mrna * ribosomes - p[4] * bound
        return (
            -degraded - binding,
            -degraded + p[1] * (p[2] - enzyme),
            -binding,
            p[3] * bound - p[7] * protein,
        )

    def one(p):
        start = jnp.minimum(p[8], times[-1] - 1e-6)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(rhs),
            diffrax.Kvaerno5(),
            start,
            times[-1],
            None,
            (jnp.ones(()), p[2], p[6], jnp.zeros(())),
            args=p,
            saveat=diffrax.SaveAt(ts=jnp.maximum(jnp.asarray(times), start)),
            stepsize_controller=diffrax.PIDController(rtol=RTOL, atol=ATOL),
            max_steps=20_000,
            throw=False,
        )
        solved = solution.result == diffrax.RESULTS.successful
        return jnp.where(solved, jnp.log(solution.ys[3] + p[9]), jnp.nan)

    compiled = jax.jit(jax.vmap(one))
    return lambda: np.asarray(jax.block_until_ready(compiled(jnp.asarray(psi))))


def main() -> None:
    """Print the table and write results/mrna_ode.json."""
    phi, psi, times = draws()
    reference = ours(1e-12, 1e-14, phi, times)()
    engines = [("amortnlme predict", ours(RTOL, ATOL, phi, times), reference)]
    figures: dict[str, object] = {"rtol": RTOL, "atol": ATOL, "n_outputs": len(times)}
    try:
        engines.append(("numbalsoda LSODA", numbalsoda_lsoda(psi[:1000], times, RTOL, ATOL), reference))
        check = np.abs(numbalsoda_lsoda(psi[:300], times, 1e-12, 1e-14)() - reference[:300])
        figures["reference_against_lsoda_1e-12"] = np.nanquantile(
            np.nanmax(check, axis=1), [0.5, 0.99, 1.0]
        ).tolist()
    except ImportError as missing:
        print(f"numbalsoda is left out: {missing}")
    engines.append(("SciPy LSODA, compiled rhs", scipy_lsoda(psi[:N_SCIPY], times), reference))
    try:
        peer = diffrax_kvaerno5(psi[:N_DIFFRAX], times)
        engines.append((f"diffrax Kvaerno5, vmap of {N_DIFFRAX}", peer, reference))
    except ImportError as missing:
        print(f"diffrax is left out: {missing}")
    rows = race(engines)
    show(rows)
    for key, value in figures.items():
        print(f"{key}: {value}")
    save("mrna_ode", figures, rows)


if __name__ == "__main__":
    use_one_core()
    main()
