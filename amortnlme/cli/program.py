"""Assembling the verbs, and turning what a verb raises into one line and an exit code."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from amortnlme.cli import (
    calibrate,
    check,
    compare,
    data,
    dose,
    ensemble,
    fit,
    join,
    model_show,
    models,
    quickstart,
    report,
    sample,
    select,
    simulate,
    train,
    uncertainty,
)
from amortnlme.cli.reply import ExitCode
from amortnlme.core.errors import AmortNlmeError

app = typer.Typer(
    name="amortnlme",
    help="Amortized and classical non-linear mixed-effects modelling.",
    epilog="Exit codes: 0 fine, 1 wrong input, 2 the fit did not succeed. Every verb takes --json PATH.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("models")(models.run)
app.add_typer(model_show.app, name="model")
app.command("check")(check.run)
app.add_typer(data.app, name="data")
app.command("simulate")(simulate.run)
app.command("train")(train.run)
app.command("ensemble")(ensemble.run)
app.command("calibrate")(calibrate.run)
app.command("sample")(sample.run)
app.command("fit")(fit.run)
app.command("select")(select.run)
app.command("join")(join.run)
app.command("compare")(compare.run)
app.command("uncertainty")(uncertainty.run)
app.command("dose")(dose.run)
app.command("report")(report.run)
app.command("quickstart")(quickstart.run)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        typer.echo(f"amortnlme {importlib.metadata.version('amortnlme')}")
        raise typer.Exit()
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words after the program's name; those of the process by default.

    Returns
    -------
    int
        0 fine, 1 wrong input, 2 the fit did not succeed, 3 an error inside amortnlme (its traceback is
        shown), 130 interrupted.
    """
    # TensorFlow reports a machine without a GPU driver as an error; whoever wants to see that sets the level.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        code = app(
            args=None if arguments is None else list(arguments), prog_name="amortnlme", standalone_mode=False
        )
    except AmortNlmeError as error:
        # Data files may hold anything, so the message is kept on one line whatever it quotes.
        typer.echo(f"{type(error).__name__}: {' '.join(str(error).split())}", err=True)
        return ExitCode.WRONG_INPUT
    except typer.TyperException as error:
        message = " ".join(error.format_message().split())
        typer.echo(f"UsageError: {message} Try 'amortnlme --help'. [E_USAGE]", err=True)
        return ExitCode.WRONG_INPUT
    except typer.Abort:
        typer.echo("Stopped.", err=True)
        return ExitCode.INTERRUPTED
    except Exception:
        # Nothing is swallowed: an error of amortnlme itself keeps its traceback, and a code of its own.
        traceback.print_exc(file=sys.stderr)
        return ExitCode.INTERNAL_ERROR
    return int(code or 0)
