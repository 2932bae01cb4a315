"""Weight of newborns in their first week: they lose water at a falling rate until feeding sets in.

Production of weight switches on around `Tlag`, elimination fades with half-time `T50`: W' = kin / (1 +
exp(-2 (t - Tlag))) - koutmax (1 - t / (T50 + t)) W. Sex, delivery, gestational age, mother's age and parity
act on the parameters: they are covariates of the population model.
"""

import numpy as np

from amortnlme.data.design_sampler_protocol import ProtocolDesignSampler
from amortnlme.data.design_sampler_times import PlannedTimes
from amortnlme.model.dynamics import Ode
from amortnlme.model.error_model import Additive
from amortnlme.model.functions import exp
from amortnlme.model.individual import IndividualModel, Output
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior


def rhs(t, y, p):
    """Change of weight [g/d]."""
    production = p.kin / (1.0 + exp(-2.0 * (t - p.Tlag)))
    elimination = p.koutmax * p.T50 / (p.T50 + t)
    return (production - elimination * y.weight,)


def initial(p):
    """Weight at birth."""
    return (p.W0,)


def birth(p):
    """Time 0, also for a newborn who is first weighed later."""
    return 0.0


def weight(t, y, p):
    """Weight [g]."""
    return y.weight


MODEL = IndividualModel(
    name="neonatal_weight",
    version="1",
    text="Weight of a newborn in the first week of life: time-varying production and elimination.",
    source=(
        "Rohleff et al. (2025), CPT Pharmacometrics Syst. Pharmacol., doi 10.1002/psp4.70129, case study "
        "2; model of Wilbaux et al. (2016), J. Pediatr. 173:101. The prior is our own, around the "
        "study's starting values."
    ),
    parameters=ParameterSpace(
        (
            Parameter("W0", "g", "log", 3500.0, "weight at birth"),
            Parameter("kin", "g/d", "log", 80.0, "largest production rate"),
            Parameter("Tlag", "d", "log", 1.5, "time of half the largest production"),
            Parameter("koutmax", "1/d", "log", 0.06, "elimination rate at birth"),
            Parameter("T50", "d", "log", 1.7, "time of half the elimination rate at birth"),
            Parameter("a", "g", "log", 30.0, "residual standard deviation", role="error"),
        )
    ),
    states=("weight",),
    dynamics=Ode(rhs, dose_state="weight", initial=initial, start=birth),
    outputs=(Output("weight", "g", weight, Additive("a")),),
    prior=NormalPrior(mean=np.log([3500.0, 80.0, 1.5, 0.06, 1.7, 30.0]), sd=[0.25, 0.7, 0.5, 0.5, 0.8, 0.7]),
    design_sampler=ProtocolDesignSampler(
        (PlannedTimes((0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0), jitter=(0.0, *(0.3,) * 7), keep=(2, 8)),),
    ),
    units={"time": "d", "amount": "g"},
)
