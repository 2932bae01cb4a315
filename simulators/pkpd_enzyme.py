"""Oral pharmacokinetics that stimulate the production of a liver enzyme: a biomarker of a joint model.

AST and ALT differ in their elimination (half-lives 17 h and 47 h in plasma), which a population model fixes.
The excess over the baseline, as a share of it, obeys a linear equation: x' = k (s c - x).
"""

import numpy as np

from amortnlme.data.design_sampler_doses import Doses
from amortnlme.data.design_sampler_protocol import ProtocolDesignSampler
from amortnlme.data.design_sampler_times import PlannedTimes
from amortnlme.model.dynamics import LinearCompartments
from amortnlme.model.error_model import LogNormal, Proportional
from amortnlme.model.individual import IndividualModel, Output
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior


def rhs(t, y, p):
    """Change of the amounts in gut and plasma [mg/h] and of the relative excess of the enzyme [1/h]."""
    return (
        -p.ka * y.depot,
        p.ka * y.depot - p.CL / p.V * y.central,
        p.k * (p.s / p.V * y.central - y.excess),
    )


def concentration(t, y, p):
    """Plasma concentration [mg/L]."""
    return y.central / p.V


def enzyme(t, y, p):
    """Activity of the enzyme in plasma [U/L]."""
    return p.baseline * (1.0 + y.excess)


MODEL = IndividualModel(
    name="pkpd_enzyme",
    version="1",
    text="Oral pharmacokinetics with one stimulated liver enzyme.",
    source=(
        "Indirect response model III of Dayneka, Garg & Jusko (1993), J. Pharmacokinet. Biopharm. 21:457, "
        "linear stimulation; endpoint as in PAGE 34 (2026), abstract 11880, with values of our own, because "
        "the abstract prints none."
    ),
    parameters=ParameterSpace(
        (
            Parameter("ka", "1/h", "log", 1.0, "absorption rate"),
            Parameter("CL", "L/h", "log", 5.0, "apparent clearance"),
            Parameter("V", "L", "log", 50.0, "apparent volume of distribution"),
            Parameter("baseline", "U/L", "log", 25.0, "activity without drug"),
            Parameter("s", "L/mg", "log", 1.5, "stimulation of the production"),
            Parameter("k", "1/h", "log", 0.04, "elimination rate of the enzyme"),
            Parameter("b_pk", "1", "log", 0.15, "relative residual SD of the concentration", role="error"),
            Parameter("s_enzyme", "1", "log", 0.1, "residual SD of the log activity", role="error"),
        )
    ),
    states=("depot", "central", "excess"),
    dynamics=LinearCompartments(rhs, dose_state="depot"),
    outputs=(
        Output("concentration", "mg/L", concentration, Proportional("b_pk")),
        Output("enzyme", "U/L", enzyme, LogNormal("s_enzyme")),
    ),
    prior=NormalPrior(
        mean=np.log([1.0, 5.0, 50.0, 25.0, 1.5, 0.04, 0.15, 0.1]),
        sd=[0.6, 0.5, 0.4, 0.5, 0.8, 0.3, 0.5, 0.5],
    ),
    design_sampler=ProtocolDesignSampler(
        (
            PlannedTimes((0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 24.0, 312.5, 314.0, 316.0, 320.0, 336.0)),
            PlannedTimes((0.0, 24.0, 72.0, 168.0, 240.0, 336.0, 384.0, 480.0), (2,)),
        ),
        Doses(levels=(100.0,), number=(14, 14), intervals=(24.0,)),
    ),
    units={"time": "h", "amount": "mg"},
)
