"""Translation after mRNA transfection with ribosomes and enzymatic degradation of the mRNA.

mRNA binds free ribosomes reversibly and is degraded by an enzyme that it uses up. Amounts are relative to
the released mRNA m0, whose products with the rates are the identifiable parameters. The enzyme recovers
towards e0: e' = -delta1 m e + delta2 (e0 - e), so it stays between 0 and e0. In the printed supplement e'
has the opposite sign; there the enzyme runs away exponentially.
"""

import numpy as np

from amortnlme.data.design_sampler_protocol import ProtocolDesignSampler
from amortnlme.data.design_sampler_times import PlannedTimes
from amortnlme.model.dynamics import Ode
from amortnlme.model.error_model import Additive
from amortnlme.model.functions import log
from amortnlme.model.individual import IndividualModel, Output
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior


def rhs(t, y, p):
    """Change of free mRNA, enzyme and free ribosomes [m0/h] and of protein [a.u./h]."""
    degraded = p.delta1_m0 * y.mrna * y.enzyme
    bound = p.r0_m0 - y.ribosomes
    binding = p.k1_m0 * y.mrna * y.ribosomes - p.k2 * bound
    return (
        -degraded - binding,
        -degraded + p.delta2 * (p.e0_m0 - y.enzyme),
        -binding,
        p.k2_m0_scale * bound - p.gamma * y.protein,
    )


def initial(p):
    """All mRNA free, enzyme and ribosomes at rest, no protein at the release."""
    return 1.0, p.e0_m0, p.r0_m0, 0.0


def release(p):
    """Time at which the mRNA is released into the cell."""
    return p.t0


def log_fluorescence(t, y, p):
    """Logarithm of the mean fluorescence of the cell."""
    return log(y.protein + p.offset)


MODEL = IndividualModel(
    name="mrna_transfection_detailed",
    version="1",
    text="Log fluorescence of a cell after mRNA transfection, with ribosomes and enzymatic mRNA decay.",
    source=(
        "Froehlich et al. (2018), npj Syst. Biol. Appl. 4:42, model with ribosomes and enzymatic "
        "degradation; parametrization and prior (of the public code) of Arruda et al. (2024), ICML, "
        "detailed model; sign of e' corrected."
    ),
    parameters=ParameterSpace(
        (
            Parameter("delta1_m0", "1/h", "log", 0.9, "enzymatic mRNA degradation x m0"),
            Parameter("delta2", "1/h", "log", 0.4, "recovery rate of the enzyme"),
            Parameter("e0_m0", "1", "log", 0.65, "enzyme at rest / m0"),
            Parameter("k2_m0_scale", "a.u./h", "log", 1e5, "translation by bound ribosomes x m0 x scale"),
            Parameter("k2", "1/h", "log", 1.5, "release rate of ribosomes"),
            Parameter("k1_m0", "1/h", "log", 2.6, "binding of ribosomes x m0"),
            Parameter("r0_m0", "1", "log", 0.03, "ribosomes / m0"),
            Parameter("gamma", "1/h", "log", 0.015, "protein degradation rate"),
            Parameter("t0", "h", "log", 0.7, "time of the release"),
            Parameter("offset", "a.u.", "log", 8.0, "background fluorescence"),
            Parameter("sigma", "1", "log", 0.03, "residual SD of the log fluorescence", role="error"),
        )
    ),
    states=("mrna", "enzyme", "ribosomes", "protein"),
    dynamics=Ode(rhs, dose_state="mrna", initial=initial, start=release),
    outputs=(Output("log_fluorescence", "log a.u.", log_fluorescence, Additive("sigma")),),
    # Means and variances of the logarithms as in the published code; the printed ones differ in places.
    prior=NormalPrior(
        mean=[-1.0, -1.0, -1.0, 12.0, -1.0, 1.0, -1.0, -6.0, 0.0, 0.0, -1.0],
        sd=np.sqrt([5.0, 5.0, 2.0, 1.0, 2.0, 2.0, 2.0, 5.0, 2.0, 5.0, 2.0]),
    ),
    # Every ten minutes for 30 h; a third of the cells are followed throughout, the others lost some images.
    design_sampler=ProtocolDesignSampler(
        (PlannedTimes(tuple(i / 6 for i in range(1, 181)), keep=(20, 180), complete=1 / 3),)
    ),
    units={"time": "h", "amount": "m0"},
)
