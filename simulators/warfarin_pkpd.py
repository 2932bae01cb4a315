"""Warfarin after a single oral dose: absorption with a lag, and its inhibition of prothrombin synthesis.

Weight shapes the dose (mg/kg); its effects on CL and V belong to the population model. Warfarin can inhibit
the synthesis completely (largest inhibition 1), so that the activity falls with the turnover rate at most.
"""

import numpy as np

from amortnlme.data.design_sampler_covariates import Covariate
from amortnlme.data.design_sampler_doses import Doses
from amortnlme.data.design_sampler_protocol import ProtocolDesignSampler
from amortnlme.data.design_sampler_times import PlannedTimes
from amortnlme.model.dynamics import Ode
from amortnlme.model.error_model import Additive, Combined
from amortnlme.model.individual import IndividualModel, Output
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior


def rhs(t, y, p):
    """Change of the amounts in gut and plasma [mg/h] and of the prothrombin complex activity [%/h]."""
    c = y.central / p.V
    return (
        -p.ka * y.depot,
        p.ka * y.depot - p.CL * c,
        p.kout * (p.PCA0 * p.C50 / (p.C50 + c) - y.activity),
    )


def initial(p):
    """No drug, activity at its baseline kin / kout."""
    return 0.0, 0.0, p.PCA0


def lag(p):
    """Delay of the absorption [h]."""
    return p.tlag


def concentration(t, y, p):
    """Plasma concentration of warfarin [mg/L]."""
    return y.central / p.V


def activity(t, y, p):
    """Prothrombin complex activity [% of normal]."""
    return y.activity


MODEL = IndividualModel(
    name="warfarin_pkpd",
    version="1",
    text="Warfarin concentration and prothrombin complex activity (PCA) after an oral dose.",
    source=(
        "O'Reilly & Aggeler (1968), Circulation 38:169 (study); Holford (1986), Clin. Pharmacokinet. "
        "11:483 (turnover model of PCA with an Emax inhibition of its synthesis; typical values)."
    ),
    parameters=ParameterSpace(
        (
            Parameter("ka", "1/h", "log", 1.3, "absorption rate"),
            Parameter("tlag", "h", "log", 0.9, "lag of the absorption"),
            Parameter("CL", "L/h", "log", 0.134, "clearance"),
            Parameter("V", "L", "log", 8.1, "volume of distribution"),
            Parameter("PCA0", "%", "log", 96.0, "baseline activity"),
            Parameter("C50", "mg/L", "log", 1.2, "concentration of half inhibition"),
            Parameter("kout", "1/h", "log", 0.05, "turnover rate of the prothrombin complex"),
            Parameter("a", "mg/L", "log", 0.3, "additive residual SD of the concentration", role="error"),
            Parameter("b", "1", "log", 0.1, "proportional residual SD of the concentration", role="error"),
            Parameter("a_pca", "%", "log", 4.0, "residual SD of the activity", role="error"),
        )
    ),
    states=("depot", "central", "activity"),
    dynamics=Ode(rhs, dose_state="depot", initial=initial, lag={"depot": lag}),
    outputs=(
        Output("concentration", "mg/L", concentration, Combined("a", "b")),
        Output("pca", "%", activity, Additive("a_pca")),
    ),
    prior=NormalPrior(
        mean=np.log([1.3, 0.9, 0.134, 8.1, 96.0, 1.2, 0.05, 0.3, 0.1, 4.0]),
        sd=[0.8, 0.5, 0.5, 0.4, 0.2, 0.6, 0.4, 0.7, 0.6, 0.5],
    ),
    design_sampler=ProtocolDesignSampler(
        (
            PlannedTimes(
                (0.5, 1.0, 1.5, 2.0, 3.0, 6.0, 9.0, 12.0, 24.0, 36.0, 48.0, 72.0, 96.0, 120.0), keep=(3, 14)
            ),
            PlannedTimes((0.0, 24.0, 36.0, 48.0, 72.0, 96.0, 120.0, 144.0), (2,), keep=(3, 8)),
        ),
        Doses(levels=(1.5,), per="weight"),
        (Covariate("weight", "log-normal", (40.0, 110.0), np.log(70.0).item(), 0.2, decimals=1),),
    ),
    units={"time": "h", "amount": "mg", "weight": "kg"},
)
