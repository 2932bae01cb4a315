"""One-compartment model with intravenous infusions or boluses."""

import numpy as np

from amortnlme.data.design_sampler import RandomDesignSampler
from amortnlme.model.dynamics import LinearCompartments
from amortnlme.model.error_model import Combined
from amortnlme.model.individual import IndividualModel, Output
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior


def rhs(t, y, p):
    """Change of the amount in the central compartment [mg/h]."""
    return (-p.CL / p.V * y.central,)


def concentration(t, y, p):
    """Plasma concentration [mg/L]."""
    return y.central / p.V


MODEL = IndividualModel(
    name="one_compartment_infusion",
    version="1",
    text="Concentration under intravenous infusions or boluses: one compartment, linear elimination.",
    source="Gibaldi & Perrier (1982), Pharmacokinetics, chapter 1, in clearance and volume.",
    parameters=ParameterSpace(
        (
            Parameter("CL", "L/h", "log", 5.0, "clearance"),
            Parameter("V", "L", "log", 40.0, "volume of distribution"),
            Parameter("a", "mg/L", "log", 0.1, "additive residual standard deviation", role="error"),
            Parameter("b", "1", "log", 0.15, "proportional residual standard deviation", role="error"),
        )
    ),
    states=("central",),
    dynamics=LinearCompartments(rhs, dose_state="central"),
    outputs=(Output("concentration", "mg/L", concentration, Combined("a", "b")),),
    prior=NormalPrior(mean=np.log([5.0, 40.0, 0.1, 0.15]), sd=[0.6, 0.6, 0.8, 0.5]),
    design_sampler=RandomDesignSampler(
        observations=(2, 16),
        doses=(1, 6),
        dose_amount=(100.0, 1000.0),
        intervals=(8.0, 12.0, 24.0),
        horizon=(8.0, 48.0),
        infusion_probability=0.7,
        infusion_duration=(0.25, 4.0),
    ),
    units={"time": "h", "amount": "mg"},
)
