"""Oral pharmacokinetics that drives three responses: one inhibited, two liver enzymes stimulated.

The test bed of joint models: the concentration inhibits the production of a primary response R and
stimulates that of aspartate and alanine aminotransferase (AST, ALT). The half-lives of the enzymes in
plasma are known; everything else is a parameter.
"""

import numpy as np

from amortnlme.data.design_sampler_doses import Doses
from amortnlme.data.design_sampler_protocol import ProtocolDesignSampler
from amortnlme.data.design_sampler_times import PlannedTimes
from amortnlme.model.dynamics import Ode
from amortnlme.model.error_model import Additive, LogNormal, Proportional
from amortnlme.model.individual import IndividualModel, Output
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior

K_AST = np.log(2.0).item() / 17.0  # elimination of AST, half-life 17 h [1/h]
K_ALT = np.log(2.0).item() / 47.0  # elimination of ALT, half-life 47 h [1/h]


def rhs(t, y, p):
    """Change of the amounts in gut and plasma [mg/h], of the response [1/h], of AST and ALT [U/L/h]."""
    c = y.central / p.V
    return (
        -p.ka * y.depot,
        p.ka * y.depot - p.CL * c,
        p.kout * (p.R0 * (1.0 - p.Imax * c / (p.IC50 + c)) - y.response),
        K_AST * (p.AST0 * (1.0 + p.s_ast * c) - y.ast),
        K_ALT * (p.ALT0 * (1.0 + p.s_alt * c) - y.alt),
    )


def initial(p):
    """Empty compartments, responses at their baselines."""
    return 0.0, 0.0, p.R0, p.AST0, p.ALT0


def concentration(t, y, p):
    """Plasma concentration [mg/L]."""
    return y.central / p.V


def response(t, y, p):
    """Primary response [1]."""
    return y.response


def ast(t, y, p):
    """Aspartate aminotransferase [U/L]."""
    return y.ast


def alt(t, y, p):
    """Alanine aminotransferase [U/L]."""
    return y.alt


MODEL = IndividualModel(
    name="pkpd_four_endpoints",
    version="1",
    text="Oral pharmacokinetics with an inhibited response and two stimulated liver enzymes.",
    source=(
        "Indirect response models I and III of Dayneka, Garg & Jusko (1993), J. Pharmacokinet. Biopharm. "
        "21:457; endpoints as in PAGE 34 (2026), abstract 11880, with values of our own, because the "
        "abstract prints none."
    ),
    parameters=ParameterSpace(
        (
            Parameter("ka", "1/h", "log", 1.0, "absorption rate"),
            Parameter("CL", "L/h", "log", 5.0, "apparent clearance"),
            Parameter("V", "L", "log", 50.0, "apparent volume of distribution"),
            Parameter("R0", "1", "log", 100.0, "baseline of the response"),
            Parameter("IC50", "mg/L", "log", 0.6, "concentration of half the largest inhibition"),
            Parameter("AST0", "U/L", "log", 25.0, "baseline of AST"),
            Parameter("s_ast", "L/mg", "log", 1.5, "stimulation of the production of AST"),
            Parameter("ALT0", "U/L", "log", 22.0, "baseline of ALT"),
            Parameter("s_alt", "L/mg", "log", 1.5, "stimulation of the production of ALT"),
            Parameter("kout", "1/h", "log", 0.05, "turnover rate of the response"),
            Parameter("Imax", "1", "logit", 0.9, "largest inhibition"),
            Parameter("b_pk", "1", "log", 0.15, "relative residual SD of the concentration", role="error"),
            Parameter("a_response", "1", "log", 8.0, "residual SD of the response", role="error"),
            Parameter("s_enzymes", "1", "log", 0.1, "residual SD of log AST and log ALT", role="error"),
        )
    ),
    states=("depot", "central", "response", "ast", "alt"),
    dynamics=Ode(rhs, dose_state="depot", initial=initial),
    outputs=(
        Output("concentration", "mg/L", concentration, Proportional("b_pk")),
        Output("response", "1", response, Additive("a_response")),
        Output("ast", "U/L", ast, LogNormal("s_enzymes")),
        Output("alt", "U/L", alt, LogNormal("s_enzymes")),
    ),
    prior=NormalPrior(
        mean=[
            *np.log([1.0, 5.0, 50.0, 100.0, 0.6, 25.0, 1.5, 22.0, 1.5, 0.05]),
            np.log(9.0),
            *np.log([0.15, 8.0, 0.1]),
        ],
        sd=[0.6, 0.5, 0.4, 0.4, 0.8, 0.5, 0.8, 0.5, 0.8, 0.5, 0.7, 0.5, 0.5, 0.5],
    ),
    design_sampler=ProtocolDesignSampler(
        (
            PlannedTimes((0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 24.0, 312.5, 314.0, 316.0, 320.0, 336.0)),
            PlannedTimes(
                (0.0, 12.0, 24.0, 48.0, 72.0, 120.0, 168.0, 240.0, 312.0, 336.0, 384.0, 432.0), (2,)
            ),
            PlannedTimes((0.0, 24.0, 72.0, 168.0, 240.0, 336.0, 384.0, 480.0), (3, 4)),
        ),
        Doses(levels=(100.0,), number=(14, 14), intervals=(24.0,)),
    ),
    units={"time": "h", "amount": "mg"},
)
