"""Numbers under the names of a model, to call its untraced functions."""

from types import SimpleNamespace


def numbers_of(model, values, what="parameters"):
    """Name the parameters (natural scale) or the states."""
    names = model.parameters.names if what == "parameters" else model.states
    return SimpleNamespace(**dict(zip(names, values, strict=True)))
