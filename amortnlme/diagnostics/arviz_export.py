"""Posterior draws as labeled arrays: xarray and ArviZ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray

    from amortnlme.data.dataset import Dataset
    from amortnlme.population.posterior_draws import PosteriorDraws


def to_xarray(draws: PosteriorDraws) -> xarray.Dataset:
    """Label draws with subject, draw and parameter.

    Parameters
    ----------
    draws : PosteriorDraws

    Returns
    -------
    xarray.Dataset
        `phi` and `psi` with dims (subject, draw, parameter) on the unconstrained and the natural scale
        (units in the coordinate `unit`), `log_q` and `log_prior` (subject, draw) in nats, `n_rejected`
        (subject).
    """
    import xarray

    space = draws.parameters
    coordinates: dict[str, Any] = {
        "subject": list(draws.subject_ids),
        "draw": np.arange(draws.n_draws),
        "parameter": list(space.names),
        "unit": ("parameter", [parameter.unit for parameter in space.parameters]),
    }
    full, scalar = ("subject", "draw", "parameter"), ("subject", "draw")
    variables: dict[str, Any] = {
        "phi": (full, draws.phi),
        "psi": (full, space.to_psi(draws.phi)),
        "log_q": (scalar, draws.log_q),
        "log_prior": (scalar, draws.log_prior),
        "n_rejected": (("subject",), draws.n_rejected),
    }
    return xarray.Dataset(variables, coords=coordinates, attrs=_attributes(draws))


def to_inference_data(draws: PosteriorDraws, dataset: Dataset | None = None) -> Any:
    """Put draws, and the data they belong to, into an ArviZ InferenceData.

    Parameters
    ----------
    draws : PosteriorDraws
    dataset : Dataset or None
        Adds the groups `observed_data` and `constant_data`.

    Returns
    -------
    arviz.InferenceData
        Group `posterior` holds one natural-scale variable per parameter, dims (chain, draw, subject),
        and `phi` with dims (chain, draw, subject, parameter). Draws are independent: they form a
        single chain. Group `sample_stats` holds `log_q` and `log_prior`. Observations have dims
        (subject, record), nan where absent.
    """
    import arviz
    import xarray

    table = to_xarray(draws).transpose("draw", "subject", "parameter")
    psi = {
        name: table["psi"].sel(parameter=name, drop=True).expand_dims(chain=[0])
        for name in draws.parameters.names
    }
    posterior = xarray.Dataset({**psi, "phi": table["phi"].expand_dims(chain=[0])}, attrs=_attributes(draws))
    for name, parameter in zip(draws.parameters.names, draws.parameters.parameters, strict=True):
        posterior[name].attrs["unit"] = parameter.unit
    groups: dict[str, Any] = {
        "posterior": posterior,
        "sample_stats": table[["log_q", "log_prior"]]
        .drop_dims("parameter", errors="ignore")
        .expand_dims(chain=[0]),
    }
    if dataset is not None:
        y, observed, censoring, limit = dataset.y_padded()
        time = dataset.design_batch().observation_times
        dims = ("subject", "record")
        coordinates = {"subject": list(dataset.ids), "record": np.arange(y.shape[1])}
        groups["observed_data"] = xarray.Dataset(
            {"y": (dims, np.where(observed, y, np.nan))}, coords=coordinates
        )
        constant = {"time": time, "censoring": censoring, "limit": limit}
        groups["constant_data"] = xarray.Dataset(
            {k: (dims, v) for k, v in constant.items()}, coords=coordinates
        )
    return arviz.InferenceData(**groups)


def _attributes(draws: PosteriorDraws) -> dict[str, str]:
    return {
        "model": draws.model_name,
        "model_fingerprint": draws.model_fingerprint,
        "estimator_fingerprint": draws.estimator_fingerprint,
        "dataset_fingerprint": draws.dataset_fingerprint,
    }
