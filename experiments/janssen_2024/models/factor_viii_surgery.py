"""Factor VIII around surgery, two compartments, combined error; covariates belong to the population model."""

import numpy as np

from amortnlme.data.design_sampler import RandomDesignSampler
from amortnlme.model.dynamics import LinearCompartments
from amortnlme.model.error_model import Combined
from amortnlme.model.individual import IndividualModel, Output
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior


def rhs(t, y, p):
    """Amounts in the central and the peripheral compartment [IU/h]."""
    out = p.CL / p.V1 * y.central
    exchange = p.Q / p.V1 * y.central - p.Q / p.V2 * y.peripheral
    return (-out - exchange, exchange)


def activity(t, y, p):
    """Factor VIII activity above the baseline [IU/mL]."""
    return y.central / p.V1 / 1000.0


MODEL = IndividualModel(
    name="factor_viii_surgery",
    version="1",
    text="Factor VIII activity under boluses and continuous infusion, without covariates.",
    source="Janssen et al. (2024), J. Pharmacokinet. Pharmacodyn., doi 10.1007/s10928-024-09931-w.",
    parameters=ParameterSpace(
        (
            Parameter("CL", "L/h", "log", 0.2, "clearance"),
            Parameter("V1", "L", "log", 2.2, "central volume"),
            Parameter("Q", "L/h", "log", 0.15, "intercompartmental clearance"),
            Parameter("V2", "L", "log", 0.75, "peripheral volume"),
            Parameter("a", "IU/mL", "log", 0.05, "additive residual SD", role="error"),
            Parameter("b", "1", "log", 0.15, "proportional residual SD", role="error"),
        )
    ),
    states=("central", "peripheral"),
    dynamics=LinearCompartments(rhs, dose_state="central"),
    outputs=(Output("activity", "IU/mL", activity, Combined("a", "b")),),
    prior=NormalPrior(mean=np.log([0.2, 2.2, 0.15, 0.75, 0.05, 0.15]), sd=[0.6, 0.5, 0.5, 0.5, 0.5, 0.5]),
    design_sampler=RandomDesignSampler(),
    units={"time": "h", "amount": "IU"},
)
