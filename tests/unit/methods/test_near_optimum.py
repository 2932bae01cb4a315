"""Which fits the exact likelihood is not explored around."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from amortnlme import Focei, PopulationModel, RandomEffects, fit, load_bundled, near_optimum
from amortnlme.core.errors import CapabilityError, FitError, UsageError
from amortnlme.core.status import FitStatus
from amortnlme.population.networks import NetworkEffect, NetworkInput


@pytest.fixture(scope="module")
def found():
    population = PopulationModel(random_effects=RandomEffects(("ka", "ke", "V")))
    return fit(load_bundled("theophylline"), population, Focei(), model="one_compartment_oral")


def test_other_data_than_those_of_the_fit_are_refused(found):
    data = load_bundled("theophylline")
    with pytest.raises(UsageError, match="E_FIT_OTHER_DATASET"):
        near_optimum(found, data.select(data.ids[:6]))


def test_a_failed_fit_is_refused(found):
    data = load_bundled("theophylline")
    for broken in (replace(found, status=FitStatus.FAILED), replace(found, x=np.full(len(found.x), np.nan))):
        with pytest.raises(FitError, match="E_FIT_NOT_INFORMED"):
            near_optimum(broken, data)


def test_penalized_networks_are_refused(found):
    network = NetworkEffect(on=("V",), inputs=(NetworkInput("weight"),))
    population = replace(found.population, networks=(network,))
    with pytest.raises(CapabilityError, match="E_FIT_CAPABILITY"):
        near_optimum(replace(found, population=population), load_bundled("theophylline"))
