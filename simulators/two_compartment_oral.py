"""Two-compartment model with first-order absorption after a lag, for oral doses.

Clearances and volumes are apparent (divided by the bioavailability, which oral data alone cannot tell).
"""

import numpy as np

from amortnlme.data.design_sampler import RandomDesignSampler
from amortnlme.model.dynamics import LinearCompartments
from amortnlme.model.error_model import Combined
from amortnlme.model.individual import IndividualModel, Output
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior


def rhs(t, y, p):
    """Change of the amounts in the gut, the central and the peripheral compartment [mg/h]."""
    absorbed = p.ka * y.depot
    exchange = p.Q / p.V1 * y.central - p.Q / p.V2 * y.peripheral
    return (
        -absorbed,
        absorbed - p.CL / p.V1 * y.central - exchange,
        exchange,
    )


def lag(p):
    """Delay of the absorption [h]."""
    return p.tlag


def concentration(t, y, p):
    """Plasma concentration [mg/L]."""
    return y.central / p.V1


MODEL = IndividualModel(
    name="two_compartment_oral",
    version="1",
    text="Concentration after oral doses: absorption lag, first-order absorption, two compartments.",
    source=(
        "Gibaldi & Perrier (1982), Pharmacokinetics, chapter 2, in clearances and volumes, with a lag time."
    ),
    parameters=ParameterSpace(
        (
            Parameter("ka", "1/h", "log", 1.2, "absorption rate"),
            Parameter("tlag", "h", "log", 0.4, "lag of the absorption"),
            Parameter("CL", "L/h", "log", 5.0, "apparent clearance"),
            Parameter("V1", "L", "log", 30.0, "apparent central volume"),
            Parameter("Q", "L/h", "log", 6.0, "apparent intercompartmental clearance"),
            Parameter("V2", "L", "log", 60.0, "apparent peripheral volume"),
            Parameter("a", "mg/L", "log", 0.05, "additive residual standard deviation", role="error"),
            Parameter("b", "1", "log", 0.15, "proportional residual standard deviation", role="error"),
        )
    ),
    states=("depot", "central", "peripheral"),
    dynamics=LinearCompartments(rhs, dose_state="depot", lag={"depot": lag}),
    outputs=(Output("concentration", "mg/L", concentration, Combined("a", "b")),),
    prior=NormalPrior(
        mean=np.log([1.2, 0.4, 5.0, 30.0, 6.0, 60.0, 0.05, 0.15]),
        sd=[0.7, 0.5, 0.6, 0.6, 0.7, 0.6, 0.8, 0.5],
    ),
    design_sampler=RandomDesignSampler(
        observations=(3, 20),
        doses=(1, 8),
        dose_amount=(50.0, 800.0),
        intervals=(8.0, 12.0, 24.0),
        horizon=(12.0, 72.0),
    ),
    units={"time": "h", "amount": "mg"},
)
