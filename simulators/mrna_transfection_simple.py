"""Translation after mRNA transfection of a single cell: mRNA decays, protein is made and degraded.

Only the product k m0 scale is identifiable from the fluorescence, so the amount of mRNA is relative to m0
and the protein is in units of fluorescence. Release of the mRNA at `t0` starts the clock; before, the cell
shows the offset alone. The two rates can swap roles: (delta, gamma) and (gamma, delta) predict the same.
"""

import numpy as np

from amortnlme.data.design_sampler_protocol import ProtocolDesignSampler
from amortnlme.data.design_sampler_times import PlannedTimes
from amortnlme.model.dynamics import LinearCompartments
from amortnlme.model.error_model import Additive
from amortnlme.model.functions import log
from amortnlme.model.individual import IndividualModel, Output
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior


def rhs(t, y, p):
    """Change of mRNA [m0/h] and protein [a.u./h]."""
    return (
        -p.delta * y.mrna,
        p.k_m0_scale * y.mrna - p.gamma * y.protein,
    )


def initial(p):
    """All mRNA and no protein at the release."""
    return 1.0, 0.0


def release(p):
    """Time at which the mRNA is released into the cell."""
    return p.t0


def log_fluorescence(t, y, p):
    """Logarithm of the mean fluorescence of the cell."""
    return log(y.protein + p.offset)


MODEL = IndividualModel(
    name="mrna_transfection_simple",
    version="1",
    text="Log fluorescence of a cell after mRNA transfection: mRNA decay, translation, protein decay.",
    source=(
        "Leonhardt et al. (2014), Nanomedicine 10:679 (model); Froehlich et al. (2018), npj Syst. Biol. "
        "Appl. 4:42, standard model of translation; parametrization and prior of Arruda et al. (2024), "
        "ICML, simple model."
    ),
    parameters=ParameterSpace(
        (
            Parameter("delta", "1/h", "log", 0.5, "mRNA degradation rate"),
            Parameter("gamma", "1/h", "log", 0.05, "protein degradation rate"),
            Parameter("k_m0_scale", "a.u./h", "log", 500.0, "translation rate x released mRNA x scale"),
            Parameter("t0", "h", "log", 0.85, "time of the release"),
            Parameter("offset", "a.u.", "log", 8.0, "background fluorescence"),
            Parameter("sigma", "1", "log", 0.03, "residual SD of the log fluorescence", role="error"),
        )
    ),
    states=("mrna", "protein"),
    dynamics=LinearCompartments(rhs, dose_state="mrna", initial=initial, start=release),
    outputs=(Output("log_fluorescence", "log a.u.", log_fluorescence, Additive("sigma")),),
    # Means and variances of the logarithms as published.
    prior=NormalPrior(mean=[-3.0, -3.0, 5.0, 0.0, 0.0, -1.0], sd=np.sqrt([5.0, 5.0, 11.0, 2.0, 6.0, 2.0])),
    # Every ten minutes for 30 h; a third of the cells are followed throughout, the others lost some images.
    design_sampler=ProtocolDesignSampler(
        (PlannedTimes(tuple(i / 6 for i in range(1, 181)), keep=(20, 180), complete=1 / 3),)
    ),
    units={"time": "h", "amount": "m0"},
)
