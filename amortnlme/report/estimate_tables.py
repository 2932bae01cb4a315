"""The comparison of fits and the parameter table of each fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from amortnlme.core.transforms import transform
from amortnlme.report.content import Cell, Row, Table, cells, row
from amortnlme.report.numbers import MISSING, count, fixed, interval, percent, seconds, significant

if TYPE_CHECKING:
    from amortnlme.methods.population_fit import PopulationFit
    from amortnlme.model.individual import IndividualModel
    from amortnlme.population.estimates import Estimate

_GROUPS = (
    ("theta", "Typical values"),
    ("beta", "Covariate effects"),
    ("omega_sd", "Random effects, SD on the estimation scale"),
    ("omega_corr", "Correlations of random effects"),
    ("iov_sd", "Between occasions, SD on the estimation scale"),
    ("iov_corr", "Correlations between occasions"),
    ("sigma", "Residual error"),
)
OFV_WORDS = {
    "importance_sampling": "exact likelihood, importance sampling",
    "density_importance_sampling": "up to a constant, estimator density",
    "surrogate": "up to a constant, surrogate",
    "fo": "FO approximation",
    "foce": "FOCE approximation",
    "focei": "FOCEI approximation",
    "laplace": "Laplace's approximation",
    "quadrature": "adaptive quadrature",
    "iwae": "importance-weighted bound",
    "pooled": "without random effects",
    "elbo": "evidence lower bound",
}


def comparison_table(
    fits: Sequence[PopulationFit], labels: Sequence[str], preferred: int | None, *, with_deltas: bool
) -> Table:
    """Put fits side by side: estimates with RSE, shrinkage, objective value and criteria.

    Parameters
    ----------
    fits : sequence of PopulationFit
    labels : sequence of str
    preferred : int or None
        Its column is highlighted.
    with_deltas : bool
        False when the objective values must not be subtracted.

    Returns
    -------
    Table
    """
    rows: list[Row] = []
    for title, names in ordered_names(fits).items():
        rows.append(Row(group=title))
        for name, unit in names.items():
            found = [next((e for e in fit.estimates if e.name == name), None) for fit in fits]
            rows.append(row([Cell(pretty(name), unit), *(_estimate_cell(e) for e in found)]))
    rows += _shrinkage_rows(fits)
    rows += _criteria_rows(fits, with_deltas)
    header = cells(["", *(Cell(label, fit.method) for label, fit in zip(labels, fits, strict=True))])
    caption = (
        "Estimate with its relative standard error (RSE) in brackets, correlations ± SE. -2LL"
        " contains all constants; ± is its"
        " Monte-Carlo standard error. Δ is the distance to the best model in the row. BICc"
        " charges omega and covariate coefficients on varying parameters with log(subjects), typical"
        " values and pooled parameters with log(observations). The condition number is that of the"
        " correlation matrix of the estimates."
    )
    best = None if preferred is None else preferred + 1
    return Table(header, tuple(rows), best_column=best, caption=caption.replace("-2LL", "−2LL"))


def ordered_names(fits: Sequence[PopulationFit]) -> dict[str, dict[str, str]]:
    """Names and units of all estimates of some fits, by group, in the order of a table.

    Parameters
    ----------
    fits : sequence of PopulationFit

    Returns
    -------
    dict
        Title of the group -> name -> unit; empty groups are left out.
    """
    # The richest fit decides the order, so that its rows are not torn apart.
    ranked = sorted(fits, key=lambda fit: -len(fit.estimates))
    groups = {
        title: {e.name: e.unit for fit in ranked for e in fit.estimates if e.kind == kind}
        for kind, title in _GROUPS
    }
    return {title: names for title, names in groups.items() if names}


def pretty(name: str) -> str:
    """Write the name of an estimate the way readers know it.

    Parameters
    ----------
    name : str

    Returns
    -------
    str
    """
    prefixes = (("omega_", "ω "), ("beta_", "β "), ("corr_", "ρ "), ("iov_corr_", "ρ IOV "), ("iov_", "γ "))
    for prefix, symbol in prefixes:
        if name.startswith(prefix):
            return symbol + name.removeprefix(prefix).replace("_", " · ")
    return name


def _estimate_cell(e: Estimate | None) -> Cell:
    if e is None:
        return Cell(MISSING)
    if e.se is None:
        return Cell(significant(e.value), "fixed" if e.is_fixed else "")
    # A relative error of a correlation means nothing: it may well be zero.
    is_correlation = e.kind in ("omega_corr", "iov_corr")
    small = f"± {significant(e.se, 2)}" if is_correlation else f"({percent(e.rse_percent)})"
    return Cell(significant(e.value), small)


def _shrinkage_rows(fits: Sequence[PopulationFit]) -> list[Row]:
    rows = [Row(group="Shrinkage, SD scale")]
    for name in dict.fromkeys(name for fit in fits for name in fit.random_effects):
        values = [
            float(fit.eta_shrinkage[fit.random_effects.index(name)]) if name in fit.random_effects else None
            for fit in fits
        ]
        rows.append(row([f"η {name}", *(percent(None if v is None else 100 * v, 1) for v in values)]))
    rows.append(row(["ε", *(percent(100 * fit.eps_shrinkage, 1) for fit in fits)]))
    return rows


def _criteria_rows(fits: Sequence[PopulationFit], with_deltas: bool) -> list[Row]:
    rows = [Row(group="Objective value and criteria")]
    rows.append(
        row(
            [
                "−2LL",
                *(
                    Cell(fixed(f.ofv), f"± {significant(f.ofv_se, 2)}" if math.isfinite(f.ofv_se) else "")
                    for f in fits
                ),
            ]
        )
    )
    rows.append(
        row(["computed by", *(Cell("", OFV_WORDS.get(str(f.ofv_kind), str(f.ofv_kind))) for f in fits)])
    )
    if any(f.criterion_kind and f.criterion_kind != f.ofv_kind for f in fits):
        # What a method maximized stands beside -2LL, never in its place: the two may not be compared.
        cells = (
            Cell(fixed(f.criterion), OFV_WORDS.get(f.criterion_kind, f.criterion_kind))
            if f.criterion_kind
            else Cell("–")
            for f in fits
        )
        rows.append(row(["maximized", *cells]))
    for name, value in (("AIC", "aic"), ("BIC", "bic"), ("BICc", "bicc")):
        numbers = [float(getattr(fit, value)) for fit in fits]
        finite = [v for v in numbers if math.isfinite(v)]
        lowest = min(finite) if finite else math.nan
        rows.append(
            row(
                [name, *(Cell(fixed(v), f"Δ {fixed(v - lowest, 1)}" if with_deltas else "") for v in numbers)]
            )
        )
    rows.append(row(["Parameters", *(str(fit.n_parameters) for fit in fits)]))
    # An absent number is formatted as such: there is none on a boundary.
    rows.append(row(["Condition number", *(significant(fit.condition_number) for fit in fits)]))
    rows.append(row(["Status", *(Cell(str(fit.status), tag=str(fit.status)) for fit in fits)]))
    rows.append(row(["Time", *(seconds(sum(fit.seconds.values())) for fit in fits)]))
    return rows


def parameter_table(fit: PopulationFit, model: IndividualModel) -> Table:
    """Full parameter table of one fit on the natural and on the estimation scale.

    Parameters
    ----------
    fit : PopulationFit
    model : IndividualModel

    Returns
    -------
    Table
    """
    rows: list[Row] = []
    for e in (e for e in fit.estimates if e.kind in ("theta", "sigma")):
        name = Cell(e.name, _text_of(model, e.name))
        scales = [*_estimation_scale(e, model), *_variability(fit, model, e.name)]
        rows.append(row([name, e.unit, *_numbers(e), *scales]))
    if any(e.kind == "beta" for e in fit.estimates):
        rows.append(Row(group="Covariate effects"))
        effects = {effect.name: effect for effect in fit.population.covariates}
        for e in (e for e in fit.estimates if e.kind == "beta"):
            effect = effects.get(e.name)
            text = "" if effect is None else f"{effect.parameter} by {effect.covariate}, {effect.transform}"
            rows.append(row([Cell(pretty(e.name), text), e.unit, *_numbers(e), "", "", "", "", ""]))
    rows.append(Row(group="Random effects (SD of η)"))
    for e in (e for e in fit.estimates if e.kind == "omega_sd"):
        rows.append(row([pretty(e.name), "", *_numbers(e), "", "", "", "", ""]))
    if any(e.kind == "iov_sd" for e in fit.estimates):
        rows.append(Row(group="Between occasions (SD of κ)"))
        for e in (e for e in fit.estimates if e.kind == "iov_sd"):
            rows.append(row([pretty(e.name), "", *_numbers(e), "", "", "", "", ""]))
    header = cells(
        [
            "Parameter",
            Cell("Unit"),
            "Estimate",
            "SE",
            "RSE",
            Cell("95 % CI"),
            Cell("Scale", "estimation"),
            Cell("Value", "est. scale"),
            Cell("SE", "est. scale"),
            Cell("IIV", "CV %"),
            Cell("Shrinkage", "η, SD"),
        ]
    )
    return Table(header, tuple(rows), text_columns=frozenset({0, 1, 6}))


def _numbers(e: Estimate) -> list[str]:
    se = "fixed" if e.is_fixed else significant(e.se)
    return [significant(e.value), se, percent(e.rse_percent, 1), interval(e.ci_low, e.ci_high)]


def _text_of(model: IndividualModel, name: str) -> str:
    return next((p.text for p in model.parameters.parameters if p.name == name), "")


def _estimation_scale(e: Estimate, model: IndividualModel) -> list[str]:
    """Transform, value and SE of a typical value on the scale it was estimated on."""
    parameter = next((p for p in model.parameters.parameters if p.name == e.name), None)
    if parameter is None:
        return ["", "", ""]
    scale = transform(parameter.transform)
    phi = float(scale.forward(np.asarray(e.value)))
    slope = abs(float(scale.derivative(np.asarray(phi))))
    return [parameter.transform, significant(phi), significant(None if e.se is None else e.se / slope)]


def _variability(fit: PopulationFit, model: IndividualModel, name: str) -> list[str]:
    if name not in fit.random_effects:
        return ["", ""]
    j = fit.random_effects.index(name)
    p = fit.parameter_names.index(name)
    variance = float(fit.omega[p, p])
    log_normal = model.parameters.parameters[p].transform == "log"
    cv = percent(_cv_percent(variance), 1) if log_normal else MISSING
    return [cv, percent(100.0 * float(fit.eta_shrinkage[j]), 1)]


def _cv_percent(variance: float) -> float:
    """Coefficient of variation of a log-normal with this variance of the logarithm."""
    return 100.0 * math.sqrt(math.expm1(variance)) if variance < 700.0 else math.inf


def correlation_table(fit: PopulationFit) -> Table | None:
    """Correlations of the random effects, or None when the population model has none.

    Parameters
    ----------
    fit : PopulationFit

    Returns
    -------
    Table or None
    """
    found = [e for e in fit.estimates if e.kind in ("omega_corr", "iov_corr")]
    if not found:
        return None
    rows = tuple(
        row([pretty(e.name), significant(e.value), significant(e.se), interval(e.ci_low, e.ci_high)])
        for e in found
    )
    return Table(cells(["Correlation", "Estimate", "SE", "95 % CI"]), rows)


def population_sentence(fit: PopulationFit, model: IndividualModel) -> str:
    """Describe the population model in one or two sentences.

    Parameters
    ----------
    fit : PopulationFit
    model : IndividualModel

    Returns
    -------
    str
    """
    pooled = [
        name
        for name in model.parameters.names
        if name not in fit.random_effects and name not in fit.population.fixed
    ]
    blocks = fit.population.random_effects.blocks()
    names = [", ".join(block) for block in blocks]
    structure = "; ".join(f"{{{name}}}" if "," in name else name for name in names)
    text = f"Random effects: {structure}. "
    if fit.population.occasion_effects is not None:
        between = ["{" + ", ".join(b) + "}" for b in fit.population.occasion_effects.blocks()]
        text += f"Between occasions: {'; '.join(between)}. "
    given = [f"{name} = {value:g}" for name, value in fit.population.fixed.items()]
    text += f"Fixed: {', '.join(given)}. " if given else ""
    text += f"The same for all subjects: {', '.join(pooled)}. " if pooled else ""
    effects = [f"{e.parameter} ~ {e.transform}({e.covariate})" for e in fit.population.covariates]
    text += f"Covariates: {', '.join(effects)}. " if effects else "No covariates. "
    text += f"{fit.status.sentence} " if str(fit.status) != "converged" else ""
    return text + f"{count(fit.n_parameters, 'parameter')}, −2LL {fixed(fit.ofv)}."


def cv_note(fit: PopulationFit, model: IndividualModel) -> str:
    """Say which parameters have no CV %.

    Parameters
    ----------
    fit : PopulationFit
    model : IndividualModel

    Returns
    -------
    str
        Empty when every random effect acts on a logarithm.
    """
    other = [
        p.name for p in model.parameters.parameters if p.name in fit.random_effects and p.transform != "log"
    ]
    if not other:
        return ""
    return f"CV % exists for log-normal parameters only; for {', '.join(other)} see the SD of η."
