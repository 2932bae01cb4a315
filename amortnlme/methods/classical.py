"""FO, FOCE, FOCEI, Laplace and adaptive quadrature: method objects of the classical ladder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from amortnlme.core.errors import CapabilityError, UsageError
from amortnlme.methods.base import AbstractMethod, FitProblem
from amortnlme.methods.first_order_likelihood import ConditionalFirstOrderLikelihood, FirstOrderLikelihood
from amortnlme.methods.laplace_likelihood import LaplaceLikelihood
from amortnlme.methods.likelihood_fit import LikelihoodOptions, fit_likelihood
from amortnlme.methods.local_search import ModalObjective
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.methods.quadrature_likelihood import QuadratureLikelihood
from amortnlme.model.bound import BoundModel

NEEDS = frozenset({"predict", "sensitivity", "likelihood"})


def _options(method: Any) -> LikelihoodOptions:
    return LikelihoodOptions(
        method.starts, method.standard_errors, method.referee_points, method.referee_replicates
    )


def _record(method: Any) -> dict[str, Any]:
    return {name: getattr(method, name) for name in method.__slots__}


def _fit(method: Any, problem: FitProblem, make: Callable[[BoundModel], ModalObjective]) -> PopulationFit:
    return fit_likelihood(method.name, problem, make, _options(method), _record(method))


def _refuse_censoring(problem: FitProblem) -> None:
    """Refuse what FO has no closed form for.

    Under the linearized model the data of a subject are jointly normal, and k censored ones among them have
    a k-dimensional normal integral for a probability. To first order in eta, log P is a line along
    which P exceeds 1; to second order around the conditional mode it is FOCE.
    """
    bound = problem.bound_model
    if isinstance(bound, BoundModel) and bound.censoring is not None:
        raise CapabilityError(
            "E_FIT_CENSORED",
            "method 'fo' cannot use censored observations: its closed form is a normal density, and the "
            "probability of a subject's censored records is a normal integral with one dimension for each of "
            "them. Choose foce, focei, laplace, agq, vi or saem, or drop the censored records.",
        )


@dataclass(frozen=True, slots=True)
class Fo(AbstractMethod):
    """First-order approximation: the model linearized at the typical subject (NONMEM METHOD=0).

    Biased where random effects are large or the model is strongly non-linear in them. Censored observations
    are refused. Options: `LikelihoodOptions`.
    """

    starts: int = 1
    standard_errors: str = "hessian"
    referee_points: int = 512
    referee_replicates: int = 8

    name: ClassVar[str] = "fo"
    needs_draws: ClassVar[bool] = False
    requires: ClassVar[frozenset[str]] = NEEDS
    handles_networks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse options outside their range."""
        _options(self)

    def run(self, problem: FitProblem) -> PopulationFit:
        """Fit; see `AbstractMethod.run`."""
        _refuse_censoring(problem)
        return _fit(self, problem, lambda bound: FirstOrderLikelihood(bound, problem.bound_population))


@dataclass(frozen=True, slots=True)
class Foce(AbstractMethod):
    """First-order conditional estimation without interaction (NONMEM METHOD=1).

    The residual SDs are those of the typical subject. Options: `LikelihoodOptions`.
    """

    starts: int = 1
    standard_errors: str = "hessian"
    referee_points: int = 512
    referee_replicates: int = 8

    name: ClassVar[str] = "foce"
    needs_draws: ClassVar[bool] = False
    requires: ClassVar[frozenset[str]] = NEEDS
    handles_networks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse options outside their range."""
        _options(self)

    def run(self, problem: FitProblem) -> PopulationFit:
        """Fit; see `AbstractMethod.run`."""
        return _fit(
            self, problem, lambda bound: ConditionalFirstOrderLikelihood(bound, problem.bound_population)
        )


@dataclass(frozen=True, slots=True)
class Focei(AbstractMethod):
    """First-order conditional estimation with interaction (NONMEM METHOD=1 INTERACTION).

    Laplace's approximation with the expected information. Options: `LikelihoodOptions`.
    """

    starts: int = 1
    standard_errors: str = "hessian"
    referee_points: int = 512
    referee_replicates: int = 8

    name: ClassVar[str] = "focei"
    needs_draws: ClassVar[bool] = False
    requires: ClassVar[frozenset[str]] = NEEDS
    handles_networks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse options outside their range."""
        _options(self)

    def run(self, problem: FitProblem) -> PopulationFit:
        """Fit; see `AbstractMethod.run`."""
        return _fit(self, problem, lambda bound: LaplaceLikelihood(bound, problem.bound_population))


@dataclass(frozen=True, slots=True)
class Laplace(AbstractMethod):
    """Laplace's approximation with the full second derivatives (NONMEM LAPLACE).

    Options: `LikelihoodOptions`.
    """

    starts: int = 1
    standard_errors: str = "hessian"
    referee_points: int = 512
    referee_replicates: int = 8

    name: ClassVar[str] = "laplace"
    needs_draws: ClassVar[bool] = False
    requires: ClassVar[frozenset[str]] = NEEDS
    handles_networks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse options outside their range."""
        _options(self)

    def run(self, problem: FitProblem) -> PopulationFit:
        """Fit; see `AbstractMethod.run`."""
        return _fit(
            self, problem, lambda bound: LaplaceLikelihood(bound, problem.bound_population, "observed")
        )


@dataclass(frozen=True, slots=True)
class Quadrature(AbstractMethod):
    """Adaptive Gauss-Hermite quadrature: exact up to the number of nodes.

    Attributes
    ----------
    n_nodes : int
        Per random effect; from five random effects on the level of a sparse grid.
    starts, standard_errors, referee_points, referee_replicates
        See `LikelihoodOptions`.

    Raises
    ------
    UsageError
        E_FIT_OPTION.
    """

    n_nodes: int = 5
    starts: int = 1
    standard_errors: str = "hessian"
    referee_points: int = 512
    referee_replicates: int = 8

    name: ClassVar[str] = "quadrature"
    needs_draws: ClassVar[bool] = False
    requires: ClassVar[frozenset[str]] = NEEDS
    handles_networks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse options outside their range."""
        _options(self)
        if isinstance(self.n_nodes, bool) or not isinstance(self.n_nodes, int) or not 1 <= self.n_nodes <= 50:
            raise UsageError(
                "E_FIT_OPTION", f"n_nodes must be a whole number from 1 to 50; {self.n_nodes!r} was given."
            )

    def run(self, problem: FitProblem) -> PopulationFit:
        """Fit; see `AbstractMethod.run`."""
        return _fit(
            self, problem, lambda bound: QuadratureLikelihood(bound, problem.bound_population, self.n_nodes)
        )
