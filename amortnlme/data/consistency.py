"""What the columns of one row, and the rows of one table, must agree on."""

from __future__ import annotations

import numpy as np
import pandas as pd

from amortnlme.core.errors import DataError
from amortnlme.data.records import Records
from amortnlme.data.refusals import Places


def refuse_contradictions(
    records: Records, *, allow_duplicates: bool = False, allow_missing_covariates: bool = False
) -> None:
    """Raise if rows cannot be meant as they stand.

    Parameters
    ----------
    records : Records
        Of one table.
    allow_duplicates : bool
        Whether a subject may have the same row twice.
    allow_missing_covariates : bool
        Whether a subject may start without the value of a covariate.

    Raises
    ------
    DataError
        Naming the first such row; the codes are those of the functions of this module.
    """
    _refuse_dose_amounts(records)
    _refuse_infusions(records)
    _refuse_schedules(records)
    _refuse_dose_items_elsewhere(records)
    _refuse_limits(records)
    if not allow_duplicates:
        _refuse_duplicates(records)
    if not allow_missing_covariates:
        _refuse_missing_covariates(records)
    if not records.measured.any():
        raise DataError(
            "E_DATA_NO_OBSERVATIONS",
            f"{records.places.source} holds no observation: none of its {len(records.time)} rows has "
            f"EVID 0, MDV 0 and a DV. "
            f"At least one measurement is needed; check DV, EVID and MDV.",
        )


def refuse_double_doses(
    places: Places, fields: dict[str, np.ndarray], implied: np.ndarray, origin: np.ndarray
) -> None:
    """Raise if an additional dose coincides with an equal dose of another row: it would be given twice.

    Parameters
    ----------
    places : Places
        Where the rows come from.
    fields : dict of str to ndarray, shape (n,)
        What makes doses equal; among them their time.
    implied : ndarray of bool, shape (n,)
        Whether the dose comes from ADDL.
    origin : ndarray of int, shape (n,)
        Row the dose comes from.

    Raises
    ------
    DataError
        ``E_DATA_DOUBLE_DOSE``.
    """
    table = pd.DataFrame(fields)
    twins = np.flatnonzero(table.duplicated(keep=False).to_numpy() & implied)
    if not twins.size:
        return
    at = int(twins[0])
    same = (table == table.iloc[at]).all(axis=1).to_numpy() & (np.arange(len(table)) != at)
    other = int(origin[np.flatnonzero(same)[0]])
    raise DataError(
        "E_DATA_DOUBLE_DOSE",
        f"{places.source}, {places.name(int(origin[at]))}: its additional dose (ADDL) at t = "
        f"{fields['time'][at]:g} "
        f"equals a dose of row {int(places.rows[other])} at that time, so it would be given twice. "
        f"Lower ADDL or "
        f"remove the other row; if two doses are meant, pass allow_duplicates=True.",
    )


def _refuse_dose_amounts(records: Records) -> None:
    places, amount = records.places, records.amt
    places.refuse(
        "E_DATA_AMT_NEGATIVE", amount < 0, "AMT is {}", "Amounts must be 0 or more; correct the cell.", amount
    )
    places.refuse(
        "E_DATA_DOSE_WITHOUT_AMT",
        records.is_dose & records.amt_missing,
        "a dose (EVID {}) has no AMT",
        "Every dose needs its amount; fill in AMT, or set EVID to 2 if no dose was given.",
        records.evid,
    )
    if records.is_dose.any() and not amount[records.is_dose].any():
        raise DataError(
            "E_DATA_DOSES_ZERO",
            f"{places.source}: no dose has an AMT above 0; the first dose is in "
            f"{places.name(int(np.argmax(records.is_dose)))}. "
            f"At least one dose must be positive; fill in AMT, or remove the dose rows of an undosed study.",
        )


def _refuse_infusions(records: Records) -> None:
    places, rate, duration = records.places, records.rate, records.tinf
    for code, meaning in (
        (-1, "the rate is a parameter of the model"),
        (-2, "the duration is a parameter of the model"),
    ):
        places.refuse(
            "E_DATA_RATE_MODELED",
            rate == code,
            f"RATE is {code}, which means that {meaning}",
            "Models cannot estimate the rate or duration of an infusion yet; give RATE > 0, or 0 for "
            "a bolus.",
        )
    places.refuse("E_DATA_RATE", rate < 0, "RATE is {}", "RATE must be 0 (bolus) or more (infusion).", rate)
    places.refuse(
        "E_DATA_TINF", duration < 0, "TINF is {}", "TINF must be 0 (bolus) or more (infusion).", duration
    )
    places.refuse(
        "E_DATA_RATE_AND_TINF",
        (rate > 0) & (duration > 0),
        "RATE and TINF are both given",
        "One of them defines the infusion; set the other one to 0.",
    )
    places.refuse(
        "E_DATA_RATE_WITHOUT_AMT",
        (rate > 0) & records.is_dose & (records.amt == 0),
        "RATE is {} but AMT is 0, so the infusion has no end",
        "Infusions need a positive amount (constant infusions to steady state are not supported).",
        rate,
    )


def _refuse_schedules(records: Records) -> None:
    places, interval, extra, steady = records.places, records.ii, records.addl, records.ss
    places.refuse("E_DATA_II", interval < 0, "II is {}", "The interval must be 0 or more.", interval)
    places.refuse(
        "E_DATA_ADDL_WITHOUT_II",
        (extra > 0) & (interval == 0),
        "ADDL is {} but II is 0 or missing",
        "Additional doses need their interval; fill in II, or set ADDL to 0.",
        extra,
    )
    places.refuse(
        "E_DATA_SS_WITHOUT_II",
        (steady > 0) & (interval == 0),
        "SS is {} but II is 0 or missing",
        "A steady-state dose needs its interval; fill in II, or set SS to 0 "
        "(constant infusions to steady state are not supported).",
        steady,
    )
    places.refuse(
        "E_DATA_II_UNUSED",
        (interval > 0) & (extra == 0) & (steady == 0),
        "II is {} but neither ADDL nor SS asks for further doses",
        "Fill in ADDL or SS, or set II to 0.",
        interval,
    )


def _refuse_dose_items_elsewhere(records: Records) -> None:
    for label in ("amt", "rate", "tinf", "addl", "ss", "ii"):
        values = getattr(records, label)
        records.places.refuse(
            "E_DATA_DOSE_ITEM",
            ~records.is_dose & (values != 0),
            f"{label.upper()} is {{}} on a row that is no dose",
            "Only doses (EVID 1 or 4) may have AMT, RATE, TINF, ADDL, II and SS; set it to 0 or "
            "correct EVID.",
            values,
        )


def _refuse_limits(records: Records) -> None:
    censored = records.measured & (records.cens != 0) & ~np.isnan(records.limit)
    wrong = np.where(records.cens > 0, records.limit >= records.dv, records.limit <= records.dv)
    records.places.refuse(
        "E_DATA_LIMIT",
        censored & wrong,
        "LIMIT is {} on the wrong side of DV",
        "With CENS 1 the measurement lies between LIMIT and DV, so LIMIT < DV; with CENS -1 LIMIT > DV. "
        "Swap or correct them.",
        records.limit,
    )


def _refuse_duplicates(records: Records) -> None:
    parts = (
        "segment",
        "time",
        "evid",
        "amt",
        "rate",
        "tinf",
        "addl",
        "ii",
        "ss",
        "cmt",
        "measured",
        "cens",
        "limit",
    )
    table = {part: getattr(records, part) for part in parts}
    observation = records.is_observation
    table |= {part: np.where(observation, getattr(records, part), 0.0) for part in ("dv", "occ", "dvid")}
    table |= {f"covariate {name}": values for name, values in records.covariates.items()}
    records.places.refuse(
        "E_DATA_DUPLICATE_ROW",
        pd.DataFrame(table).duplicated().to_numpy(),
        "the row repeats an earlier one of this subject at t = {}",
        "Remove it; write two equal doses at one time as one dose. If the repetition is meant, pass "
        "allow_duplicates=True.",
        records.time,
    )


def _refuse_missing_covariates(records: Records) -> None:
    for name, values in records.covariates.items():
        missing = np.isnan(values)
        n_subjects = len(np.unique(records.subject[missing]))
        records.places.refuse(
            "E_DATA_COVARIATE_MISSING",
            missing,
            f"covariate {name} has no value at or before this row ({n_subjects} subjects start without one)",
            "Later rows take the last value, but the first row needs one: fill it in, leave the "
            "column out with "
            "ColumnMap(ignore=...), or pass allow_missing_covariates=True and keep it out of "
            "population models.",
        )
