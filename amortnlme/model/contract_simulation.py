"""Contract: simulations have shape, status and bytes that depend on nothing but their own inputs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import perf_counter

import numpy as np

from amortnlme.core.errors import ModelError
from amortnlme.core.rng import stream
from amortnlme.data.design import DesignBatch
from amortnlme.data.subject import Subject
from amortnlme.model.contract_world import N_ROWS, World, applies, broken, require
from amortnlme.model.program import prepare_inputs
from amortnlme.solve.threads import CHUNK_ROWS, using_threads

# Absurd but representable: every rate, volume and error pushed by this many units of phi.
ABSURD = 300.0
# Seconds after which parameters are said to hang the solver; compilation included.
TIME_LIMIT = 60.0
# Rows that span several chunks of every engine, and do not fill the last one.
MANY = 2 * CHUNK_ROWS + 37


def shapes(world: World) -> str:
    """Check the shapes of everything the model returns, and that only real observations have values.

    Parameters
    ----------
    world : World

    Returns
    -------
    str
    """
    model, batch = world.model, world.batch
    m = batch.observation_mask.shape[1]
    simulated = model.simulate_batch(world.phi, batch, stream(3, 1))
    require(
        simulated.y.shape == (N_ROWS, m) and simulated.status.shape == (N_ROWS,),
        "simulate_batch: wrong shape",
    )
    solved = simulated.status == 0
    require(
        bool((np.isfinite(simulated.y) == (batch.observation_mask & solved[:, None])).all()),
        "simulated values are not finite exactly where a design has an observation",
    )
    if world.is_random:
        return f"y {simulated.y.shape}"
    m = world.design.n_observations
    prediction = model.predict_with_sensitivity(world.phi, world.design, world.covariates)
    assert prediction.df_dphi is not None
    require(prediction.f.shape == (N_ROWS, m), f"predict: f has shape {prediction.f.shape}")
    require(prediction.df_dphi.shape == (N_ROWS, m, model.d), f"df_dphi has shape {prediction.df_dphi.shape}")
    return f"y {simulated.y.shape}, df_dphi {prediction.df_dphi.shape}"


def solves(world: World) -> str:
    """Check that simulations from the prior succeed.

    Parameters
    ----------
    world : World

    Returns
    -------
    str
    """
    simulated = world.model.simulate_batch(world.phi, world.batch, stream(3, 2))
    failed = int((simulated.status != 0).sum())
    require(failed <= N_ROWS // 100, f"{failed} of {N_ROWS} simulations from the prior failed")
    return f"{failed} of {N_ROWS} failed"


def same_bytes(world: World) -> str:
    """Check that a simulation is a function of its generator.

    Parameters
    ----------
    world : World

    Returns
    -------
    str
    """

    def run(key: int) -> bytes:
        return world.model.simulate_batch(world.phi, world.batch, stream(4, key)).y.tobytes()

    require(run(1) == run(1), "two runs with the same generator differ")
    require(run(1) != run(2), "two runs with different generators are the same")
    return "bit-identical; another generator gives other values"


def batch_of_one(world: World) -> str:
    """Check that a row alone gives what it gives in a batch.

    Parameters
    ----------
    world : World

    Returns
    -------
    str
    """
    if world.is_random:
        rows, engine = world.batch_rows(world.phi), world.random_engine
        ids = np.arange(N_ROWS)
        f, _ = engine.simulate(rows, (1, 2), ids)
        for row in (0, N_ROWS // 2, N_ROWS - 1):
            alone, _ = engine.simulate(
                world.batch_rows(world.phi, np.array([row])), (1, 2), ids[row : row + 1]
            )
            require(
                np.array_equal(alone[0], f[row], equal_nan=True), f"row {row} differs from the same row alone"
            )
        return "bit-identical"
    model = world.model
    together = model.predict_with_sensitivity(world.phi, world.design, world.covariates)
    for row in (0, N_ROWS // 2, N_ROWS - 1):
        alone = model.predict_with_sensitivity(world.phi[row : row + 1], world.design, world.covariates)
        assert together.df_dphi is not None and alone.df_dphi is not None
        same = np.array_equal(alone.f[0], together.f[row], equal_nan=True) and np.array_equal(
            alone.df_dphi[0], together.df_dphi[row], equal_nan=True
        )
        require(same, f"row {row} differs from the same row alone")
    return "bit-identical"


def order_and_threads(world: World) -> str:
    """Check that bytes depend neither on the order of rows nor on neighbors, chunks or threads.

    Parameters
    ----------
    world : World

    Returns
    -------
    str
    """
    picked = stream(5, 1).integers(0, N_ROWS, MANY)
    rows, few = world.batch_rows(world.phi, picked), world.batch_rows(world.phi)
    if world.is_random:
        # Ids repeat as rows do: the same number under the same design is the same path.
        engine = world.random_engine
        expected, _ = engine.simulate(few, (3, 4), np.arange(N_ROWS))
        runs = _on_threads(lambda: engine.simulate(rows, (3, 4), picked)[0])
    else:
        deterministic = world.engine
        expected, _ = deterministic.predict(few)
        runs = _on_threads(lambda: deterministic.predict(rows)[0])
    for threads, f in runs.items():
        same = np.array_equal(f, expected[picked], equal_nan=True)
        require(same, f"{MANY} shuffled rows on {threads} thread(s) differ from {N_ROWS} rows in order")
    return f"bit-identical: {MANY} shuffled rows, 1 and 2 threads"


def _on_threads(run: Callable[[], np.ndarray]) -> dict[int, np.ndarray]:
    found = {}
    for threads in (1, 2):
        with using_threads(threads):
            found[threads] = run()
    return found


def absurd(world: World) -> str:
    """Check that parameters without sense end with a status, in time.

    Parameters
    ----------
    world : World

    Returns
    -------
    str
    """
    phi = _absurd_phi(world)
    results: list[tuple[np.ndarray, np.ndarray] | Exception] = []

    def solve() -> None:
        try:
            results.append(_values(world, phi))
        except Exception as fault:  # whatever it is, it breaks the promise: reported below
            results.append(fault)

    # A daemon: a kernel that never returns must not keep the process alive.
    worker = threading.Thread(target=solve, daemon=True)
    begin = perf_counter()
    worker.start()
    worker.join(TIME_LIMIT)
    require(bool(results), f"{phi.shape[0]} rows are not solved after {TIME_LIMIT:g} s")
    (result,) = results
    if isinstance(result, Exception):
        broken(f"an exception instead of a status: {type(result).__name__}: {result}")
    f, status = result
    solved = status == 0
    require(bool(solved[0]), "typical parameters cannot be solved")
    require(bool(np.isfinite(f[solved]).all()), "a solved row holds values that are not finite")
    return f"{int((~solved).sum())} of {phi.shape[0]} rows carry a status, in {perf_counter() - begin:.1f} s"


def _absurd_phi(world: World) -> np.ndarray:
    typical = world.model.parameters.typical_phi
    rows = [typical]
    for column in range(world.model.d):
        for push in (-ABSURD, ABSURD, 1e6, np.nan, np.inf):
            row = typical.copy()
            row[column] = push
            rows.append(row)
    return np.array(rows)


def _values(world: World, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if world.is_random:
        # As the model sees a path: an observable that is not finite (log of 0) gets its status there.
        program, k = world.model.program, world.design.n_records
        held = {n: np.broadcast_to(v, (1, k)) for n, v in world.covariates_of(world.design).items()}
        inputs = prepare_inputs(program, DesignBatch.from_designs([world.design], held))
        return program.sample_paths(phi, inputs, np.zeros(len(phi), dtype=np.int64), stream(5, 6))
    prediction = world.model.predict_with_sensitivity(phi, world.design, world.covariates)
    return prediction.f, prediction.status


def refusals(world: World) -> str:
    """Check that random dynamics refuse what needs a prediction.

    Parameters
    ----------
    world : World

    Returns
    -------
    str
    """
    applies(world.is_random, "the model predicts")
    model, design = world.model, world.design
    phi = model.parameters.typical_phi[None]
    require(model.capabilities == {"simulate"}, f"capabilities are {sorted(model.capabilities)}")
    subject = Subject.from_observations(
        "x", design, np.ones(design.n_observations), {k: float(v[0]) for k, v in world.covariates.items()}
    )
    for name, ask in (
        ("predict", lambda: model.predict(phi, design, world.covariates)),
        ("predict_with_sensitivity", lambda: model.predict_with_sensitivity(phi, design, world.covariates)),
        ("log_likelihood", lambda: model.log_likelihood(phi, subject)),
    ):
        try:
            ask()
        except ModelError as refusal:
            require(refusal.code == "E_MODEL_NO_PREDICTION", f"{name} is refused with {refusal.code}")
        else:
            broken(f"{name} answers")
    return "predict, predict_with_sensitivity and log_likelihood say E_MODEL_NO_PREDICTION"
