"""The model card of an artefact: what the estimator is for, what it was trained on, how good it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amortnlme.neural.estimator import Estimator


def model_card(estimator: Estimator, *, picture: str | None = None) -> str:
    """Return the model card as Markdown; its first line names the checks that failed.

    Parameters
    ----------
    estimator : Estimator
        Trained estimator, with or without calibration.
    picture : str or None
        File beside the card that shows the calibration.

    Returns
    -------
    str
        Markdown text.
    """
    model, record = estimator.model, estimator.record
    lines = [
        f"# Estimator `{model.name}`: {_verdict(estimator.calibration)}",
        "",
        f"{model.text}",
        "",
        f"Source of the model: {model.source}",
        "",
        "## Intended use",
        "",
        "Posterior draws of the individual parameters of new subjects, as the input of population fits. The "
        "draws are "
        "approximate; a population fit corrects them with the exact likelihood. Subjects outside the "
        "designs below are "
        "flagged, not refused.",
        "",
        "## Parameters",
        "",
        "| name | unit | transform | typical | meaning |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {p.name} | {p.unit} | {p.transform} | {p.typical:g} | {p.text} |"
        for p in model.parameters.parameters
    ]
    lines += [
        "",
        "## Training",
        "",
        f"- prior on the unconstrained scale: `{model.prior.to_config()}`",
        f"- designs: `{model.design_sampler.to_config()}`",
        f"- network: `{estimator.spec.to_config()}`",
        f"- options: `{record.spec.to_config()}`, {_seeds(estimator)}",
        f"- training set: `{record.training_set}`",
    ]
    # The last epoch of the one network, or of each member of an ensemble.
    for row in {row.get("member"): row for row in estimator.history}.values():
        member = f"member {int(row['member'])}: " if "member" in row else ""
        lines.append(
            f"- {member}{int(row['epoch'])} epochs, {int(row['steps'])} steps; last validation loss "
            f"{row['validation_nll']:.4f} nats (mean of -log q on the phi scale)"
        )
    lines += ["", "## Calibration", ""]
    lines += _calibration_lines(estimator.calibration)
    if picture is not None:
        lines += ["", f"![Ranks of the true values and coverage of intervals]({picture})"]
    return "\n".join(lines) + "\n"


def _seeds(estimator: Estimator) -> str:
    record = estimator.record
    if not record.other_seeds:
        return f"seed {record.seed}"
    seeds = ", ".join(str(seed) for seed in (record.seed, *record.other_seeds))
    return f"an ensemble of {1 + len(record.other_seeds)} networks from the seeds {seeds}, equally weighted"


def _verdict(calibration: dict[str, Any] | None) -> str:
    """Say what a reader must know before anything else."""
    if calibration is None:
        return "not calibrated"
    failed = [name.replace("_", " ") for name, passed in calibration["checks"].items() if not passed]
    return f"FAILED {', '.join(failed)}" if failed else "all checks passed"


def _calibration_lines(calibration: dict[str, Any] | None) -> list[str]:
    if calibration is None:
        return ["Not calibrated yet: run `amortnlme calibrate`."]
    lines = [f"{calibration['n']} fresh simulations, {calibration['n_draws']} draws each.", ""]
    lines += [
        "| parameter | coverage 50 % | 80 % | 95 % | contraction | recovery |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in calibration["parameters"].items():
        coverage = " | ".join(f"{row['coverage'][level]:.3f}" for level in ("50", "80", "95"))
        lines.append(f"| {name} | {coverage} | {row['contraction']:.3f} | {row['recovery']:.3f} |")
    lines += ["", "Checks:", ""]
    lines += [
        f"- {name}: {'passed' if passed else 'FAILED'}" for name, passed in calibration["checks"].items()
    ]
    return lines
