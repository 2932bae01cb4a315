"""Population models as small TOML files, with the same names as the Python objects.

Example::

    name = "ka~weight, V~weight"

    [random_effects]
    on = ["ka", "ke", "V"]
    structure = "diagonal"          # or "full", or instead:  blocks = [["ke", "V"]]

    [[covariate]]
    parameter = "V"
    covariate = "weight"
    transform = "log"               # or "linear", or "level" with the level as center
    center = "mean"                 # or "median", or a number

    [occasion_effects]              # between the occasions of a subject, column OCC
    on = ["ke"]

    [[group]]                       # a typical value and a variance of its own for every value of a column
    parameter = "ka"
    covariate = "formulation"

    [[network]]                     # a network of covariates, added to the linear effects
    on = ["ka", "V"]
    inputs = [{ covariate = "weight", transform = "linear", center = "mean", scale = "sd" }]
                                    # an input may also have direction = "rising" or "falling"
    hidden = [12]
    activation = "sharp-softplus"   # or "softplus", "tanh", "swish"
    head = "linear"                 # or "softplus": a positive factor with an offset of its own
    ridge = 2.0

    [fixed]                         # typical values that are not estimated, natural scale
    a = 0.3
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path

from amortnlme.core.errors import PopulationError
from amortnlme.population.effects import CovariateEffect, RandomEffects
from amortnlme.population.groups import GroupEffect
from amortnlme.population.network_toml import network_from_dict, network_lines
from amortnlme.population.population_model import PopulationModel

TOP_KEYS = (
    *("name", "parameters", "random_effects", "covariate", "occasion_effects", "group", "network", "fixed"),
)
RANDOM_EFFECT_KEYS = ("on", "structure", "blocks")
GROUP_KEYS = ("parameter", "covariate")
COVARIATE_KEYS = ("parameter", "covariate", "transform", "center")


def read_population(path: str | Path) -> PopulationModel:
    """Read a population model from a TOML file.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    PopulationModel
        Named after the file where the file gives no name.

    Raises
    ------
    PopulationError
        E_POP_FILE_MISSING, E_POP_TOML, E_POP_UNKNOWN_KEY and the codes of the objects themselves.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        raise PopulationError(
            "E_POP_FILE_MISSING",
            f"cannot read the population file {path}: {cause}. Give the path of a TOML file.",
        ) from cause
    return parse_population(text, where=str(path), default_name=path.stem)


def parse_population(
    text: str, where: str = "population", default_name: str = "population"
) -> PopulationModel:
    """Build a population model from TOML text.

    Parameters
    ----------
    text : str
    where : str
        Name of the source, for messages.
    default_name : str

    Returns
    -------
    PopulationModel

    Raises
    ------
    PopulationError
        E_POP_TOML, E_POP_UNKNOWN_KEY, E_POP_MISSING_KEY, E_POP_TYPE.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as cause:
        raise PopulationError("E_POP_TOML", f"{where} is not valid TOML: {cause}.") from cause
    return population_from_dict(table, where=where, default_name=default_name)


def population_from_dict(
    table: Mapping[str, object], where: str = "population", default_name: str = "population"
) -> PopulationModel:
    """Build a population model from plain values, as `PopulationModel.to_dict` gives them.

    Parameters
    ----------
    table : mapping
    where : str
        Name of the source, for messages.
    default_name : str

    Returns
    -------
    PopulationModel

    Raises
    ------
    PopulationError
        E_POP_UNKNOWN_KEY, E_POP_MISSING_KEY, E_POP_TYPE.
    """
    _check_keys(table, TOP_KEYS, where)
    covariates = tuple(
        _covariate(raw, f"{where}, [[covariate]] {i + 1}")
        for i, raw in enumerate(_list(table, "covariate", where))
    )
    groups = tuple(
        _group(raw, f"{where}, [[group]] {i + 1}") for i, raw in enumerate(_list(table, "group", where))
    )
    parameters = _names(table["parameters"], f"{where}: `parameters`") if "parameters" in table else None
    return PopulationModel(
        random_effects=_effects(table.get("random_effects"), f"{where}, [random_effects]"),
        covariates=covariates,
        occasion_effects=_effects(table["occasion_effects"], f"{where}, [occasion_effects]")
        if "occasion_effects" in table
        else None,
        groups=groups,
        networks=tuple(
            network_from_dict(raw, f"{where}, [[network]] {i + 1}")
            for i, raw in enumerate(_list(table, "network", where))
        ),
        fixed=_fixed(table.get("fixed", {}), f"{where}, [fixed]"),
        name=_text(table.get("name", default_name), f"{where}: `name`"),
        parameters=parameters,
    )


def to_toml(population: PopulationModel) -> str:
    """Write a population model as TOML text that `parse_population` reads back to an equal object.

    Parameters
    ----------
    population : PopulationModel

    Returns
    -------
    str
    """
    # JSON strings, lists of strings and finite numbers are valid TOML values as they stand.
    quote = json.dumps
    lines = [f"name = {quote(population.name)}"]
    if population.parameters is not None:
        lines.append(f"parameters = {quote(list(population.parameters))}")
    for title, effects in (
        ("random_effects", population.random_effects),
        ("occasion_effects", population.occasion_effects),
    ):
        if effects is not None:
            lines += ["", f"[{title}]", *(f"{key} = {quote(v)}" for key, v in effects.to_dict().items())]
    if population.fixed:
        # Parameters are Python identifiers, which TOML takes as bare keys.
        lines += ["", "[fixed]", *(f"{name} = {value!r}" for name, value in population.fixed.items())]
    for effect in population.covariates:
        center = quote(effect.center) if isinstance(effect.center, str) else repr(float(effect.center))
        lines += [
            "",
            "[[covariate]]",
            f"parameter = {quote(effect.parameter)}",
            f"covariate = {quote(effect.covariate)}",
            f"transform = {quote(effect.transform)}",
            f"center = {center}",
        ]
    for group in population.groups:
        lines += ["", "[[group]]", f"parameter = {quote(group.parameter)}"]
        lines += [f"covariate = {quote(group.covariate)}"]
    for network in population.networks:
        lines += network_lines(network)
    return "\n".join(lines) + "\n"


def _effects(effects: object, where: str) -> RandomEffects:
    if not isinstance(effects, Mapping):
        raise PopulationError(
            "E_POP_MISSING_KEY",
            f"{where}: the table is missing. Give at least the table with on = [...].",
        )
    _check_keys(effects, RANDOM_EFFECT_KEYS, where)
    if "structure" in effects and "blocks" in effects:
        raise PopulationError("E_POP_STRUCTURE", f"{where}: give either `structure` or `blocks`, not both.")
    on = _names(effects.get("on"), f"{where}: `on`")
    if "blocks" not in effects:
        structure = _text(effects.get("structure", "diagonal"), f"{where}: `structure`")
        return RandomEffects(on=on, structure=structure)
    raw = effects["blocks"]
    if not isinstance(raw, list):
        raise PopulationError(
            "E_POP_TYPE", f"{where}: `blocks` must be a list of lists of names, not {raw!r}."
        )
    return RandomEffects(on=on, structure=tuple(_names(b, f"{where}: each block") for b in raw))


def _fixed(table: object, where: str) -> dict[str, float]:
    if not isinstance(table, Mapping):
        raise PopulationError("E_POP_TYPE", f"{where}: must be a table of numbers, not {table!r}.")
    return {str(name): value for name, value in table.items()}


def _list(table: Mapping[str, object], key: str, where: str) -> list[object]:
    raw = table.get(key, [])
    if not isinstance(raw, list):
        raise PopulationError("E_POP_TYPE", f"{where}: write {key} effects as [[{key}]], with two brackets.")
    return raw


def _group(raw: object, where: str) -> GroupEffect:
    if not isinstance(raw, Mapping):
        raise PopulationError("E_POP_TYPE", f"{where}: must be a table, not {raw!r}.")
    _check_keys(raw, GROUP_KEYS, where)
    for key in GROUP_KEYS:
        if key not in raw:
            raise PopulationError("E_POP_MISSING_KEY", f"{where}: `{key}` is missing.")
    return GroupEffect(*(_text(raw[key], f"{where}: `{key}`") for key in GROUP_KEYS))


def _covariate(raw: object, where: str) -> CovariateEffect:
    if not isinstance(raw, Mapping):
        raise PopulationError("E_POP_TYPE", f"{where}: must be a table, not {raw!r}.")
    _check_keys(raw, COVARIATE_KEYS, where)
    for key in ("parameter", "covariate"):
        if key not in raw:
            raise PopulationError("E_POP_MISSING_KEY", f"{where}: `{key}` is missing.")
    center = raw.get("center", "mean")
    if isinstance(center, bool) or not isinstance(center, str | int | float):
        raise PopulationError(
            "E_POP_TYPE", f"{where}: `center` must be 'mean', 'median' or a number, not {center!r}."
        )
    return CovariateEffect(
        parameter=_text(raw["parameter"], f"{where}: `parameter`"),
        covariate=_text(raw["covariate"], f"{where}: `covariate`"),
        transform=_text(raw.get("transform", "log"), f"{where}: `transform`"),
        center=center if isinstance(center, str) else float(center),
    )


def _check_keys(table: Mapping[str, object], allowed: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in allowed:
            raise PopulationError(
                "E_POP_UNKNOWN_KEY", f"{where}: unknown key {key!r}. Allowed keys: {', '.join(allowed)}."
            )


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise PopulationError("E_POP_TYPE", f"{where} must be a text, not {value!r}.")
    return value


def _names(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise PopulationError("E_POP_TYPE", f"{where} must be a list of parameter names, not {value!r}.")
    return tuple(value)
