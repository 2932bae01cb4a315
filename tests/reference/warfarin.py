"""The warfarin fixture: ten simulated subjects after 100 mg, with published values of other programs.

`warfarin.csv` holds the concentrations [mg/L] of ferx-core's `warfarin_10` (github.com/sn248/ferx-core, there
with doses in micrograms). Sources of the numbers: `test_warfarin.py`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from amortnlme.data.dataset import Dataset
from amortnlme.data.event_table import read_csv
from amortnlme.model.dynamics import LinearCompartments
from amortnlme.model.error_model import Proportional
from amortnlme.model.individual import IndividualModel, Output
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior
from amortnlme.model.registry import load_model
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel

POPULATION = PopulationModel(random_effects=RandomEffects(("CL", "V", "ka")))
TYPICAL = (0.15, 8.0, 1.0, 0.05)


def warfarin_study() -> Dataset:
    return read_csv(Path(__file__).with_name("warfarin.csv"))


def warfarin_model() -> IndividualModel:
    def rhs(t, y, p):
        absorbed = p.ka * y.depot
        return (-absorbed, absorbed - p.CL / p.V * y.central)

    return replace(
        load_model("one_compartment_oral"),
        name="warfarin",
        parameters=ParameterSpace(
            (
                Parameter("CL", "L/h", "log", TYPICAL[0], "clearance"),
                Parameter("V", "L", "log", TYPICAL[1], "volume"),
                Parameter("ka", "1/h", "log", TYPICAL[2], "absorption rate"),
                Parameter("b", "1", "log", TYPICAL[3], "proportional residual SD", role="error"),
            )
        ),
        states=("depot", "central"),
        dynamics=LinearCompartments(rhs, dose_state="depot"),
        outputs=(Output("concentration", "mg/L", lambda t, y, p: y.central / p.V, Proportional("b")),),
        prior=NormalPrior(np.log(TYPICAL), [0.5, 0.5, 0.8, 1.0]),
    )
