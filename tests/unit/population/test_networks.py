"""Networks of covariates: derivatives, reference values, branches, files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from unit.population.spaces import SPACE

from amortnlme.core.errors import PopulationError
from amortnlme.population.effects import CovariateEffect, RandomEffects
from amortnlme.population.networks import ACTIVATIONS, NetworkEffect, NetworkInput, initial_weights
from amortnlme.population.population_model import PopulationModel
from amortnlme.population.starts import with_weights
from amortnlme.population.toml import parse_population, to_toml

RNG = np.random.default_rng(0)
TABLE = pd.DataFrame(
    {"weight": RNG.uniform(10.0, 100.0, 8), "vwf": RNG.uniform(40.0, 200.0, 8)},
    index=pd.Index([f"s{i}" for i in range(8)]),
)
WEIGHT, VWF = NetworkInput("weight", "log", "median", "sd"), NetworkInput("vwf", "linear", 100.0, 70.0)
POPULATION = PopulationModel(
    random_effects=RandomEffects(("ka", "ke"), "full"),
    covariates=(CovariateEffect("ke", "weight"),),
    networks=(
        NetworkEffect(("ka", "V"), (WEIGHT,), hidden=(3,), ridge=2.0),
        NetworkEffect(("ke",), (VWF, WEIGHT), hidden=(4, 2), activation="tanh", head="softplus", ridge=0.5),
    ),
)


def _bound():
    return POPULATION.bind(TABLE, SPACE)


@pytest.mark.parametrize("head", ["linear", "softplus"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_jacobian_is_the_derivative_of_the_outputs(activation, head):
    effect = NetworkEffect(("ka", "ke"), (WEIGHT, VWF), hidden=(5, 3), activation=activation, head=head)
    network = effect.bind(TABLE)
    weights = np.random.default_rng(1).normal(size=effect.n_weights)
    outputs, jacobian = network.outputs_and_jacobian(weights)
    assert outputs.shape == (8, 2) and jacobian.shape == (8, 2, effect.n_weights)
    h = 1e-6
    numeric = [
        (network.outputs(weights + h * e) - network.outputs(weights - h * e)) / (2 * h)
        for e in np.eye(effect.n_weights)
    ]
    # Sharp activations have third derivatives of a few hundred: h^2 of that, and rounding 1e-16 / h.
    np.testing.assert_allclose(jacobian, np.moveaxis(numeric, 0, 2), atol=1e-7)


RISING = replace(WEIGHT, direction="rising")
FALLING = NetworkInput("vwf", "linear", 100.0, 70.0, "falling")


@pytest.mark.parametrize("head", ["linear", "softplus"])
@pytest.mark.parametrize("activation", sorted(set(ACTIVATIONS) - {"swish"}))
def test_directions_hold_for_any_weights_and_derivatives_are_exact(activation, head):
    effect = NetworkEffect(("ka", "ke"), (RISING, FALLING), hidden=(5, 3), activation=activation, head=head)
    rng = np.random.default_rng(2)
    grid = pd.DataFrame({"weight": np.linspace(10, 100, 40), "vwf": 90.0})
    other = pd.DataFrame({"weight": 50.0, "vwf": np.linspace(40, 200, 40)})
    network = effect.bind(TABLE)
    for _ in range(5):
        weights = rng.normal(size=effect.n_weights)
        assert (np.diff(network.for_subjects(grid).outputs(weights), axis=0) >= 0).all()
        assert (np.diff(network.for_subjects(other).outputs(weights), axis=0) <= 0).all()
    h, (_, jacobian) = 1e-6, network.outputs_and_jacobian(weights)
    numeric = [
        (network.outputs(weights + h * e) - network.outputs(weights - h * e)) / (2 * h)
        for e in np.eye(effect.n_weights)
    ]
    # h^2 times third derivatives of up to 1e4 (sharp activations of squares), and rounding 1e-16 / h.
    np.testing.assert_allclose(jacobian, np.moveaxis(numeric, 0, 2), atol=1e-7)


def test_a_free_input_beside_a_directed_one_may_rise_and_fall():
    effect = NetworkEffect(("ka",), (RISING, VWF), hidden=(6,), activation="tanh")
    other = pd.DataFrame({"weight": 50.0, "vwf": np.linspace(40, 200, 40)})
    bound, rng = effect.bind(TABLE).for_subjects(other), np.random.default_rng(3)
    steps = [np.diff(bound.outputs(rng.normal(size=effect.n_weights))[:, 0]) for _ in range(20)]
    assert any((s > 0).any() for s in steps) and any((s < 0).any() for s in steps)


def test_starting_weights_of_a_monotone_network_are_off_the_point_where_its_gradient_vanishes():
    effect = NetworkEffect(("ka",), (RISING, FALLING), hidden=(6,), activation="tanh")
    weights = initial_weights(effect.bind(TABLE), np.zeros(1), np.random.default_rng(4))
    assert (weights[effect.signs != 0] > 0).all()
    assert effect.signs[:12].tolist() == [1] * 6 + [-1] * 6


def test_weights_stand_between_coefficients_and_omega_and_have_names():
    bound = _bound()
    first, second = (n.effect for n in bound.networks)
    assert (first.n_weights, second.n_weights) == (3 + 3 + 6, 8 + 4 + 8 + 2 + 2 + 1)
    assert bound.names[5:7] == ("net_ka_V~weight_kernel1_0_0", "net_ka_V~weight_kernel1_0_1")
    assert bound.names[bound.weight_slice][-1] == "net_ke~vwf_weight_offset3_0"
    assert len(set(bound.names)) == bound.n_x
    assert bound.names[bound.chol_slice] == ("chol_ka", "chol_ke_ka", "chol_ke")
    is_kernel = np.array(["kernel" in name for name in bound.names])
    assert (bound.penalty[~is_kernel] == 0).all() and set(bound.penalty[is_kernel]) == {2.0, 0.5}


def test_pullback_is_the_derivative_of_unpack_with_networks():
    bound, rng = _bound(), np.random.default_rng(2)
    x, dmu, dfactor = rng.normal(size=bound.n_x), rng.normal(size=(8, 4)), rng.normal(size=(8, 4, 2))

    def rows(v):
        mu, factor = bound.unpack(v)
        return (dmu * mu).sum(axis=1) + (dfactor * factor).sum(axis=(1, 2))

    h = 1e-6
    numeric = np.transpose([(rows(x + h * e) - rows(x - h * e)) / (2 * h) for e in np.eye(bound.n_x)])
    np.testing.assert_allclose(bound.pullback(dmu, dfactor, x), numeric, atol=2e-7)
    summed = bound.pullback(dmu, dfactor.sum(axis=0), x)
    np.testing.assert_allclose(summed, numeric.sum(axis=0), atol=2e-6)


def test_a_covariate_moves_only_the_parameters_of_its_branch():
    bound, x = _bound(), np.random.default_rng(3).normal(size=_bound().n_x)
    other = bound.for_subjects(TABLE.assign(vwf=TABLE["vwf"] + 30.0))
    change = other.unpack(x)[0] - bound.unpack(x)[0]
    assert (change[:, [0, 2, 3]] == 0).all()
    assert (change[:, 1] != 0).all()


def test_linear_head_is_zero_at_the_reference_so_that_typical_values_keep_their_meaning():
    bound, x = _bound(), np.random.default_rng(4).normal(size=_bound().n_x)
    reference = pd.DataFrame({"weight": [float(TABLE["weight"].median())], "vwf": [100.0]}, index=["r"])
    mu = bound.for_subjects(reference).unpack(x)[0]
    np.testing.assert_allclose(mu[0, [0, 2]], bound.typical_phi(x)[[0, 2]], atol=1e-12)


def test_other_subjects_are_seen_with_the_reference_values_of_the_fit():
    bound, x = _bound(), np.random.default_rng(5).normal(size=_bound().n_x)
    part = bound.for_subjects(TABLE.iloc[[3]])
    np.testing.assert_allclose(part.unpack(x)[0], bound.unpack(x)[0][[3]], atol=1e-12)
    assert part.subject_ids == ("s3",)


def test_starting_weights_supply_what_fixed_typical_values_leave():
    effect = NetworkEffect(("ka",), (WEIGHT,), head="softplus")
    population = replace(POPULATION, covariates=(), networks=(effect,), fixed={"ka": 1.0})
    bound = population.bind(TABLE, SPACE)
    x = with_weights(
        bound, np.zeros(bound.n_x), np.tile([-1.5, 0.0, 0.0, 0.0], (8, 1)), np.random.default_rng(6)
    )
    assert abs(bound.unpack(x)[0][:, 0].mean() + 1.5) < 0.7
    weights = initial_weights(bound.networks[0], np.array([-1.5]), np.random.default_rng(6))
    np.testing.assert_allclose(x[bound.weight_slice], weights)


def test_toml_round_trip_keeps_networks():
    assert parse_population(to_toml(POPULATION)) == POPULATION
    directed = replace(POPULATION, networks=(NetworkEffect(("ke",), (FALLING,), activation="tanh"),))
    assert parse_population(to_toml(directed)) == directed


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"hidden": ()}, "E_POP_NETWORK"),
        ({"activation": "relu"}, "E_POP_NETWORK"),
        ({"head": "exp"}, "E_POP_NETWORK"),
        ({"ridge": -1.0}, "E_POP_NETWORK"),
        ({"on": ()}, "E_POP_NETWORK"),
        ({"inputs": (WEIGHT, WEIGHT)}, "E_POP_NETWORK"),
        ({"inputs": (replace(WEIGHT, direction="rising"),), "activation": "swish"}, "E_POP_NETWORK"),
    ],
)
def test_what_makes_no_network_is_refused(change, code):
    with pytest.raises(PopulationError, match=code):
        replace(POPULATION.networks[0], **change)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('[[network]]\non = ["ka"]', "E_POP_MISSING_KEY"),
        ('[[network]]\non = ["ka"]\ninputs = [{ covariate = "w", power = 2 }]', "E_POP_UNKNOWN_KEY"),
        ('[[network]]\non = ["ka"]\ninputs = "w"', "E_POP_TYPE"),
        ('[[network]]\non = ["ka"]\ninputs = [{ covariate = "w" }]\nridge = "2"', "E_POP_TYPE"),
        ('[[network]]\non = ["ka"]\ninputs = [{ covariate = "w", scale = 0.0 }]', "E_POP_NETWORK"),
        ('[[network]]\non = ["ka"]\ninputs = [{ covariate = "w", direction = "up" }]', "E_POP_NETWORK"),
        ('[[network]]\non = ["nothing"]\ninputs = [{ covariate = "w" }]', "E_POP_UNKNOWN_PARAMETER"),
    ],
)
def test_faulty_networks_in_a_file_are_refused(text, code):
    head = 'parameters = ["ka", "ke"]\n[random_effects]\non = ["ka"]\n'
    with pytest.raises(PopulationError, match=code):
        parse_population(head + text)
