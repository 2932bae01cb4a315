"""Where the numbers come from, and the table of individual parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from amortnlme.diagnostics.tables import subject_table
from amortnlme.report.content import Cell, Table, cells, facts, row
from amortnlme.report.numbers import MISSING, count, fixed, significant

if TYPE_CHECKING:
    from amortnlme.data.dataset import Dataset
    from amortnlme.diagnostics.trust import SubjectTrust
    from amortnlme.methods.population_fit import PopulationFit
    from amortnlme.model.individual import IndividualModel
    from amortnlme.population.posterior_draws import PosteriorDraws

MAX_INDIVIDUAL_ROWS = 200


def individual_table(
    fit: PopulationFit, model: IndividualModel, dataset: Dataset, trust: Sequence[SubjectTrust]
) -> Table:
    """Individual parameters of one fit, as a table of the page.

    Parameters
    ----------
    fit : PopulationFit
    model : IndividualModel
    dataset : Dataset
    trust : sequence of SubjectTrust
        In the order of the subjects, or empty.

    Returns
    -------
    Table
        At most `MAX_INDIVIDUAL_ROWS` rows.
    """
    frame = subject_table(fit, model, dataset, trust)
    units = {p.name: p.unit for p in model.parameters.parameters}
    header: list[str | Cell] = ["Subject"]
    for column in frame.columns:
        name, _, kind = str(column).rpartition("_")
        if kind in ("mode", "mean") and name in units:
            header.append(Cell(name, f"{'EBE' if kind == 'mode' else 'mean'}, {units[name]}"))
        else:
            header.append(Cell(str(column).replace("eta_", "η ").replace("ofv", "−2LL")))
    covariates = set(dataset.covariate_names)
    rows = []
    for subject_id, values in frame.head(MAX_INDIVIDUAL_ROWS).iterrows():
        line: list[str | Cell] = [str(subject_id)]
        for name, value in values.items():
            if name == "trust":
                line.append(Cell(str(value), tag=str(value)))
            elif name in covariates:
                line.append(f"{float(value):.4g}")
            else:
                line.append(fixed(float(value), 1) if name == "ofv" else significant(float(value)))
        rows.append(row(line))
    caption = (
        "EBE: conditional mode; mean: conditional mean on the estimation scale, mapped to the natural scale."
    )
    if len(frame) > MAX_INDIVIDUAL_ROWS:
        caption += f" The first {MAX_INDIVIDUAL_ROWS} of {count(len(frame), 'subject')}."
    return Table(cells(header), tuple(rows), caption=caption)


def provenance_section(
    fits: Sequence[PopulationFit],
    labels: Sequence[str],
    draws: PosteriorDraws | None,
    dataset: Dataset,
    model: IndividualModel,
    commands: Sequence[str],
) -> dict[str, Any]:
    """Collect the contents of the provenance section.

    Parameters
    ----------
    fits : sequence of PopulationFit
    labels : sequence of str
    draws : PosteriorDraws or None
    dataset : Dataset
    model : IndividualModel
    commands : sequence of str

    Returns
    -------
    dict
        For the template.
    """
    origin = fits[0].provenance
    seeds = sorted({str(fit.provenance.get("seed", "")) for fit in fits} - {""})
    versions = dict(origin.get("versions", {}))
    return {
        "data": _data_facts(dataset),
        "facts": facts(
            [
                ("model", f"{model.name} {model.version}".strip()),
                ("source", model.source),
                ("model fingerprint", model.fingerprint),
                ("estimator fingerprint", "" if draws is None else draws.estimator_fingerprint),
                ("dataset fingerprint", dataset.fingerprint),
                ("draws", "" if draws is None else f"{draws.n_draws} per subject"),
                ("seed of the fits" if len(seeds) == 1 else "seeds of the fits", ", ".join(seeds)),
                ("versions", ", ".join(f"{name} {number}" for name, number in versions.items())),
            ]
        ),
        "seconds": _seconds_table(fits, labels),
        "commands": "\n".join(commands),
    }


def _data_facts(dataset: Dataset) -> list[tuple[str, str]]:
    designs = [subject.design for subject in dataset.subjects]
    n_censored = sum(int((s.observed & (s.censoring != 0)).sum()) for s in dataset.subjects)
    table = dataset.covariate_table()
    ranges = []
    for name in table.columns:
        column = table[name].dropna()
        text = (
            f"{name} {column.median():.4g} ({column.min():.4g} to {column.max():.4g})"
            if len(column)
            else str(name)
        )
        missing = len(table) - len(column)
        ranges.append(text + (f", {missing} missing" if missing else ""))
    per_reason: dict[str, int] = {}
    for exclusion in dataset.exclusions:
        per_reason[exclusion.reason] = per_reason.get(exclusion.reason, 0) + 1
    return facts(
        [
            ("dataset", dataset.name),
            ("subjects", f"{dataset.n_subjects:,}"),
            (
                "observations",
                f"{dataset.n_observations:,}" + (f", {n_censored} of them censored" if n_censored else ""),
            ),
            ("doses", f"{sum(design.n_doses for design in designs):,}"),
            ("covariates", "; ".join(ranges) + (" (median, range)" if ranges else "")),
            ("rows left out", "; ".join(f"{n} x {reason}" for reason, n in per_reason.items()) or "none"),
        ]
    )


def _seconds_table(fits: Sequence[PopulationFit], labels: Sequence[str]) -> Table:
    stages = list(dict.fromkeys(stage for fit in fits for stage in fit.seconds))
    header = cells(["", *(stage.replace("_", " ") for stage in stages), "total"])
    rows = [
        row(
            [
                label,
                *(fixed(fit.seconds[s]) if s in fit.seconds else MISSING for s in stages),
                fixed(sum(fit.seconds.values())),
            ]
        )
        for fit, label in zip(fits, labels, strict=True)
    ]
    return Table(header, tuple(rows), caption="Wall-clock seconds.")
