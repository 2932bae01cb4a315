"""What a new model file often gets wrong, and what it is told."""

from dataclasses import replace

import pytest

from amortnlme.core.errors import ModelError
from amortnlme.data.design_sampler import RandomDesignSampler
from amortnlme.model.contract import check_model
from amortnlme.model.registry import load_model

MODEL = load_model("two_compartment_oral")

FAULTS = {
    "Give a function of p for each state it concerns: lag={'depot': fn}": {"lag": 0.5},
    "bioavailability={'depot': fn}": {"bioavailability": lambda p: p.ka},
    "not a function. Write `def fn(p): return ...`": {"initial": (0.0, 0.0, 0.0)},
    "`lag of depot` is 0.5, not a function": {"lag": {"depot": 0.5}},
    "`lag` names 'gut', which is not a state": {"lag": {"gut": lambda p: p.tlag}},
    "it must return 3, one per state": {"initial": lambda p: (0.0,)},
}


@pytest.mark.parametrize("sentence", FAULTS)
def test_faulty_entry_is_refused_with_what_to_write_instead(sentence):
    with pytest.raises(ModelError) as caught:
        replace(MODEL, dynamics=replace(MODEL.dynamics, **FAULTS[sentence]))
    assert caught.value.code == "E_MODEL_ENTRY"
    assert sentence in str(caught.value)


def test_contract_names_a_covariate_that_the_design_sampler_does_not_draw():
    report = check_model(replace(load_model("factor_viii"), design_sampler=RandomDesignSampler()))
    failed = [row.detail for row in report.rows if not row.passed]
    assert failed
    assert any("'weight'" in detail and "E_MODEL_COVARIATE_MISSING" in detail for detail in failed)
