"""Two-compartment model with intravenous infusions (or boluses) into the central compartment."""

import numpy as np

from amortnlme.data.design_sampler import RandomDesignSampler
from amortnlme.model.dynamics import LinearCompartments
from amortnlme.model.error_model import Combined
from amortnlme.model.individual import IndividualModel, Output
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior


def rhs(t, y, p):
    """Amounts in the central and the peripheral compartment [mg/h]."""
    out = p.CL / p.V1 * y.central
    exchange = p.Q / p.V1 * y.central - p.Q / p.V2 * y.peripheral
    return (
        -out - exchange,
        exchange,
    )


def concentration(t, y, p):
    """Plasma concentration [mg/L]."""
    return y.central / p.V1


MODEL = IndividualModel(
    name="two_compartment_infusion",
    version="1",
    text="Concentration under intravenous infusions: central and peripheral compartment, linear elimination.",
    source="Gibaldi & Perrier (1982), Pharmacokinetics, chapter 2, in clearances and volumes.",
    parameters=ParameterSpace(
        (
            Parameter("CL", "L/h", "log", 5.0, "clearance"),
            Parameter("V1", "L", "log", 20.0, "central volume"),
            Parameter("Q", "L/h", "log", 8.0, "intercompartmental clearance"),
            Parameter("V2", "L", "log", 40.0, "peripheral volume"),
            Parameter("a", "mg/L", "log", 0.1, "additive residual standard deviation", role="error"),
            Parameter("b", "1", "log", 0.15, "proportional residual standard deviation", role="error"),
        )
    ),
    states=("central", "peripheral"),
    dynamics=LinearCompartments(rhs, dose_state="central"),
    outputs=(Output("concentration", "mg/L", concentration, Combined("a", "b", convention="variance")),),
    prior=NormalPrior(mean=np.log([5.0, 20.0, 8.0, 40.0, 0.1, 0.15]), sd=[0.6, 0.6, 0.7, 0.7, 0.8, 0.5]),
    design_sampler=RandomDesignSampler(
        observations=(3, 16),
        doses=(1, 6),
        dose_amount=(100.0, 1000.0),
        intervals=(8.0, 12.0, 24.0),
        horizon=(8.0, 48.0),
        infusion_probability=0.8,
        infusion_duration=(0.25, 4.0),
    ),
    units={"time": "h", "amount": "mg"},
)
