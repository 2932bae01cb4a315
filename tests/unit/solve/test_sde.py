"""Paths of SDEs against exact solutions driven by the same increments, moments, and events counted."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from numba import njit
from scipy import stats
from scipy.linalg import expm
from unit.solve.random_rows import bolus, infusion, make_rows, observe, reset

from amortnlme.core.errors import DesignError, ModelError
from amortnlme.core.status import SolveStatus
from amortnlme.model.dynamics import Sde
from amortnlme.model.functions import exp, sqrt
from amortnlme.solve import random_rows, threads
from amortnlme.solve.philox import PURPOSE_BROWNIAN, normal_pair, random_pair
from amortnlme.solve.sde import _beginnings
from amortnlme.solve.trace import Names, trace_output

FALSE_ALARM = 1e-4
QUANTILE = float(stats.norm.ppf(1.0 - FALSE_ALARM / 2.0))
KEY = (21, 22)


@njit(error_model="numpy")
def _normals(ids, out):
    """The numbers that the first Brownian motion of every simulation uses at every step."""
    for i in range(out.shape[0]):
        low, high = ids[i] & np.uint64(0xFFFFFFFF), ids[i] >> np.uint64(32)
        for k in range(out.shape[1]):
            a, b = random_pair(
                np.uint64(k), np.uint64(PURPOSE_BROWNIAN), low, high, np.uint64(21), np.uint64(22)
            )
            out[i, k] = normal_pair(a, b)[0]


def _build(names, rhs, diffusion, dt, output=None, *, traced_by=Sde, **options):
    dynamics = traced_by(rhs, diffusion, names.states[0], dt, **options)
    equations = dynamics.trace(names)
    chosen = output or (lambda t, y, p: getattr(y, names.states[0]))
    return dynamics.build(equations, [trace_output(chosen, names, equations.system.symbols, "f")])


GBM = Names(("y",), ("mu", "sigma"))


def _gbm(dt, method):
    return _build(
        GBM,
        lambda t, y, p: p.mu * y.y,
        lambda t, y, p: p.sigma * y.y,
        dt,
        method=method,
        initial=lambda p: (1.0,),
    )


def _simulate(engine, psi, design, n, first=0, **more):
    rows = make_rows(np.tile(psi, (n, 1)), [design], **more)
    return engine.simulate(rows, KEY, np.arange(first, first + n))


def _driving(n, steps, first=0):
    out = np.zeros((n, steps))
    _normals(np.arange(first, first + n).astype(np.uint64), out)
    return out


@pytest.fixture(scope="module")
def gbm_engines():
    return {(m, k): _gbm(2.0**-k, m) for m in ("euler_maruyama", "milstein") for k in (3, 5)}


@pytest.mark.parametrize("method", ["euler_maruyama", "milstein"])
def test_steps_are_those_of_the_scheme(gbm_engines, method):
    """Against the recursion on the same numbers; 32 steps of a few roundings each."""
    mu, sigma, h, n = 0.3, 0.4, 2.0**-5, 70
    f, status = _simulate(gbm_engines[method, 5], [mu, sigma], [observe(0.0), observe(1.0)], n, first=2**40)
    z = _driving(n, 32, first=2**40)
    y = np.ones(n)
    for k in range(32):
        correction = 0.5 * sigma**2 * y * h * (z[:, k] ** 2 - 1.0) if method == "milstein" else 0.0
        y = y + mu * y * h + sigma * y * math.sqrt(h) * z[:, k] + correction
    assert (status == SolveStatus.OK).all()
    np.testing.assert_allclose(f[:, 1], y, rtol=1e-13)


@pytest.mark.statistical
@pytest.mark.parametrize(("method", "order"), [("euler_maruyama", 0.5), ("milstein", 1.0)])
def test_paths_approach_the_exact_ones_at_the_strong_order(gbm_engines, method, order):
    """Null: quartering h divides the RMS distance to the exact path by 4**order; n = 20 000, 1e-4.

    The next order changes the ratio by a fraction of order sqrt(h) (Euler-Maruyama) or h (Milstein) times
    sigma**2: below 5 % at h = 1/8, sigma = 0.5.
    """
    n, mu, sigma = 20_000, 0.1, 0.5
    mean, variance = [], []
    for k in (3, 5):
        f, _ = _simulate(gbm_engines[method, k], [mu, sigma], [observe(0.0), observe(1.0)], n)
        w = _driving(n, 2**k).sum(axis=1) * math.sqrt(2.0**-k)
        square = (f[:, 1] - np.exp(mu - 0.5 * sigma**2 + sigma * w)) ** 2
        mean.append(square.mean())
        variance.append(square.var() / n)
    log_ratio = 0.5 * math.log(mean[0] / mean[1])
    error = 0.5 * math.sqrt(sum(v / m**2 for m, v in zip(mean, variance, strict=True)))
    assert abs(log_ratio - order * math.log(4.0)) < QUANTILE * error + 0.05


@pytest.mark.statistical
def test_the_mean_is_that_of_a_scheme_of_weak_order_one(gbm_engines):
    """Null: E y = (1 + mu h)^n, which differs from exp(mu) by order h; n = 20 000, 1e-4.

    (1 + mu h)^(1/h) = exp(mu) (1 - mu^2 h / 2 + O(h^2)): at mu = -1.5 the bias of the mean is 18 % at
    h = 1/8 and 3.7 % at h = 1/32, both far above the sampling error.
    """
    n, mu, sigma = 20_000, -1.5, 0.3
    for k in (3, 5):
        f, _ = _simulate(gbm_engines["euler_maruyama", k], [mu, sigma], [observe(0.0), observe(1.0)], n)
        expected = (1.0 + mu * 2.0**-k) ** (2**k)
        error = f[:, 1].std() / math.sqrt(n)
        assert abs(f[:, 1].mean() - expected) < QUANTILE * error
        assert abs(expected - math.exp(mu)) > 3.0 * QUANTILE * error


MRNA = Names(("m", "g"), ("delta", "gamma", "k", "m0", "start"))


def _mrna_drift(t, y, p):
    return -p.delta * y.m, p.k * y.m - p.gamma * y.g


def _mrna_noise(t, y, p):
    return sqrt(p.delta * y.m), sqrt(p.k * y.m + p.gamma * y.g)


@pytest.fixture(scope="module")
def mrna():
    return _build(
        MRNA,
        _mrna_drift,
        _mrna_noise,
        0.01,
        lambda t, y, p: y.g,
        initial=lambda p: (p.m0, 0.0),
        start=lambda p: p.start,
        non_negative=("m", "g"),
    )


@pytest.mark.statistical
def test_mean_and_variance_follow_the_moment_equations_when_the_drift_is_linear(mrna):
    """Null: moments of the linear noise SDE (closed system of ODEs); n = 20 000, false-alarm rate 1e-4.

    The scheme's moments are off by a relative error of at most max rate^2 h t / 2 ~ 0.3^2 * 0.01 * 4 / 2.
    """
    n, delta, gamma, k, m0, start, end = 20_000, 0.3, 0.2, 0.8, 200.0, 1.003, 5.0
    f, status = _simulate(mrna, [delta, gamma, k, m0, start], [observe(0.0), observe(1.0), observe(end)], n)
    assert (status == SolveStatus.OK).all()
    assert (f[:, :2] == 0.0).all()
    # d/dt of (E m, E g, V m, C, V g)
    moments = np.array(
        [
            [-delta, 0, 0, 0, 0],
            [k, -gamma, 0, 0, 0],
            [delta, 0, -2 * delta, 0, 0],
            [0, 0, k, -delta - gamma, 0],
            [k, gamma, 0, 2 * k, -2 * gamma],
        ]
    )
    _, mean, _, _, variance = expm(moments * (end - start)) @ np.array([m0, 0, 0, 0, 0])
    bias = 0.3**2 * 0.01 * 4.0 / 2.0
    x = f[:, 2]
    assert abs(x.mean() - mean) < QUANTILE * math.sqrt(variance / n) + bias * mean
    fourth = ((x - x.mean()) ** 4).mean()
    error = math.sqrt((fourth - x.var() ** 2) / n)
    assert abs(x.var() - variance) < QUANTILE * error + bias * variance


LINE = Names(("y", "z"), ("speed", "sigma", "start", "decay", "lag"), ("weight",))


def _line(dt=0.01, **options):
    given = {
        "initial": lambda p: (1.0, 0.0),
        "start": lambda p: p.start,
        "lag": {"y": lambda p: p.lag},
        **options,
    }
    return _build(
        LINE,
        lambda t, y, p: (p.speed * p.weight - p.decay * y.y, t * p.speed),
        lambda t, y, p: ((p.sigma,), (0,)),
        dt,
        lambda t, y, p: y.y + y.z * 0,
        **given,
    )


@pytest.fixture(scope="module")
def line():
    return _line()


def _follow(engine, design, *, speed=0.0, sigma=0.0, start=0.0, decay=0.0, lag=0.0, n=3):
    return _simulate(engine, [speed, sigma, start, decay, lag], design, n, covariates=True)


def _ones(design):
    return [(*record[:5], 1.0) for record in design]


def test_states_move_from_a_start_within_a_step(line):
    """Without noise the path is weight (t - start); a few hundred roundings."""
    design = _ones([observe(0.0), observe(0.2), observe(0.47), observe(1.0)])
    for start in (0.0, 0.1234, 0.2, 0.46999, 5.0, -0.33):
        f, status = _follow(line, design, speed=2.0, start=start)
        expected = 1.0 + 2.0 * np.maximum(np.array([0.0, 0.2, 0.47, 1.0]) - start, 0.0)
        assert (status == SolveStatus.OK).all()
        np.testing.assert_allclose(f, np.tile(expected, (3, 1)), rtol=0, atol=1e-12)


@pytest.mark.statistical
def test_noise_counts_from_the_start_when_it_lies_within_a_step():
    """Null: variance sigma^2 (t - start), also where the only step is a fraction; n = 20 000, 1e-4."""
    engine = _line(dt=1.0)
    n = 20_000
    f, _ = _follow(engine, _ones([observe(0.0), observe(1.0), observe(3.0)]), sigma=1.5, start=0.7, n=n)
    for column, span in ((1, 0.3), (2, 2.3)):
        ratio = f[:, column].var() / (1.5**2 * span)
        assert abs(ratio - 1.0) < QUANTILE * math.sqrt(2.0 / n)
        assert stats.kstest((f[:, column] - 1.0) / (1.5 * math.sqrt(span)), "norm").pvalue > FALSE_ALARM


def test_doses_infusions_and_resets_are_hit_exactly(line):
    design = _ones(
        [
            observe(0.0),
            bolus(0.505, 3.0),
            observe(0.505),
            infusion(1.0, 4.0, 0.777),
            observe(1.3885),
            observe(2.0),
            reset(2.5),
            observe(2.5),
            observe(0.5),
            bolus(0.7, 1.0),
            observe(0.9),
        ]
    )
    f, _ = _follow(line, design)
    expected = [1.0, 4.0, 6.0, 8.0, 1.0, 1.0, 2.0]
    np.testing.assert_allclose(f, np.tile(expected, (3, 1)), rtol=1e-12)


def test_a_dose_arrives_after_its_lag(line):
    f, _ = _follow(line, _ones([bolus(0.0, 3.0), observe(0.1), observe(0.2), observe(0.3)]), lag=0.2)
    np.testing.assert_allclose(f[0], [1.0, 4.0, 4.0], rtol=1e-12)


def test_covariates_act_from_their_record_on(line):
    f, _ = _follow(
        line, [observe(0.0, 2.0), observe(1.0, 5.0), observe(1.5, 0.0), observe(9.0, 1.0)], speed=1.0
    )
    np.testing.assert_allclose(f[0], [1.0, 3.0, 5.5, 5.5], rtol=1e-12)


def test_the_time_of_a_step_is_that_of_its_beginning():
    engine = _build(
        LINE,
        lambda t, y, p: (t * p.weight, 0),
        lambda t, y, p: (p.sigma, p.decay + p.lag),
        0.1,
        start=lambda p: p.start * p.speed,
    )
    f, _ = _simulate(
        engine, [1.0, 0.0, 0.25, 0.0, 0.0], _ones([observe(0.0), observe(1.0)]), 3, covariates=True
    )
    # A half step from 0.25, then steps from 0.3 on.
    expected = 0.25 * 0.05 + 0.1 * np.arange(3, 10).sum() * 0.1
    np.testing.assert_allclose(f[:, 1], expected, rtol=1e-12)


def test_a_state_stays_at_zero_or_becomes_invalid_when_noise_makes_it_negative():
    def engine(**options):
        return _build(
            GBM,
            lambda t, y, p: -p.mu + 0 * y.y,
            lambda t, y, p: p.sigma * sqrt(y.y),
            0.1,
            initial=lambda p: (1.0,),
            **options,
        )

    design = [observe(0.0), observe(3.0)]
    kept, status = _simulate(engine(non_negative=("y",)), [1.0, 0.5], design, 64)
    assert (status == SolveStatus.OK).all()
    assert (kept[:, 1] >= 0.0).all() and (kept[:, 1] == 0.0).any()
    lost, status = _simulate(engine(), [1.0, 0.5], design, 64)
    assert (status == SolveStatus.NON_FINITE).all()
    assert np.isnan(lost[:, 1]).all()


def test_a_stiff_row_takes_more_steps_and_reaches_its_equilibrium(line):
    """At rate 1000 steps of 0.01 would multiply the distance from equilibrium by -9."""
    f, status = _follow(line, _ones([observe(0.0), observe(0.5), observe(1.0)]), speed=500.0, decay=1000.0)
    assert (status == SolveStatus.OK).all()
    np.testing.assert_allclose(f[:, 1:], 0.5, rtol=1e-12)


def test_a_nonlinear_drift_gets_shorter_steps_when_its_state_makes_it_fast():
    """y' = -y^3 from 100: |J| = 30 000 at first, a step of 0.01 would explode; y(1) = (2 + 1e-4)^-1/2.

    A step adds 2 h + 3 h^2 y^2 + ... to u = y^-2 instead of 2 h. With 3 y^2 h <= 1/2 and h <= 0.01 the excess
    adds up to less than 0.5 * 0.03 + 0.03 * ln(33) / 2 < 0.07 of u(1) = 2: 1.8 % of y, doubled for the rest.
    """
    engine = _build(
        GBM, lambda t, y, p: -p.mu * y.y**3, lambda t, y, p: p.sigma, 0.01, initial=lambda p: (100.0,)
    )
    f, status = _simulate(engine, [1.0, 0.0], [observe(0.0), observe(1.0)], 2)
    assert (status == SolveStatus.OK).all()
    np.testing.assert_allclose(f[:, 1], (2.0 + 1e-4) ** -0.5, rtol=0.036)


@pytest.mark.parametrize(
    ("psi", "expected"),
    [
        ({"decay": 1e12}, SolveStatus.MAX_STEPS),
        ({"decay": -1e6}, SolveStatus.MAX_STEPS),
        ({"decay": -400.0, "speed": 1.0}, SolveStatus.NON_FINITE),
        ({"speed": math.nan}, SolveStatus.NON_FINITE),
        ({"sigma": math.inf}, SolveStatus.NON_FINITE),
        ({"start": math.nan}, SolveStatus.INVALID_ENTRY),
        ({"start": -1e9}, SolveStatus.MAX_STEPS),
        ({"lag": -1.0}, SolveStatus.INVALID_ENTRY),
    ],
)
def test_absurd_parameters_give_a_status_and_leave_neighbours_alone(line, psi, expected):
    design = _ones([bolus(0.0, 1.0), observe(0.0), observe(3.0)])
    plain = [1.0, 0.5, 0.0, 0.3, 0.0]
    absurd = [
        {"decay": 0.3, **psi}.get(name, value) for name, value in zip(LINE.parameters, plain, strict=True)
    ]
    table = np.tile(plain, (70, 1))
    table[[0, 33, 69]] = absurd
    engine = line
    f, status = engine.simulate(make_rows(table, [design], covariates=True), KEY, np.arange(70))
    clean, _ = engine.simulate(
        make_rows(np.tile(plain, (70, 1)), [design], covariates=True), KEY, np.arange(70)
    )
    hurt = np.isin(np.arange(70), [0, 33, 69])
    assert (status[hurt] == expected).all()
    assert np.isnan(f[hurt, 1]).all()
    np.testing.assert_array_equal(f[~hurt], clean[~hurt])


def test_bytes_do_not_depend_on_threads_chunks_order_neighbours_or_subset(mrna, monkeypatch):
    n = 230
    rng = np.random.default_rng(2)
    psi = np.exp(rng.normal([-1.0, -1.0, 0.0, 4.0, 0.0], 0.7, (n, 5)))
    psi[::17, 0] = 120.0  # more steps than dt asks for
    designs = [[observe(0.0), observe(1.0), observe(2.0)]] + [
        [observe(0.0), bolus(t, 30.0), observe(t + 0.3), observe(2.5)] for t in (0.4, 0.731, 1.9)
    ]
    index = np.where(np.arange(n) < 100, 0, rng.integers(0, 4, n))
    rows = make_rows(psi, designs, index)
    ids = np.arange(n) + 2**34
    whole, status = mrna.simulate(rows, KEY, ids)
    assert (status == SolveStatus.OK).all()
    monkeypatch.setattr(threads, "CHUNK_ROWS", 64)
    monkeypatch.setattr(random_rows, "PIECE_ROWS", 41)
    monkeypatch.setattr(threads.config, "NUMBA_NUM_THREADS", 2)
    for some in (np.arange(n), rng.permutation(n), np.arange(77, n), np.array([3])):
        part = make_rows(psi[some], designs, index[some])
        found, _ = mrna.simulate(part, KEY, ids[some])
        np.testing.assert_array_equal(found, whole[some])
    other, _ = mrna.simulate(rows, (21, 23), ids)
    assert (other[:, 2] != whole[:, 2]).any()


def test_correlated_noise_is_traced_as_rows():
    names = Names(("a", "b"), ("rho",))
    engine = _build(
        names,
        lambda t, y, p: (0, 0),
        lambda t, y, p: ((1, 0, 0), (p.rho, 1, 0)),
        0.5,
        lambda t, y, p: y.b - p.rho * y.a,
    )
    n = 5000
    f, _ = _simulate(engine, [3.0], [observe(0.0), observe(2.0)], n)
    # What is left of b is its own motion of variance 2.
    assert stats.kstest(f[:, 1] / math.sqrt(2.0), "norm").pvalue > FALSE_ALARM


def test_steady_state_doses_are_refused(line):
    with pytest.raises(DesignError) as refused:
        _follow(line, _ones([bolus(0.0, 5.0, ss=1), observe(1.0)]))
    assert refused.value.code == "E_DESIGN_SS_STOCHASTIC"


@pytest.mark.parametrize(
    ("diffusion", "options", "code"),
    [
        (lambda t, y, p: (p.rho,), {}, "E_MODEL_DIFFUSION"),
        (lambda t, y, p: ((p.rho,), (1, 0)), {}, "E_MODEL_DIFFUSION"),
        (lambda t, y, p: (p.rho, (1, 0)), {}, "E_MODEL_DIFFUSION"),
        (lambda t, y, p: ((), ()), {}, "E_MODEL_DIFFUSION"),
        (lambda t, y, p: (p.rho * y.b, y.b), {"method": "milstein"}, "E_MODEL_MILSTEIN"),
        (lambda t, y, p: ((p.rho, 0), (1, y.b)), {"method": "milstein"}, "E_MODEL_MILSTEIN"),
        (lambda t, y, p: ((p.rho,), (1,)), {"method": "milstein"}, "E_MODEL_MILSTEIN"),
        (lambda t, y, p: (p.rho, 1), {"method": "heun"}, "E_MODEL_SDE_OPTION"),
        (lambda t, y, p: (p.rho, 1), {"dt": 0.0}, "E_MODEL_SDE_OPTION"),
        (lambda t, y, p: (p.rho, 1), {"non_negative": ("c",)}, "E_MODEL_SDE_OPTION"),
        (lambda t, y, p: (p.rho, 1), {"max_steps": 0}, "E_MODEL_SDE_OPTION"),
    ],
)
def test_an_sde_is_refused_when_it_cannot_be_simulated(diffusion, options, code):
    given = {"dt": 0.1, **options}
    with pytest.raises(ModelError) as refused:
        _build(Names(("a", "b"), ("rho",)), lambda t, y, p: (exp(-y.a), 0), diffusion, **given)
    assert refused.value.code == code


def test_rows_that_start_soon_after_zero_share_their_clock():
    """Lanes whose first interval had its own number of steps would never meet an event together again."""
    floats = np.zeros((1, 1, 2))
    floats[0, 0, 0] = 0.5
    n = 4
    paths = SimpleNamespace(
        floats=floats, list_index=np.zeros(n, dtype=np.int64), start=np.array([0.1, 3.0, -1.0, -np.inf])
    )
    np.testing.assert_array_equal(_beginnings(paths, 0.01), [0.0, 0.0, -1.0, 0.5])
    # A wait of more than 64 steps costs more than it brings.
    np.testing.assert_array_equal(_beginnings(paths, 0.001), [0.1, 0.5, -1.0, 0.5])
