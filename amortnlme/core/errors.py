"""Every error that amortnlme raises on purpose: one root, one class per noun, one stable code per cause."""


class AmortNlmeError(Exception):
    """An error the user can act on; `code` is stable across versions, the message is for people.

    Parameters
    ----------
    code : str
        Stable identifier such as ``"E_DATA_NO_OBSERVATIONS"``.
    message : str
        What is wrong - what was given - what is allowed - what to do.
    """

    def __init__(self, code: str, message: str) -> None:
        Exception.__init__(self, code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]"


class DataError(AmortNlmeError):
    """A data table cannot be read as it stands."""


class DesignError(AmortNlmeError):
    """Doses or observation times are impossible."""


class ModelError(AmortNlmeError):
    """An individual model is ill-defined."""


class SolveError(AmortNlmeError):
    """A solver was asked for something it cannot do."""


class CapabilityError(AmortNlmeError):
    """A method needs something that the model or the population model does not offer."""


class ArtefactError(AmortNlmeError):
    """A stored file or folder is missing, damaged or foreign, or cannot be written."""


class DrawsError(AmortNlmeError):
    """Posterior draws are unusable or belong to something else."""


class PopulationError(AmortNlmeError):
    """A population model is ill-defined or does not fit the data."""


class FitError(AmortNlmeError):
    """A fit cannot be started with what was given."""


class TrainingError(AmortNlmeError):
    """A training set or a training run is unusable."""


class UsageError(AmortNlmeError):
    """The command line or a function was called with arguments that do not go together."""
