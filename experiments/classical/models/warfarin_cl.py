"""One oral dose of warfarin, one compartment, in clearance, proportional error: the fixture of ferx-core."""

import numpy as np

from amortnlme.data.design_sampler import RandomDesignSampler
from amortnlme.model.dynamics import LinearCompartments
from amortnlme.model.error_model import Proportional
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
    name="warfarin_cl",
    version="1",
    text="Concentration after oral doses, in clearance and volume, proportional error.",
    source="ferx-core, fixture data/warfarin: 10 subjects, 100 mg, 11 concentrations each.",
    parameters=ParameterSpace(
        (
            Parameter("CL", "L/h", "log", 0.13, "apparent clearance"),
            Parameter("V", "L", "log", 8.0, "apparent volume"),
            Parameter("ka", "1/h", "log", 1.0, "absorption rate"),
            Parameter("b", "1", "log", 0.05, "proportional residual standard deviation", role="error"),
        )
    ),
    states=("depot", "central"),
    dynamics=LinearCompartments(rhs, dose_state="depot"),
    outputs=(Output("concentration", "mg/L", concentration, Proportional("b")),),
    prior=NormalPrior(mean=np.log([0.13, 8.0, 1.0, 0.05]), sd=[0.7, 0.7, 0.9, 1.0]),
    design_sampler=RandomDesignSampler(observations=(4, 16), doses=(1, 1), dose_amount=(50.0, 200.0)),
    units={"time": "h", "amount": "mg"},
)
