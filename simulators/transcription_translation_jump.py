"""Gene expression molecule by molecule: transcription, translation and the decay of mRNA and protein.

A Markov jump process with four reactions. The number of mRNA molecules alone is a birth-death process,
whose stationary law is Poisson with mean km / dm; protein is made in bursts of kp / dm on average.
"""

import numpy as np

from amortnlme.data.design_sampler_protocol import ProtocolDesignSampler
from amortnlme.data.design_sampler_times import PlannedTimes
from amortnlme.model.dynamics import Jump
from amortnlme.model.error_model import LogNormal
from amortnlme.model.individual import IndividualModel, Output
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior


def propensities(t, y, p):
    """Rates of transcription, mRNA decay, translation and protein decay [1/h]."""
    return (
        p.km,
        p.dm * y.mrna,
        p.kp * y.mrna,
        p.dp * y.protein,
    )


def switch_on(p):
    """Transcription of the empty cell begins at time 0, also where it is first observed later."""
    return 0.0


def fluorescence(t, y, p):
    """Fluorescence of the cell [a.u.]."""
    return p.scale * y.protein + p.offset


MODEL = IndividualModel(
    name="transcription_translation_jump",
    version="1",
    text="Fluorescence of a single cell from transcription and translation as a Markov jump process.",
    source=(
        "Thattai & van Oudenaarden (2001), PNAS 98:8614 (network); Gillespie (1977), J. Phys. Chem. "
        "81:2340 (exact simulation). Values of a weakly expressed gene."
    ),
    parameters=ParameterSpace(
        (
            Parameter("km", "1/h", "log", 6.0, "transcription rate"),
            Parameter("dm", "1/h", "log", 1.5, "decay rate of mRNA"),
            Parameter("kp", "1/h", "log", 10.0, "translation rate of an mRNA"),
            Parameter("dp", "1/h", "log", 0.3, "decay rate of protein"),
            Parameter("scale", "a.u.", "log", 1.0, "fluorescence of a protein molecule"),
            Parameter("offset", "a.u.", "log", 10.0, "background fluorescence"),
            Parameter("s", "1", "log", 0.1, "residual SD of the log fluorescence", role="error"),
        )
    ),
    states=("mrna", "protein"),
    dynamics=Jump(
        propensities,
        ({"mrna": 1}, {"mrna": -1}, {"protein": 1}, {"protein": -1}),
        dose_state="mrna",
        start=switch_on,
    ),
    outputs=(Output("fluorescence", "a.u.", fluorescence, LogNormal("s")),),
    prior=NormalPrior(
        mean=np.log([6.0, 1.5, 10.0, 0.3, 1.0, 10.0, 0.1]),
        sd=[0.7, 0.6, 0.7, 0.6, 0.5, 0.7, 0.5],
    ),
    design_sampler=ProtocolDesignSampler((PlannedTimes(tuple(0.5 * i for i in range(0, 61))),)),
    units={"time": "h", "amount": "molecules"},
)
