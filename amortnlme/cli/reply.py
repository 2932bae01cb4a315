"""What a verb answers: an exit code, a table for people, and one JSON document for programs."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

from amortnlme.core.errors import AmortNlmeError, UsageError

SCHEMA_VERSION = 1


class ExitCode(IntEnum):
    """Exit codes of every verb."""

    FINE = 0
    WRONG_INPUT = 1
    FIT_NOT_SUCCESSFUL = 2
    INTERNAL_ERROR = 3
    INTERRUPTED = 130


@dataclass(slots=True)
class Reply:
    """Answer of one verb while it runs.

    Attributes
    ----------
    verb : str
        Name of the verb, as typed.
    result : mapping
        What `--json` writes under "result".
    code : ExitCode
        How the process ends.
    """

    verb: str
    result: Mapping[str, Any] = field(default_factory=dict)
    code: ExitCode = ExitCode.FINE

    def document(self, error: AmortNlmeError | None = None) -> dict[str, Any]:
        """JSON document of this reply, or of `error` where the verb ended in one."""
        code = ExitCode.WRONG_INPUT if error else self.code
        document: dict[str, Any] = {
            "schema": f"amortnlme.{self.verb.replace(' ', '.')}",
            "schema_version": SCHEMA_VERSION,
            "amortnlme_version": importlib.metadata.version("amortnlme"),
            "exit_code": int(code),
            "status": code.name.lower(),
        }
        if error is not None:
            document["error"] = {"type": type(error).__name__, "code": error.code, "message": error.message}
        else:
            from amortnlme.core.json_values import json_values

            document["result"] = json_values(self.result)
        return document


@contextmanager
def reply(verb: str, json_path: Path | None, *, outputs: Sequence[Path | None] = ()) -> Iterator[Reply]:
    """Run a verb; at its end write the JSON document, whether it went well or ended in a named error.

    Parameters
    ----------
    verb : str
        Name of the verb.
    json_path : Path, optional
        Where the document goes; none is written without it.
    outputs : sequence of Path, optional
        Other files the verb will write: they are looked at before anything is computed, so that hours of work
        do not end at a folder that does not exist.

    Yields
    ------
    Reply
        To be given its `result` and, where the verb did not succeed, its `code`.

    Raises
    ------
    UsageError
        If an output cannot be written.
    """
    for path in (json_path, *outputs):
        if path is not None:
            check_output(path)
    answer = Reply(verb)
    try:
        yield answer
    except AmortNlmeError as error:
        _write(json_path, answer.document(error))
        raise
    _write(json_path, answer.document())


def _write(path: Path | None, document: Mapping[str, Any]) -> None:
    if path is None:
        return
    from amortnlme.core.files import write_json_atomic

    write_json_atomic(path, document)


def check_output(path: Path) -> None:
    """Refuse an output path that could not be written.

    Parameters
    ----------
    path : Path
        File to be written; it may exist, its folder must.

    Raises
    ------
    UsageError
        E_OUTPUT_NO_FOLDER, E_OUTPUT_NOT_WRITABLE or E_OUTPUT_NOT_A_FILE.
    """
    folder = path.absolute().parent
    if not os.path.isdir(folder):
        raise UsageError(
            "E_OUTPUT_NO_FOLDER",
            f"'{path}' cannot be written: there is no folder '{folder}'. Create it, or name another file.",
        )
    if os.path.exists(path) and not os.path.isfile(path):
        raise UsageError(
            "E_OUTPUT_NOT_A_FILE",
            f"'{path}' cannot be written: it exists and is not a regular file. Name a file instead.",
        )
    if not os.access(folder, os.W_OK):
        raise UsageError(
            "E_OUTPUT_NOT_WRITABLE",
            f"'{path}' cannot be written: you may not write into '{folder}'. Name a file in another folder.",
        )
