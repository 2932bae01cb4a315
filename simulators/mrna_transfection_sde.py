"""Translation after mRNA transfection as a diffusion: the simple model with the noise of its four reactions.

The chemical Langevin equation of mRNA decay, translation and protein decay. Unlike in the simple model, k,
m0 and scale are separate parameters, because the noise depends on the numbers of molecules. The Brownian
path differs from simulation to simulation (the published code reseeds its generator inside every call,
which makes the path a constant). States that a step takes below zero are set to zero, as published.
"""

import numpy as np

from amortnlme.data.design_sampler_protocol import ProtocolDesignSampler
from amortnlme.data.design_sampler_times import PlannedTimes
from amortnlme.model.dynamics import Sde
from amortnlme.model.error_model import Additive
from amortnlme.model.functions import log, sqrt
from amortnlme.model.individual import IndividualModel, Output
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior


def drift(t, y, p):
    """Mean change of the numbers of mRNA and protein molecules [1/h]."""
    return (
        -p.delta * y.mrna,
        p.k * y.mrna - p.gamma * y.protein,
    )


def diffusion(t, y, p):
    """Noise amplitude of each state, one Brownian motion each [1/sqrt(h)]."""
    return (
        sqrt(p.delta * y.mrna),
        sqrt(p.k * y.mrna + p.gamma * y.protein),
    )


def initial(p):
    """All mRNA and no protein at the release."""
    return p.m0, 0.0


def release(p):
    """Time at which the mRNA is released into the cell."""
    return p.t0


def log_fluorescence(t, y, p):
    """Logarithm of the mean fluorescence of the cell."""
    return log(p.scale * y.protein + p.offset)


MODEL = IndividualModel(
    name="mrna_transfection_sde",
    version="1",
    text="Log fluorescence of a cell after mRNA transfection, with the noise of translation and decay.",
    source=(
        "Pieschner, Hasenauer & Fuchs (2022), J. Math. Biol. 84:56, SDE model of translation; "
        "parametrization and prior of Arruda et al. (2024), ICML, SDE model."
    ),
    parameters=ParameterSpace(
        (
            Parameter("delta", "1/h", "log", 0.5, "mRNA degradation rate"),
            Parameter("gamma", "1/h", "log", 0.05, "protein degradation rate"),
            Parameter("k", "1/h", "log", 1.0, "translation rate"),
            Parameter("m0", "1", "log", 300.0, "released mRNA molecules"),
            Parameter("scale", "a.u.", "log", 2.0, "fluorescence of a protein molecule"),
            Parameter("t0", "h", "log", 0.85, "time of the release"),
            Parameter("offset", "a.u.", "log", 8.0, "background fluorescence"),
            Parameter("sigma", "1", "log", 0.03, "residual SD of the log fluorescence", role="error"),
        )
    ),
    states=("mrna", "protein"),
    dynamics=Sde(
        drift,
        diffusion,
        dose_state="mrna",
        dt=0.01,
        initial=initial,
        start=release,
        non_negative=("mrna", "protein"),
    ),
    outputs=(Output("log_fluorescence", "log a.u.", log_fluorescence, Additive("sigma")),),
    # Means and variances of the logarithms as published.
    prior=NormalPrior(
        mean=[-3.0, -3.0, -1.0, 5.0, 0.0, 0.0, 0.0, -1.0],
        sd=np.sqrt([5.0, 5.0, 5.0, 5.0, 5.0, 2.0, 5.0, 2.0]),
    ),
    # Every ten minutes for 30 h; a third of the cells are followed throughout, the others lost some images.
    design_sampler=ProtocolDesignSampler(
        (PlannedTimes(tuple(i / 6 for i in range(1, 181)), keep=(20, 180), complete=1 / 3),)
    ),
    units={"time": "h", "amount": "molecules"},
)
