"""Random designs: their ranges, their domain test, their determinism."""

import numpy as np
import pytest
from amortnlme.simulators.one_compartment_oral import MODEL

from amortnlme.core.errors import DesignError
from amortnlme.core.rng import stream
from amortnlme.data.bundled import load_bundled
from amortnlme.data.design import Design, Dose, EventKind
from amortnlme.data.design_sampler import RandomDesignSampler, design_sampler_from_config
from amortnlme.data.subject import Subject

SAMPLER = MODEL.design_sampler


def test_sampled_designs_keep_every_declared_range():
    batch = SAMPLER.sample(3000, stream(1))
    assert batch.n == 3000
    dose = batch.kind == EventKind.BOLUS
    n_doses = dose.sum(axis=1)
    assert n_doses.min() == 1 and n_doses.max() == 8
    assert batch.n_observations.min() == 2 and batch.n_observations.max() == 20
    assert (n_doses + batch.n_observations == batch.n_records).all()
    assert batch.amount[dose].min() > 149.0 and batch.amount[dose].max() < 601.0
    assert (np.diff(batch.time, axis=1) >= 0).all() and (batch.time[:, 0] == 0).all()
    weight = batch.covariates["weight"]
    assert weight.min() >= 35 and weight.max() <= 130 and (weight == weight[:, :1]).all()


def test_half_of_the_designs_have_a_single_dose():
    """Null: binomial(20 000, 1/2); 3.9 SE is a false-alarm rate of 1e-4."""
    n = 20_000
    batch = SAMPLER.sample(n, stream(2))
    single = int(((batch.kind == EventKind.BOLUS).sum(axis=1) == 1).sum())
    assert abs(single - n / 2) < 3.9 * np.sqrt(n) / 2


def test_first_dose_is_a_rounded_amount_per_kilogram():
    batch = SAMPLER.sample(100, stream(3))
    per_kg = batch.amount[:, 0] / batch.covariates["weight"][:, 0]
    np.testing.assert_allclose(per_kg, per_kg.round(2), atol=1e-9)


def test_the_same_generator_gives_the_same_designs():
    one, two = SAMPLER.sample(50, stream(4)), SAMPLER.sample(50, stream(4))
    assert one.time.tobytes() == two.time.tobytes() and one.amount.tobytes() == two.amount.tobytes()


def test_every_theophylline_patient_is_inside():
    for subject in load_bundled("theophylline").subjects:
        assert SAMPLER.contains(subject) == ()


def subject(doses, times, censored=False):
    design = Design.from_doses(doses, times)
    made = Subject.from_observations("x", design, np.ones(len(times)))
    if not censored:
        return made
    flags = np.ones(len(times), np.int8)
    return Subject("x", design, made.y, made.observed, flags, made.limit, made.occasion)


OUTSIDE = {
    "has 1 observations; the designs have 2 to 20": ([Dose(0, 300)], [1.0]),
    "has 21 observations": ([Dose(0, 300)], np.arange(1, 22)),
    "has 9 doses": ([Dose(0, 300, addl=8, ii=8)], [1.0, 2.0]),
    "has 0 doses": ([], [1.0, 2.0]),
    "a dose of 50; the designs have 150 to 600": ([Dose(0, 50)], [1.0, 2.0]),
    "two doses are 96 apart": ([Dose(0, 300), Dose(96, 300)], [1.0, 2.0]),
    "an infusion; the designs have none": ([Dose(0, 300, duration=1)], [1.0, 2.0]),
    "before the first dose": ([Dose(1, 300)], [0.5, 2.0]),
    "an observation 72 after the last dose; the designs have at most 40": ([Dose(0, 300)], [0.5, 72.0]),
    "a steady-state dose": ([Dose(0, 300, ss=1, ii=8)], [0.5, 2.0]),
    "different compartments": ([Dose(0, 300), Dose(8, 300, compartment=2)], [0.5, 2.0]),
}


@pytest.mark.parametrize("reason", OUTSIDE)
def test_contains_says_why_a_subject_is_outside(reason):
    reasons = SAMPLER.contains(subject(*OUTSIDE[reason]))
    assert len(reasons) == 1
    assert reason in reasons[0]


def test_censored_subjects_are_outside():
    assert "censored" in SAMPLER.contains(subject([Dose(0, 300)], [1.0, 2.0], censored=True))[0]


def test_infusions_are_drawn_and_recognized():
    sampler = RandomDesignSampler(infusion_probability=1.0, infusion_duration=(0.5, 2.0))
    batch = sampler.sample(200, stream(5))
    infusion = batch.kind == EventKind.INFUSION
    assert infusion[:, 0].all() and not (batch.kind == EventKind.BOLUS).any()
    assert batch.duration[infusion].min() >= 0.5 and batch.duration[infusion].max() <= 2.0
    assert "a bolus dose" in sampler.contains(subject([Dose(0, 300)], [1.0, 2.0]))[0]
    assert "infusion over 9" in sampler.contains(subject([Dose(0, 300, duration=9)], [1.0, 2.0]))[0]


def test_config_round_trips_and_refuses_unknown_keys():
    config = SAMPLER.to_config()
    assert design_sampler_from_config(config) == SAMPLER
    with pytest.raises(DesignError) as caught:
        design_sampler_from_config(config | {"colour": "red"})
    assert caught.value.code == "E_DESIGN_SAMPLER"


@pytest.mark.parametrize(
    "options",
    [
        {"observations": (5, 2)},
        {"dose_amount": (0.0, 10.0)},
        {"single_dose_probability": 1.5},
        {"schedules": ("dense",)},
        {"intervals": ()},
        {"first_sample": 9.0},
    ],
)
def test_impossible_options_are_refused(options):
    with pytest.raises(DesignError) as caught:
        RandomDesignSampler(**options)
    assert caught.value.code == "E_DESIGN_SAMPLER"
