"""Encoding: dose histories against direct sums, and invariances that hold exactly."""

from dataclasses import replace

import numpy as np
import pytest
from unit.neural.tiny import MODEL, NETWORK

from amortnlme.core.errors import TrainingError
from amortnlme.core.rng import stream
from amortnlme.data.design import Design, DesignBatch, Dose
from amortnlme.model.registry import load_model
from amortnlme.neural.encoder import EventEncoder
from amortnlme.neural.history import dose_history
from amortnlme.neural.pilot import fit_encoder
from amortnlme.neural.spec import NetworkSpec

RATES = np.array([0.03, 0.4, 2.0])


def simulated(n=200, seed=1):
    phi = MODEL.prior.sample(n, stream(seed, 0))
    designs = MODEL.design_sampler.sample(n, stream(seed, 1))
    return phi, designs, MODEL.simulate_batch(phi, designs, stream(seed, 2)).y


@pytest.fixture(scope="module")
def pilot():
    return simulated()


@pytest.fixture(scope="module")
def encoder(pilot):
    phi, designs, y = pilot
    return fit_encoder(MODEL, NETWORK, designs, y, phi)


def encode(encoder, designs, y):
    return encoder.encode(designs, y, designs.observation_mask & np.isfinite(y))


def test_history_is_the_sum_of_exponentials_when_doses_are_boluses(pilot):
    _, designs, _ = pilot
    held = dose_history(designs, RATES)
    for row in range(30):
        count = int(designs.n_records[row])
        for j in range(count):
            earlier = np.arange(j + 1)[designs.kind[row, : j + 1] == 1]
            gap = designs.time[row, j] - designs.time[row, earlier]
            direct = (designs.amount[row, earlier, None] * np.exp(-RATES * gap[:, None])).sum(axis=0)
            np.testing.assert_allclose(held[row, j], direct, rtol=1e-12, atol=1e-12)


def test_history_of_an_infusion_is_that_of_many_small_boluses():
    times = [0.5, 2.0, 5.0]
    infusion = Design.from_doses([Dose(1.0, 100.0, duration=3.0)], times)
    starts = 1.0 + 3.0 * (np.arange(3000) + 0.5) / 3000
    boluses = Design.from_doses([Dose(t, 100.0 / 3000) for t in starts], times)
    held = dose_history(DesignBatch.from_designs([infusion]), RATES)[0, infusion.is_observation]
    many = dose_history(DesignBatch.from_designs([boluses]), RATES)[0, boluses.is_observation]
    # The midpoint rule errs by (rate x step)^2 / 24 of the dose.
    np.testing.assert_allclose(held, many, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("duration", [0.0, 2.0])
def test_history_of_a_steady_state_dose_is_that_of_many_earlier_doses(duration):
    steady = Design.from_doses([Dose(0.0, 50.0, duration=duration, ii=8.0, ss=1)], [4.0, 7.0])
    train = [Dose(-8.0 * i, 50.0, duration=duration) for i in range(400)]
    explicit = Design.from_doses(train, [4.0, 7.0])
    a = dose_history(DesignBatch.from_designs([steady]), RATES)[0, steady.is_observation]
    b = dose_history(DesignBatch.from_designs([explicit]), RATES)[0, explicit.is_observation]
    np.testing.assert_allclose(a, b, rtol=1e-9)


def test_history_starts_again_at_a_reset():
    before = Design.from_doses([Dose(0.0, 100.0), Dose(0.5, 80.0, duration=4.0)], [1.0, 6.0])
    kind = before.kind.copy()
    kind[-2] = 3
    output = np.where(kind == 0, before.output, 0)
    with_reset = replace(before, kind=kind, output=output)
    held = dose_history(DesignBatch.from_designs([with_reset]), RATES)[0, -1]
    # Neither the bolus nor the infusion of before the reset is left.
    np.testing.assert_array_equal(held, 0.0)


def test_encoding_ignores_padding_of_the_batch(encoder, pilot):
    _, designs, y = pilot
    whole = encode(encoder, designs, y)
    count = int(designs.n_records[3])
    columns = {name: getattr(designs, name)[3:4, :count] for name in DESIGN_FIELDS}
    alone = DesignBatch.from_columns(columns, designs.n_records[3:4])
    single = encode(encoder, alone, y[3:4, : alone.observation_mask.shape[1]])
    length = int(single.length[0])
    assert length == whole.length[3]
    np.testing.assert_array_equal(single.tokens[0, :length], whole.tokens[3, :length])
    np.testing.assert_array_equal(single.conditions[0], whole.conditions[3])


DESIGN_FIELDS = ("time", "kind", "compartment", "amount", "duration", "ii", "ss", "output")


@pytest.mark.parametrize("tokens", ["observations", "events"])
def test_a_measurement_that_was_not_taken_leaves_no_trace(pilot, tokens):
    phi, designs, y = pilot
    spec = NetworkSpec.from_config(NETWORK.to_config() | {"tokens": tokens})
    encoder = fit_encoder(MODEL, spec, designs, y, phi)
    full = Design.from_doses([Dose(0.0, 300.0)], [1.0, 2.0, 3.0])
    short = Design.from_doses([Dose(0.0, 300.0)], [1.0, 3.0])
    a = encoder.encode(
        DesignBatch.from_designs([full]), np.array([[5.0, np.nan, 3.0]]), np.array([[True, False, True]])
    )
    b = encoder.encode(DesignBatch.from_designs([short]), np.array([[5.0, 3.0]]), np.array([[True, True]]))
    assert a.length[0] == b.length[0] == (2 if tokens == "observations" else 3)
    width = int(a.length[0])
    np.testing.assert_array_equal(a.tokens[0, :width], b.tokens[0, :width])
    np.testing.assert_array_equal(a.conditions, b.conditions)


def test_tokens_do_not_change_when_doses_and_measurements_are_scaled_together(encoder, pilot):
    _, designs, y = pilot
    doubled = DesignBatch.from_columns(
        {name: getattr(designs, name) * (2.0 if name == "amount" else 1) for name in DESIGN_FIELDS},
        designs.n_records,
    )
    a, b = encode(encoder, designs, y), encode(encoder, doubled, 2.0 * y)
    np.testing.assert_allclose(a.tokens, b.tokens, rtol=1e-5, atol=1e-5)
    # Only log first dose, the first condition, and the shift of the residual SD know.
    np.testing.assert_allclose(a.conditions[:, 1:], b.conditions[:, 1:], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(b.shift - a.shift, np.log(2.0) * np.tile([0.0, 0.0, 0.0, 1.0], (200, 1)))


def test_pilot_tokens_are_standardized_and_finite(encoder, pilot):
    phi, designs, y = pilot
    encoded = encode(encoder, designs, y)
    mask = np.arange(encoded.tokens.shape[1]) < encoded.length[:, None]
    np.testing.assert_allclose(encoded.tokens[mask].mean(axis=0), 0.0, atol=1e-4)
    np.testing.assert_allclose(encoded.tokens[mask].std(axis=0), 1.0, atol=1e-4)
    assert not encoded.tokens[~mask].any()
    coordinates = encoder.to_network(phi, encoded.shift)
    np.testing.assert_allclose(coordinates.mean(axis=0), 0.0, atol=1e-10)
    np.testing.assert_allclose(encoder.to_phi(coordinates, encoded.shift), phi, rtol=1e-12)
    draws = np.stack([coordinates, coordinates + 1.0], axis=1)
    np.testing.assert_allclose(encoder.to_phi(draws, encoded.shift)[:, 0], phi, rtol=1e-12)


def test_a_subject_without_doses_or_with_zeros_has_finite_tokens(encoder):
    design = Design.from_doses([], [1.0, 2.0])
    encoded = encode(encoder, DesignBatch.from_designs([design]), np.zeros((1, 2)))
    assert np.isfinite(encoded.tokens).all() and np.isfinite(encoded.conditions).all()


def test_configuration_round_trips(encoder, pilot):
    _, designs, y = pilot
    again = EventEncoder.from_config(encoder.to_config(), NETWORK)
    np.testing.assert_array_equal(encode(encoder, designs, y).tokens, encode(again, designs, y).tokens)


def test_events_of_an_infusion_model_with_covariates_are_encoded():
    model = load_model("two_compartment_infusion")
    spec = NetworkSpec(tokens="events", buckets=(64,))
    phi = model.prior.sample(100, stream(2, 0))
    designs = model.design_sampler.sample(100, stream(2, 1))
    y = model.simulate_batch(phi, designs, stream(2, 2)).y
    encoder = fit_encoder(model, spec, designs, y, phi)
    encoded = encode(encoder, designs, y)
    assert np.isfinite(encoded.tokens).all()
    assert (encoded.length >= designs.observation_mask.sum(axis=1)).all()


def test_histories_refuse_doses_into_several_compartments(pilot):
    phi, designs, y = pilot
    mixed = replace(designs, compartment=np.where(np.arange(200)[:, None] < 100, 1, 2) * (designs.kind == 1))
    with pytest.raises(TrainingError) as caught:
        fit_encoder(MODEL, NETWORK, mixed, y, phi)
    assert caught.value.code == "E_ENCODER_COMPARTMENTS"


@pytest.mark.parametrize("name", ["nothing", "a"])
def test_scaled_parameters_must_exist_and_be_logarithmic(pilot, name):
    phi, designs, y = pilot
    spec = NetworkSpec.from_config(NETWORK.to_config() | {"dose_scaled": (name,)})
    if name == "a":
        fit_encoder(MODEL, spec, designs, y, phi)
        return
    with pytest.raises(TrainingError) as caught:
        fit_encoder(MODEL, spec, designs, y, phi)
    assert caught.value.code == "E_SPEC_SCALED"


def test_log_outputs_at_a_multiple_of_the_doses_are_the_same_tokens():
    """Linear kinetics: c times the doses is log c more in the logs, and only the dose condition tells."""
    model = load_model("sunitinib")
    phi = model.prior.sample(60, stream(8, 0))
    designs = model.design_sampler.sample(60, stream(8, 1))
    y = model.simulate_batch(phi, designs, stream(8, 2)).y
    spec = NetworkSpec(
        tokens="observations", history_rates=(0.01, 0.1), log_outputs=True, summary_width=8, buckets=(40,)
    )
    encoder = fit_encoder(model, spec, designs, y, phi)
    a = encode(encoder, designs, y)
    b = encode(encoder, replace(designs, amount=3.0 * designs.amount), y + np.log(3.0))
    np.testing.assert_allclose(a.tokens, b.tokens, atol=1e-4)
    moved = np.abs(b.conditions - a.conditions) > 1e-4
    assert moved[:, 0].all() and not moved[:, 1:].any()
    assert (a.shift == 0.0).all() and (b.shift == 0.0).all()


@pytest.mark.parametrize(
    "scaled",
    [
        {"dose_scaled": ("a",)},
        {"inverse_output_scaled": ("V",)},
        {"rise": ("t0", "offset"), "difference_features": True},
    ],
)
def test_log_outputs_refuse_what_scales_outputs(scaled):
    with pytest.raises(TrainingError) as caught:
        NetworkSpec(log_outputs=True, **scaled)
    assert caught.value.code == "E_SPEC_VALUE"
