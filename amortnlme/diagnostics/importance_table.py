"""How well every subject's amortized draws stand up to the exact likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from amortnlme.core.rng import stream
from amortnlme.diagnostics.trust import SubjectTrust, grade_subjects
from amortnlme.diagnostics.two_sample import marginal_wasserstein
from amortnlme.methods.importance import importance_correct

if TYPE_CHECKING:
    from amortnlme.data.dataset import Dataset
    from amortnlme.model.individual import IndividualModel
    from amortnlme.population.posterior_draws import PosteriorDraws

_CORRECTION_KEY = 62


@dataclass(frozen=True, slots=True, eq=False)
class DrawChecks:
    """What is known about the draws of every subject.

    Attributes
    ----------
    subjects : tuple of SubjectTrust
    shift : ndarray, shape (n_subjects, d), or None   [posterior SDs]
        Distance of every marginal from raw to likelihood-corrected draws.
    n_draws : int
    corrected : bool
        Whether the model has a likelihood to correct with.
    """

    subjects: tuple[SubjectTrust, ...]
    shift: np.ndarray | None
    n_draws: int
    corrected: bool


def check_draws(draws: PosteriorDraws, model: IndividualModel, dataset: Dataset, seed: int) -> DrawChecks:
    """Correct the draws by the exact likelihood, where there is one, and grade every subject.

    Parameters
    ----------
    draws : PosteriorDraws
    model : IndividualModel
    dataset : Dataset
        Of the draws.
    seed : int

    Returns
    -------
    DrawChecks
    """
    rejected = np.asarray(draws.n_rejected if draws.n_rejected is not None else np.zeros(draws.n_subjects))
    rejected_share = rejected / (rejected + draws.n_draws)
    ess_share = khat = shift = None
    corrected = "likelihood" in model.capabilities
    if corrected:
        result = importance_correct(draws, model.bind(dataset), stream(seed, _CORRECTION_KEY))
        ess_share, khat = result.ess / draws.n_draws, result.pareto_k
        shift = np.stack(
            [marginal_wasserstein(draws.phi[i], result.draws.phi[i]) for i in range(draws.n_subjects)]
        )
    subjects = grade_subjects(
        draws.subject_ids,
        out_of_domain=draws.out_of_domain,
        rejected_share=rejected_share,
        ess_share=ess_share,
        pareto_k=khat,
    )
    return DrawChecks(subjects, shift, draws.n_draws, corrected)


def importance_table(checks: DrawChecks, parameter_names: tuple[str, ...]) -> pd.DataFrame:
    """Write the checks as a table, one row per subject.

    Parameters
    ----------
    checks : DrawChecks
    parameter_names : tuple of str

    Returns
    -------
    pandas.DataFrame
        Index: subject id. Columns: trust, ess_share, pareto_k, rejected_share, shift_NAME [posterior SDs] for
        every parameter where a likelihood corrected the draws, and remarks.
    """
    columns: dict[str, object] = {
        "trust": [str(subject.grade) for subject in checks.subjects],
        "ess_share": [subject.ess_share for subject in checks.subjects],
        "pareto_k": [subject.pareto_k for subject in checks.subjects],
        "rejected_share": [subject.rejected_share for subject in checks.subjects],
    }
    if checks.shift is not None:
        columns |= {f"shift_{name}": checks.shift[:, j] for j, name in enumerate(parameter_names)}
    columns["remarks"] = ["; ".join(subject.reasons) for subject in checks.subjects]
    return pd.DataFrame(columns, index=pd.Index([s.subject_id for s in checks.subjects], name="id"))
