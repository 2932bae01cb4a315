"""Sunitinib with the clearance of the metabolite given: the shipped model without its redundant scale.

Only concentrations of the metabolite are measured, so (fm_factor, CLM, V3, Q34, V4) and (c fm_factor, c CLM,
c V3, c Q34, c V4) predict the same: one of the five typical values has to be given. The publication gives
the fraction metabolized; here CLM = 16.5 L/h is given instead and fm_factor is free, which is the same
model (fm_factor = f there means CLM = 16.5 / f with a given fraction).
"""

from dataclasses import replace

import numpy as np
from amortnlme.simulators.sunitinib import FM, QH, V5
from amortnlme.simulators.sunitinib import MODEL as SHIPPED

from amortnlme.model.dynamics import Ode
from amortnlme.model.parameters import ParameterSpace
from amortnlme.model.prior import NormalPrior

CLM = 16.5  # L/h at 70 kg
KEPT = [j for j, name in enumerate(SHIPPED.parameters.names) if name != "CLM"]


def rhs(t, y, p):
    """Amounts in the gut, of parent (central, peripheral) and of metabolite (central, peripheral) [mg/h]."""
    flow, size = (p.weight / 70.0) ** 0.75, p.weight / 70.0
    qh, clp, clm = QH * flow, p.CLP * flow, CLM * flow
    v2, v3 = p.V2 * size, p.V3 * size
    liver = (p.ka * y.depot + qh / v2 * y.parent) / (qh + clp)
    to_deep = p.Q25 * flow * (y.parent / v2 - y.parent_deep / (V5 * size))
    to_tissue = p.Q34 * flow * (y.metabolite / v3 - y.metabolite_deep / (p.V4 * size))
    return (
        -p.ka * y.depot,
        qh * liver - qh / v2 * y.parent - to_deep,
        FM * p.fm_factor * clp * liver - clm / v3 * y.metabolite - to_tissue,
        to_tissue,
        to_deep,
    )


MODEL = replace(
    SHIPPED,
    name="sunitinib_clm_given",
    parameters=ParameterSpace(tuple(SHIPPED.parameters.parameters[j] for j in KEPT)),
    dynamics=Ode(rhs, dose_state="depot"),
    prior=NormalPrior(
        np.asarray(SHIPPED.prior.mean)[KEPT], np.sqrt(np.diagonal(SHIPPED.prior.covariance))[KEPT]
    ),
)
