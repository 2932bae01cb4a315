"""The one result type: what every population method returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from amortnlme.core.status import FitStatus
from amortnlme.methods import fit_document
from amortnlme.methods.information import condition_number, correlation_of_estimates
from amortnlme.population.estimates import Estimate
from amortnlme.population.population_model import PopulationModel

if TYPE_CHECKING:
    import pandas as pd

LOG_2PI = float(np.log(2.0 * np.pi))

#: What `ofv` may be. Values of different kinds must never be subtracted.
OFV_KINDS = {
    "importance_sampling": "-2 log-likelihood by importance sampling, independent of the fit",
    "density_importance_sampling": "-2 log-likelihood up to a constant per dataset, from the estimator's "
    "density",
    "surrogate": "-2 log-likelihood up to a constant per dataset, from the Gaussian-mixture surrogate",
    "monte_carlo": "-2 log of the mean of p(phi | theta) / p(phi) over the draws, up to a constant per "
    "dataset, biased",
    "fo": "-2 log-likelihood of the model linearized at the typical subject",
    "foce": "-2 log-likelihood linearized at the conditional modes, residual SDs of the typical subject",
    "focei": "-2 log-likelihood by Laplace's approximation with the expected information (FOCE with "
    "interaction)",
    "laplace": "-2 log-likelihood by Laplace's approximation with the observed information",
    "quadrature": "-2 log-likelihood by adaptive Gauss-Hermite quadrature",
    "iwae": "-2 importance-weighted bound: between -2 evidence lower bound and -2 log-likelihood",
    "pooled": "-2 log-likelihood of the typical predictions, without random effects",
    "elbo": "-2 evidence lower bound: above -2 log-likelihood by twice the divergence of q",
}


@dataclass(frozen=True, slots=True, eq=False)
class Individuals:
    """Per-subject results.

    Attributes
    ----------
    ids : tuple of str
    ebe_phi : ndarray, shape (n_subjects, d)
        Conditional modes on the phi scale.
    ebe_eta : ndarray, shape (n_subjects, r)
        Conditional modes of the random effects, phi - mu, in the order of `random_effects`.
    conditional_mean_phi : ndarray, shape (n_subjects, d)
    conditional_sd_phi : ndarray, shape (n_subjects, d)
        Zero for pooled parameters.
    """

    ids: tuple[str, ...]
    ebe_phi: np.ndarray
    ebe_eta: np.ndarray
    conditional_mean_phi: np.ndarray
    conditional_sd_phi: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class FitQuality:
    """How far the numbers of a fit can be trusted.

    Attributes
    ----------
    ess : ndarray, shape (n_subjects,)
        Effective number of importance nodes, out of `n_points`; NaN where no importance sampling took place.
    pareto_k : ndarray, shape (n_subjects,)
        Tail index of the importance weights; above 0.7 the subject's contribution is unreliable.
    n_points : int
    gradient_norm : float
        Largest entry of the gradient at the solution, in standard errors (0 is a perfect optimum).
    mc_shift : float
        Move of the estimates in the last refresh of the proposals, in standard errors (largest entry).
    mc_se : ndarray or None, shape (n_x,)
        Monte-Carlo standard error of x.
    surrogate_shift : float
        Largest move, in standard errors, from the surrogate's estimates to the corrected ones.
    n_clipped : int
        Directions in which refitted draws were broader than the prior.
    mc_bias : ndarray or None, shape (n_x,)
        Known part of the Monte-Carlo bias of x.
    """

    ess: np.ndarray
    pareto_k: np.ndarray
    n_points: int
    gradient_norm: float
    mc_shift: float
    mc_se: np.ndarray | None
    surrogate_shift: float
    n_clipped: int
    mc_bias: np.ndarray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PopulationFit:
    """Estimates of a population model with their uncertainty, objective value, individual terms and origin.

    Attributes
    ----------
    method, model_name : str
    population : PopulationModel
    status : FitStatus
        converged | boundary | not_converged | failed; `status.sentence` says it in words.
    estimates : tuple of Estimate
        The table, on natural scales.
    theta : ndarray, shape (d,)
        Typical values on the phi scale.
    omega : ndarray, shape (d, d)
        Covariance of the random effects; zero rows and columns for pooled parameters.
    sigma : mapping of str to float
        Residual-error SDs, and exponents of power models (typical values where they vary between subjects),
        natural scale.
    parameter_names, random_effects : tuple of str
        Order of the d parameters and of the r random effects.
    x, x_names : packed population parameters, as `BoundPopulation` lays them out.
    covariance : ndarray, shape (n_x, n_x), or None
        Of x; None where Wald standard errors do not exist (boundary) or could not be computed.
    ofv : float
        -2 log-likelihood with constants, of the kind `ofv_kind` (see `OFV_KINDS`).
    ofv_kind : str
    ofv_se : float
        Monte-Carlo standard error of `ofv`; NaN where it has none.
    ofv_individual : ndarray, shape (n_subjects,)
    individuals : Individuals
    eta_shrinkage : ndarray, shape (r,)
        1 - SD(EBE) / omega_sd, SD scale.
    eps_shrinkage : float
        1 - SD(IWRES); NaN without predictions.
    quality : FitQuality
    warnings : tuple of str
        Each starts with its code in brackets.
    trace : tuple of mappings
        One entry per stage of the optimization.
    provenance : mapping
        Fingerprints, versions, seed, options.
    seconds : mapping of str to float
        Wall time per stage.
    n_subjects, n_observations : int
    n_parameters_random : int
        See `bicc`.
    n_censored : int
        Censored ones among the observations.
    criterion, criterion_kind : float, str
        Value at the estimates of what the method maximized, as -2 log-likelihood, and its kind; NaN and ""
        where that is `ofv` itself or has no meaning of its own. Never compare it across kinds.
    """

    method: str
    model_name: str
    population: PopulationModel
    status: FitStatus
    estimates: tuple[Estimate, ...]
    theta: np.ndarray
    omega: np.ndarray
    sigma: Mapping[str, float]
    parameter_names: tuple[str, ...]
    random_effects: tuple[str, ...]
    x: np.ndarray
    x_names: tuple[str, ...]
    covariance: np.ndarray | None
    ofv: float
    ofv_kind: str
    ofv_se: float
    ofv_individual: np.ndarray
    individuals: Individuals
    eta_shrinkage: np.ndarray
    eps_shrinkage: float
    quality: FitQuality
    warnings: tuple[str, ...]
    trace: tuple[Mapping[str, Any], ...]
    provenance: Mapping[str, Any]
    seconds: Mapping[str, float]
    n_subjects: int
    n_observations: int
    n_parameters_random: int = field(default=0)
    n_censored: int = field(default=0)
    criterion: float = field(default=float("nan"))
    criterion_kind: str = field(default="")

    def __post_init__(self) -> None:
        """Make the arrays read-only."""
        for owner in (self, self.individuals, self.quality):
            for name in type(owner).__slots__:
                value = getattr(owner, name)
                if isinstance(value, np.ndarray):
                    value.setflags(write=False)

    @property
    def n_parameters(self) -> int:
        """Number of estimated population parameters."""
        return len(self.x)

    @property
    def correlation(self) -> np.ndarray | None:
        """Correlation matrix of the estimates x, shape (n_x, n_x); None where `covariance` is None."""
        return None if self.covariance is None else correlation_of_estimates(self.covariance)

    @property
    def condition_number(self) -> float:
        """Ratio of the largest to the smallest eigenvalue of `correlation`; NaN where that is None.

        NONMEM prints the same ratio, of its own parameters: numbers agree in size, not in digits.
        """
        return float("nan") if self.covariance is None else condition_number(self.covariance)

    @property
    def ofv_nonmem(self) -> float:
        """`ofv` without the constant n log(2 pi), as NONMEM prints it.

        n counts the quantified observations: the probability of a censored one has no such constant.
        """
        return self.ofv - (self.n_observations - self.n_censored) * LOG_2PI

    @property
    def aic(self) -> float:
        """Akaike's criterion, ofv + 2 n_parameters."""
        return self.ofv + 2.0 * self.n_parameters

    @property
    def bic(self) -> float:
        """Schwarz's criterion with the number of subjects, ofv + n_parameters log n_subjects."""
        return self.ofv + self.n_parameters * float(np.log(self.n_subjects))

    @property
    def bicc(self) -> float:
        """Corrected BIC after Delattre, Lavielle & Poursat (2014), counted as Rohleff et al. (2025) count.

        Entries of omega and covariate coefficients on parameters that vary cost log n_subjects each; typical
        values and pooled parameters cost log n_observations each. (Counting the typical values of parameters
        that vary with log n_subjects, as the 2014 paper does, shifts all models with the same random effects
        alike.)
        """
        if self.n_observations == 0:
            return float("nan")
        n_fixed = self.n_parameters - self.n_parameters_random
        return self.ofv + float(
            self.n_parameters_random * np.log(self.n_subjects) + n_fixed * np.log(self.n_observations)
        )

    def estimate(self, name: str) -> Estimate:
        """Return one row of the table by its name; KeyError lists the names."""
        for row in self.estimates:
            if row.name == name:
                return row
        raise KeyError(f"no estimate {name!r}; this fit has {', '.join(row.name for row in self.estimates)}")

    def table(self) -> pd.DataFrame:
        """Estimates as a table: kind, unit, value, se, rse_percent, ci_low, ci_high by name."""
        import pandas as pd

        columns = ("kind", "unit", "value", "se", "rse_percent", "ci_low", "ci_high")
        rows = [[getattr(row, name) for name in columns] for row in self.estimates]
        frame = pd.DataFrame(
            rows, columns=list(columns), index=pd.Index([r.name for r in self.estimates], name="name")
        )
        return frame.astype({name: float for name in columns[2:]})

    def individual_table(self) -> pd.DataFrame:
        """Per-subject table: EBE on the phi scale, eta, conditional mean and SD, ofv, ESS, Pareto k-hat."""
        import pandas as pd

        people, columns = self.individuals, {}
        for j, name in enumerate(self.parameter_names):
            columns[f"ebe_phi_{name}"] = people.ebe_phi[:, j]
            columns[f"conditional_mean_phi_{name}"] = people.conditional_mean_phi[:, j]
            columns[f"conditional_sd_phi_{name}"] = people.conditional_sd_phi[:, j]
        for j, name in enumerate(self.random_effects):
            columns[f"eta_{name}"] = people.ebe_eta[:, j]
        columns |= {"ofv": self.ofv_individual, "ess": self.quality.ess, "pareto_k": self.quality.pareto_k}
        return pd.DataFrame(columns, index=pd.Index(people.ids, name="id"))

    def to_dict(self) -> dict[str, Any]:
        """Return the fit as plain JSON values; the schema is documented in `amortnlme/methods/schema.md`."""
        return fit_document.to_dict(self)

    def _repr_html_(self) -> str:
        return fit_document.to_html(self)

    def save(self, path: str | Path) -> None:
        """Write the fit to one HDF5 file, atomically.

        Raises
        ------
        ArtefactError
            E_IO_WRITE when the file cannot be written.
        """
        from amortnlme.methods import fit_file

        fit_file.save_fit(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> PopulationFit:
        """Read a fit written by `save`.

        Raises
        ------
        ArtefactError
            E_H5_MISSING, E_H5_TRUNCATED, E_H5_CHECKSUM, E_H5_KIND, E_FIT_VERSION.
        """
        from amortnlme.methods import fit_file

        return fit_file.load_fit(Path(path))
