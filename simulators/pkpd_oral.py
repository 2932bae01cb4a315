"""Pharmacokinetics of the joined endpoints: one compartment, first-order absorption, with clearance.

The part of `pkpd_four_endpoints` that every endpoint shares; `pkpd_response` and `pkpd_enzyme` repeat it.
"""

import numpy as np

from amortnlme.data.design_sampler_doses import Doses
from amortnlme.data.design_sampler_protocol import ProtocolDesignSampler
from amortnlme.data.design_sampler_times import PlannedTimes
from amortnlme.model.dynamics import LinearCompartments
from amortnlme.model.error_model import Proportional
from amortnlme.model.individual import IndividualModel, Output
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior


def rhs(t, y, p):
    """Amounts in the gut and in the central compartment [mg/h]."""
    return (
        -p.ka * y.depot,
        p.ka * y.depot - p.CL / p.V * y.central,
    )


def concentration(t, y, p):
    """Plasma concentration [mg/L]."""
    return y.central / p.V


MODEL = IndividualModel(
    name="pkpd_oral",
    version="1",
    text="Concentration after oral doses, with clearance and volume as parameters.",
    source=(
        "Gibaldi & Perrier (1982), Pharmacokinetics, chapter 1 (one compartment, first-order absorption); "
        "regimen as in PAGE 34 (2026), abstract 11880, with values of our own, because the abstract prints "
        "none."
    ),
    parameters=ParameterSpace(
        (
            Parameter("ka", "1/h", "log", 1.0, "absorption rate"),
            Parameter("CL", "L/h", "log", 5.0, "apparent clearance"),
            Parameter("V", "L", "log", 50.0, "apparent volume of distribution"),
            Parameter("b_pk", "1", "log", 0.15, "relative residual SD of the concentration", role="error"),
        )
    ),
    states=("depot", "central"),
    dynamics=LinearCompartments(rhs, dose_state="depot"),
    outputs=(Output("concentration", "mg/L", concentration, Proportional("b_pk")),),
    prior=NormalPrior(mean=np.log([1.0, 5.0, 50.0, 0.15]), sd=[0.6, 0.5, 0.4, 0.5]),
    design_sampler=ProtocolDesignSampler(
        (PlannedTimes((0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 24.0, 312.5, 314.0, 316.0, 320.0, 336.0)),),
        Doses(levels=(100.0,), number=(14, 14), intervals=(24.0,)),
    ),
    units={"time": "h", "amount": "mg"},
)
