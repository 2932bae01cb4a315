"""Truths about the shipped compartment models: formulas, balances, published values."""

import numpy as np
import pytest
from scipy.special import gammainc

from amortnlme.data.design import Design, Dose
from amortnlme.model.registry import load_model


def predict(model, design, covariates=None, **changes):
    """Predict at the typical parameters, some of them replaced."""
    space = model.parameters
    psi = space.to_psi(space.typical_phi)
    for name, value in changes.items():
        psi[space.index(name)] = value
    prediction = model.predict(space.to_phi(psi)[None], design, covariates)
    assert prediction.status[0] == 0
    return prediction.f[0]


def test_one_compartment_infusion_follows_its_formula():
    times = np.array([0.5, 1.0, 2.0, 3.0, 10.0])
    found = predict(
        load_model("one_compartment_infusion"), Design.from_doses([Dose(0, 100, duration=2.0)], times)
    )
    k, rate = 5.0 / 40.0, 50.0
    running = rate / 5.0 * (1 - np.exp(-k * np.minimum(times, 2.0)))
    np.testing.assert_allclose(found, running * np.exp(-k * np.maximum(times - 2.0, 0.0)), rtol=1e-12)


def test_two_compartment_oral_is_shifted_by_its_lag():
    model = load_model("two_compartment_oral")
    times = np.array([0.5, 1.0, 3.0, 8.0, 24.0])
    prompt = predict(model, Design.from_doses([Dose(0, 100)], times), tlag=1e-12)
    late = predict(model, Design.from_doses([Dose(0, 100)], [0.4, *(times + 0.75)]), tlag=0.75)
    assert late[0] == 0.0
    np.testing.assert_allclose(late[1:], prompt, rtol=1e-9)


def test_transit_chain_absorbs_with_a_gamma_distribution():
    """Without elimination the central amount is the dose times the gamma distribution of shape 4."""
    times = np.array([0.2, 1.0, 2.0, 5.0])
    found = predict(
        load_model("one_compartment_transit"), Design.from_doses([Dose(0, 100)], times), CL=1e-9, V=1.0
    )
    np.testing.assert_allclose(found, 100.0 * gammainc(4, 4.0 / 1.5 * times), rtol=1e-8)


def test_sunitinib_reaches_the_plateau_of_its_clearances():
    """Under a constant input both analytes level off at input / clearance, whatever the volumes."""
    model = load_model("sunitinib")
    rate, weight = 50.0 / 24.0, 100.0
    times = [9e5, 9e5]
    design = Design.from_doses([Dose(0, rate * 1e6, duration=1e6)], times, [1, 2])
    found = predict(model, design, {"weight": weight})
    scale = (weight / 70.0) ** 0.75
    expected = np.array([1e3 * rate / (33.9 * scale), 1e3 * 0.21 * rate / (16.5 * scale)])
    np.testing.assert_allclose(found, np.log(expected + 0.001), rtol=1e-9)


def test_sunitinib_accumulates_over_daily_doses_and_washes_out_in_the_break():
    model = load_model("sunitinib")
    days = np.array([1, 14, 28, 42]) * 24.0
    doses = [Dose(0, 50, addl=27, ii=24.0)]
    parent, metabolite = (
        np.exp(predict(model, Design.from_doses(doses, days - 0.1, output), {"weight": 70.0}))
        for output in (1, 2)
    )
    for analyte in (parent, metabolite):
        assert analyte[0] < analyte[1] < analyte[2] and analyte[3] < 0.2 * analyte[2]
    assert 40.0 < parent[2] < 70.0  # trough in ng/mL, the therapeutic range


def test_sunitinib_keeps_exchange_and_volume_of_the_metabolite_apart():
    model = load_model("sunitinib")
    design = Design.from_doses([Dose(0, 50)], np.linspace(24, 240, 8), 2)
    base = predict(model, design, {"weight": 70.0})
    other = [predict(model, design, {"weight": 70.0}, **change) for change in ({"Q34": 5.0}, {"V4": 1200.0})]
    assert all(np.abs(o - base).max() > 0.01 for o in other)
    assert np.abs(other[0] - other[1]).max() > 0.01


# Three virtual patients of the published simulation (ME-DCM, CC BY 4.0): dose (rate x duration), weight, VWF,
# times, and the noise-free typical prediction. Tsit5 made them at a relative tolerance of 1e-3.
PUBLISHED = [
    (1750.0, 67.32981, 85.342292, [5.464981, 24.429934, 44.344599], [0.519151, 0.208456, 0.092481]),
    (2250.0, 85.82769, 244.514622, [4.113530, 25.462175, 45.563882], [0.670660, 0.328016, 0.190538]),
    (1750.0, 70.26524, 172.357676, [3.183423, 16.337215, 48.657926], [0.644500, 0.361951, 0.140693]),
]


@pytest.mark.parametrize("row", PUBLISHED)
def test_factor_viii_reproduces_the_published_typical_predictions(row):
    dose, weight, vwf, times, expected = row
    design = Design.from_doses([Dose(0, dose, duration=1 / 60)], times)
    found = predict(load_model("factor_viii"), design, {"weight": weight, "vwf": vwf})
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_factor_viii_is_cleared_faster_without_von_willebrand_factor():
    model = load_model("factor_viii")
    design = Design.from_doses([Dose(0, 2000, duration=0.1)], [48.0])
    low, high = (predict(model, design, {"weight": 70.0, "vwf": vwf})[0] for vwf in (40.0, 200.0))
    assert low < 0.5 * high
