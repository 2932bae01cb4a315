"""One self-contained HTML page about a joint law."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from amortnlme.core.files import write_text_atomic
from amortnlme.core.rng import stream
from amortnlme.methods.joint_use import information
from amortnlme.report.content import Table, cells, facts, picture, row
from amortnlme.report.numbers import fixed, significant
from amortnlme.report.plots_joint import dependence_pairs, family_gains, matrix_picture
from amortnlme.report.rendering import render

if TYPE_CHECKING:
    from amortnlme.methods.joint_fit import FamilyResult, JointFit
    from amortnlme.methods.joint_use import ConditionalEffects

#: Draws of the law in the scatter plots, and their stream.
N_DRAWS, DRAW_STREAM = 1500, 71
SECTIONS = (
    ("summary", "Summary"),
    ("dependence", "Dependence"),
    ("information", "Information between endpoints"),
    ("provenance", "Provenance"),
)


def write_joint_report(
    found: JointFit, path: str | Path, effects: ConditionalEffects | None = None, title: str = "Joint model"
) -> Path:
    """Write a report about a joint law as a single HTML file.

    Parameters
    ----------
    found : JointFit
    path : str or Path
        File to write; its folder must exist.
    effects : ConditionalEffects or None
        Of subjects, shown among the draws of the law.
    title : str

    Returns
    -------
    Path

    Raises
    ------
    ArtefactError
        E_IO_WRITE if the file cannot be written.
    """
    target = Path(path)
    endpoints = ", ".join(str(endpoint["name"]) for endpoint in found.endpoints)
    head = {"title": title, "subtitle": f"Endpoints {endpoints}; law {found.family}"}
    text = render("joint.html", {**head, **_content(found, effects)}, SECTIONS)
    write_text_atomic(target, text)
    return target


def _content(found: JointFit, effects: ConditionalEffects | None) -> dict[str, object]:
    sd = np.sqrt(np.diagonal(found.independent.covariance))
    names = found.law.names
    draws = found.law.sample(N_DRAWS, stream(0, DRAW_STREAM)) / sd
    means = None
    if effects is not None:
        means = effects.mean[:, [effects.names.index(name) for name in names]] / sd
    covariance = found.law.moments()[1]
    scale = np.sqrt(np.diagonal(covariance))
    known = information(found)
    dots = "Gray: draws of the joint law, in SDs of the separate fits; pairs that depend most come first."
    if means is not None:
        dots += " Blue: conditional means of the subjects, which shrink where data are few."
    return {
        "sentences": _sentences(found),
        "families": _family_table(found.results),
        "gains": picture(
            family_gains(found.results),
            "gains",
            "Gain of log-likelihood over independent endpoints, with two Monte-Carlo standard errors.",
        ),
        "pairs": picture(dependence_pairs(draws, names, means), "pairs", dots),
        "correlation": picture(
            matrix_picture(covariance / np.outer(scale, scale), names, names, "correlation", signed=True),
            "correlation",
            "Correlations of the random effects under the joint law.",
        ),
        "information": picture(
            matrix_picture(known.r_squared, names, known.endpoints, "R² given", signed=False),
            "information",
            "Share of the variance of each effect that the effects of another endpoint explain linearly, if "
            "they were known.",
        ),
        "nats": _nats_table(known.endpoints, known.nats),
        "facts": facts(
            [
                ("family", found.family),
                ("subjects", found.n_subjects),
                ("held out", found.n_held_out),
                *(
                    (e["name"], f"{e['model']}, {e['method']}, {e['n_subjects']} subjects")
                    for e in found.endpoints
                ),
                *((str(k), v) for k, v in found.notes.items()),
                *((str(k), v) for k, v in found.provenance.items()),
            ]
        ),
    }


def _sentences(found: JointFit) -> list[str]:
    first = found.results[0]
    out = [
        f"The {found.family} law of {len(found.law.names)} random effects raises the log-likelihood of "
        f"the training subjects by {significant(first.train_gain)} nats (Monte-Carlo SE "
        f"{significant(first.train_se, 2)}) over independent endpoints."
    ]
    if not np.isnan(first.held_out_gain):
        out.append(
            f"On {found.n_held_out} held-out subjects the gain is {significant(first.held_out_gain)} nats, "
            f"{significant(first.held_out_over_gaussian)} more than the EM Gaussian (SE between subjects "
            f"{significant(first.held_out_over_gaussian_sd, 2)})."
        )
    if first.minimum_ess < 20:
        out.append(
            f"One subject has only {significant(first.minimum_ess)} effective nodes: its likelihood is "
            "uncertain. Raise the number of nodes, or let the proposals be mixtures."
        )
    return out


def _family_table(results: Sequence[FamilyResult]) -> Table:
    head = ("family", "gain", "MC SE", "held-out gain", "MC SE", "over EM Gaussian", "SE", "least ESS")
    rows = []
    for r in results:
        numbers = (
            (r.train_gain, 1), (r.train_se, 2), (r.held_out_gain, 1), (r.held_out_se, 2),
            (r.held_out_over_gaussian, 1), (r.held_out_over_gaussian_sd, 1), (r.minimum_ess, 0),
        )  # fmt: skip
        rows.append(row([r.family, *(fixed(value, digits) for value, digits in numbers)]))
    caption = "In nats. A gain over the EM Gaussian below its SE shows nothing; a negative one is a loss."
    return Table(cells(head), tuple(rows), caption=caption)


def _nats_table(endpoints: Sequence[str], nats: np.ndarray) -> Table:
    rows = []
    for a, name in enumerate(endpoints):
        values = ["" if a == b else fixed(float(value), 3) for b, value in enumerate(nats[a])]
        rows.append(row([name, *values]))
    caption = (
        "Mutual information of the effects of two endpoints in nats per subject, of the normal law with the "
        "same moments: what the linear dependence is worth with unlimited data."
    )
    return Table(cells(["", *endpoints]), tuple(rows), caption=caption)
