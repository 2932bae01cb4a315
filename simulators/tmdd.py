"""Target-mediated drug disposition: a drug that binds its target tightly and is eliminated with it.

The full binding model. Binding is much faster than everything else (kon C is up to thousands per day at
high doses), so the equations are stiff. Amounts are in nmol, concentrations in nmol/L.
"""

import numpy as np

from amortnlme.data.design_sampler_doses import Doses
from amortnlme.data.design_sampler_protocol import ProtocolDesignSampler
from amortnlme.data.design_sampler_times import PlannedTimes
from amortnlme.model.dynamics import Ode
from amortnlme.model.error_model import Combined, Proportional
from amortnlme.model.individual import IndividualModel, Output
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior


def rhs(t, y, p):
    """Change of the drug in plasma and tissue [nmol/d], of free target and complex [nmol/L/d]."""
    c = y.drug / p.V
    binding = p.kon * c * y.target - p.koff * y.complex
    exchange = p.kpt * y.drug - p.ktp * y.tissue
    return (
        -p.kel * y.drug - exchange - binding * p.V,
        exchange,
        p.kdeg * (p.R0 - y.target) - binding,
        binding - p.kint * y.complex,
    )


def initial(p):
    """No drug, target at its baseline ksyn / kdeg."""
    return 0.0, 0.0, p.R0, 0.0


def free_drug(t, y, p):
    """Concentration of unbound drug [nmol/L]."""
    return y.drug / p.V


def total_target(t, y, p):
    """Concentration of target, free and bound [nmol/L]."""
    return y.target + y.complex


MODEL = IndividualModel(
    name="tmdd",
    version="1",
    text="Target-mediated disposition of an intravenous antibody: free drug and total target.",
    source=(
        "Mager & Jusko (2001), J. Pharmacokinet. Pharmacodyn. 28:507, general model (their ksyn is kdeg "
        "R0 here); typical values of a therapeutic antibody."
    ),
    parameters=ParameterSpace(
        (
            Parameter("kel", "1/d", "log", 0.08, "elimination rate of free drug"),
            Parameter("V", "L", "log", 3.0, "volume of the central compartment"),
            Parameter("kpt", "1/d", "log", 0.2, "rate from plasma to tissue"),
            Parameter("ktp", "1/d", "log", 0.25, "rate from tissue to plasma"),
            Parameter("kon", "L/nmol/d", "log", 10.0, "association rate"),
            Parameter("koff", "1/d", "log", 5.0, "dissociation rate"),
            Parameter("R0", "nmol/L", "log", 5.0, "target at baseline"),
            Parameter("kdeg", "1/d", "log", 0.5, "degradation rate of free target"),
            Parameter("kint", "1/d", "log", 0.2, "internalization rate of the complex"),
            Parameter("a", "nmol/L", "log", 0.1, "additive residual SD of the drug", role="error"),
            Parameter("b", "1", "log", 0.15, "proportional residual SD of the drug", role="error"),
            Parameter("b_target", "1", "log", 0.15, "relative residual SD of the target", role="error"),
        )
    ),
    states=("drug", "tissue", "target", "complex"),
    dynamics=Ode(rhs, dose_state="drug", initial=initial),
    outputs=(
        Output("free_drug", "nmol/L", free_drug, Combined("a", "b")),
        Output("total_target", "nmol/L", total_target, Proportional("b_target")),
    ),
    prior=NormalPrior(
        mean=np.log([0.08, 3.0, 0.2, 0.25, 10.0, 5.0, 5.0, 0.5, 0.2, 0.1, 0.15, 0.15]),
        sd=[0.5, 0.3, 0.6, 0.5, 1.0, 1.0, 0.7, 0.6, 0.6, 0.7, 0.5, 0.5],
    ),
    design_sampler=ProtocolDesignSampler(
        (
            PlannedTimes(
                (0.04, 0.25, 1.0, 2.0, 4.0, 7.0, 14.0, 21.0, 28.0, 42.0, 56.0),
                jitter=(0.01, 0.05, 0.1, 0.2, 0.3, *(0.5,) * 6),
                keep=(4, 11),
            ),
            PlannedTimes(
                (0.0, 1.0, 7.0, 14.0, 28.0, 42.0, 56.0), (2,), jitter=(0.0, 0.1, *(0.5,) * 5), keep=(2, 7)
            ),
        ),
        Doses(levels=(10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0), number=(1, 3), intervals=(14.0, 28.0)),
    ),
    units={"time": "d", "amount": "nmol"},
)
