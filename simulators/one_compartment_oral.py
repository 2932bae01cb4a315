"""One-compartment model with first-order absorption and elimination, for oral doses.

Given its individual parameters a patient's weight carries no information about the concentrations: it is a
covariate of the population model. It shapes the designs (doses in mg/kg), and an estimator sees it only
through the dose.

Absorption and elimination can swap roles: (ka, ke, V) and (ke, ka, V ke/ka) predict the same concentrations
("flip-flop"). Nothing in the equations forbids ka < ke. The prior separates the two: it has ka > ke with
probability 0.997, and its standard deviations are wide enough for theophylline-like drugs but keep the
mirror image improbable.
"""

import numpy as np

from amortnlme.data.design_sampler import RandomDesignSampler
from amortnlme.model.dynamics import LinearCompartments
from amortnlme.model.error_model import Additive
from amortnlme.model.individual import IndividualModel, Output
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior


def rhs(t, y, p):
    """Amounts in the gut and in the central compartment [mg/h]."""
    return (
        -p.ka * y.depot,
        p.ka * y.depot - p.ke * y.central,
    )


def concentration(t, y, p):
    """Plasma concentration [mg/L]."""
    return y.central / p.V


MODEL = IndividualModel(
    name="one_compartment_oral",
    version="1",
    text="Concentration after oral doses: first-order absorption, one compartment, first-order elimination.",
    source=(
        "Theophylline: Boeckmann, Sheiner & Beal (1994), NONMEM Users Guide, Part V. Closed form: Gibaldi "
        "& Perrier (1982), Pharmacokinetics, chapter 1 (one compartment, first-order absorption)."
    ),
    parameters=ParameterSpace(
        (
            Parameter("ka", "1/h", "log", 1.5, "absorption rate"),
            Parameter("ke", "1/h", "log", 0.08, "elimination rate"),
            Parameter("V", "L", "log", 32.0, "apparent volume of distribution (V/F)"),
            Parameter("a", "mg/L", "log", 0.6, "residual standard deviation", role="error"),
        )
    ),
    states=("depot", "central"),
    dynamics=LinearCompartments(rhs, dose_state="depot"),
    outputs=(Output("concentration", "mg/L", concentration, Additive("a")),),
    prior=NormalPrior(mean=np.log([1.5, 0.08, 32.0, 0.6]), sd=[0.9, 0.6, 0.6, 0.7]),
    design_sampler=RandomDesignSampler(
        observations=(2, 20),
        doses=(1, 8),
        single_dose_probability=0.5,
        dose_amount=(150.0, 600.0),
        weight=(35.0, 130.0),
        intervals=(4.0, 6.0, 8.0, 12.0, 24.0),
        horizon=(8.0, 40.0),
    ),
    units={"time": "h", "amount": "mg", "weight": "kg"},
)
