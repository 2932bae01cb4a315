"""Sunitinib and its active metabolite SU12662 under daily oral doses with treatment breaks.

Absorbed drug passes the liver, where a part becomes metabolite before it reaches the circulation. Parent
and metabolite have two compartments each. Clearances scale with (weight / 70 kg)^0.75, volumes with weight
/ 70 kg.

Differences from the code of Arruda et al. (2024): Q34 and V4 are distinct parameters (there one value was
used for both), and concentrations are measured (there the amounts are). A subject
without a weight needs one before it is fitted; they used 83 kg for men and 75 kg for women, which is
`fill_covariate(dataset, "weight", {1: 83.0, 0: 75.0}, by="sex")` of `amortnlme.data.imputation`.
"""

import numpy as np

from amortnlme.data.design_sampler_covariates import Covariate
from amortnlme.data.design_sampler_doses import Doses
from amortnlme.data.design_sampler_protocol import ProtocolDesignSampler
from amortnlme.data.design_sampler_times import VisitTimes
from amortnlme.model.dynamics import Ode
from amortnlme.model.error_model import Additive
from amortnlme.model.functions import log
from amortnlme.model.individual import IndividualModel, Output
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior

QH = 80.0  # hepatic blood flow [L/h]
V5 = 588.0  # peripheral volume of the parent [L]
FM = 0.21  # typical fraction of the cleared parent that becomes metabolite
FLOOR = 0.001  # keeps the logarithm finite before the first dose; a threshold in the published code [ng/mL]


def rhs(t, y, p):
    """Amounts in the gut, of parent (central, peripheral) and of metabolite (central, peripheral) [mg/h]."""
    flow, size = (p.weight / 70.0) ** 0.75, p.weight / 70.0
    qh, clp, clm = QH * flow, p.CLP * flow, p.CLM * flow
    v2, v3 = p.V2 * size, p.V3 * size
    liver = (p.ka * y.depot + qh / v2 * y.parent) / (qh + clp)
    to_deep = p.Q25 * flow * (y.parent / v2 - y.parent_deep / (V5 * size))
    to_tissue = p.Q34 * flow * (y.metabolite / v3 - y.metabolite_deep / (p.V4 * size))
    return (
        -p.ka * y.depot,
        qh * liver - qh / v2 * y.parent - to_deep,
        FM * p.fm_factor * clp * liver - clm / v3 * y.metabolite - to_tissue,
        to_tissue,
        to_deep,
    )


def log_parent(t, y, p):
    """Logarithm of the plasma concentration of sunitinib [log ng/mL]."""
    return log(1000.0 * y.parent / (p.V2 * p.weight / 70.0) + FLOOR)


def log_metabolite(t, y, p):
    """Logarithm of the plasma concentration of SU12662 [log ng/mL]."""
    return log(1000.0 * y.metabolite / (p.V3 * p.weight / 70.0) + FLOOR)


MODEL = IndividualModel(
    name="sunitinib",
    version="1",
    text="Log concentrations of sunitinib and its metabolite SU12662 under daily oral doses.",
    source=(
        "Yu et al. (2015), Br. J. Clin. Pharmacol. 79:809 (presystemic formation of the metabolite), as "
        "extended by Diekstra et al. (2017), CPT Pharmacometrics Syst. Pharmacol. 6:604; prior of Arruda "
        "et al. (2024), ICML."
    ),
    parameters=ParameterSpace(
        (
            Parameter("ka", "1/h", "log", 0.133, "absorption rate (theta 1)"),
            Parameter("V2", "L", "log", 1820.0, "central volume of the parent at 70 kg (theta 2)"),
            Parameter("CLP", "L/h", "log", 33.9, "clearance of the parent at 70 kg (theta 4)"),
            Parameter("CLM", "L/h", "log", 16.5, "clearance of the metabolite at 70 kg (theta 5)"),
            Parameter("V3", "L", "log", 730.0, "central volume of the metabolite at 70 kg (theta 6)"),
            Parameter("Q34", "L/h", "log", 2.75, "exchange of the metabolite at 70 kg (theta 7)"),
            Parameter("V4", "L", "log", 592.0, "peripheral volume of the metabolite at 70 kg (theta 8)"),
            Parameter("Q25", "L/h", "log", 0.371, "exchange of the parent at 70 kg (theta 10)"),
            Parameter("s_parent", "1", "log", 0.37, "residual SD of log parent (theta 12)", role="error"),
            Parameter(
                "s_metabolite", "1", "log", 0.28, "residual SD of log metabolite (theta 13)", role="error"
            ),
            Parameter("fm_factor", "1", "log", 1.0, "fraction metabolized relative to 0.21 (exp eta 4)"),
        )
    ),
    states=("depot", "parent", "metabolite", "metabolite_deep", "parent_deep"),
    dynamics=Ode(rhs, dose_state="depot"),
    outputs=(
        Output("log_parent", "log ng/mL", log_parent, Additive("s_parent")),
        Output("log_metabolite", "log ng/mL", log_metabolite, Additive("s_metabolite")),
    ),
    # Means and variances of the logarithms as published.
    prior=NormalPrior(
        mean=[-5.0, 6.5, 2.5, 2.5, 6.5, 0.0, 6.5, -3.0, -1.0, -1.0, 0.0],
        sd=np.sqrt([4.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 4.5, 2.0, 2.0, 1.0]),
    ),
    # Continuous dosing, four weeks on and two off, two weeks on and one off; a fifth of the patients change
    # dose. Blood is taken before a dose, around the peak, while the drug is absorbed, or at any time.
    design_sampler=ProtocolDesignSampler(
        (
            VisitTimes(
                (1, 20),
                windows=((20.0, 24.0), (4.0, 12.0), (0.5, 4.0)),
                elsewhere=0.3,
                follow_up=336.0,
                outputs=(1, 2),
            ),
        ),
        Doses(
            levels=(12.5, 25.0, 37.5, 50.0),
            number=(1, 112),
            cycles=((0, 0), (28, 14), (14, 7)),
            change=0.2,
            jitter=0.04,
        ),
        (Covariate("weight", "log-normal", (40.0, 150.0), np.log(80.0).item(), 0.18, decimals=1),),
    ),
    units={"time": "h", "amount": "mg", "weight": "kg"},
    covariates=("weight",),
)
