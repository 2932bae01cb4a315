"""Fits as HDF5 files: arrays as arrays, everything else in one JSON header, nothing pickled."""

from __future__ import annotations

import operator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from amortnlme.core.errors import ArtefactError
from amortnlme.core.h5 import read_h5, understood, write_h5_atomic
from amortnlme.core.json_values import json_values
from amortnlme.core.status import FitStatus
from amortnlme.methods.population_fit import FitQuality, Individuals, PopulationFit
from amortnlme.population.estimates import Estimate
from amortnlme.population.toml import population_from_dict

FIT_KIND = "population_fit"
FIT_VERSION = 2
ARRAYS = ("theta", "omega", "x", "ofv_individual", "eta_shrinkage")
INDIVIDUAL_ARRAYS = ("ebe_phi", "ebe_eta", "conditional_mean_phi", "conditional_sd_phi")
# Numbers that may be NaN or infinite, which JSON cannot say.
SCALARS = ("ofv", "ofv_se", "eps_shrinkage", "criterion")
QUALITY_SCALARS = ("gradient_norm", "mc_shift", "surrogate_shift")


def save_fit(fit: PopulationFit, path: Path) -> None:
    """Write a fit, atomically.

    Parameters
    ----------
    fit : PopulationFit
    path : Path

    Raises
    ------
    ArtefactError
        E_IO_WRITE when the file cannot be written.
    """
    arrays = {name: getattr(fit, name) for name in ARRAYS}
    arrays |= {f"individuals/{name}": getattr(fit.individuals, name) for name in INDIVIDUAL_ARRAYS}
    arrays |= {"quality/ess": fit.quality.ess, "quality/pareto_k": fit.quality.pareto_k}
    if fit.covariance is not None:
        arrays["covariance"] = fit.covariance
    for name in ("mc_se", "mc_bias"):
        value = getattr(fit.quality, name)
        if value is not None:
            arrays[f"quality/{name}"] = value
    arrays["scalars"] = np.array([getattr(fit, name) for name in SCALARS], dtype=np.float64)
    arrays["quality/scalars"] = np.array(
        [getattr(fit.quality, name) for name in QUALITY_SCALARS], dtype=np.float64
    )
    header = {
        "kind": FIT_KIND,
        "version": FIT_VERSION,
        "method": fit.method,
        "model_name": fit.model_name,
        "population": fit.population.to_dict(),
        "status": fit.status.value,
        "estimates": [asdict(row) for row in fit.estimates],
        "sigma": dict(fit.sigma),
        "parameter_names": list(fit.parameter_names),
        "random_effects": list(fit.random_effects),
        "x_names": list(fit.x_names),
        "ofv_kind": fit.ofv_kind,
        "criterion_kind": fit.criterion_kind,
        "ids": list(fit.individuals.ids),
        "n_points": fit.quality.n_points,
        "n_clipped": fit.quality.n_clipped,
        "warnings": list(fit.warnings),
        "trace": list(fit.trace),
        "provenance": dict(fit.provenance),
        "seconds": dict(fit.seconds),
        "n_subjects": fit.n_subjects,
        "n_observations": fit.n_observations,
        "n_parameters_random": fit.n_parameters_random,
        "n_censored": fit.n_censored,
    }
    write_h5_atomic(path, arrays, json_values(header))


def load_fit(path: Path) -> PopulationFit:
    """Read a fit written by `save_fit`.

    Parameters
    ----------
    path : Path

    Returns
    -------
    PopulationFit

    Raises
    ------
    ArtefactError
        E_H5_MISSING, E_H5_TRUNCATED, E_H5_CHECKSUM, E_H5_KIND, E_H5_CONTENT, E_FIT_VERSION.
    """
    arrays, raw = read_h5(path, kind=FIT_KIND)
    header: dict[str, Any] = dict(raw)
    if header.get("version") != FIT_VERSION:
        raise ArtefactError(
            "E_FIT_VERSION",
            f"{path} holds a fit of format {header.get('version')!r}; this version reads format "
            f"{FIT_VERSION}. "
            f"Fit again, or upgrade.",
        )
    with understood(path, "a population fit"):
        return _rebuilt(arrays, header)


def _rebuilt(arrays: dict[str, np.ndarray], header: dict[str, Any]) -> PopulationFit:
    quality_scalars = dict(zip(QUALITY_SCALARS, arrays["quality/scalars"].tolist(), strict=True))
    scalars = dict(zip(SCALARS, arrays["scalars"].tolist(), strict=True))
    return PopulationFit(
        method=header["method"],
        model_name=header["model_name"],
        population=population_from_dict(header["population"]),
        status=FitStatus(header["status"]),
        estimates=tuple(Estimate(**row) for row in header["estimates"]),
        theta=arrays["theta"],
        omega=arrays["omega"],
        sigma=header["sigma"],
        parameter_names=tuple(header["parameter_names"]),
        random_effects=tuple(header["random_effects"]),
        x=arrays["x"],
        x_names=tuple(header["x_names"]),
        covariance=arrays.get("covariance"),
        ofv=scalars["ofv"],
        ofv_kind=header["ofv_kind"],
        ofv_se=scalars["ofv_se"],
        ofv_individual=arrays["ofv_individual"],
        individuals=Individuals(
            ids=tuple(header["ids"]),
            ebe_phi=arrays["individuals/ebe_phi"],
            ebe_eta=arrays["individuals/ebe_eta"],
            conditional_mean_phi=arrays["individuals/conditional_mean_phi"],
            conditional_sd_phi=arrays["individuals/conditional_sd_phi"],
        ),
        eta_shrinkage=arrays["eta_shrinkage"],
        eps_shrinkage=scalars["eps_shrinkage"],
        quality=FitQuality(
            ess=arrays["quality/ess"],
            pareto_k=arrays["quality/pareto_k"],
            n_points=header["n_points"],
            gradient_norm=quality_scalars["gradient_norm"],
            mc_shift=quality_scalars["mc_shift"],
            mc_se=arrays.get("quality/mc_se"),
            surrogate_shift=quality_scalars["surrogate_shift"],
            n_clipped=header["n_clipped"],
            mc_bias=arrays.get("quality/mc_bias"),
        ),
        warnings=tuple(header["warnings"]),
        trace=tuple(header["trace"]),
        provenance=header["provenance"],
        seconds={str(stage): float(value) for stage, value in header["seconds"].items()},
        n_subjects=operator.index(header["n_subjects"]),
        n_observations=operator.index(header["n_observations"]),
        n_parameters_random=operator.index(header["n_parameters_random"]),
        n_censored=operator.index(header["n_censored"]),
        criterion=scalars["criterion"],
        criterion_kind=str(header["criterion_kind"]),
    )
