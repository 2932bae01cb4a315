"""Parameters that the data cannot tell apart, found from information matrices of full precision.

Observed information has no say here: away from the exact optimum its smallest eigenvalue is of the size of
the gradient, along the curved valley of, say, a product of two parameters. Scores are exact derivatives:
where the likelihood depends on fewer combinations of parameters than there are, those of all subjects are
linearly dependent at every point. With no more subjects than parameters they always are, and the expected
information of the linearized model decides, which counts observations instead of subjects.
"""

from __future__ import annotations

import numpy as np

from amortnlme.core.errors import CapabilityError
from amortnlme.methods.information import weak_entries
from amortnlme.methods.linearization import linearized_information, refuse_linearization
from amortnlme.model.bound import BoundModel
from amortnlme.model.residuals import residual_terms
from amortnlme.population.bound_population import BoundPopulation

#: Smallest eigenvalue, at unit diagonal, that counts as information. Scores are right to about 1e-6 of their
#: size, so that dependent ones leave 1e-12.
DEPENDENT = 1e-9


def unidentified(
    scores: np.ndarray, bound: BoundModel, population: BoundPopulation, x: np.ndarray, phi: np.ndarray
) -> list[str]:
    """Warn of parameters about which the data hold no separate information.

    Parameters
    ----------
    scores : ndarray, shape (n_subjects, n_x)
        Of a population log-likelihood, at x.
    bound : BoundModel
    population : BoundPopulation
    x : ndarray, shape (n_x,)
    phi : ndarray, shape (n_subjects, d)
        Conditional modes.

    Returns
    -------
    list of str
        Empty, or one text with code W_FIT_INFORMATION that names the parameters.
    """
    if len(scores) > population.n_x:
        information = scores.T @ scores
    else:
        try:
            refuse_linearization(bound, population)
        except CapabilityError:
            return []  # too few subjects, and no other information at hand
        information = linearized_information(residual_terms(bound, phi[:, None]), population, x)
    weak = weak_entries(information, DEPENDENT)
    return [information_warning([population.names[k] for k in weak])] if len(weak) else []


def information_warning(names: list[str]) -> str:
    """Text about an information matrix that is not positive definite.

    Parameters
    ----------
    names : list of str
        Entries of x in the directions without information; may be empty where nobody knows.

    Returns
    -------
    str
    """
    if len(names) > 1:
        what = f"{', '.join(n.removeprefix('theta_') for n in names)} are not told apart"
    else:
        what = f"{names[0].removeprefix('theta_') if names else 'some parameter'} is not identified"
    return (
        f"[W_FIT_INFORMATION] the information is not positive definite: {what} by these data. No standard "
        "errors are given; remove a parameter, a covariate effect or a random effect."
    )
