"""One-compartment model whose oral doses pass a chain of four transit compartments: a smooth delay.

The time of absorption of a molecule has a gamma distribution with shape 4 and mean `MTT` (mean transit
time).
"""

import numpy as np

from amortnlme.data.design_sampler import RandomDesignSampler
from amortnlme.model.dynamics import LinearCompartments
from amortnlme.model.error_model import Combined
from amortnlme.model.individual import IndividualModel, Output
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior


def rhs(t, y, p):
    """Change of the amounts in the four transit compartments and in the central compartment [mg/h]."""
    ktr = 4.0 / p.MTT
    return (
        -ktr * y.transit1,
        ktr * (y.transit1 - y.transit2),
        ktr * (y.transit2 - y.transit3),
        ktr * (y.transit3 - y.transit4),
        ktr * y.transit4 - p.CL / p.V * y.central,
    )


def concentration(t, y, p):
    """Plasma concentration [mg/L]."""
    return y.central / p.V


MODEL = IndividualModel(
    name="one_compartment_transit",
    version="1",
    text="Concentration after oral doses: absorption through four transit compartments, one compartment.",
    source=(
        "Savic et al. (2007), J. Pharmacokinet. Pharmacodyn. 34:711, transit compartments, with their "
        "number fixed and the last one absorbed at the transit rate."
    ),
    parameters=ParameterSpace(
        (
            Parameter("MTT", "h", "log", 1.5, "mean transit time"),
            Parameter("CL", "L/h", "log", 5.0, "apparent clearance"),
            Parameter("V", "L", "log", 50.0, "apparent volume of distribution"),
            Parameter("a", "mg/L", "log", 0.05, "additive residual standard deviation", role="error"),
            Parameter("b", "1", "log", 0.15, "proportional residual standard deviation", role="error"),
        )
    ),
    states=("transit1", "transit2", "transit3", "transit4", "central"),
    dynamics=LinearCompartments(rhs, dose_state="transit1"),
    outputs=(Output("concentration", "mg/L", concentration, Combined("a", "b")),),
    prior=NormalPrior(mean=np.log([1.5, 5.0, 50.0, 0.05, 0.15]), sd=[0.6, 0.6, 0.6, 0.8, 0.5]),
    design_sampler=RandomDesignSampler(
        observations=(3, 18),
        doses=(1, 8),
        dose_amount=(50.0, 800.0),
        intervals=(8.0, 12.0, 24.0),
        horizon=(8.0, 48.0),
    ),
    units={"time": "h", "amount": "mg"},
)
