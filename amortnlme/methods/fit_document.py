"""A fit as JSON values (schema version 1, see schema.md) and as a table for notebooks."""

from __future__ import annotations

import html
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from amortnlme.core.json_values import json_values
from amortnlme.population.describe import correlation_of

if TYPE_CHECKING:
    from amortnlme.methods.population_fit import PopulationFit

SCHEMA_NAME = "amortnlme.population_fit"
SCHEMA_VERSION = 1


def to_dict(fit: PopulationFit) -> dict[str, Any]:
    """Return the fit as plain JSON values.

    Parameters
    ----------
    fit : PopulationFit

    Returns
    -------
    dict
        Keys as documented in `schema.md`.
    """
    document = {
        "schema": SCHEMA_NAME,
        "schema_version": SCHEMA_VERSION,
        "method": fit.method,
        "model": fit.model_name,
        "population": fit.population.to_dict(),
        "status": {
            "name": fit.status.value,
            "sentence": fit.status.sentence,
            "is_success": fit.status.is_success,
        },
        "estimates": [asdict(row) for row in fit.estimates],
        "omega": _omega(fit),
        "sigma": dict(fit.sigma),
        "x": {
            "names": list(fit.x_names),
            "values": fit.x,
            "covariance": fit.covariance,
            "correlation": fit.correlation,
            "condition_number": fit.condition_number,
        },
        "ofv": {
            "value": fit.ofv,
            "kind": fit.ofv_kind,
            "monte_carlo_se": fit.ofv_se,
            "without_constant": fit.ofv_nonmem,
            "individual": fit.ofv_individual,
        },
        "criterion": {"value": fit.criterion, "kind": fit.criterion_kind or None},
        "criteria": {"aic": fit.aic, "bic": fit.bic, "bicc": fit.bicc, "n_parameters": fit.n_parameters},
        "shrinkage": {
            "eta": dict(zip(fit.random_effects, fit.eta_shrinkage, strict=True)),
            "eps": fit.eps_shrinkage,
        },
        "subjects": _subjects(fit),
        "quality": _quality(fit),
        "warnings": list(fit.warnings),
        "trace": list(fit.trace),
        "provenance": dict(fit.provenance),
        "seconds": dict(fit.seconds),
        "n_subjects": fit.n_subjects,
        "n_observations": fit.n_observations,
    }
    return json_values(document)


def _omega(fit: PopulationFit) -> dict[str, Any]:
    effects = [fit.parameter_names.index(name) for name in fit.random_effects]
    omega = fit.omega[np.ix_(effects, effects)]
    values = {row.name: row.value for row in fit.estimates}
    # Effects of occasions have no typical value.
    natural = np.array([values.get(name, np.nan) for name in fit.random_effects])
    with np.errstate(over="ignore"):
        # Of identity, log and logit only the logarithm maps theta to exp(theta).
        is_log = np.isclose(natural, np.exp(fit.theta[effects]), rtol=1e-9, atol=0.0)
        cv = np.where(is_log, 100.0 * np.sqrt(np.expm1(np.diagonal(omega))), np.nan)
    return {
        "names": list(fit.random_effects),
        "covariance": omega,
        "sd": np.sqrt(np.diagonal(omega)),
        "cv_percent": cv,
        "correlation": correlation_of(omega),
    }


def _subjects(fit: PopulationFit) -> list[dict[str, Any]]:
    people, by_name = fit.individuals, ("ebe_phi", "conditional_mean_phi", "conditional_sd_phi")
    return [
        {
            "id": people.ids[i],
            "ofv": fit.ofv_individual[i],
            "ebe_eta": dict(zip(fit.random_effects, people.ebe_eta[i], strict=True)),
            **{key: dict(zip(fit.parameter_names, getattr(people, key)[i], strict=True)) for key in by_name},
            "ess": fit.quality.ess[i],
            "pareto_k": fit.quality.pareto_k[i],
        }
        for i in range(fit.n_subjects)
    ]


def _quality(fit: PopulationFit) -> dict[str, Any]:
    quality = fit.quality
    return {
        "ess_min": np.min(quality.ess),
        "pareto_k_max": np.max(quality.pareto_k),
        "n_points": quality.n_points,
        "gradient_norm": quality.gradient_norm,
        "mc_shift": quality.mc_shift,
        "mc_se": quality.mc_se,
        "mc_bias": quality.mc_bias,
        "surrogate_shift": quality.surrogate_shift,
        "n_clipped": quality.n_clipped,
    }


def to_html(fit: PopulationFit) -> str:
    """Return a small HTML table of the estimates.

    Parameters
    ----------
    fit : PopulationFit

    Returns
    -------
    str
        Every text that came from a user is escaped.
    """
    esc = html.escape
    head = "".join(f"<th>{name}</th>" for name in ("", "value", "SE", "RSE %", "95 % CI", "unit"))
    rows = []
    for row in fit.estimates:
        interval = "" if row.ci_low is None else f"{_number(row.ci_low)} .. {_number(row.ci_high)}"
        cells = (
            esc(row.name),
            _number(row.value),
            _number(row.se),
            _number(row.rse_percent),
            interval,
            esc(row.unit),
        )
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    se = "" if math.isnan(fit.ofv_se) else f" &plusmn; {fit.ofv_se:.2g}"
    notes = "".join(f"<li>{esc(text)}</li>" for text in fit.warnings)
    return (
        f"<div><b>{esc(fit.model_name)}</b>, population <b>{esc(fit.population.name)}</b>, "
        f"{esc(fit.method)}: "
        f"{esc(fit.status.sentence)}<br>"
        f"-2LL {fit.ofv:.2f}{se} ({esc(fit.ofv_kind)}), AIC {fit.aic:.2f}, BIC {fit.bic:.2f}, BICc "
        f"{fit.bicc:.2f}; "
        f"{fit.n_subjects} subjects, {fit.n_observations} observations"
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        f"{f'<ul>{notes}</ul>' if notes else ''}</div>"
    )


def _number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.4g}"
