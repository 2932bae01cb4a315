"""Small parameter spaces and tables for the population tests."""

from __future__ import annotations

import numpy as np
import pandas as pd

from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior
from amortnlme.population.posterior_draws import PosteriorDraws

SPACE = ParameterSpace(
    (
        Parameter("ka", "1/h", "log", 1.5, "absorption", "structural"),
        Parameter("ke", "1/h", "log", 0.08, "elimination", "structural"),
        Parameter("V", "L", "log", 32.0, "volume", "structural"),
        Parameter("a", "mg/L", "log", 0.6, "residual SD", "error"),
    )
)
PRIOR = NormalPrior(np.log([1.5, 0.08, 32.0, 0.6]), np.array([0.9, 0.6, 0.6, 0.7]))
IDS = tuple(f"p{i}" for i in range(6))
TABLE = pd.DataFrame(
    {"weight": [55.0, 60.0, 70.0, 72.0, 80.0, 91.0], "age": [30.0, 40.0, 25.0, 61.0, 45.0, 52.0]},
    index=pd.Index(IDS),
)


def make_draws(n_draws: int = 60, seed: int = 0) -> PosteriorDraws:
    rng = np.random.default_rng(seed)
    center = np.log([1.5, 0.08, 32.0, 0.6]) + 0.3 * rng.standard_normal((len(IDS), 1, 4))
    phi = center + 0.1 * rng.standard_normal((len(IDS), n_draws, 4))
    return PosteriorDraws(
        phi=phi,
        log_q=np.zeros(phi.shape[:2]),
        log_prior=PRIOR.log_prob(phi.reshape(-1, 4)).reshape(phi.shape[:2]),
        subject_ids=IDS,
        parameters=SPACE,
        prior=PRIOR,
        model_name="one_compartment_oral",
        n_rejected=np.arange(len(IDS)),
        out_of_domain=((),) * 5 + (("horizon too long",),),
    )
