"""Finding models: those shipped in `amortnlme.simulators` by name, the user's own by path."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from amortnlme.core.errors import AmortNlmeError, ModelError
from amortnlme.model.individual import IndividualModel

PACKAGE = "amortnlme.simulators"


def model_names() -> tuple[str, ...]:
    """Names of the models that ship with the package, sorted.

    Returns
    -------
    tuple of str
    """
    package = importlib.import_module(PACKAGE)
    files = (path for folder in package.__path__ for path in Path(folder).glob("*.py"))
    return tuple(sorted({path.stem for path in files if not path.stem.startswith("_")}))


def load_model(name_or_path: str | Path) -> IndividualModel:
    """Load a shipped model by name, or a model file by path.

    A path is executed as Python: name only files you trust. Files of amortnlme never lead here; they store a
    model's name and fingerprint, not its code, and their names go to `load_shipped_model`.

    Parameters
    ----------
    name_or_path : str or Path
        For instance "one_compartment_oral" or "my_models/warfarin.py".

    Returns
    -------
    IndividualModel
        The file's `MODEL`.

    Raises
    ------
    ModelError
        E_MODEL_UNKNOWN, E_MODEL_FILE_MISSING, E_MODEL_FILE, E_MODEL_NO_MODEL, and every fault of the model
        itself.
    """
    text = str(name_or_path)
    if text not in model_names() and (isinstance(name_or_path, Path) or text.endswith(".py") or "/" in text):
        return _load_file(Path(name_or_path))
    return load_shipped_model(text)


def load_shipped_model(name: str) -> IndividualModel:
    """Load a model that ships with the package; nothing else is ever executed.

    For names that were read from a file: a path in a file of draws, a fit or a training set is no model.

    Parameters
    ----------
    name : str
        For instance "one_compartment_oral".

    Returns
    -------
    IndividualModel
        The model of that name.

    Raises
    ------
    ModelError
        E_MODEL_UNKNOWN.
    """
    text = str(name)
    if text in model_names():
        return _take_model(importlib.import_module(f"{PACKAGE}.{text}"), text)
    close = difflib.get_close_matches(text, model_names(), n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ModelError(
        "E_MODEL_UNKNOWN",
        f"there is no model {text!r}. Shipped models: {', '.join(model_names())}.{hint} For your own model "
        "give the path of its .py file.",
    )


def _load_file(path: Path) -> IndividualModel:
    if not path.is_file():
        raise ModelError(
            "E_MODEL_FILE_MISSING", f"there is no file {str(path)!r}. Give the path of a model file (.py)."
        )
    # The name holds the path, so that two files called model.py do not replace each other.
    name = f"amortnlme_user_model_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModelError(
            "E_MODEL_FILE", f"{str(path)!r} cannot be loaded as Python. A model file ends in .py."
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except AmortNlmeError:
        raise
    except Exception as fault:
        raise ModelError(
            "E_MODEL_FILE",
            f"{str(path)!r} fails when it is run{_line_of(fault, path)}: {type(fault).__name__}: {fault}. "
            "Correct the file.",
        ) from fault
    return _take_model(module, str(path))


def _line_of(fault: Exception, path: Path) -> str:
    if isinstance(fault, SyntaxError):
        return f" (line {fault.lineno})"
    line = ""
    trace = fault.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).resolve() == path.resolve():
            line = f" (line {trace.tb_lineno})"
        trace = trace.tb_next
    return line


def _take_model(module: ModuleType, where: str) -> IndividualModel:
    model = getattr(module, "MODEL", None)
    if not isinstance(model, IndividualModel):
        raise ModelError(
            "E_MODEL_NO_MODEL",
            f"{where!r} defines {'no MODEL' if model is None else f'MODEL as {type(model).__name__}'}. A "
            "model file ends with MODEL = IndividualModel(...).",
        )
    return model
