"""Models whose right-hand sides cannot be traced, next to traced ones that mean the same."""

import numpy as np

from amortnlme.data.design_sampler import RandomDesignSampler
from amortnlme.model.dynamics import CompiledOde, LinearCompartments
from amortnlme.model.error_model import Additive
from amortnlme.model.functions import exp, log, sqrt, where
from amortnlme.model.individual import IndividualModel, Output
from amortnlme.model.parameters import Parameter
from amortnlme.model.prior import NormalPrior

PARAMETERS = (
    Parameter("ka", "1/h", "log", 0.9, "absorption"),
    Parameter("ke", "1/h", "log", 0.2, "elimination"),
    Parameter("a", "mg", "log", 0.3, "additive SD", role="error"),
)
CLOCK = np.array([0.0, 8.0, 16.0, 24.0])
ACTIVITY = np.array([0.5, 1.5, 1.0, 0.5])
SATURATION = 40.0


def linear(t, y, p):
    return (-p.ka * y.gut, p.ka * y.gut - p.ke * (p.weight / 70) ** 0.75 * y.blood)


def looped(t, y, p):
    """`linear`, with a loop and branches on states that no trace can follow."""
    rate = 0.0
    for _ in range(3):
        rate += sqrt(p.ke * p.ke) / 3.0
    absorbed = p.ka * y.gut
    if y.blood > 1e300:
        absorbed = where(t > 0.0, 0.0, exp(-t))
    return (-absorbed, absorbed - rate * (p.weight / 70) ** 0.75 * y.blood)


def activity(t):
    """Linear interpolation in a table; beyond its ends the outermost values."""
    return np.interp(t, CLOCK, ACTIVITY)


def clocked(t, y, p):
    return (-p.ka * y.gut, p.ka * y.gut - p.ke * activity(t) * y.blood)


def saturating(t, y, p):
    """Elimination of at most `ke` times SATURATION."""
    eliminated = p.ke * SATURATION * y.blood / (SATURATION + y.blood)
    return (-p.ka * y.gut, p.ka * y.gut - eliminated)


def powered(t, y, p):
    """Every kind of function that formulas hold, and explicit time."""
    eliminated = p.ke * y.blood**1.3 / (1.0 + sqrt(y.blood + 1.0))
    fed = where(t > 5.0, exp(-0.1 * t), 0.2 * log(t + 2.0))
    return (-p.ka * y.gut, p.ka * y.gut - eliminated + fed)


def blood(t, y, p):
    return y.blood


def model_of(dynamics, covariates=("weight",)):
    """Two states, two rates, one output."""
    return IndividualModel(
        name="untraced",
        version="1",
        text="a test",
        source="none",
        parameters=PARAMETERS,
        states=("gut", "blood"),
        dynamics=dynamics,
        outputs=(Output("blood", "mg", blood, Additive("a")),),
        prior=NormalPrior(np.log([0.9, 0.2, 0.3]), np.full(3, 0.3)),
        design_sampler=RandomDesignSampler(weight=(40.0, 120.0) if covariates else None),
        units={"time": "h", "amount": "mg"},
        covariates=covariates,
    )


def compiled_model(rhs=looped, covariates=("weight",), **options):
    return model_of(CompiledOde(rhs, dose_state="gut", **options), covariates)


def closed_form_model():
    return model_of(LinearCompartments(linear, dose_state="gut"))
