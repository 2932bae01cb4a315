"""Generated source as an importable module on disk: its machine code is compiled once per installation."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import platform
import re
import sys
import tempfile
import threading
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
from numba.core.registry import cpu_target

from amortnlme.core.errors import ArtefactError
from amortnlme.core.files import write_error, write_text_atomic

CACHE_VARIABLE = "AMORTNLME_CACHE_DIR"
# Raised when generated modules must be made anew although their text stays the same.
ENGINE_VERSION = 1
# Their code is inlined into generated modules, but Numba looks at a module's own text only.
INLINED = ("vector_math.py",)

_LOGGER = logging.getLogger(__name__)
_LOCK = threading.Lock()


def load_kernels(name: str, source: str) -> ModuleType:
    """Import generated source through a file, beside which Numba keeps the machine code.

    The file's name holds a hash of everything that decides on the machine code, nothing of the process.

    Parameters
    ----------
    name : str
        What the module is, for people: "ode_rodas5p_mrna".
    source : str
        Its whole text.

    Returns
    -------
    module
        The same object whenever name and source are the same.

    Raises
    ------
    ArtefactError
        E_IO_WRITE when the folder named by AMORTNLME_CACHE_DIR cannot be written.
    """
    label = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")[:48]
    stem = f"{label}_{_key(source)}"
    qualified = f"amortnlme_kernels_{stem}"
    with _LOCK:
        if qualified in sys.modules:
            return sys.modules[qualified]
        path = cache_folder() / f"{stem}.py"
        if not _holds(path, source):
            write_text_atomic(path, source)
        return _import(qualified, path)


def load_driver(main: str, parts: Sequence[str]) -> ModuleType:
    """Import a driver of this package through the folder of generated modules.

    Numba keeps the machine code of a function as long as the function's own file is unchanged, whatever
    happens to the functions of other files inlined into it. The copy has all of them in its name.

    Parameters
    ----------
    main : str
        File in this folder whose functions are cached.
    parts : sequence of str
        The other files here that its machine code is made of; their functions must not be cached themselves.

    Returns
    -------
    module

    Raises
    ------
    ArtefactError
        As `load_kernels`.
    """
    own = Path(__file__).parent
    texts = [(own / name).read_text(encoding="utf-8") for name in parts]
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    text = (own / main).read_text(encoding="utf-8")
    return load_kernels(Path(main).stem, f"{text}\n# Made with {', '.join(parts)}: {digest}\n")


def cache_folder() -> Path:
    """Return the folder of generated modules, which exists and is writable.

    Returns
    -------
    Path
        $AMORTNLME_CACHE_DIR, or a folder in the user's cache; a private temporary folder if that one cannot
        be written or belongs to somebody else (a warning is logged).

    Raises
    ------
    ArtefactError
        E_IO_WRITE when the folder was named by the user and cannot be written.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        folder = Path(chosen).expanduser().absolute()
        fault = _prepare(folder)
        if fault is not None:
            raise ArtefactError(
                "E_IO_WRITE",
                f"{write_error(folder, fault).message} The folder was named by {CACHE_VARIABLE}.",
            ) from fault
        return folder
    folder = _user_folder()
    fault = _prepare(folder) or _foreign(folder)
    return folder if fault is None else _temporary_folder(folder, str(fault.strerror or fault))


def _user_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    root = Path(base) if base else Path("~").expanduser() / ".cache"
    return root.absolute() / "amortnlme" / "kernels"


def _prepare(folder: Path) -> OSError | None:
    """Make the folder; return what is wrong with it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as fault:
        return fault


def _foreign(folder: Path) -> OSError | None:
    """Code is executed from here: nobody else may have put it there."""
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        return PermissionError(0, "others may write into it")
    return None


@cache
def _temporary_folder(instead_of: Path, reason: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="amortnlme-kernels-"))
    _LOGGER.warning(
        "Kernels cannot be kept in %s (%s): they are compiled again in every process. Set %s to a folder of "
        "your own to keep them.",
        instead_of,
        reason,
        CACHE_VARIABLE,
    )
    return folder


@cache
def _environment() -> str:
    """Everything outside the source that the machine code depends on."""
    own = Path(__file__).parent
    return "\n".join(
        (
            f"engine {ENGINE_VERSION}",
            *((own / name).read_text(encoding="utf-8") for name in INLINED),
            f"numba {numba.__version__}",
            f"llvmlite {version('llvmlite')}",
            f"numpy {np.__version__}",
            f"python {platform.python_version()}",
            # Triple, name and features of the processor, as Numba's own cache tells machines apart.
            *map(str, _target().codegen().magic_tuple()),
        )
    )


def _target() -> Any:
    return cpu_target.target_context  # a cached property, which Numba does not annotate


def _key(source: str) -> str:
    return hashlib.sha256(f"{_environment()}\n{source}".encode()).hexdigest()[:16]


def _holds(path: Path, source: str) -> bool:
    """Whether the file is there as a whole; rewriting it would make Numba compile again."""
    return path.is_file() and path.read_bytes() == source.encode()


def _import(qualified: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(qualified, path)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    # Numba looks its functions up by module, so it has to be known before it runs; a failed one is removed.
    sys.modules[qualified] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[qualified]
        raise
    return module
