"""One tiny trained estimator for all tests of this folder."""

import pytest
from unit.neural import tiny

from amortnlme.neural.train import train


@pytest.fixture(scope="session")
def tiny_set(tmp_path_factory):
    return tiny.training_set(tmp_path_factory.mktemp("sets") / "tiny.training")


@pytest.fixture(scope="session")
def tiny_artefact(tiny_set, tmp_path_factory):
    path = tmp_path_factory.mktemp("artefacts") / "tiny"
    train(tiny_set, tiny.NETWORK, tiny.TRAINING, path, 1, progress=False)
    return path


@pytest.fixture(scope="session")
def tiny_estimator(tiny_artefact):
    from amortnlme.neural.estimator import Estimator

    return Estimator.load(tiny_artefact)
