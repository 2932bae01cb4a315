"""Contract: what a model file declares - texts, transforms, prior, designs."""

from __future__ import annotations

import numpy as np

from amortnlme.core.rng import stream
from amortnlme.data.design import DesignBatch
from amortnlme.data.design_sampler import design_sampler_from_config
from amortnlme.data.subject import Subject, TimeVarying
from amortnlme.model.contract_world import World, design_of, require
from amortnlme.model.prior import prior_from_config


def declared(world: World) -> str:
    """Check that every parameter says what it is.

    Parameters
    ----------
    world : World

    Returns
    -------
    str
        What was found.
    """
    model = world.model
    texts = [p.text.strip() for p in model.parameters.parameters]
    require(
        all(texts), f"parameter {model.parameters.names[texts.index('') if '' in texts else 0]!r} has no text"
    )
    return f"{model.d} parameters, time in {model.units['time']}, amounts in {model.units['amount']}"


def transforms(world: World) -> str:
    """Check that phi -> psi -> phi changes nothing and that dpsi/dphi is its slope.

    Parameters
    ----------
    world : World

    Returns
    -------
    str
    """
    space = world.model.parameters
    back = space.to_phi(space.to_psi(world.phi))
    worst = float(np.abs(back - world.phi).max())
    require(worst < 1e-9 * (1.0 + float(np.abs(world.phi).max())), f"phi -> psi -> phi moves by {worst:.1e}")
    step = 1e-5
    numeric = (space.to_psi(world.phi + step) - space.to_psi(world.phi - step)) / (2 * step)
    slope = space.dpsi_dphi(world.phi)
    gap = float((np.abs(numeric - slope) / (np.abs(slope) + 1e-300)).max())
    require(gap < 1e-6, f"dpsi/dphi differs from differences by {gap:.1e}")
    return f"largest round-trip error {worst:.1e}"


def prior(world: World) -> str:
    """Check that the prior's density is that of its samples, and that it can be stored.

    Parameters
    ----------
    world : World

    Returns
    -------
    str
    """
    declared_prior = world.model.prior
    phi = declared_prior.sample(4000, stream(2, 1))
    log_prob = declared_prior.log_prob(phi)
    require(
        phi.shape == (4000, world.model.d) and log_prob.shape == (4000,),
        "sample or log_prob has a wrong shape",
    )
    require(bool(np.isfinite(log_prob).all()), "log_prob is not finite on the prior's own samples")
    # Importance identity: E_p[q/p] = 1 for a narrower normal q around the sample mean. The ratio is bounded
    # for a normal p, and its Monte-Carlo error is estimated from the same draws; 5 SE leave a false-alarm
    # rate below 1e-6.
    mean, sd = phi.mean(axis=0), 0.7 * phi.std(axis=0)
    log_q = (-0.5 * ((phi - mean) / sd) ** 2 - np.log(sd) - 0.5 * np.log(2 * np.pi)).sum(axis=1)
    ratio = np.exp(log_q - log_prob)
    se = float(ratio.std() / np.sqrt(ratio.size))
    require(
        abs(float(ratio.mean()) - 1.0) < 5 * se,
        f"the density integrates to {ratio.mean():.3f} +- {se:.3f} over its samples",
    )
    again = prior_from_config(declared_prior.to_config())
    require(bool(np.array_equal(again.log_prob(phi), log_prob)), "to_config / from_config changes the prior")
    return f"integral over its own samples {ratio.mean():.3f} +- {se:.3f}"


def designs(world: World) -> str:
    """Check that sampled designs keep their limits and that the sampler recognizes them.

    Parameters
    ----------
    world : World

    Returns
    -------
    str
    """
    sampler, batch = world.model.design_sampler, world.batch
    require(int(batch.n_records.max()) <= sampler.max_records, "a design has more records than max_records")
    require(
        int(batch.n_observations.max()) <= sampler.max_observations, "more observations than max_observations"
    )
    for row in range(batch.n):
        design = design_of(batch, row)
        subject = Subject.from_observations(
            "x", design, np.ones(design.n_observations), _covariates(batch, row)
        )
        reasons = sampler.contains(subject)
        require(not reasons, f"design {row + 1} of its own sample is called outside: {'; '.join(reasons)}")
    require(
        design_sampler_from_config(sampler.to_config()) == sampler,
        "to_config / from_config changes the sampler",
    )
    counts = batch.n_observations
    return f"{batch.n} designs, {int(counts.min())} to {int(counts.max())} observations"


def _covariates(batch: DesignBatch, row: int) -> dict[str, float | TimeVarying]:
    last = int(batch.n_records[row])
    return {name: TimeVarying(np.asarray(v)[row, :last]) for name, v in batch.covariates.items()}
