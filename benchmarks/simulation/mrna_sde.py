"""Paths per second of the mRNA diffusion: Euler-Maruyama, 3060 steps of 1/102 h, two noises, 180 outputs.

    python benchmarks/simulation/mrna_sde.py

Every engine takes the same steps of the same parameters with noise of its own, so only distributions can
agree: printed is the largest |z| of the mean differences of the log fluorescence to ours, over all outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from measure import race, save, show, use_one_core

N, N_NUMPY, N_JAX, N_LOOP = 4096, 2000, 256, 400
STEP = 0.01
SEED = 3


def ours(phi: np.ndarray, times: np.ndarray) -> Callable[[], np.ndarray]:
    """Draw paths of the shipped model, without measurement errors, which the peers do not draw either."""
    from amortnlme.core.rng import generator
    from amortnlme.data.design import Design, DesignBatch
    from amortnlme.model.program import prepare_inputs
    from amortnlme.model.registry import load_model

    program = load_model("mrna_transfection_sde").program
    design = DesignBatch.from_designs([Design.from_doses((), times)], {})

    def work() -> np.ndarray:
        inputs = prepare_inputs(program, design)
        return program.sample_paths(phi, inputs, np.zeros(len(phi), dtype=np.int64), generator(SEED))[0]

    return work


def numpy_paths(psi: np.ndarray, times: np.ndarray) -> Callable[[], np.ndarray]:
    """All simulations as one array, a Python loop over the steps."""
    delta, gamma, k, m0, scale, t0, offset = psi.T[:7].copy()

    def work() -> np.ndarray:
        rng = np.random.default_rng(5)
        m, p, out, begin = m0.copy(), np.zeros_like(m0), np.empty((len(psi), len(times))), 0.0
        for j, end in enumerate(times):
            steps = int(np.ceil((end - begin) / STEP - 1e-9))
            h = (end - begin) / steps
            for q in range(steps):
                # the part of the step after the release
                moved = np.clip((begin + (q + 1) * h - t0) / h, 0.0, 1.0) * h
                z = rng.standard_normal((2, len(psi)))
                root = np.sqrt(moved)
                grown = p + (k * m - gamma * p) * moved + np.sqrt(k * m + gamma * p) * root * z[1]
                m = np.maximum(m - delta * m * moved + np.sqrt(delta * m) * root * z[0], 0.0)
                p = np.maximum(grown, 0.0)
            out[:, j] = np.log(scale * p + offset)
            begin = end
        return out

    return work


def numba_loop(psi: np.ndarray, times: np.ndarray) -> Callable[[], np.ndarray]:
    """One simulation after the other with arrays per step and numpy's global generator."""
    import numba

    @numba.njit
    def run(psi, times, out):
        for s in range(psi.shape[0]):
            delta, gamma, k, m0, scale, t0, offset = psi[s, :7]
            if t0 > times[-1]:
                out[s] = np.log(offset)
                continue
            grid = np.arange(t0, times[-1] + STEP, STEP)
            x = np.zeros((grid.size, 2))
            x[0, 0] = m0
            brownian = np.random.normal(0.0, np.sqrt(STEP), (grid.size - 1, 2))  # noqa: NPY002
            for i in range(grid.size - 1):
                drift = STEP * np.array([-delta * x[i, 0], k * x[i, 0] - gamma * x[i, 1]])
                noise = brownian[i] * np.array(
                    [np.sqrt(delta * x[i, 0]), np.sqrt(k * x[i, 0] + gamma * x[i, 1])]
                )
                x[i + 1] = np.maximum(x[i] + drift + noise, 0.0)
            out[s] = np.log(scale * np.interp(times, grid, x[:, 1]) + offset)

    def work() -> np.ndarray:
        out = np.empty((len(psi), len(times)))
        run(psi, times, out)
        return out

    return work


def jax_scan(psi: np.ndarray, times: np.ndarray) -> Callable[[], np.ndarray]:
    """vmap of a scan in float32, threefry noise."""
    import jax
    import jax.numpy as jnp

    steps = int(np.ceil(times[0] / STEP))
    h = float(times[0]) / steps

    def one(p, key):
        delta, gamma, k, m0, scale, t0, offset = p[:7]

        def step(state, i):
            m, protein = state
            z = jax.random.normal(jax.random.fold_in(key, i), (2,))
            moved = jnp.clip(((i + 1) * h - t0) / h, 0.0, 1.0) * h
            root = jnp.sqrt(moved)
            grown = (
                protein + (k * m - gamma * protein) * moved + jnp.sqrt(k * m + gamma * protein) * root * z[1]
            )
            m = jnp.maximum(m - delta * m * moved + jnp.sqrt(delta * m) * root * z[0], 0.0)
            grown = jnp.maximum(grown, 0.0)
            return (m, grown), grown

        _, path = jax.lax.scan(step, (m0, jnp.float32(0.0)), jnp.arange(len(times) * steps))
        return jnp.log(scale * path[steps - 1 :: steps] + offset)

    compiled = jax.jit(jax.vmap(one))
    keys = jax.random.split(jax.random.key(0), len(psi))
    values = jnp.asarray(psi, jnp.float32)
    return lambda: np.asarray(jax.block_until_ready(compiled(values, keys)))


def largest_z(ours_found: np.ndarray, other: np.ndarray) -> float:
    """Largest standardized mean difference over the outputs; about 3.5 is the most chance gives."""
    difference = other - ours_found[: len(other)]
    spread = difference.std(axis=0)
    z = np.abs(difference.mean(axis=0)) / np.where(spread > 0.0, spread, np.inf) * np.sqrt(len(other))
    return float(z.max())


def main() -> None:
    """Print the table and write results/mrna_sde.json."""
    from amortnlme.core.rng import generator
    from amortnlme.model.registry import load_model

    model = load_model("mrna_transfection_sde")
    # Unit variances instead of the published 5: rates so fast that a step of 0.01 h explodes are then rare.
    # The package takes more steps for such a row, the peers do not; here everybody takes the same number.
    prior = model.prior
    phi = prior.mean + np.minimum(1.0, np.sqrt(np.diagonal(prior.covariance))) * generator(
        SEED
    ).standard_normal((N, prior.d))
    phi[:, model.parameters.index("sigma")] = -30.0
    psi = model.parameters.to_psi(phi)
    times = model.design_sampler.sample(1, generator(SEED)).observation_times[0]
    package = ours(phi, times)
    found = package()
    figures: dict[str, object] = {"steps": int(len(times) * np.ceil(times[0] / STEP))}
    numpy_work = numpy_paths(psi[:N_NUMPY], times)
    engines = [
        ("amortnlme simulate", package, None),
        ("NumPy, vectorised over simulations", numpy_work, None),
        ("Numba loop per simulation, np.random", numba_loop(psi[:N_LOOP], times), None),
    ]
    # The Numba loop steps from the release on and interpolates its outputs, so it is not compared.
    figures["largest_z_against_numpy"] = largest_z(found, numpy_work())
    try:
        jax_work = jax_scan(psi[:N_JAX], times)
        engines.append((f"JAX vmap(scan), float32, {N_JAX} at a time", jax_work, None))
        figures["largest_z_against_jax"] = largest_z(found, jax_work())
    except ImportError as missing:
        print(f"JAX is left out: {missing}")
    rows = race(engines)
    show(rows)
    for key, value in figures.items():
        print(f"{key}: {value}")
    save("mrna_sde", figures, rows)


if __name__ == "__main__":
    use_one_core()
    main()
