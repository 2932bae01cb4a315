"""Oral pharmacokinetics that inhibit the production of a response: the primary endpoint of a joint model."""

import numpy as np

from amortnlme.data.design_sampler_doses import Doses
from amortnlme.data.design_sampler_protocol import ProtocolDesignSampler
from amortnlme.data.design_sampler_times import PlannedTimes
from amortnlme.model.dynamics import Ode
from amortnlme.model.error_model import Additive, Proportional
from amortnlme.model.individual import IndividualModel, Output
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior


def rhs(t, y, p):
    """Change of the amounts in gut and plasma [mg/h] and of the response [1/h]."""
    c = y.central / p.V
    return (
        -p.ka * y.depot,
        p.ka * y.depot - p.CL * c,
        p.kout * (p.R0 * (1.0 - p.Imax * c / (p.IC50 + c)) - y.response),
    )


def initial(p):
    """Empty compartments, response at its baseline."""
    return 0.0, 0.0, p.R0


def concentration(t, y, p):
    """Plasma concentration [mg/L]."""
    return y.central / p.V


def response(t, y, p):
    """Primary response [1]."""
    return y.response


MODEL = IndividualModel(
    name="pkpd_response",
    version="1",
    text="Oral pharmacokinetics with one inhibited response.",
    source=(
        "Indirect response model I of Dayneka, Garg & Jusko (1993), J. Pharmacokinet. Biopharm. 21:457; "
        "endpoint as in PAGE 34 (2026), abstract 11880, with values of our own, because the abstract prints "
        "none."
    ),
    parameters=ParameterSpace(
        (
            Parameter("ka", "1/h", "log", 1.0, "absorption rate"),
            Parameter("CL", "L/h", "log", 5.0, "apparent clearance"),
            Parameter("V", "L", "log", 50.0, "apparent volume of distribution"),
            Parameter("R0", "1", "log", 100.0, "baseline of the response"),
            Parameter("IC50", "mg/L", "log", 0.6, "concentration of half the largest inhibition"),
            Parameter("kout", "1/h", "log", 0.05, "turnover rate of the response"),
            Parameter("Imax", "1", "logit", 0.9, "largest inhibition"),
            Parameter("b_pk", "1", "log", 0.15, "relative residual SD of the concentration", role="error"),
            Parameter("a_response", "1", "log", 8.0, "residual SD of the response", role="error"),
        )
    ),
    states=("depot", "central", "response"),
    dynamics=Ode(rhs, dose_state="depot", initial=initial),
    outputs=(
        Output("concentration", "mg/L", concentration, Proportional("b_pk")),
        Output("response", "1", response, Additive("a_response")),
    ),
    prior=NormalPrior(
        mean=[*np.log([1.0, 5.0, 50.0, 100.0, 0.6, 0.05]), np.log(9.0), *np.log([0.15, 8.0])],
        sd=[0.6, 0.5, 0.4, 0.4, 0.8, 0.5, 0.7, 0.5, 0.5],
    ),
    design_sampler=ProtocolDesignSampler(
        (
            PlannedTimes((0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 24.0, 312.5, 314.0, 316.0, 320.0, 336.0)),
            PlannedTimes(
                (0.0, 12.0, 24.0, 48.0, 72.0, 120.0, 168.0, 240.0, 312.0, 336.0, 384.0, 432.0), (2,)
            ),
        ),
        Doses(levels=(100.0,), number=(14, 14), intervals=(24.0,)),
    ),
    units={"time": "h", "amount": "mg"},
)
