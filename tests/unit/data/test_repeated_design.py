"""One design for many individuals equals as many copies of it."""

from __future__ import annotations

import numpy as np
import pytest

from amortnlme.core.errors import DesignError
from amortnlme.core.rng import generator
from amortnlme.data.design import FIELDS, Design, DesignBatch, Dose
from amortnlme.data.design_sampler_protocol import ProtocolDesignSampler
from amortnlme.data.design_sampler_times import PlannedTimes
from amortnlme.data.repeated_design import DESIGN_ARRAYS, repeat_design

ONE = DesignBatch.from_designs([Design.from_doses([Dose(1.0, 5.0)], [2.0, 4.0])])


@pytest.mark.parametrize("weight", [np.array([60.0, 70.0, 80.0]), np.arange(9.0).reshape(3, 3)])
def test_a_repeated_design_equals_its_copies(weight):
    copies = DesignBatch.from_columns(
        {name: np.repeat(getattr(ONE, name), 3, axis=0) for name in FIELDS}, np.full(3, 3), {"weight": weight}
    )
    repeated = repeat_design(ONE, 3, {"weight": weight})
    for name in DESIGN_ARRAYS:
        np.testing.assert_array_equal(getattr(repeated, name), getattr(copies, name))
    np.testing.assert_array_equal(repeated.covariates["weight"], copies.covariates["weight"])
    assert repeated.time.strides[0] == 0


def test_only_one_design_can_be_repeated():
    with pytest.raises(DesignError) as caught:
        repeat_design(repeat_design(ONE, 3, {}), 3, {})
    assert caught.value.code == "E_DESIGN_REPEAT"


def test_a_plan_without_chance_is_drawn_without_copies():
    drawn = ProtocolDesignSampler((PlannedTimes((1.0, 2.0)), PlannedTimes((1.5,), outputs=(2,)))).sample(
        4, generator(1)
    )
    assert drawn.time.strides[0] == 0
    assert drawn.observation_times.tolist() == [[1.0, 1.5, 2.0]] * 4
    assert drawn.observation_output.tolist() == [[1, 2, 1]] * 4
