"""Small models that between them use everything an event table can touch."""

import numpy as np

from amortnlme.data.design_sampler import RandomDesignSampler
from amortnlme.model.dynamics import Ode
from amortnlme.model.error_model import Additive
from amortnlme.model.functions import exp
from amortnlme.model.individual import IndividualModel, Output
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior

# An order below the defaults: the fuzz looks for wrong events, not for the tolerance of a step.
TOLERANCES = {"rtol": 1e-10, "atol": 1e-12}


def _space(*declared):
    return ParameterSpace(
        (
            *(Parameter(n, "1", transform, typical, n) for n, transform, typical in declared),
            Parameter("sd", "1", "log", 0.1, "residual SD", role="error"),
        )
    )


PARAMETERS = {
    "linear": _space(
        ("ka", "log", 0.9),
        ("CL", "log", 1.1),
        ("V", "log", 10.0),
        ("Q", "log", 0.8),
        ("F", "logit", 0.7),
        ("lag", "identity", 0.5),
    ),
    "saturable": _space(
        ("ka", "log", 0.8),
        ("Vmax", "log", 4.0),
        ("Km", "log", 2.0),
        ("kin", "log", 3.0),
        ("kout", "log", 0.3),
        ("IC50", "log", 1.5),
        ("lag", "identity", 0.5),
    ),
    "released": _space(
        ("t0", "identity", 1.3),
        ("m0", "log", 20.0),
        ("make", "log", 0.5),
        ("d", "log", 0.4),
        ("k", "log", 0.7),
        ("lag", "identity", 0.5),
    ),
    "maturing": _space(
        ("make", "log", 2.0),
        ("fade", "log", 0.1),
        ("k", "log", 0.12),
        ("lag", "identity", 0.5),
    ),
}


def _model(name, states, dynamics, outputs):
    space = PARAMETERS[name]
    return IndividualModel(
        name=name,
        version="1",
        text="a test",
        source="none",
        parameters=space,
        states=states,
        dynamics=dynamics,
        outputs=tuple(Output(n, "mg", fn, Additive("sd")) for n, fn in outputs),
        prior=NormalPrior(space.typical_phi, np.full(space.d, 0.3)),
        design_sampler=RandomDesignSampler(),
        units={"time": "h", "amount": "mg"},
        covariates=("weight",),
    )


def linear(method):
    """Three compartments; lag and bioavailability depend on the covariate at the dose."""

    def rhs(t, y, p):
        cl = p.CL * (p.weight / 70) ** 0.75
        return (
            -p.ka * y.depot,
            p.ka * y.depot - (cl + p.Q) / p.V * y.central + p.Q / 20 * y.tissue,
            p.Q / p.V * y.central - p.Q / 20 * y.tissue,
        )

    return _model(
        "linear",
        ("depot", "central", "tissue"),
        Ode(
            rhs,
            "depot",
            lag={"depot": lambda p: p.lag * 70 / p.weight, "tissue": lambda p: 2 * p.lag},
            bioavailability={"depot": lambda p: p.F * p.weight / 70},
            method=method,
            **TOLERANCES,
        ),
        (
            ("central", lambda t, y, p: y.central / p.V),
            ("all", lambda t, y, p: y.depot + y.central + y.tissue),
        ),
    )


def saturable():
    """Absorption, Michaelis-Menten elimination and an indirect response; nothing is linear."""

    def rhs(t, y, p):
        concentration = y.central / 10
        return (
            -p.ka * y.depot,
            p.ka * y.depot
            - p.Vmax * (p.weight / 70) * concentration / (p.Km + concentration)
            - 0.02 * y.central,
            p.kin * (1 - concentration / (p.IC50 + concentration)) - p.kout * y.response,
        )

    return _model(
        "saturable",
        ("depot", "central", "response"),
        Ode(
            rhs,
            "depot",
            initial=lambda p: (0.0, 0.0, p.kin / p.kout * (p.weight / 70)),
            lag={"depot": lambda p: p.lag},
            **TOLERANCES,
        ),
        (("central", lambda t, y, p: y.central / 10), ("response", lambda t, y, p: y.response)),
    )


def released(method):
    """Two states that wait for a start time, with initial values and production."""

    def rhs(t, y, p):
        return p.make - p.d * y.mrna, p.k * (p.weight / 70) * y.mrna - 0.1 * y.protein

    return _model(
        "released",
        ("mrna", "protein"),
        Ode(
            rhs,
            "mrna",
            initial=lambda p: (p.m0 * p.weight / 70, 2.0),
            start=lambda p: p.t0 * p.weight / 70,
            lag={"protein": lambda p: p.lag},
            method=method,
            **TOLERANCES,
        ),
        (("mrna", lambda t, y, p: y.mrna), ("protein", lambda t, y, p: y.protein + 0.1 * t)),
    )


def maturing():
    """Production that fades and elimination that rises with time."""

    def rhs(t, y, p):
        return (p.make * (1 + 2 * exp(-p.fade * t)) - p.k * (1 + 0.05 * t) * (p.weight / 70) * y.amount,)

    return _model(
        "maturing",
        ("amount",),
        Ode(
            rhs,
            "amount",
            initial=lambda p: (10.0 * p.weight / 70,),
            lag={"amount": lambda p: p.lag},
            **TOLERANCES,
        ),
        (("amount", lambda t, y, p: y.amount),),
    )
