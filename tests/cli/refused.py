"""What a refused input must look like, whatever refused it."""

from __future__ import annotations

import re

from amortnlme.cli import main

NAMED = re.compile(r"^[A-Z][A-Za-z]*Error: \S.* \[(E_[A-Z0-9_]+)\]$")


def refusal(arguments: list[str], capsys) -> str:
    """Run a verb that must end in a named error; return the error's code.

    Exit code 1, one line on standard error that names the error, no traceback, nothing announced as done.
    """
    code = main(arguments)
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err, shown.err
    assert code == 1, shown.err or shown.out
    lines = shown.err.splitlines()
    assert len(lines) == 1, shown.err
    matched = NAMED.match(lines[0])
    assert matched, lines[0]
    return matched.group(1)
