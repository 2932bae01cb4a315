"""Is an estimate that of the data or that of its random numbers: one gate for all sampled objectives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Monte-Carlo standard error and bias of an estimate, in its standard errors, up to which they are harmless.
NOISE_LIMIT = 0.1
#: Fewer effective draws than this, for more than this share of subjects, and the weights are degenerate.
ESS_LIMIT, ESS_SHARE = 10.0, 0.05
#: The same for the tail index of the weights.
PARETO_K_LIMIT, PARETO_K_SHARE = 0.7, 0.10


def error_reasons(names: Sequence[str], se: np.ndarray, mc_se: np.ndarray, mc_bias: np.ndarray) -> list[str]:
    """Say which estimates have more Monte-Carlo error than the gate lets pass.

    Parameters
    ----------
    names : sequence of str
    se : ndarray, shape (n_x,)
        Standard errors.
    mc_se, mc_bias : ndarray, shape (n_x,)
        Monte-Carlo standard errors and (known part of the) bias of the estimates.

    Returns
    -------
    list of str
        Empty when all of them pass.
    """
    reasons = []
    for what, size in (("Monte-Carlo standard error", mc_se), ("Monte-Carlo bias", np.abs(mc_bias))):
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(se > 0, size / se, 0.0)
        worst = int(np.argmax(share))
        if not share[worst] <= NOISE_LIMIT:
            reasons.append(f"the {what} of {names[worst]} is {share[worst]:.2f} of its standard error")
    return reasons


def weight_reasons(ess: np.ndarray, pareto_k: np.ndarray) -> list[str]:
    """Say whether the weights of the subjects are degenerate.

    Parameters
    ----------
    ess, pareto_k : ndarray, shape (n_subjects,)

    Returns
    -------
    list of str
        Empty when they pass.
    """
    reasons = []
    poor, heavy = float(np.mean(ess < ESS_LIMIT)), float(np.mean(pareto_k > PARETO_K_LIMIT))
    if poor > ESS_SHARE:
        reasons.append(f"{100 * poor:.0f} % of the subjects have fewer than {ESS_LIMIT:g} effective draws")
    if heavy > PARETO_K_SHARE:
        reasons.append(f"k-hat exceeds {PARETO_K_LIMIT} for {100 * heavy:.0f} % of the subjects")
    return reasons


def gate_warnings(reasons: Sequence[str], advice: str) -> list[str]:
    """Turn the reasons into one coded warning, which reports show in red.

    Parameters
    ----------
    reasons : sequence of str
    advice : str
        What to do.

    Returns
    -------
    list of str
        Empty without reasons.
    """
    if not reasons:
        return []
    return [
        f"[W_FIT_MC_ERROR] these estimates depend on the random numbers: {'; '.join(reasons)} "
        f"(up to {NOISE_LIMIT} SE is harmless). {advice}"
    ]
