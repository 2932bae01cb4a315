"""One oral dose, one compartment, in clearance: the parametrization of nlmixr2's `theo_sd` example."""

import numpy as np

from amortnlme.data.design_sampler import RandomDesignSampler
from amortnlme.model.dynamics import LinearCompartments
from amortnlme.model.error_model import Additive
from amortnlme.model.individual import IndividualModel, Output
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior


def rhs(t, y, p):
    """Amounts in the gut and in the central compartment [mg/h]."""
    return -p.ka * y.depot, p.ka * y.depot - p.CL / p.V * y.central


def concentration(t, y, p):
    """Plasma concentration [mg/L]."""
    return y.central / p.V


MODEL = IndividualModel(
    name="oral_clearance",
    version="1",
    text="Concentration after oral doses, in clearance and volume, additive error.",
    source="nlmixr2 documentation, example theo_sd (one.cmt).",
    parameters=ParameterSpace(
        (
            Parameter("ka", "1/h", "log", 1.5, "absorption rate"),
            Parameter("CL", "L/h", "log", 2.7, "apparent clearance"),
            Parameter("V", "L", "log", 32.0, "apparent volume"),
            Parameter("a", "mg/L", "log", 0.6, "residual standard deviation", role="error"),
        )
    ),
    states=("depot", "central"),
    dynamics=LinearCompartments(rhs, dose_state="depot"),
    outputs=(Output("concentration", "mg/L", concentration, Additive("a")),),
    prior=NormalPrior(mean=np.log([1.5, 2.7, 32.0, 0.6]), sd=[0.9, 0.6, 0.6, 0.7]),
    design_sampler=RandomDesignSampler(observations=(2, 20), doses=(1, 1), dose_amount=(150.0, 600.0)),
    units={"time": "h", "amount": "mg"},
)
