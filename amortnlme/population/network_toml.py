"""Networks of covariates in the TOML file of a population model; `toml.py` shows the keys."""

from __future__ import annotations

import json
from collections.abc import Mapping

from amortnlme.core.errors import PopulationError
from amortnlme.population.networks import NetworkEffect, NetworkInput

KEYS = ("on", "inputs", "hidden", "activation", "head", "ridge")
INPUT_KEYS = ("covariate", "transform", "center", "scale", "direction")


def network_from_dict(raw: object, where: str) -> NetworkEffect:
    """Build a network from plain values.

    Parameters
    ----------
    raw : object
        A mapping with `on` and `inputs`; the other keys have the defaults of `NetworkEffect`.
    where : str
        Name of the source, for messages.

    Returns
    -------
    NetworkEffect

    Raises
    ------
    PopulationError
        E_POP_TYPE, E_POP_UNKNOWN_KEY, E_POP_MISSING_KEY, E_POP_NETWORK.
    """
    table = _table(raw, KEYS, ("on", "inputs"), where)
    inputs = _list(table["inputs"], f"{where}: `inputs`")
    options = {key: table[key] for key in ("hidden", "activation", "head", "ridge") if key in table}
    if "hidden" in options:
        options["hidden"] = tuple(_list(options["hidden"], f"{where}: `hidden`"))
    _check_types(options, {"activation": str, "head": str, "ridge": int | float}, where)
    return NetworkEffect(
        on=tuple(str(name) for name in _list(table["on"], f"{where}: `on`")),
        inputs=tuple(_input(one, f"{where}, input {i + 1}") for i, one in enumerate(inputs)),
        **options,  # pyright: ignore[reportArgumentType]
    )


def network_lines(network: NetworkEffect) -> list[str]:
    """Write a network as the lines of a TOML table.

    Parameters
    ----------
    network : NetworkEffect

    Returns
    -------
    list of str
    """
    quote = json.dumps
    inputs = ", ".join(
        "{ " + ", ".join(f"{key} = {quote(getattr(one, key))}" for key in INPUT_KEYS) + " }"
        for one in network.inputs
    )
    return [
        "",
        "[[network]]",
        f"on = {quote(list(network.on))}",
        f"inputs = [{inputs}]",
        f"hidden = {quote(list(network.hidden))}",
        f"activation = {quote(network.activation)}",
        f"head = {quote(network.head)}",
        f"ridge = {float(network.ridge)!r}",
    ]


def _input(raw: object, where: str) -> NetworkInput:
    table = _table(raw, INPUT_KEYS, ("covariate",), where)
    _check_types(
        table,
        {
            "covariate": str,
            "transform": str,
            "center": str | int | float,
            "scale": str | int | float,
            "direction": str,
        },
        where,
    )
    return NetworkInput(**table)  # pyright: ignore[reportArgumentType]


def _table(raw: object, allowed: tuple[str, ...], needed: tuple[str, ...], where: str) -> dict[str, object]:
    if not isinstance(raw, Mapping):
        raise PopulationError("E_POP_TYPE", f"{where}: must be a table, not {raw!r}.")
    for key in raw:
        if key not in allowed:
            raise PopulationError(
                "E_POP_UNKNOWN_KEY", f"{where}: unknown key {key!r}. Allowed keys: {', '.join(allowed)}."
            )
    for key in needed:
        if key not in raw:
            raise PopulationError("E_POP_MISSING_KEY", f"{where}: `{key}` is missing.")
    return {str(key): value for key, value in raw.items()}


def _list(value: object, where: str) -> list[object]:
    if not isinstance(value, list | tuple):
        raise PopulationError("E_POP_TYPE", f"{where} must be a list, not {value!r}.")
    return list(value)


def _check_types(table: Mapping[str, object], kinds: Mapping[str, object], where: str) -> None:
    for key, kind in kinds.items():
        if key in table and (isinstance(table[key], bool) or not isinstance(table[key], kind)):  # pyright: ignore[reportArgumentType]
            raise PopulationError("E_POP_TYPE", f"{where}: `{key}` cannot be {table[key]!r}.")
