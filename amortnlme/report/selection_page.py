"""One self-contained HTML page about a covariate selection."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amortnlme.core.files import write_text_atomic
from amortnlme.methods.selection import Selection
from amortnlme.report.content import Cell, Table, cells, facts, picture, row
from amortnlme.report.plots_selection import draw_matrix, draw_path, draw_ranking
from amortnlme.report.rendering import render

_SECTIONS = (
    ("summary", "Summary"),
    ("matrix", "Inclusion matrix"),
    ("ranking", "Models by BICc"),
    ("path", "Selection path"),
    ("provenance", "Provenance"),
)
_NUMBER_WORDS = ("bootstrap", "seeds")


def write_selection_report(selection: Selection, path: str | Path) -> Path:
    """Write a page about a selection.

    Parameters
    ----------
    selection : Selection
    path : str or Path
        File to write; its folder must exist.

    Returns
    -------
    Path
        The file that was written.

    Raises
    ------
    ArtefactError
        E_IO_WRITE if the file cannot be written.
    """
    target = Path(path)
    write_text_atomic(target, render("selection.html", _content(selection), _SECTIONS))
    return target


def _content(selection: Selection) -> dict[str, Any]:
    matrix_text = "Rows are parameters, columns covariates. Filled: in the chosen model."
    if selection.frequencies:
        kinds = " and ".join(kind for kind in _NUMBER_WORDS if kind in selection.frequencies)
        matrix_text += f" Numbers: share of the searches over {kinds} that took the relation in."
    ranking = path = None
    if selection.scores:
        text = "BICc above the best model, with two standard errors; ties are filled."
        ranking = picture(draw_ranking(selection), "ranking", text)
    if selection.steps:
        text = "Relations in each model of the search, and its criterion."
        path = picture(draw_path(selection), "path", text)
    return {
        "title": f"Covariate selection: {selection.provenance.get('dataset_name', '')}",
        "subtitle": f"{selection.model_name}, searched by {selection.method}",
        "sentences": _sentences(selection),
        "tiles": _tiles(selection),
        "warnings": list(selection.warnings),
        "matrix_text": matrix_text,
        "matrix": picture(draw_matrix(selection), "matrix", "Relations in the chosen model."),
        "ranking": _ranking(selection) if selection.scores else None,
        "ranking_figure": ranking,
        "path_text": f"{len(selection.steps)} models on the way of the search, in order. Criterion: "
        f"{selection.criterion_kind}.",
        "path": path,
        "facts": facts(_facts(selection)),
    }


def _sentences(selection: Selection) -> list[str]:
    chosen = ", ".join(selection.chosen) or "no covariate effect"
    sentences = [f"Chosen: {chosen}."]
    if selection.forced:
        sentences[0] += f" In every model: {', '.join(selection.forced)}."
    if not selection.scores:
        return sentences
    best, others = selection.scores[0], selection.ties[1:]
    sentences.append(f"BICc {best.bicc:.2f}, -2 log-likelihood {best.ofv:.2f}.")
    if others:
        names = "; ".join(", ".join(score.chosen) or "none" for score in others)
        sentences.append(f"It cannot be told apart from {len(others)} of the other models judged: {names}.")
    elif len(selection.scores) > 1:
        gap = selection.scores[1].bicc - best.bicc
        sentences.append(f"The next of the other models judged is {gap:.1f} units behind.")
    return sentences


def _tiles(selection: Selection) -> list[dict[str, str]]:
    return [
        {"value": str(len(selection.relations) - len(selection.forced)), "text": "candidate relations"},
        {"value": str(selection.runs), "text": "fits for the search"},
        {"value": f"{selection.seconds.get('search', 0.0):.1f} s", "text": "for the search"},
        {"value": str(len(selection.scores)), "text": "models judged"},
    ]


def _ranking(selection: Selection) -> Table:
    header = cells(
        [
            "Relations",
            Cell("-2LL"),
            Cell("SE", "Monte Carlo"),
            "Parameters",
            "BICc",
            Cell("Δ", "to the best"),
            "",
            "Status",
        ]
    )
    best = selection.scores[0]
    rows = [
        row(
            [
                ", ".join(score.chosen) or "none",
                f"{score.ofv:.2f}",
                f"{score.ofv_se:.3f}",
                str(score.n_parameters),
                f"{score.bicc:.2f}",
                f"{score.bicc - best.bicc:.2f}",
                Cell("tie", tag="blue") if score.ties_with(best) and score is not best else "",
                score.status,
            ]
        )
        for score in selection.scores
    ]
    return Table(header, tuple(rows), text_columns=frozenset({0, 6, 7}), wrap_columns=frozenset({0}))


def _facts(selection: Selection) -> Sequence[tuple[str, object]]:
    origin = selection.provenance
    return [
        ("Data", origin.get("dataset_name")),
        ("Fingerprint of the data", origin.get("dataset_fingerprint")),
        ("Subjects, observations", f"{origin.get('n_subjects')}, {origin.get('n_observations')}"),
        ("Population model without candidates", origin.get("population")),
        ("Candidates", ", ".join(selection.relations)),
        ("Hardly told apart", "; ".join(", ".join(group) for group in selection.associated)),
        ("Method", selection.method),
        ("Options", ", ".join(f"{k} {v}" for k, v in dict(origin.get("options", {})).items())),
        ("Seed", origin.get("seed")),
        ("Seconds", ", ".join(f"{k} {v:.1f}" for k, v in selection.seconds.items())),
    ]
