"""Encoding of long series without doses: exact invariances, noise features, exchangeable parameters."""

from dataclasses import replace

import numpy as np
import pytest
from unit.neural.tiny import MODEL, NETWORK

from amortnlme.core.errors import TrainingError
from amortnlme.core.rng import stream
from amortnlme.data.design import Design, DesignBatch
from amortnlme.model.prior import NormalPrior
from amortnlme.model.registry import load_model
from amortnlme.neural.differences import difference_features
from amortnlme.neural.pilot import fit_encoder
from amortnlme.neural.rise import find_rise
from amortnlme.neural.spec import NetworkSpec

CELL = load_model("mrna_transfection_simple")
SPEC = NetworkSpec(
    tokens="observations",
    difference_features=True,
    rise=("t0", "offset", "k_m0_scale"),
    exchangeable=("delta", "gamma"),
    summary="conv-gru",
    buckets=(90, 180),
)


@pytest.fixture(scope="module")
def pilot():
    phi = CELL.prior.sample(200, stream(3, 0))
    designs = CELL.design_sampler.sample(200, stream(3, 1))
    return phi, designs, CELL.simulate_batch(phi, designs, stream(3, 2)).y


@pytest.fixture(scope="module")
def encoder(pilot):
    phi, designs, y = pilot
    return fit_encoder(CELL, SPEC, designs, y, phi)


def encode(encoder, designs, y):
    return encoder.encode(designs, y, designs.observation_mask & np.isfinite(y))


def test_adding_a_constant_moves_only_the_anchors(encoder, pilot):
    """Log outputs plus c: amplitudes are multiplied by exp(c), and the tokens cannot tell."""
    _, designs, y = pilot
    a, b = encode(encoder, designs, y), encode(encoder, designs, y + 3.0)
    np.testing.assert_allclose(a.tokens, b.tokens, atol=1e-4)
    moved = [CELL.parameters.index(name) for name in ("offset", "k_m0_scale")]
    expected = np.zeros(CELL.d)
    expected[moved] = 3.0
    np.testing.assert_allclose(b.shift - a.shift, np.tile(expected, (len(y), 1)), atol=1e-10)
    assert ((np.abs(b.conditions - a.conditions) > 1e-3).any(axis=0)).sum() == 3


def test_measurements_nobody_took_leave_no_trace(encoder, pilot):
    _, designs, y = pilot
    gaps = np.where(np.random.default_rng(1).random(y.shape) < 0.3, np.nan, y)
    taken = designs.observation_mask & np.isfinite(gaps)
    times = [designs.observation_times[i][taken[i]] for i in range(20)]
    short = DesignBatch.from_designs([Design.from_doses([], t) for t in times])
    values = np.full((20, short.observation_times.shape[1]), np.nan)
    for i, t in enumerate(times):
        values[i, : len(t)] = gaps[i][taken[i]]
    a, b = encode(encoder, designs.take(np.arange(20)), gaps[:20]), encode(encoder, short, values)
    width = b.tokens.shape[1]
    np.testing.assert_allclose(a.tokens[:, :width], b.tokens, atol=1e-5)
    np.testing.assert_allclose(a.conditions, b.conditions, atol=1e-5)
    np.testing.assert_allclose(a.shift, b.shift, atol=1e-10)


def test_deviations_from_the_line_between_neighbors_measure_the_noise():
    """On a straight line the typical deviation is sigma.

    Overlapping triples are worth a third of their number, and a median 0.37 of a mean square: 5 SE with both.
    """
    n, k, sigma = 4, 2000, 0.07
    times = np.sort(np.random.default_rng(2).uniform(0.0, 30.0, (n, k)), axis=1)
    batch = DesignBatch.from_designs([Design.from_doses([], t) for t in times])
    y = 2.0 + 0.4 * times + sigma * np.random.default_rng(3).standard_normal((n, k))
    _, (by_median, by_square) = difference_features(batch, y, np.ones((n, k), dtype=bool), 1)
    for log_spread in (by_median, by_square):
        assert (np.abs(log_spread - np.log(sigma)) < 5 * np.sqrt(3.0 / 0.37 / (2 * k))).all()


def test_the_anchors_of_a_linear_rise_are_its_parameters():
    """log(offset + k (t - t0)): a line through two points above the offset has slope k and starts at t0."""
    times = np.arange(1, 61) / 6
    batch = DesignBatch.from_designs([Design.from_doses([], times)] * 3)
    t0, offset, k = np.array([0.75, 2.0, 5.9]), np.array([8.0, 0.3, 2.0]), np.array([500.0, 40.0, 9.0])
    value = np.log(offset[:, None] + k[:, None] * np.maximum(times - t0[:, None], 0.0))
    found = find_rise(batch, value, np.ones(value.shape, dtype=bool), np.full(3, 1e-3), 10.0)
    # The gate leaves (5 / strength) ** 6 of the mean: strengths are above 800.
    np.testing.assert_allclose(found.anchors, np.log(np.stack([t0, offset, k], axis=1)), atol=1e-9)


def test_the_anchors_of_pure_noise_are_its_mean_and_a_usual_onset():
    """The largest of 179 steps is above 5 SDs with probability 1e-4; at 4 SDs the gate opens by a fifth."""
    times = np.arange(1, 181) / 6
    batch = DesignBatch.from_designs([Design.from_doses([], times)])
    value = 2.0 + 0.1 * np.random.default_rng(4).standard_normal((1, 180))
    found = find_rise(batch, value, np.ones(value.shape, dtype=bool), np.array([0.1]), 30.0)
    np.testing.assert_allclose(found.anchors[0, :2], [np.log(0.9), value.mean()], atol=0.2)


def test_the_level_search_finds_a_rise_whose_steps_drown_in_the_noise():
    """Up from 0 to 3 over six measurements in noise of SD 1: no step is 2 SDs, the level is 20 SEs.

    The baseline is a mean of 40 measurements, whose SE is 0.16; half of the ramp before the split adds at
    most 0.2. The onset may lie anywhere on the ramp, from 6.67 h to 7.67 h; a factor of 1.25 covers it.
    """
    times = np.arange(1, 181) / 6
    batch = DesignBatch.from_designs([Design.from_doses([], times)] * 20)
    truth = 3.0 * np.clip((times - 40 / 6) / 1.0, 0.0, 1.0)
    value = truth + np.random.default_rng(5).standard_normal((20, 180))
    found = find_rise(batch, value, np.ones(value.shape, dtype=bool), np.ones(20), 30.0, search="level")
    assert (np.abs(found.anchors[:, 0] - np.log(7.0)) < np.log(1.25)).all()
    assert (np.abs(found.anchors[:, 1]) < 4.5 * 0.16 + 0.2).all()


def test_both_searches_find_a_clear_rise_at_the_same_place():
    times = np.arange(1, 61) / 6
    batch = DesignBatch.from_designs([Design.from_doses([], times)] * 2)
    value = np.log(8.0 + np.array([[500.0], [90.0]]) * np.maximum(times - 1.25, 0.0))
    everywhere, noise = np.ones(value.shape, dtype=bool), np.full(2, 1e-3)
    by_step, by_level = (
        find_rise(batch, value, everywhere, noise, 10.0, search=search) for search in ("step", "level")
    )
    # The gates leave (5 / strength) ** 6 of the mean: strengths are above 800.
    np.testing.assert_allclose(by_level.anchors, by_step.anchors, atol=1e-9)


def test_a_rise_without_a_rate_takes_its_anchors_off_two_parameters(pilot):
    phi, designs, y = pilot
    two = fit_encoder(CELL, replace(SPEC, rise=("t0", "offset")), designs, y, phi)
    three = fit_encoder(CELL, SPEC, designs, y, phi)
    a, b = encode(two, designs, y), encode(three, designs, y)
    rate = CELL.parameters.index("k_m0_scale")
    assert (a.shift[:, rate] == 0.0).all() and (b.shift[:, rate] != 0.0).any()
    np.testing.assert_array_equal(np.delete(a.shift, rate, axis=1), np.delete(b.shift, rate, axis=1))
    np.testing.assert_array_equal(a.tokens, b.tokens)


def test_neighbors_are_those_of_the_same_output():
    times, outputs = [1.0, 1.0, 2.0, 2.0, 3.0, 3.0], [1, 2, 1, 2, 1, 2]
    batch = DesignBatch.from_designs([Design.from_doses([], times, outputs)])
    value = np.where(batch.output == 1, batch.time, 100.0 - batch.time)
    columns, conditions = difference_features(batch, value, np.ones(value.shape, dtype=bool), 2)
    # Both outputs are straight lines: nothing deviates, and every step is one.
    np.testing.assert_allclose(columns[0], 0.0, atol=1e-9)
    assert len(conditions) == 4 and np.allclose(np.exp(conditions), 1e-4, rtol=1e-6)


def test_a_single_measurement_is_encoded_without_neighbors(encoder):
    batch = DesignBatch.from_designs([Design.from_doses([], [4.0])])
    encoded = encode(encoder, batch, np.array([[2.0]]))
    assert np.isfinite(encoded.tokens).all() and np.isfinite(encoded.conditions).all()


def test_exchangeable_parameters_share_their_standardization(encoder):
    i, j = CELL.parameters.index("delta"), CELL.parameters.index("gamma")
    assert encoder.phi_mean[i] == encoder.phi_mean[j] and encoder.phi_sd[i] == encoder.phi_sd[j]


@pytest.mark.parametrize(
    ("model", "names", "reason"),
    [
        (CELL, ("delta", "k_m0_scale"), "swapping them changes"),
        (CELL, ("delta", "beta"), "no parameter of model"),
        (load_model("mrna_transfection_sde"), ("delta", "gamma"), "no likelihood"),
        (
            replace(CELL, prior=NormalPrior(mean=[-2.0, -3.0, 5.0, 0.0, 0.0, -1.0], sd=[2.0] * 6)),
            ("delta", "gamma"),
            "swapping them changes",
        ),
    ],
    ids=["other role", "unknown", "no likelihood", "prior tells them apart"],
)
def test_parameters_that_are_not_exchangeable_are_refused(model, names, reason, pilot):
    designs, y = pilot[1].take(np.arange(20)), pilot[2][:20]
    # Whose measurements they are makes no difference to a swap.
    phi = model.prior.sample(20, stream(4, 0))
    spec = NetworkSpec(tokens="observations", exchangeable=names)
    with pytest.raises(TrainingError, match=reason) as caught:
        fit_encoder(model, spec, designs, y, phi)
    assert caught.value.code == "E_SPEC_EXCHANGE"


def test_a_rise_is_refused_where_somebody_is_dosed():
    phi = MODEL.prior.sample(20, stream(6, 0))
    designs = MODEL.design_sampler.sample(20, stream(6, 1))
    y = MODEL.simulate_batch(phi, designs, stream(6, 2)).y
    spec = NetworkSpec(rise=("ka", "V", "a"), difference_features=True)
    with pytest.raises(TrainingError) as caught:
        fit_encoder(MODEL, spec, designs, y, phi)
    assert caught.value.code == "E_SPEC_RISE"


def test_doses_that_would_reach_the_network_neither_way_are_refused():
    phi = MODEL.prior.sample(20, stream(5, 0))
    designs = MODEL.design_sampler.sample(20, stream(5, 1))
    y = MODEL.simulate_batch(phi, designs, stream(5, 2)).y
    with pytest.raises(TrainingError) as caught:
        fit_encoder(MODEL, replace(NETWORK, history_rates=()), designs, y, phi)
    assert caught.value.code == "E_ENCODER_DOSES"
