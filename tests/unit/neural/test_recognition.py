"""The recognition network: padding, the compiled step, the head's derivatives, the file."""

import numpy as np
import pytest

from amortnlme.core.errors import AmortNlmeError
from amortnlme.data.bundled import load_bundled
from amortnlme.model.registry import load_model
from amortnlme.neural.backend import values_of
from amortnlme.neural.gaussian_head import GaussianHead
from amortnlme.neural.recognition_model import ENCODER_KINDS, RecognitionModel
from amortnlme.neural.recognition_step import RecognitionTrainer

DATASET, MODEL = load_bundled("theophylline"), load_model("one_compartment_oral")
HEAD = GaussianHead(np.log([1.5, 0.08, 32.0]), np.array([0.5, 0.1, 0.2]), np.full(3, -0.7))


def encoder(kind="lstm", seed=0):
    out = RecognitionModel.untrained(
        MODEL, DATASET, ("ka", "ke", "V"), ("weight",), HEAD, kind=kind, width=8, seed=seed
    )
    rng = np.random.default_rng(1)
    for weight in out.network.trainable_variables:
        weight.assign(rng.normal(0.0, 0.3, weight.shape).astype(np.float32))
    return out


@pytest.mark.parametrize("kind", ENCODER_KINDS)
def test_numbers_do_not_change_when_padding_is_added(kind):
    model = encoder(kind)
    narrow, wide = model.input(MODEL, DATASET), model.input(MODEL, DATASET, width=41)
    filled = np.where(wide.mask[..., None], wide.tokens, 1e3).astype(np.float32)
    assert wide.tokens.shape[1] == 41
    a = np.asarray(model.network(narrow.tokens, narrow.mask, narrow.conditions))
    b = np.asarray(model.network(wide.tokens, wide.mask, wide.conditions))
    # Sums over other shapes may be reordered: a few float32 units.
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    if kind == "lstm":
        c = np.asarray(model.network(filled, wide.mask, wide.conditions))
        np.testing.assert_allclose(a, c, rtol=1e-5, atol=1e-5)


def test_law_of_one_subject_is_its_row_in_the_batch():
    model = encoder()
    mean, covariance = model.law(MODEL, DATASET)
    alone = model.law(MODEL, DATASET.select(DATASET.ids[3:4]))
    np.testing.assert_allclose(alone[0][0], mean[3], rtol=1e-5)
    np.testing.assert_allclose(alone[1][0], covariance[3], rtol=1e-4)


def test_head_derivatives_are_those_of_differences():
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal((4, HEAD.n_numbers))
    by_mean, by_root = rng.standard_normal((4, 3)), np.tril(rng.standard_normal((4, 3, 3)))

    def value(at):
        mean, root = HEAD.law(at)
        return (by_mean * mean).sum() + (by_root * root).sum()

    pulled = HEAD.pull(numbers, HEAD.law(numbers)[1], by_mean, by_root)
    h = 1e-6
    for k in range(HEAD.n_numbers):
        step = np.zeros_like(numbers)
        step[2, k] = h
        difference = (value(numbers + step) - value(numbers - step)) / (2 * h)
        assert pulled[2, k] == pytest.approx(difference, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("kind", ENCODER_KINDS)
def test_step_moves_the_numbers_against_their_derivative(kind):
    """The derivative of a quadratic form: its value must fall, and nothing moves at rate 0."""
    model = encoder(kind)
    given = model.input(MODEL, DATASET)
    trainer = RecognitionTrainer(model.network, model.shape, given.tokens, given.mask, given.conditions)
    first = trainer.numbers.copy()
    np.testing.assert_allclose(trainer.step(np.ones_like(first), 0.0), first, atol=1e-6)
    for _ in range(60):
        trainer.step(trainer.numbers - 1.0, 1e-2)
    assert ((trainer.numbers - 1.0) ** 2).sum() < 0.2 * ((first - 1.0) ** 2).sum()
    trainer.store()
    stored = np.asarray(model.network(given.tokens, given.mask, given.conditions))
    np.testing.assert_allclose(stored, trainer.numbers, rtol=1e-5, atol=1e-5)


def test_file_gives_the_same_laws_back(tmp_path):
    model = encoder("conv-gru")
    model.save(tmp_path / "encoder.h5")
    again = RecognitionModel.load(tmp_path / "encoder.h5")
    assert again.covariates == ("weight",) and again.parameters == ("ka", "ke", "V")
    for a, b in zip(model.law(MODEL, DATASET), again.law(MODEL, DATASET), strict=True):
        np.testing.assert_array_equal(a, b)


def test_damaged_file_is_refused(tmp_path):
    path = tmp_path / "encoder.h5"
    encoder().save(path)
    content = bytearray(path.read_bytes())
    place = content.rfind(values_of(encoder().network.weights)[-1].tobytes()[:8])
    content[place if place > 0 else len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(AmortNlmeError):
        RecognitionModel.load(path)


def test_other_model_is_refused():
    with pytest.raises(AmortNlmeError) as caught:
        encoder().law(load_model("neonatal_weight"), DATASET)
    assert caught.value.code == "E_DRAWS_OTHER_MODEL"
