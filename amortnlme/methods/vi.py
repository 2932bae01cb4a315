"""Variational inference with deterministic expectations: a Gaussian law of random effects per subject."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from amortnlme.core.errors import UsageError
from amortnlme.core.rng import stream
from amortnlme.methods.base import AbstractMethod, FitProblem
from amortnlme.methods.likelihood_fit import LikelihoodOptions, fit_likelihood
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.methods.variational_likelihood import VariationalLikelihood
from amortnlme.methods.variational_posterior import expectation_nodes

NODE_STREAM = 2
FAMILIES = ("full", "diagonal")


@dataclass(frozen=True, slots=True)
class Vi(AbstractMethod):
    """Maximize the evidence lower bound over the population and a Gaussian q for every subject.

    The bound is reported as `criterion` ("elbo", as -2 ELBO); `ofv` is the referee's, as of every method.

    Attributes
    ----------
    family : {"full", "diagonal"}
        Covariance of q between the random effects of a subject.
    n_nodes : int or None
        Gauss-Hermite nodes per random effect, up to four of them; None chooses (up to five).
    n_samples : int
        Quasi-Monte Carlo nodes from five random effects on.
    starts, standard_errors, referee_points, referee_replicates
        See `LikelihoodOptions`.

    Raises
    ------
    UsageError
        E_FIT_OPTION.
    """

    family: str = "full"
    n_nodes: int | None = None
    n_samples: int = 256
    starts: int = 1
    standard_errors: str = "hessian"
    referee_points: int = 512
    referee_replicates: int = 8

    name: ClassVar[str] = "vi"
    needs_draws: ClassVar[bool] = False
    requires: ClassVar[frozenset[str]] = frozenset({"predict", "sensitivity", "likelihood"})
    handles_networks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse options outside their range."""
        self._options()
        refuse_unknown_family(self.family)
        if self.n_nodes is not None and (isinstance(self.n_nodes, bool) or not 2 <= self.n_nodes <= 50):
            raise UsageError(
                "E_FIT_OPTION",
                f"n_nodes must be None or a whole number from 2 to 50; {self.n_nodes!r} was given.",
            )
        if isinstance(self.n_samples, bool) or self.n_samples % 2 or not 32 <= self.n_samples <= 2**16:
            raise UsageError(
                "E_FIT_OPTION",
                f"n_samples must be an even number from 32 to 65536; {self.n_samples!r} was given.",
            )

    def run(self, problem: FitProblem) -> PopulationFit:
        """Fit; see `AbstractMethod.run`."""
        population, rng = problem.bound_population, stream(problem.seed, NODE_STREAM)
        nodes = expectation_nodes(population.r, self.n_nodes, self.n_samples, rng)
        return fit_likelihood(
            "elbo",
            problem,
            lambda bound: VariationalLikelihood(bound, population, nodes, self.family == "diagonal"),
            self._options(),
            {name: getattr(self, name) for name in self.__slots__},
            method=self.name,
        )

    def _options(self) -> LikelihoodOptions:
        return LikelihoodOptions(
            self.starts, self.standard_errors, self.referee_points, self.referee_replicates
        )


def refuse_unknown_family(family: str) -> None:
    """Refuse a family of q that does not exist.

    Parameters
    ----------
    family : str

    Raises
    ------
    UsageError
        E_FIT_OPTION.
    """
    if family not in FAMILIES:
        raise UsageError("E_FIT_OPTION", f"family is {family!r}. Allowed: {', '.join(FAMILIES)}.")
