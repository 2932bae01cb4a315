"""A small study with intravenous boluses: one compartment, log-normal CL and V, any error model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from amortnlme.data.dataset import Dataset
from amortnlme.data.design import Design, Dose
from amortnlme.data.subject import Subject
from amortnlme.model.error_model import AbstractErrorModel
from amortnlme.model.individual import IndividualModel, Output
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior
from amortnlme.model.registry import load_model

DOSE = 100.0
CL, V = 5.0, 20.0


def bolus_model(error: AbstractErrorModel, **typical: float) -> IndividualModel:
    """The shipped model in CL and V with another error model, whose parameters have these typical values."""
    shipped = load_model("one_compartment_infusion")
    errors = [
        Parameter(
            name,
            "1" if name in error.exponents or name == "b" else "mg/L",
            "log",
            value,
            "of the error",
            role="error",
        )
        for name, value in typical.items()
    ]
    space = ParameterSpace((*shipped.parameters.parameters[:2], *errors))
    output = shipped.outputs[0]
    return replace(
        shipped,
        name="one_compartment_bolus",
        parameters=space,
        outputs=(Output(output.name, output.unit, output.fn, error),),
        prior=NormalPrior(np.log([CL, V, *typical.values()]), np.full(space.d, 0.7)),
    )


def bolus_study(
    model: IndividualModel, n: int, times: np.ndarray, omega_sd: tuple[float, float], seed: int
) -> Dataset:
    """Simulate n subjects at the typical error parameters; subject i lacks sample i modulo 5."""
    rng = np.random.default_rng(seed)
    phi = np.tile(np.log([CL, V, *(p.typical for p in model.parameters.parameters[2:])]), (n, 1))
    phi[:, :2] += np.array(omega_sd) * rng.standard_normal((n, 2))
    design = Design.from_doses((Dose(0.0, DOSE),), times)
    y = model.simulate(phi, design, None, rng).y
    missing = np.arange(len(times)) == (np.arange(n) % 5)[:, None]
    y = np.where(missing, np.nan, y)
    subjects = [Subject.from_observations(str(i + 1), design, row) for i, row in enumerate(y)]
    return Dataset(tuple(subjects))
