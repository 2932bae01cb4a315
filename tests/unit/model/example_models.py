"""Small models for the tests."""

import numpy as np

from amortnlme.data.design_sampler import RandomDesignSampler
from amortnlme.model.dynamics import LinearCompartments
from amortnlme.model.error_model import Additive, Combined, Proportional
from amortnlme.model.individual import IndividualModel, Output
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior

PARAMETERS = (
    Parameter("ka", "1/h", "log", 1.2, "absorption"),
    Parameter("ke", "1/h", "log", 0.2, "elimination"),
    Parameter("F", "1", "logit", 0.6, "bioavailable fraction"),
    Parameter("base", "mg/L", "identity", 0.1, "baseline"),
    Parameter("a", "mg/L", "log", 0.3, "additive SD", role="error"),
    Parameter("b", "1", "log", 0.2, "relative SD", role="error"),
    Parameter("c", "mg", "log", 2.0, "SD of the gut", role="error"),
)


def rhs(t, y, p):
    return (-p.ka * y.gut, p.ka * y.gut - p.ke * (p.weight / 70) ** 0.75 * y.blood)


def blood(t, y, p):
    return p.base + p.F * y.blood / p.weight


def gut(t, y, p):
    return y.gut + 1.0


def two_output_model(convention="variance"):
    """Covariate, three transforms, two outputs, combined and additive error."""
    return IndividualModel(
        name="two_outputs",
        version="1",
        text="a test",
        source="none",
        parameters=ParameterSpace(PARAMETERS),
        states=("gut", "blood"),
        dynamics=LinearCompartments(rhs, dose_state="gut"),
        outputs=(
            Output("blood", "mg/L", blood, Combined("a", "b", convention=convention)),
            Output("gut", "mg", gut, Additive("c")),
        ),
        prior=NormalPrior(ParameterSpace(PARAMETERS).typical_phi, np.full(7, 0.3)),
        design_sampler=RandomDesignSampler(weight=(40.0, 120.0)),
        units={"time": "h", "amount": "mg"},
        covariates=("weight",),
    )


def one_state(**changes):
    """One compartment, with any field replaced."""
    fields = {
        "name": "one",
        "version": "1",
        "text": "a test",
        "source": "none",
        "parameters": (
            Parameter("k", "1/h", "log", 0.2, "elimination"),
            Parameter("b", "1", "log", 0.2, "relative SD", role="error"),
        ),
        "states": ("amount",),
        "dynamics": LinearCompartments(lambda t, y, p: (-p.k * y.amount,), dose_state="amount"),
        "outputs": (Output("amount", "mg", lambda t, y, p: y.amount, Proportional("b")),),
        "prior": NormalPrior(np.log([0.2, 0.2]), [0.5, 0.5]),
        "design_sampler": RandomDesignSampler(),
        "units": {"time": "h", "amount": "mg"},
    }
    return IndividualModel(**(fields | changes))
