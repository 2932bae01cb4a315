"""Protocol designs: their parts, their domain test, their determinism, their configuration."""

import json

import numpy as np
import pytest

from amortnlme.core.errors import DesignError
from amortnlme.core.rng import stream
from amortnlme.data.design import Design, Dose, EventKind
from amortnlme.data.design_sampler import design_sampler_from_config
from amortnlme.data.design_sampler_covariates import Covariate
from amortnlme.data.design_sampler_doses import Doses
from amortnlme.data.design_sampler_protocol import ProtocolDesignSampler
from amortnlme.data.design_sampler_times import PlannedTimes, RandomTimes, VisitTimes
from amortnlme.data.subject import Subject

GRID = ProtocolDesignSampler((PlannedTimes(tuple(i / 6 for i in range(1, 181))),))
COVARIATES = (
    Covariate("age", "uniform", (1.0, 85.0)),
    Covariate("weight", "log-normal", (8.0, 200.0), 1.5, 0.2, (("age", 0.15, 1.0, 18.0),), decimals=1),
    Covariate("o", "bernoulli", (0.0, 1.0), 0.45),
)
STUDY = ProtocolDesignSampler(
    (
        RandomTimes((1, 6), 48.0, 1.0, outputs=(1, 2)),
        PlannedTimes((0.0, 24.0, 96.0), (3,), (0.0, 1.0, 4.0), keep=(1, 3)),
    ),
    Doses(
        levels=(1.0, 2.0),
        per="weight",
        number=(2, 12),
        intervals=(12.0, 24.0),
        cycles=((4, 2),),
        jitter=0.05,
    ),
    COVARIATES,
)
VISITS = ProtocolDesignSampler(
    (VisitTimes((2, 9), ((20.0, 24.0), (4.0, 10.0)), elsewhere=0.25, follow_up=100.0, outputs=(1, 2)),),
    Doses(levels=(1.0, 2.0, 4.0), number=(3, 20), cycles=((0, 0), (4, 2), (2, 1)), change=0.3),
)


def subject(doses, times, outputs=1, covariates=None):
    design = Design.from_doses(doses, times, outputs)
    return Subject.from_observations("x", design, np.ones(design.n_observations), covariates)


def test_grid_without_doses_has_every_planned_time():
    batch = GRID.sample(5, stream(1))
    assert (batch.n_records == 180).all() and GRID.max_observations == GRID.max_records == 180
    assert (batch.kind == EventKind.OBSERVATION).all()
    np.testing.assert_array_equal(batch.time[3], np.arange(1, 181) / 6)
    assert GRID.contains(subject([], np.arange(1, 181) / 6)) == ()


def test_some_designs_of_an_incomplete_plan_are_complete():
    """Shares of a binomial: 4 SE for a false-alarm rate of 1e-4."""
    plan = PlannedTimes(tuple(range(1, 31)), keep=(10, 30), complete=0.4)
    count = np.isfinite(plan.sample(5000, np.zeros((5000, 0)), stream(7))).sum(axis=1)
    expected = 0.4 + 0.6 / 21
    assert abs((count == 30).mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / 5000)
    assert count.min() == 10 and abs((count == 10).mean() - 0.6 / 21) < 4 * np.sqrt(0.6 / 21 / 5000)
    whole = ProtocolDesignSampler((plan,))
    assert design_sampler_from_config(json.loads(json.dumps(whole.to_config()))) == whole


def test_study_keeps_every_declared_range():
    batch = STUDY.sample(4000, stream(2))
    dose = batch.kind == EventKind.BOLUS
    n_doses = dose.sum(axis=1)
    assert n_doses.min() == 2 and n_doses.max() == 12
    observed = [((batch.kind == EventKind.OBSERVATION) & (batch.output == o)).sum(axis=1) for o in (1, 2, 3)]
    assert observed[0].min() == 1 and observed[0].max() == 6 and (observed[0] == observed[1]).all()
    assert observed[2].min() == 1 and observed[2].max() == 3
    assert batch.n_records.max() <= STUDY.max_records == 27
    assert (np.diff(batch.time, axis=1) >= 0).all() and batch.time.min() == 0.0
    per_kg = batch.amount[dose] / batch.covariates["weight"][dose]
    np.testing.assert_allclose(per_kg, np.round(per_kg), rtol=1e-12)
    assert set(np.round(per_kg)) == {1.0, 2.0}


def test_treatment_breaks_leave_out_whole_intervals():
    plan = Doses(number=(10, 10), intervals=(24.0,), cycles=((4, 2),))
    time, _, _ = plan.sample(3, {}, stream(3))
    np.testing.assert_array_equal(time[0] / 24, [0, 1, 2, 3, 6, 7, 8, 9, 12, 13])


def test_all_schedules_are_equally_likely():
    """Shares of a trinomial: 4 SE for a false-alarm rate of 1e-4 each."""
    plan = Doses(number=(9, 9), cycles=((0, 0), (4, 2), (2, 1)))
    time, _, _ = plan.sample(6000, {}, stream(3))
    # Days of the ninth dose: 8 without breaks, 2 and 4 breaks before it with them.
    day, count = np.unique(time[:, -1] / 24, return_counts=True)
    np.testing.assert_array_equal(day, [8.0, 12.0])
    assert abs(count[0] / 6000 - 1 / 3) < 4 * np.sqrt(2 / 9 / 6000)
    assert abs((time[:, 2] == 3 * 24.0).mean() - 1 / 3) < 4 * np.sqrt(2 / 9 / 6000)


def test_amounts_change_once_for_a_share_of_the_courses():
    """A change is to one of four levels: three quarters of 0.4 can be seen, less those at the first dose."""
    plan = Doses(levels=(1.0, 2.0, 3.0, 4.0), number=(10, 10), change=0.4)
    _, amount, _ = plan.sample(6000, {}, stream(4))
    steps = (np.diff(amount, axis=1) != 0).sum(axis=1)
    assert steps.max() == 1
    expected = 0.4 * 0.75 * 0.9
    assert abs((steps == 1).mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / 6000)


def test_visits_are_in_the_windows_after_doses_or_anywhere():
    batch = VISITS.sample(4000, stream(5))
    only_troughs = only_peaks = elsewhere = 0
    for row in range(batch.n):
        kept = slice(0, batch.n_records[row])
        dose = batch.time[row, kept][batch.kind[row, kept] == EventKind.BOLUS]
        times = batch.time[row, kept][batch.kind[row, kept] == EventKind.OBSERVATION]
        since = times[:, None] - dose
        peak = ((since >= 4.0) & (since <= 10.0)).any(axis=1)
        trough = ((since >= 20.0) & (since <= 24.0)).any(axis=1)
        only_troughs += bool(trough.all() and not peak.any())
        only_peaks += bool(peak.all() and not trough.any())
        elsewhere += not (peak | trough).all()
        assert times.min() >= 0.0 and times.max() <= dose[-1] + 100.0
    # Each window is kept alone by a quarter of the three quarters who keep to windows: 4 SE, and some slack
    # above for those who keep to both but were drawn into one.
    share = 0.75 / 4
    for count in (only_troughs, only_peaks):
        assert share - 4 * np.sqrt(share * (1 - share) / 4000) < count / 4000 < 1.4 * share
    assert elsewhere / 4000 <= 0.25 + 4 * np.sqrt(0.25 * 0.75 / 4000)


def test_unequal_doses_lie_outside_a_protocol_of_equal_ones():
    doses = [Dose(0.0, 1.0), Dose(24.0, 2.0), Dose(48.0, 2.0)]
    assert VISITS.contains(subject(doses, [20.0, 30.0, 20.0, 30.0], [1, 1, 2, 2])) == ()
    equal = ProtocolDesignSampler(VISITS.samplings, Doses(levels=(1.0, 2.0), number=(3, 20)))
    reasons = equal.contains(subject(doses, [20.0, 30.0, 20.0, 30.0], [1, 1, 2, 2]))
    assert len(reasons) == 1 and "all of a course are equal" in reasons[0]


def test_vials_round_the_dose_and_infusions_have_a_duration():
    plan = Doses(levels=(25.0,), per="weight", unit_size=250.0, duration=(0.1, 0.2))
    weights = np.array([4.0, 15.5, 70.0])
    _, amount, duration = plan.sample(3, {"weight": weights}, stream(4))
    assert amount[:, 0].tolist() == [250.0, 500.0, 1750.0]
    assert (duration >= 0.1).all() and (duration <= 0.2).all()


def test_covariates_follow_their_effects_inside_their_bounds():
    """Means against the regression on clipped age; 4 SE for a false-alarm rate of 1e-4."""
    batch = STUDY.sample(20_000, stream(5))
    age, weight, group = (batch.covariates[name][:, 0] for name in ("age", "weight", "o"))
    assert age.min() >= 1 and age.max() <= 85 and weight.min() >= 8.0 and weight.max() <= 200.0
    adult = age > 18
    assert abs(np.log(weight[adult]).mean() - (1.5 + 0.15 * 18)) < 4 * 0.2 / np.sqrt(adult.sum())
    assert abs(group.mean() - 0.45) < 4 * 0.5 / np.sqrt(group.size)


def test_a_sampled_design_lies_in_its_own_domain():
    batch = STUDY.sample(200, stream(6))
    for row in range(batch.n):
        k = int(batch.n_records[row])
        names = ("time", "kind", "compartment", "amount", "duration", "ii", "ss", "output")
        design = Design(**{name: getattr(batch, name)[row, :k] for name in names})
        covariates = {name: float(values[row, 0]) for name, values in batch.covariates.items()}
        made = Subject.from_observations("x", design, np.ones(design.n_observations), covariates)
        assert STUDY.contains(made) == ()


FINE = {"age": 40.0, "weight": 70.0, "o": 1.0}
TIMES, OUTPUTS = [0.0, 5.0, 5.0], [3, 1, 2]
DAILY = [Dose(0, 70, addl=2, ii=24)]
OUTSIDE = {
    "it is dosed; the designs have no doses": (GRID, subject([Dose(0, 1)], np.arange(1, 181) / 6)),
    "it has 2 observations of outcome 1; the designs have 180 to 180": (GRID, subject([], [1.0, 2.0])),
    "it has an observation of outcome 1 at 31": (GRID, subject([], [*np.arange(1, 180) / 6, 31.0])),
    "it has 1 doses; the designs have 2 to 12": (STUDY, subject([Dose(0, 70)], TIMES, OUTPUTS, FINE)),
    "a dose of 300; the designs have 70 to 140": (
        STUDY,
        subject([Dose(0, 300, addl=1, ii=24)], TIMES, OUTPUTS, FINE),
    ),
    "two doses are 96 apart; the designs have 9 to 78": (
        STUDY,
        subject([Dose(0, 70), Dose(96, 70)], TIMES, OUTPUTS, FINE),
    ),
    "its doses last 1 to 1; the designs have 0 to 0 (0 is a bolus)": (
        STUDY,
        subject([Dose(0, 70, addl=2, ii=24, duration=1)], TIMES, OUTPUTS, FINE),
    ),
    "observations of outcome 4; the designs have 1, 2, 3": (
        STUDY,
        subject(DAILY, [*TIMES, 6.0], [*OUTPUTS, 4], FINE),
    ),
    "an observation of outcome 1 at 0.5; the designs have 1 to 96": (
        STUDY,
        subject(DAILY, [0.0, 0.5, 5.0], OUTPUTS, FINE),
    ),
    "its covariate 'age' is 95; the designs have 1 to 85": (
        STUDY,
        subject(DAILY, TIMES, OUTPUTS, {**FINE, "age": 95.0}),
    ),
    "its covariate 'age' is nan": (STUDY, subject(DAILY, TIMES, OUTPUTS, {**FINE, "age": np.nan})),
}


@pytest.mark.parametrize("reason", OUTSIDE)
def test_contains_says_why_a_subject_is_outside(reason):
    sampler, patient = OUTSIDE[reason]
    reasons = sampler.contains(patient)
    assert len(reasons) == 1
    assert reason in reasons[0]


def test_an_ordinary_patient_is_inside():
    assert STUDY.contains(subject(DAILY, TIMES, OUTPUTS, FINE)) == ()


def test_the_same_generator_gives_the_same_designs():
    one, two = STUDY.sample(50, stream(7)), STUDY.sample(50, stream(7))
    assert one.time.tobytes() == two.time.tobytes() and one.amount.tobytes() == two.amount.tobytes()


@pytest.mark.parametrize("sampler", [GRID, STUDY, VISITS], ids=["grid", "study", "visits"])
def test_config_survives_json(sampler):
    config = json.loads(json.dumps(sampler.to_config()))
    assert design_sampler_from_config(config) == sampler


def test_config_with_an_unknown_key_is_refused():
    config = STUDY.to_config()
    for changed in (
        config | {"color": 1},
        config | {"doses": config["doses"] | {"color": 1}},
        config | {"samplings": [config["samplings"][0] | {"kind": "dense"}]},
        config | {"samplings": [config["doses"]]},
        config | {"covariates": [config["covariates"][0] | {"color": 1}]},
    ):
        with pytest.raises(DesignError) as caught:
            design_sampler_from_config(changed)
        assert caught.value.code == "E_DESIGN_SAMPLER"


IMPOSSIBLE = {
    "the times must increase": lambda: PlannedTimes((2.0, 1.0)),
    "one SD for all or each": lambda: PlannedTimes((1.0, 2.0, 3.0), jitter=(0.1, 0.1)),
    "may fall below 0": lambda: PlannedTimes((0.1,), jitter=(0.1,)),
    "between 0 and the number of times": lambda: PlannedTimes((1.0,), keep=(1, 2)),
    "without keep every plan is complete": lambda: PlannedTimes((1.0, 2.0), complete=0.5),
    "a probability lies between 0 and 1": lambda: PlannedTimes((1.0, 2.0), keep=(1, 2), complete=1.5),
    "before follow_up": lambda: RandomTimes((1, 2), 5.0, 6.0),
    "number is (3, 2)": lambda: RandomTimes((3, 2), 5.0),
    "jitter 0.5 between 0 and 0.15": lambda: Doses(jitter=0.5),
    "a cycle is (0, 2)": lambda: Doses(cycles=((0, 2),)),
    "change 1.5 lie between 0 and 1": lambda: Doses(change=1.5),
    "it must not end before the windows": lambda: VisitTimes((1, 2), ((4.0, 12.0),), 0.5, 10.0),
    "elsewhere 2.0 lie between 0 and 1": lambda: VisitTimes((1, 2), ((4.0, 12.0),), 2.0, 24.0),
    "levels (0.0,) must be positive": lambda: Doses(levels=(0.0,)),
    "belongs to one sampling": lambda: ProtocolDesignSampler((GRID.samplings[0], GRID.samplings[0])),
    "no observation at all": lambda: ProtocolDesignSampler((RandomTimes((0, 2), 5.0),)),
    "per 'weight', which is not among": lambda: ProtocolDesignSampler(GRID.samplings, Doses(per="weight")),
    "not drawn before it": lambda: ProtocolDesignSampler(GRID.samplings, None, COVARIATES[1:]),
    "occurs twice": lambda: ProtocolDesignSampler(GRID.samplings, None, COVARIATES[:1] * 2),
    "Allowed: uniform": lambda: Covariate("x", "gamma", (0.0, 1.0)),
    "it lies between 0 and 1": lambda: Covariate("x", "bernoulli", (0.0, 1.0), 2.0),
    "two bounds, smallest first": lambda: Covariate("x", "normal", (1.0, 0.0)),
}


@pytest.mark.parametrize("reason", IMPOSSIBLE)
def test_impossible_options_are_refused(reason):
    with pytest.raises(DesignError) as caught:
        IMPOSSIBLE[reason]()
    assert caught.value.code == "E_DESIGN_SAMPLER"
    assert reason in str(caught.value)
