"""Factor VIII after an infusion: two compartments; clearance depends on weight and von Willebrand factor.

The covariate effects are part of the published generating model, with its coefficients: CL rises with
weight and falls with von Willebrand factor antigen (VWF), which protects factor VIII; V1 is proportional to
weight. The effect of VWF is a leaky softplus of 100 - VWF. (The printed equation lost that sign; blood
group acts through VWF alone, which is lower in group O. Fat-free mass replaces weight in the study's real
data, not in its simulator.) Measurements below zero, which the study sets to zero, are kept.
"""

import numpy as np

from amortnlme.data.design_sampler_covariates import Covariate
from amortnlme.data.design_sampler_doses import Doses
from amortnlme.data.design_sampler_protocol import ProtocolDesignSampler
from amortnlme.data.design_sampler_times import PlannedTimes
from amortnlme.model.dynamics import LinearCompartments
from amortnlme.model.error_model import Additive
from amortnlme.model.functions import exp, log
from amortnlme.model.individual import IndividualModel, Output
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior


def vwf_effect(vwf):
    """Factor on the clearance; 1.02 at 100 IU/dL."""
    x = 100.0 - vwf
    leaky_softplus = 0.05 * x + 0.95 * log(1.0 + exp(0.1 * x)) / 0.1
    return leaky_softplus / 55.0 + 0.9


def rhs(t, y, p):
    """Amounts in the central and the peripheral compartment [IU/h]."""
    v1 = p.V1 * p.weight / 70.0
    out = p.CL * (p.weight / 70.0) ** 0.75 * vwf_effect(p.vwf) / v1 * y.central
    exchange = p.Q / v1 * y.central - p.Q / p.V2 * y.peripheral
    return (
        -out - exchange,
        exchange,
    )


def activity(t, y, p):
    """Factor VIII activity above the baseline [IU/mL]."""
    return y.central / (p.V1 * p.weight / 70.0) / 1000.0


MODEL = IndividualModel(
    name="factor_viii",
    version="1",
    text="Factor VIII activity after an infusion, with effects of weight and von Willebrand factor.",
    source=(
        "Janssen et al. (2024), J. Pharmacokinet. Pharmacodyn., doi 10.1007/s10928-024-09931-w, "
        "simulation study; coefficients as in its public code and data."
    ),
    parameters=ParameterSpace(
        (
            Parameter("CL", "L/h", "log", 0.1, "clearance at 70 kg, before the effect of VWF"),
            Parameter("V1", "L", "log", 2.0, "central volume at 70 kg"),
            Parameter("Q", "L/h", "log", 0.15, "intercompartmental clearance"),
            Parameter("V2", "L", "log", 0.75, "peripheral volume"),
            Parameter("sigma", "IU/mL", "log", 0.03, "residual standard deviation", role="error"),
        )
    ),
    states=("central", "peripheral"),
    dynamics=LinearCompartments(rhs, dose_state="central"),
    outputs=(Output("activity", "IU/mL", activity, Additive("sigma")),),
    prior=NormalPrior(mean=np.log([0.1, 2.0, 0.15, 0.75, 0.03]), sd=[0.5, 0.4, 0.5, 0.5, 0.5]),
    design_sampler=ProtocolDesignSampler(
        (PlannedTimes((4.0, 24.0, 48.0), jitter=(1.5, 4.0, 4.0), keep=(1, 3)),),
        Doses(amount=(15.0, 50.0), per="weight", unit_size=250.0, duration=(1.0 / 60.0, 0.5)),
        (
            Covariate("age", "uniform", (1.0, 85.0)),
            # Height and weight: regressions on the study's 500 virtual patients.
            Covariate("height", "normal", (65.0, 205.0), 80.6, 7.7, (("age", 6.33, 1.0, 15.0),), 0),
            Covariate(
                "weight",
                "log-normal",
                (7.0, 180.0),
                1.475,
                0.205,
                (("height", 0.01257, 65.0, 205.0), ("age", 0.0388, 1.0, 18.0)),
                1,
            ),
            Covariate("blood_group_o", "bernoulli", (0.0, 1.0), 0.45),
            Covariate(
                "vwf",
                "log-normal",
                (20.0, 450.0),
                4.11 + 0.15789,
                0.34782,
                (("age", 0.5152 / 45.0, 40.0, 85.0), ("blood_group_o", np.log(0.70087).item(), 0.0, 1.0)),
            ),
        ),
    ),
    units={"time": "h", "amount": "IU", "weight": "kg", "height": "cm", "age": "y", "vwf": "IU/dL"},
    covariates=("weight", "vwf"),
)
