"""The command line: verbs on nouns, one thin file per verb, each over one public function."""

from amortnlme.cli.program import main as main

__all__ = ["main"]
