"""Truths about the transfection models: formulas, bounds, published cells, moments."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from unit.model.moving_parts import numbers_of

from amortnlme.core.rng import stream
from amortnlme.data.design import Design
from amortnlme.model.dynamics import Ode
from amortnlme.model.registry import load_model

GRID = Design.from_doses([], np.arange(1, 181) / 6)
TIMES = GRID.observation_times


def simple_formula(psi):
    """Log fluorescence of the simple model, from its solution in exponentials."""
    delta, gamma, k, t0, offset, _ = psi
    after = np.maximum(TIMES - t0, 0.0)
    return np.log(k / (delta - gamma) * (np.exp(-gamma * after) - np.exp(-delta * after)) + offset)


def test_simple_model_follows_its_formula_at_prior_draws():
    """Rates within 1e-3 of each other would cost the formula digits; the draws keep away from that."""
    model = load_model("mrna_transfection_simple")
    phi = model.prior.sample(200, stream(1))
    prediction = model.predict(phi, GRID)
    assert (prediction.status == 0).all()
    expected = np.array([simple_formula(psi) for psi in model.parameters.to_psi(phi)])
    np.testing.assert_allclose(prediction.f, expected, rtol=1e-9, atol=1e-9)


def test_simple_model_is_the_same_when_its_rates_swap():
    model = load_model("mrna_transfection_simple")
    phi = model.prior.sample(50, stream(2))
    swapped = phi[:, [1, 0, 2, 3, 4, 5]]
    np.testing.assert_allclose(
        model.predict(phi, GRID).f, model.predict(swapped, GRID).f, rtol=1e-9, atol=1e-9
    )


def test_simple_model_solved_as_an_ode_agrees_with_its_closed_form():
    """The ODE solver's tolerances are 1e-8 of the protein; an offset far below it would amplify them."""
    model = load_model("mrna_transfection_simple")
    dynamics = model.dynamics
    as_ode = replace(
        model, dynamics=Ode(dynamics.rhs, "mrna", dynamics.initial, dynamics.start, method="rodas5p")
    )
    phi = model.prior.sample(64, stream(3))
    phi[:, 4] = np.maximum(phi[:, 4], -2.0)
    exact, solved = (m.predict_with_sensitivity(phi, GRID) for m in (model, as_ode))
    assert (solved.status == 0).all()
    np.testing.assert_allclose(solved.f, exact.f, atol=1e-6)
    np.testing.assert_allclose(solved.df_dphi, exact.df_dphi, atol=1e-5)


@pytest.mark.parametrize("name", ["mrna_transfection_simple", "mrna_transfection_detailed"])
def test_fluorescence_is_the_offset_before_the_release(name):
    model = load_model(name)
    phi = np.tile(model.parameters.typical_phi, (2, 1))
    phi[:, model.parameters.index("t0")] = np.log([3.05, 40.0])
    prediction = model.predict(phi, GRID)
    assert (prediction.status == 0).all()
    np.testing.assert_allclose(prediction.f[0, :18], np.log(8.0), rtol=1e-12)
    assert (prediction.f[0, 18:] > np.log(8.0)).all()
    np.testing.assert_allclose(prediction.f[1], np.log(8.0), rtol=1e-12)


# Three cells of the synthetic study of Arruda et al. (2024, code under MIT): individual parameters (log) and
# noisy log fluorescence at 5, 10, 20 and 30 h; residual SD 0.0316.
CELLS = [
    (
        [
            np.float64(1.30547),
            np.float64(1.05263),
            np.float64(-1.13422),
            np.float64(13.81551),
            np.float64(0.32094),
            np.float64(2.15737),
            np.float64(-2.88188),
            np.float64(-3.12305),
            np.float64(0.31302),
            np.float64(2.07944),
            np.float64(-3.45388),
        ],
        [11.6092, 11.6455, 11.2741, 10.7564],
    ),
    (
        [
            np.float64(0.57719),
            np.float64(-1.89161),
            np.float64(-0.08778),
            np.float64(13.81552),
            np.float64(1.40957),
            np.float64(1.04263),
            np.float64(-3.98398),
            np.float64(-8.15626),
            np.float64(-1.4109),
            np.float64(2.07944),
            np.float64(-3.45388),
        ],
        [9.4708, 9.5531, 9.4878, 9.5388],
    ),
    (
        [
            np.float64(-0.40538),
            np.float64(-1.24081),
            np.float64(-1.75265),
            np.float64(13.81552),
            np.float64(0.58528),
            np.float64(0.7466),
            np.float64(-1.0235),
            np.float64(-1.99216),
            np.float64(-0.8282),
            np.float64(2.07944),
            np.float64(-3.45388),
        ],
        [13.2464, 13.5849, 13.641, 13.3297],
    ),
]


@pytest.mark.parametrize("cell", CELLS)
def test_detailed_model_explains_published_cells(cell):
    """Four residuals within 4.2 SD each: false-alarm rate 1e-4."""
    model = load_model("mrna_transfection_detailed")
    phi, y = np.array(cell[0]), np.array(cell[1])
    found = model.predict(phi[None], Design.from_doses([], [5.0, 10.0, 20.0, 30.0])).f[0]
    assert (np.abs(found - y) < 4.2 * 0.0316).all()


def test_detailed_model_keeps_its_enzyme_in_bounds_and_never_gains_mrna():
    """From the equations alone, integrated by SciPy to 1e-9 at prior draws."""
    model = load_model("mrna_transfection_detailed")
    for psi in model.parameters.to_psi(model.prior.sample(10, stream(4))):
        p = numbers_of(model, psi)
        path = solve_ivp(
            lambda t, y, p=p: model.dynamics.rhs(t, numbers_of(model, y, "states"), p),
            (0.0, 30.0),
            model.dynamics.initial(p),
            method="LSODA",
            rtol=1e-9,
            atol=1e-12,
        ).y
        mrna, enzyme, ribosomes, _ = path
        total = mrna + p.r0_m0 - ribosomes  # free and bound
        assert (enzyme > 0).all() and (enzyme <= p.e0_m0 * (1 + 1e-8)).all()
        assert (np.diff(total) <= 1e-8).all() and abs(total[0] - 1.0) < 1e-12
        assert (ribosomes <= p.r0_m0 * (1 + 1e-8)).all() and (ribosomes > -1e-9).all()


def test_paths_of_the_sde_differ_and_their_mean_is_the_simple_model():
    """The drift is linear, so the mean solves the simple model; 4.5 SE plus the Euler bias of dt = 0.01 h.

    Null: standardized mean errors at four times, false-alarm rate 3e-5. With rates below 1/h the bias of
    Euler's method is below dt x rate = 1 % of the mean; clamping plays no part at 300 molecules.
    """
    model, simple = load_model("mrna_transfection_sde"), load_model("mrna_transfection_simple")
    n = 4000
    phi = np.tile(model.parameters.typical_phi, (n, 1))
    phi[:, -1] = -40.0  # no residual error
    design = Design.from_doses([], [2.0, 5.0, 12.0, 30.0])
    simulated = model.simulate(phi, design, None, stream(5))
    assert (simulated.status == 0).all()
    values = np.exp(simulated.y) - 8.0
    assert (values.std(axis=0) > 0.01 * values.mean(axis=0)).all()
    assert len(np.unique(simulated.y[:, 2])) == n
    p = numbers_of(model, np.exp(phi[0]))
    same = np.log([p.delta, p.gamma, p.k * p.m0 * p.scale, p.t0, p.offset, 1.0])
    mean = np.exp(simple.predict(same[None], design).f[0]) - 8.0
    error = np.abs(values.mean(axis=0) - mean)
    assert (error < 4.5 * values.std(axis=0) / np.sqrt(n) + 0.01 * mean).all()


def test_another_generator_gives_another_path_and_the_same_one_the_same():
    model = load_model("mrna_transfection_sde")
    phi = model.parameters.typical_phi[None]
    one, again, other = (model.simulate(phi, GRID, None, stream(seed)).y for seed in (6, 6, 7))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
