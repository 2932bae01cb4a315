"""Small studies drawn from a model's own designs around its typical values."""

from __future__ import annotations

import numpy as np

from amortnlme.data.dataset import Dataset
from amortnlme.data.design import FIELDS, Design
from amortnlme.data.subject import Subject, TimeVarying
from amortnlme.model.individual import IndividualModel

SPREAD = 0.25


def effects_of(model: IndividualModel) -> tuple[str, ...]:
    """The two structural parameters that a few designs inform most get the random effects."""
    rng = np.random.default_rng(0)
    batch = model.design_sampler.sample(8, rng)
    phi = np.tile(model.parameters.typical_phi, (8, 1))
    y = model.simulate_batch(phi, batch, rng).y
    bound = model.bind(Dataset(tuple(_subject(batch, y[i], i) for i in range(8)), "pilot"))
    information = np.diagonal(bound.gauss_newton(phi)[2], axis1=1, axis2=2).sum(axis=0)
    # Not lags and release times: in them the likelihood has kinks wherever a measurement is passed.
    structural = [
        i
        for i, p in enumerate(model.parameters.parameters)
        if p.role == "structural" and p.unit != model.units["time"]
    ]
    best = sorted(structural, key=lambda i: -information[i])[:2]
    return tuple(model.parameters.names[i] for i in sorted(best))


def simulated_study(model: IndividualModel, n: int, seed: int) -> tuple[Dataset, np.ndarray]:
    """A dataset of n subjects, and the typical phi it was drawn around."""
    rng = np.random.default_rng(seed)
    typical = model.parameters.typical_phi
    phi = np.tile(typical, (n, 1))
    columns = list(model.parameters.indices(effects_of(model)))
    phi[:, columns] += SPREAD * rng.standard_normal((n, len(columns)))
    batch = model.design_sampler.sample(n, rng)
    simulated = model.simulate_batch(phi, batch, rng)
    assert (simulated.status == 0).all()
    return Dataset(tuple(_subject(batch, simulated.y[i], i) for i in range(n)), "simulated"), typical


def _subject(batch, y, i) -> Subject:
    count = int(batch.n_records[i])
    design = Design(**{name: getattr(batch, name)[i, :count] for name in FIELDS})
    covariates = {
        name: TimeVarying(np.broadcast_to(values[i], batch.time.shape[1:])[:count])
        for name, values in batch.covariates.items()
    }
    return Subject.from_observations(f"{i + 1}", design, y[: design.n_observations], covariates)
