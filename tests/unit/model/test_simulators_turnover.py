"""Truths about the shipped non-linear models: baselines, limits with a formula, published values."""

import numpy as np

from amortnlme.data.design import Design, Dose
from amortnlme.model.registry import load_model

# Predictions are accurate to about 1e-7 relative (rtol 1e-8 per step); ten times that is allowed.
RTOL = 1e-6


def predict(name, design, **changes):
    """Predict at the typical parameters, some of them replaced."""
    model = load_model(name)
    psi = model.parameters.to_psi(model.parameters.typical_phi)
    for parameter, value in changes.items():
        psi[model.parameters.index(parameter)] = value
    prediction = model.predict(model.parameters.to_phi(psi)[None], design)
    assert prediction.status[0] == 0
    return prediction.f[0]


def test_neonate_without_production_loses_weight_by_a_power_law():
    t = np.array([0.5, 1.0, 3.0, 7.0])
    found = predict("neonatal_weight", Design.from_doses([], t), kin=1e-9)
    np.testing.assert_allclose(found, 3500.0 * (1 + t / 1.7) ** (-0.06 * 1.7), rtol=RTOL)


def test_neonate_without_elimination_gains_weight_once_feeding_sets_in():
    t = np.array([0.5, 1.0, 3.0, 7.0])
    found = predict("neonatal_weight", Design.from_doses([], t), koutmax=1e-12)
    gain = 40.0 * (np.log1p(np.exp(2 * (t - 1.5))) - np.log1p(np.exp(-3.0)))
    np.testing.assert_allclose(found, 3500.0 + gain, rtol=RTOL)


def test_typical_neonate_loses_a_few_percent_and_recovers():
    """As the simulated study: mean weights fall by 4-7 % until day 2-3 and rise afterwards."""
    found = predict("neonatal_weight", Design.from_doses([], np.arange(8.0)))
    lowest = int(found.argmin())
    assert abs(found[0] / 3500.0 - 1) < 1e-12 and lowest in (1, 2, 3)
    assert 0.02 < 1 - found[lowest] / 3500.0 < 0.08
    assert found[7] > found[lowest]


DOSES = [Dose(0, 100, addl=13, ii=24)]


def test_four_endpoints_have_the_published_typical_course():
    """Response 100 -> 56 at the steady-state trough -> 99; liver enzymes peak at about twice baseline."""
    response = predict("pkpd_four_endpoints", Design.from_doses(DOSES, [0.0, 336.0, 432.0], 2))
    np.testing.assert_allclose(response, [100.0, 56.0, 99.0], atol=0.5)
    times = np.arange(0.0, 480.0, 2.0)
    for output, baseline in ((3, 25.0), (4, 22.0)):
        enzyme = predict("pkpd_four_endpoints", Design.from_doses(DOSES, times, output))
        assert abs(enzyme[0] / baseline - 1) < 1e-12
        assert 1.8 < enzyme.max() / baseline < 2.8


def test_four_endpoints_stay_at_their_baselines_without_a_dose():
    times = [0.0, 100.0, 400.0]
    found = predict("pkpd_four_endpoints", Design.from_doses([], times * 3, np.repeat([2, 3, 4], 3)))
    np.testing.assert_allclose(np.sort(found), np.repeat([22.0, 25.0, 100.0], 3), rtol=1e-12)


def test_enzymes_answer_the_concentration_linearly():
    """AST and ALT are linear in the stimulation; so is their excess over baseline."""
    design = Design.from_doses(DOSES, [24.0, 100.0, 340.0], 3)
    one, two = (predict("pkpd_four_endpoints", design, s_ast=s) - 25.0 for s in (1.0, 2.0))
    np.testing.assert_allclose(two, 2.0 * one, rtol=RTOL)


def test_warfarin_pharmacokinetics_follow_the_formula_after_the_lag():
    t = np.array([0.5, 1.0, 4.0, 24.0, 120.0])
    found = predict("warfarin_pkpd", Design.from_doses([Dose(0, 105)], t))
    ka, ke, after = 1.3, 0.134 / 8.1, np.maximum(t - 0.9, 0.0)
    expected = 105 / 8.1 * ka / (ka - ke) * (np.exp(-ke * after) - np.exp(-ka * after))
    np.testing.assert_allclose(found, expected, rtol=RTOL, atol=1e-12)


def test_warfarin_activity_starts_at_its_baseline_and_falls_no_faster_than_its_turnover():
    t = np.array([0.0, 0.8, 12.0, 36.0, 72.0, 2000.0])
    found = predict("warfarin_pkpd", Design.from_doses([Dose(0, 105)], t, 2))
    np.testing.assert_allclose(found[:2], 96.0, rtol=1e-12)
    assert (found >= 96.0 * np.exp(-0.05 * np.maximum(t - 0.9, 0.0)) * (1 - RTOL)).all()
    assert found[2] > found[3] and 15.0 < found[3] < 40.0  # observed means at 36 h are near 30 %
    np.testing.assert_allclose(found[5], 96.0, rtol=1e-3)


def test_warfarin_complete_inhibition_leaves_pure_turnover():
    t = np.array([10.0, 30.0, 60.0])
    found = predict("warfarin_pkpd", Design.from_doses([Dose(0, 105)], t, 2), C50=1e-9, ka=500.0)
    np.testing.assert_allclose(found, 96.0 * np.exp(-0.05 * (t - 0.9)), rtol=1e-4)


def test_total_target_is_constant_where_bound_and_free_target_turn_over_alike():
    """d(R + RC)/dt = kdeg (R0 - R - RC) for kint = kdeg, whatever the drug does."""
    design = Design.from_doses([Dose(0, 1000)], [0.01, 1.0, 10.0, 50.0], 2)
    np.testing.assert_allclose(predict("tmdd", design, kint=0.5, kdeg=0.5), 5.0, rtol=RTOL)


def test_tmdd_without_target_is_a_two_compartment_model():
    t = np.array([0.1, 1.0, 10.0, 50.0])
    tmdd = predict("tmdd", Design.from_doses([Dose(0, 300)], t), R0=1e-9)
    linear = load_model("two_compartment_infusion")
    psi = np.array([[0.08 * 3, 3.0, 0.2 * 3, 0.2 * 3 / 0.25, 1.0, 1.0]])
    expected = linear.predict(linear.parameters.to_phi(psi), Design.from_doses([Dose(0, 300)], t)).f[0]
    np.testing.assert_allclose(tmdd, expected, rtol=1e-5)


def test_tmdd_approaches_its_quasi_steady_state():
    """Once binding has settled, C R = Kss RC with Kss = (koff + kint) / kon (Gibiansky et al. 2008).

    The complex RC follows from the slope of the total target, kdeg (R0 - R) - kint RC. The ratio of slow to
    fast rates is below 1 / 1000 here; the central difference adds 1e-4.
    """
    h, at, rates = 0.01, 5.0, {"kon": 1000.0, "koff": 500.0}
    drug, total = predict("tmdd", Design.from_doses([Dose(0, 100)], [at, at], [1, 2]), **rates)
    before, after = predict("tmdd", Design.from_doses([Dose(0, 100)], [at - h, at + h], 2), **rates)
    kdeg, kint, baseline = 0.5, 0.2, 5.0
    bound = (kdeg * (baseline - total) - (after - before) / (2 * h)) / (kint - kdeg)
    assert 0.5 < bound < total
    np.testing.assert_allclose(drug * (total - bound) / bound, (500.0 + kint) / 1000.0, rtol=5e-3)
