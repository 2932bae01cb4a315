"""What a population method is, and the problem it is given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from amortnlme.methods.ebe import IndividualTarget
from amortnlme.methods.population_fit import PopulationFit
from amortnlme.population.bound_population import BoundPopulation
from amortnlme.population.population_model import PopulationModel
from amortnlme.population.posterior_draws import PosteriorDraws

if TYPE_CHECKING:
    from amortnlme.data.dataset import Dataset
    from amortnlme.model.individual import IndividualModel


@dataclass(frozen=True, slots=True, eq=False)
class FitProblem:
    """Everything a method may use, checked to belong together.

    Attributes
    ----------
    population : PopulationModel
    bound_population : BoundPopulation
        The population model joined with the covariates of the subjects.
    draws : PosteriorDraws or None
    dataset : Dataset or None
    model : IndividualModel or None
    bound_model : IndividualTarget or None
        The individual model joined with the dataset, where both are given and the model has a likelihood.
    seed : int
    """

    population: PopulationModel
    bound_population: BoundPopulation
    draws: PosteriorDraws | None
    dataset: Dataset | None
    model: IndividualModel | None
    bound_model: IndividualTarget | None
    seed: int


class AbstractMethod(ABC):
    """A way to estimate population parameters; its options are the fields of the concrete class.

    Attributes
    ----------
    name : str
    needs_draws : bool
        Whether the method eats posterior draws; otherwise it needs a dataset and a model.
    requires : frozenset of str
        Capabilities the individual model must have.
    handles_groups : bool
        Whether parameters may have distributions of their own in groups of subjects.
    handles_networks : bool
        Whether networks of covariates may move the parameters.
    """

    __slots__ = ()

    name: ClassVar[str]
    needs_draws: ClassVar[bool]
    requires: ClassVar[frozenset[str]]
    handles_groups: ClassVar[bool] = False
    handles_networks: ClassVar[bool] = False

    @abstractmethod
    def run(self, problem: FitProblem) -> PopulationFit:
        """Estimate the population parameters.

        Parameters
        ----------
        problem : FitProblem

        Returns
        -------
        PopulationFit
            Also when the fit did not succeed: `status` then says why.
        """
