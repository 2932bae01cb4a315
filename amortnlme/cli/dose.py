"""`amortnlme dose`: the smallest dose that keeps one patient's level above a target with a probability."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amortnlme.cli.options import DataOption, JsonPath, LogValues, Seed, TimeFactor
from amortnlme.cli.reply import reply
from amortnlme.core.errors import UsageError

if TYPE_CHECKING:
    from amortnlme.data.dataset import Dataset
    from amortnlme.data.subject import Subject
    from amortnlme.methods.dosing import DoseAdvice, Regimen
    from amortnlme.methods.patient import PatientPosterior
    from amortnlme.model.individual import IndividualModel

QUANTILES = (0.05, 0.5, 0.95)


def run(
    fit: Annotated[Path, typer.Argument(metavar="FIT", help="HDF5 file written by `amortnlme fit`.")],
    data: DataOption,
    above: Annotated[float, typer.Option("--above", help="Level to stay above, in the unit of the outcome.")],
    every: Annotated[
        float, typer.Option("--every", help="Interval between doses, in the model's time unit.")
    ],
    doses: Annotated[int, typer.Option("--doses", min=1, help="Number of doses.")] = 1,
    duration: Annotated[float, typer.Option("--duration", min=0.0, help="Of infusions; 0: boluses.")] = 0.0,
    start: Annotated[
        float | None,
        typer.Option("--start", help="Time of the first dose; the patient's last record if left out."),
    ] = None,
    probability: Annotated[
        float, typer.Option("--probability", help="Of staying above the level at every trough.")
    ] = 0.9,
    largest: Annotated[float | None, typer.Option("--largest", help="Largest dose allowed.")] = None,
    patient: Annotated[
        str | None, typer.Option("--patient", help="Table with a patient who is not in --data.")
    ] = None,
    subject: Annotated[
        str | None, typer.Option("--subject", help="ID of the patient; needed where the table holds several.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Model file or name, where it is no shipped one.")
    ] = None,
    law: Annotated[
        str, typer.Option("--law", help="laplace, vi or importance: how the patient's posterior is drawn.")
    ] = "vi",
    draws: Annotated[int, typer.Option("--draws", min=20, help="Posterior draws.")] = 1000,
    time_factor: TimeFactor = None,
    log_values: LogValues = False,
    seed: Seed = 0,
    json_path: JsonPath = None,
) -> int:
    """Find the dose that keeps a patient's level above a target, from the patient's own data and a fit.

    Troughs are looked at before every next dose and one interval after the last; what is left of earlier
    doses counts.
    """
    from amortnlme.cli.inputs import read_dataset
    from amortnlme.core.rng import generator
    from amortnlme.methods.dosing import dose_for, repeated
    from amortnlme.methods.patient import patient_posterior
    from amortnlme.methods.population_fit import PopulationFit
    from amortnlme.model.registry import load_model, load_shipped_model

    with reply("dose", json_path) as answer:
        training = read_dataset(data, time_factor, log=log_values)
        who = training if patient is None else read_dataset(patient, time_factor, log=log_values)
        chosen, result = _patient(who, subject), PopulationFit.load(fit)
        individual = load_shipped_model(result.model_name) if model is None else load_model(model)
        posterior = patient_posterior(result, training, chosen, individual, generator(seed), draws, law)
        begin = float(chosen.design.time[-1]) if start is None else start
        regimen, limit = repeated(begin, every, doses, duration), float("inf") if largest is None else largest
        advice = dose_for(individual, posterior.phi, chosen, regimen, above, probability, limit)
        answer.result = _document(posterior, individual, regimen, advice)
        _show(answer.result, individual, above)
    return answer.code


def _document(
    posterior: PatientPosterior, model: IndividualModel, regimen: Regimen, advice: DoseAdvice
) -> dict[str, Any]:
    import numpy as np

    levels = np.nanquantile(advice.levels, QUANTILES, axis=0).T.tolist()
    return {
        "patient": posterior.patient.id,
        "model": model.name,
        "law": posterior.law,
        "pareto_k": posterior.pareto_k,
        "amount": advice.amount,
        "probability": advice.probability,
        "dose_times": [dose.time for dose in regimen.doses],
        "troughs": [
            {"time": t, "quantiles": dict(zip(map(str, QUANTILES), row, strict=True))}
            for t, row in zip(regimen.times, levels, strict=True)
        ],
    }


def _show(result: dict[str, Any], model: IndividualModel, above: float) -> None:
    from amortnlme.cli.tables import cell_text, say, show_table

    unit, level = model.units["amount"], model.outputs[0].unit
    say(
        f"{cell_text(result['amount'])} {unit} at each dose: patient {result['patient']} stays above "
        f"{cell_text(above)} {level} with probability {result['probability']:.3f}."
    )
    heads = ["time", *(f"{100 * q:g} %" for q in QUANTILES)]
    rows = [[row["time"], *row["quantiles"].values()] for row in result["troughs"]]
    show_table(heads, rows, title=f"troughs [{level}]")


def _patient(dataset: Dataset, name: str | None) -> Subject:
    if name is not None:
        return dataset.select([name]).subjects[0]
    if dataset.n_subjects > 1:
        raise UsageError(
            "E_USAGE_SUBJECT",
            f"the table holds {dataset.n_subjects} patients. Name one with --subject, such as "
            f"{dataset.ids[0]}.",
        )
    return dataset.subjects[0]
