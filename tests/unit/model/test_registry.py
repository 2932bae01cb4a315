"""Finding shipped models by name and a user's own by path."""

import pytest

from amortnlme.core.errors import ModelError
from amortnlme.model.registry import load_model, load_shipped_model, model_names

GOOD = """
import numpy as np
from amortnlme.data.design_sampler import RandomDesignSampler
from amortnlme.model.dynamics import LinearCompartments
from amortnlme.model.error_model import Additive
from amortnlme.model.individual import IndividualModel, Output
from amortnlme.model.parameters import Parameter
from amortnlme.model.prior import NormalPrior

def rhs(t, y, p):
    {body}

MODEL = IndividualModel(
    name="mine", version="1", text="a test", source="none",
    parameters=(Parameter("k", "1/h", "log", 0.2, "x"), Parameter("a", "mg", "log", 1.0, "x", role="error")),
    states=("amount",), dynamics=LinearCompartments(rhs, dose_state="amount"),
    outputs=(Output("amount", "mg", lambda t, y, p: y.amount, Additive("a")),),
    prior=NormalPrior(np.zeros(2), np.ones(2)), design_sampler=RandomDesignSampler(),
    units={{"time": "h", "amount": "mg"}},
)
"""


def write(tmp_path, text, name="model.py"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_shipped_models_load_by_name():
    assert "one_compartment_oral" in model_names()
    for name in model_names():
        assert load_model(name).name == name


def test_two_files_of_one_name_load_as_two_models(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = load_model(write(tmp_path / "a", GOOD.format(body="return (-p.k * y.amount,)")))
    two = load_model(str(write(tmp_path / "b", GOOD.format(body="return (-2 * p.k * y.amount,)"))))
    assert one.fingerprint != two.fingerprint


FAULTS = {
    "E_MODEL_NO_MODEL": ("x = 1\n", "defines no MODEL"),
    "E_MODEL_NO_MODEL ": ("MODEL = 3\n", "MODEL as int"),
    "E_MODEL_FILE": ("x = = 1\n", "line 1"),
    "E_MODEL_FILE ": ("x = 1\ny = 1 / 0\n", "line 2"),
    "E_MODEL_BRANCH": (GOOD.format(body="return (-p.k * y.amount if y.amount > 1 else 0,)"), "line 11"),
    "E_MODEL_UNKNOWN_NAME": (GOOD.format(body="return (-p.kk * y.amount,)"), "Did you mean p.k?"),
}


@pytest.mark.parametrize("code", FAULTS)
def test_a_wrong_file_gets_a_model_error(tmp_path, code):
    text, message = FAULTS[code]
    with pytest.raises(ModelError) as caught:
        load_model(write(tmp_path, text))
    assert caught.value.code == code.strip()
    assert message in str(caught.value)


def test_unknown_names_and_missing_files_are_told_apart(tmp_path):
    with pytest.raises(ModelError) as caught:
        load_model("one_compartment_orl")
    assert caught.value.code == "E_MODEL_UNKNOWN" and "'one_compartment_oral'" in str(caught.value)
    with pytest.raises(ModelError) as caught:
        load_model(tmp_path / "absent.py")
    assert caught.value.code == "E_MODEL_FILE_MISSING"


def test_a_name_read_from_a_file_never_executes_one(tmp_path):
    """Draws, fits and training sets name their model; a path in that place is refused unread."""
    trap = write(tmp_path, f"open({str(tmp_path / 'sprung')!r}, 'w').close()\nMODEL = None\n", "trap.py")
    for name in (str(trap), trap, "../simulators/one_compartment_oral", "os"):
        with pytest.raises(ModelError) as caught:
            load_shipped_model(name)
        assert caught.value.code == "E_MODEL_UNKNOWN"
    assert not (tmp_path / "sprung").exists()
    assert load_shipped_model("one_compartment_oral") is load_model("one_compartment_oral")
