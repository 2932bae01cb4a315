"""Markov jump processes against exact distributions, and what their engine refuses or flags."""

import math

import numpy as np
import pytest
from scipy import stats
from unit.solve.random_rows import bolus, infusion, make_rows, observe, reset

from amortnlme.core.errors import DesignError, ModelError
from amortnlme.core.status import SolveStatus
from amortnlme.model.dynamics import Jump
from amortnlme.solve import random_rows, threads
from amortnlme.solve.jump import stoichiometry_matrix
from amortnlme.solve.trace import Names, trace_output

FALSE_ALARM = 1e-4
QUANTILE = float(stats.norm.ppf(1.0 - FALSE_ALARM / 2.0))
KEY = (11, 12)
NAMES = Names(("x", "y"), ("birth", "death", "pair", "x0"), ("weight",))
N = 20_000


def _propensities(t, y, p):
    return p.birth, p.death * y.x, 0.5 * p.pair * y.x * (y.x - 1)


STOICHIOMETRY = ({"x": 1}, {"x": -1}, {"x": -2, "y": 1})


def _build(propensities=_propensities, output=lambda t, y, p: y.x, **options):
    dynamics = Jump(propensities, STOICHIOMETRY, "x", initial=lambda p: (p.x0, 0), **options)
    equations = dynamics.trace(NAMES)
    return dynamics.build(equations, [trace_output(output, NAMES, equations.system.symbols, "f")])


@pytest.fixture(scope="module")
def exact():
    return _build(output=lambda t, y, p: y.x + 0 * y.y)


@pytest.fixture(scope="module")
def leaping():
    return _build(method="tau_leaping", tau=0.05)


def _simulate(engine, psi, design, n=N, **more):
    rows = make_rows(np.tile(psi, (n, 1)), [design], covariates=True, **more)
    return engine.simulate(rows, KEY, np.arange(n))


def _chi_square(found, distribution):
    edges = np.unique(distribution.ppf(np.linspace(0.002, 0.998, 40)))
    expected = found.size * np.diff(np.concatenate([[0.0], distribution.cdf(edges), [1.0]]))
    observed = np.bincount(np.searchsorted(edges, found), minlength=expected.size)
    while expected[-1] < 20.0:
        expected[-2] += expected[-1]
        observed[-2] += observed[-1]
        expected, observed = expected[:-1], observed[:-1]
    return stats.chisquare(observed, expected).pvalue


@pytest.mark.statistical
def test_immigration_and_death_have_their_poisson_distribution(exact):
    """Null: Poisson with mean birth/death (1 - exp(-death t)); n = 20 000, false-alarm rate 1e-4 per time."""
    f, status = _simulate(exact, [6.0, 0.5, 0.0, 0.0], [observe(0.0), observe(0.7), observe(5.0)])
    assert (status == SolveStatus.OK).all()
    assert (f[:, 0] == 0.0).all()
    for column, time in ((1, 0.7), (2, 5.0)):
        assert _chi_square(f[:, column], stats.poisson(12.0 * (1.0 - math.exp(-0.5 * time)))) > FALSE_ALARM


@pytest.mark.statistical
def test_pure_death_has_its_binomial_distribution_when_a_dose_is_given(exact):
    """Null: binomial survivors of 20, then of the dose of 30 as well; n = 20 000, false-alarm rate 1e-4."""
    design = [observe(0.0), bolus(1.0, 29.7), observe(2.5)]
    f, _ = _simulate(exact, [0.0, 0.4, 0.0, 20.0], design)
    first, second = stats.binom(20, math.exp(-1.0)), stats.binom(30, math.exp(-0.6))
    pmf = np.convolve(first.pmf(np.arange(21)), second.pmf(np.arange(31)))
    both = stats.rv_discrete(values=(np.arange(51), pmf / pmf.sum()))
    assert _chi_square(f[:, 1], both) > FALSE_ALARM


@pytest.mark.statistical
@pytest.mark.parametrize("kind", ["exact", "leaping"])
def test_an_infusion_is_a_stream_of_single_arrivals(kind, request):
    """Null: Poisson numbers of arrivals, none before and after; n = 20 000, false-alarm rate 1e-4."""
    design = [observe(0.0), observe(1.0), infusion(1.0, 30.0, 2.0), observe(2.0), observe(5.0)]
    f, _ = _simulate(request.getfixturevalue(kind), [0.0, 0.0, 0.0, 2.0], design)
    assert (f[:, 1] == 2.0).all()
    assert _chi_square(f[:, 2] - 2.0, stats.poisson(15.0)) > FALSE_ALARM
    assert _chi_square(f[:, 3] - 2.0, stats.poisson(30.0)) > FALSE_ALARM


@pytest.mark.statistical
def test_leaps_have_the_mean_of_their_recursion_and_approach_the_exact_mean(leaping):
    """Null: E x = x0 (1 - death tau)^n, exact for leaps that are never refused; n = 20 000, 1e-4.

    The recursion is within death^2 tau t / 2 of exp(-death t), relative: first order in tau.
    """
    f, status = _simulate(leaping, [0.0, 0.5, 0.0, 400.0], [observe(0.0), observe(2.0)])
    assert (status == SolveStatus.OK).all()
    expected = 400.0 * (1.0 - 0.5 * 0.05) ** 40
    assert abs(f[:, 1].mean() - expected) < QUANTILE * f[:, 1].std() / math.sqrt(N)
    assert abs(expected / (400.0 * math.exp(-1.0)) - 1.0) < 0.5**2 * 0.05 * 2.0 / 2.0 * 1.1


def test_leaps_never_make_a_state_negative_when_few_molecules_are_left():
    engine = _build(method="tau_leaping", tau=1.0)
    f, status = _simulate(engine, [0.0, 0.9, 0.3, 7.0], [observe(0.5), observe(3.0), observe(9.0)], n=2000)
    assert (status == SolveStatus.OK).all()
    assert f.min() >= 0.0
    assert (f == np.rint(f)).all()


@pytest.mark.parametrize("kind", ["ssa", "tau_leaping"])
def test_molecules_are_conserved_when_two_join(kind):
    tau = None if kind == "ssa" else 0.01
    engine = _build(output=lambda t, y, p: y.x + 2 * y.y, method=kind, tau=tau)
    f, status = _simulate(engine, [0.0, 0.0, 0.1, 40.0], [observe(0.0), observe(1.0), observe(50.0)], n=200)
    assert (status == SolveStatus.OK).all()
    assert (f == 40.0).all()


def test_a_reset_restores_the_initial_numbers_and_stops_infusions(exact):
    design = [infusion(0.0, 1000.0, 10.0), observe(2.0), reset(3.0), observe(3.0), observe(1.0), observe(4.0)]
    f, _ = _simulate(exact, [0.0, 0.0, 0.0, 5.0], design, n=50)
    assert (f[:, 0] > 5.0).all()
    assert (f[:, 1:] == 5.0).all()


@pytest.mark.statistical
def test_covariates_change_the_rates_when_they_change():
    """Null: Poisson with the mean of the two segments; n = 20 000, false-alarm rate 1e-4."""
    engine = _build(lambda t, y, p: (p.birth * p.weight, p.death * y.x, p.pair * y.x))
    f, _ = _simulate(engine, [2.0, 0.0, 0.0, 0.0], [observe(0.0, 1.0), observe(1.0, 5.0), observe(3.0, 0.0)])
    assert _chi_square(f[:, 2], stats.poisson(2.0 * (1.0 * 1.0 + 2.0 * 5.0))) > FALSE_ALARM


def test_states_wait_for_their_start_and_a_late_dose_for_its_lag():
    dynamics = Jump(
        _propensities,
        STOICHIOMETRY,
        "x",
        initial=lambda p: (p.x0, 0),
        start=lambda p: 2.0 + 0 * p.pair,
        lag={"x": lambda p: 1.5 * p.weight},
    )
    equations = dynamics.trace(NAMES)
    output = trace_output(lambda t, y, p: y.x, NAMES, equations.system.symbols, "f")
    engine = dynamics.build(equations, [output])
    design = [bolus(0.0, 3.0, covariate=1.0), observe(1.0, 1.0), observe(1.9, 1.0), observe(40.0, 1.0)]
    f, _ = _simulate(engine, [0.0, 2.0, 0.0, 9.0], design, n=100)
    assert (f == np.array([9.0, 12.0, 0.0])).all()


def test_bytes_do_not_depend_on_threads_chunks_order_or_subset(exact, monkeypatch):
    n = 300
    rng = np.random.default_rng(1)
    psi = np.column_stack([rng.uniform(1, 9, n), rng.uniform(0.2, 1, n), np.zeros(n), rng.integers(0, 9, n)])
    rows = make_rows(
        psi,
        [[observe(0.0), observe(1.0), observe(4.0)], [observe(0.0), observe(2.0)]],
        rng.integers(0, 2, n),
        covariates=True,
    )
    ids = np.arange(n) + 2**33
    whole, _ = exact.simulate(rows, KEY, ids)
    monkeypatch.setattr(threads, "CHUNK_ROWS", 64)
    monkeypatch.setattr(random_rows, "PIECE_ROWS", 17)
    monkeypatch.setattr(threads.config, "NUMBA_NUM_THREADS", 2)
    some = rng.permutation(n)[:200]
    part = type(rows)(
        psi[some], rows.schedule, rows.design_index[some], rows.time, rows.output, rows.covariates
    )
    found, _ = exact.simulate(part, KEY, ids[some])
    np.testing.assert_array_equal(found, whole[some])
    other, _ = exact.simulate(rows, (11, 13), ids)
    assert (other != whole)[:, 1].any()


@pytest.mark.parametrize(
    ("psi", "expected"),
    [
        ([1.0, -0.5, 0.0, 5.0], SolveStatus.NON_FINITE),
        ([1e30, 0.0, 0.0, 0.0], SolveStatus.MAX_STEPS),
        ([math.nan, 0.0, 0.0, 0.0], SolveStatus.NON_FINITE),
        ([math.inf, 0.0, 0.0, 0.0], SolveStatus.NON_FINITE),
        ([1.0, 0.0, 0.0, -3.0], SolveStatus.NON_FINITE),
        ([1.0, 0.0, 0.0, 1e300], SolveStatus.NON_FINITE),
    ],
)
@pytest.mark.parametrize("method", ["ssa", "tau_leaping"])
def test_absurd_parameters_give_a_status(psi, expected, method):
    engine = _build(method=method, tau=None if method == "ssa" else 0.001, max_reactions=1000)
    f, status = _simulate(engine, psi, [observe(0.0), observe(3.0)], n=3)
    if method == "tau_leaping" and psi[0] == 1e30:
        expected = SolveStatus.NON_FINITE  # numbers that are no longer exact
    assert (status == expected).all()
    assert np.isnan(f[:, 1]).all()


def test_a_reaction_that_takes_what_is_not_there_ends_the_simulation():
    engine = _build(lambda t, y, p: (p.pair, p.death, p.birth * y.x))
    _, status = _simulate(engine, [0.0, 5.0, 0.0, 1.0], [observe(0.0), observe(9.0)], n=3)
    assert (status == SolveStatus.NON_FINITE).all()


def test_steady_state_doses_are_refused(exact):
    with pytest.raises(DesignError) as refused:
        _simulate(exact, [1.0, 1.0, 0.0, 0.0], [bolus(0.0, 5.0, ss=1), observe(1.0)], n=2)
    assert refused.value.code == "E_DESIGN_SS_STOCHASTIC"


@pytest.mark.parametrize(
    ("stoichiometry", "words"),
    [
        ((), "no reaction"),
        (({},), "no state"),
        (({"x": 0},), "no state"),
        (({"z": 1},), "'z'"),
        (({"x": 0.5},), "whole"),
        (({"x": True},), "whole"),
        (({"x": math.nan},), "whole"),
    ],
)
def test_stoichiometry_is_refused_when_it_makes_no_sense(stoichiometry, words):
    with pytest.raises(ModelError, match=words) as refused:
        stoichiometry_matrix(stoichiometry, NAMES)
    assert refused.value.code == "E_MODEL_STOICHIOMETRY"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"method": "exact"}, "E_MODEL_JUMP_OPTION"),
        ({"method": "tau_leaping"}, "E_MODEL_JUMP_OPTION"),
        ({"method": "tau_leaping", "tau": -1.0}, "E_MODEL_JUMP_OPTION"),
        ({"tau": 0.1}, "E_MODEL_JUMP_OPTION"),
        ({"max_reactions": 0}, "E_MODEL_JUMP_OPTION"),
        ({"propensities": lambda t, y, p: (p.birth * t, p.death * y.x, p.pair * y.x)}, "E_MODEL_JUMP_TIME"),
        ({"propensities": lambda t, y, p: (p.birth, p.death)}, "E_MODEL_PROPENSITIES"),
    ],
)
def test_a_jump_process_is_refused_when_it_cannot_be_simulated(options, code):
    with pytest.raises(ModelError) as refused:
        _build(**options)
    assert refused.value.code == code
