"""Ensembles: an equal mixture of their members, in density, draws and on disk."""

import json
from dataclasses import replace

import numpy as np
import pytest
from unit.neural import tiny
from unit.neural.test_artefact import seal

from amortnlme.core.errors import ArtefactError, TrainingError
from amortnlme.core.rng import generator
from amortnlme.neural.artefact import load_artefact
from amortnlme.neural.ensemble import combine, split
from amortnlme.neural.estimator import Estimator


def moved(estimator, seed, amount):
    """The estimator as if another seed had trained it: its weights moved at random."""
    record = replace(estimator.record, seed=seed)
    other = Estimator.untrained(estimator.model, estimator.encoder, record, seed=None)
    rng = np.random.default_rng(seed)
    other.network.set_weights(
        [w if w.dtype.kind == "i" else w + amount * rng.standard_normal(w.shape) for w in estimator.weights()]
    )
    return other.with_history(estimator.history)


@pytest.fixture(scope="module")
def members(tiny_estimator):
    return (tiny_estimator, moved(tiny_estimator, 2, 0.02), moved(tiny_estimator, 3, 0.02))


@pytest.fixture(scope="module")
def ensemble(members):
    return combine(members)


@pytest.mark.backend
def test_the_density_of_an_ensemble_is_the_mean_of_its_members_densities(members, ensemble):
    dataset = tiny.patients(4)
    phi = tiny.MODEL.prior.sample(4 * 30, generator(1)).reshape(4, 30, -1)
    parts = np.array([member.log_prob(dataset, phi) for member in members])
    assert np.ptp(parts, axis=0).max() > 0.1
    expected = np.log(np.exp(parts).mean(axis=0))
    # Float32 passes: densities of order ten, a few 1e-6 relative each.
    np.testing.assert_allclose(ensemble.log_prob(dataset, phi), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.backend
def test_draws_of_an_ensemble_have_its_density(ensemble):
    """Importance weights against a member integrate to one: 5 standard errors, and float32."""
    dataset = tiny.patients(3)
    draws = ensemble.sample(dataset, 5000, generator(2))
    np.testing.assert_allclose(ensemble.log_prob(dataset, draws.phi), draws.log_q, rtol=1e-6, atol=1e-5)
    for member in split(ensemble):
        ratio = np.exp(member.log_prob(dataset, draws.phi) - draws.log_q)
        # A member has a third of the mass: the ratio is at most 3.
        assert ratio.max() < 3.01
        error = ratio.std(axis=1) / np.sqrt(5000)
        assert (np.abs(ratio.mean(axis=1) - 1.0) < 5 * error + 1e-3).all()


@pytest.mark.backend
def test_every_member_draws_a_third(members):
    """Shares by which member may have drawn each draw: 4.5 SE, of a binomial at most."""
    shifted = []
    for number, member in enumerate(members):
        other = moved(member, 10 + number, 0.0)
        weights = other.weights()
        # The bias of the affine head starts with the means.
        head = other.network.affine_head.read.bias
        place = next(i for i, w in enumerate(other.network.weights) if w is head)
        weights[place] = weights[place] + np.r_[1.0 * (number - 1), np.zeros(len(weights[place]) - 1)]
        other.network.set_weights(weights)
        shifted.append(other)
    together, n = combine(shifted), 6000
    dataset = tiny.patients(1)
    draws = together.sample(dataset, n, generator(3)).phi
    densities = np.array([member.log_prob(dataset, draws)[0] for member in split(together)])
    share = np.exp(densities - densities.max(axis=0))
    share /= share.sum(axis=0)
    error = 4.5 * np.sqrt(2 / 9 / n)
    assert (np.abs(share.mean(axis=1) - 1 / 3) < error).all()


@pytest.mark.backend
def test_an_ensemble_comes_back_from_its_artefact(ensemble, tmp_path):
    ensemble.save(tmp_path / "both")
    again = load_artefact(tmp_path / "both")
    assert again.fingerprint == ensemble.fingerprint and again.record == ensemble.record
    assert [m.fingerprint for m in split(again)] == [m.fingerprint for m in split(ensemble)]
    card = (tmp_path / "both" / "model_card.md").read_text()
    assert "ensemble of 3 networks from the seeds 1, 2, 3" in card and "member 3: 2 epochs" in card


def test_members_come_apart_as_they_were(members, ensemble):
    for member, part in zip(members, split(ensemble), strict=True):
        assert part.fingerprint == member.fingerprint
        assert part.record == member.record and part.history == member.history
    assert split(members[0]) == (members[0],)


def test_an_ensemble_of_one_is_refused(members):
    with pytest.raises(TrainingError) as caught:
        combine(members[:1])
    assert caught.value.code == "E_ENSEMBLE_SIZE"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"training_set": "sha256:0"}, "another training set"),
        ({"spec": replace(tiny.TRAINING, epochs=3)}, "another training options"),
        ({"seed": 1}, "trained from the seeds"),
    ],
)
def test_members_that_differ_in_more_than_their_seed_are_refused(members, change, reason):
    other = replace(members[1], record=replace(members[1].record, **change))
    with pytest.raises(TrainingError, match=reason) as caught:
        combine([members[0], other])
    assert caught.value.code == "E_ENSEMBLE_MEMBERS"


def test_a_configuration_that_asks_for_many_members_is_refused(ensemble, tmp_path):
    ensemble.save(tmp_path / "many")
    config = json.loads((tmp_path / "many" / "config.json").read_text())
    config["training"]["other_seeds"] = list(range(1000))
    (tmp_path / "many" / "config.json").write_text(json.dumps(config))
    seal(tmp_path / "many")
    with pytest.raises(ArtefactError) as caught:
        load_artefact(tmp_path / "many")
    assert caught.value.code == "E_ARTEFACT_CONFIG"
