"""The command line: `dicomnode NOUN VERB`."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn, TextIO

import typer

from dicomnode import __version__, bootstrap
from dicomnode.cli import (
    check,
    conformance,
    deliveries,
    destinations,
    jobs,
    models,
    node,
    preview,
    roles,
    rules,
    sources,
    studies,
)
from dicomnode.cli.context import Context
from dicomnode.cli.setting_options import takes_settings
from dicomnode.errors import DicomNodeError

app = typer.Typer(
    name="dicomnode",
    help="An AI node for hospitals: DICOM studies in, segmentations and reports back in the PACS.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(rules.app, name="rules")
app.add_typer(models.app, name="models")
app.add_typer(destinations.app, name="destinations")
app.add_typer(sources.app, name="sources")
app.add_typer(studies.app, name="studies")
app.add_typer(jobs.app, name="jobs")
app.add_typer(deliveries.app, name="deliveries")
app.add_typer(roles.app, name="run")
node.register(app)
check.register(app)
conformance.register(app)
preview.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dicomnode {__version__}")
        raise typer.Exit


@app.callback()
@takes_settings
def root(
    ctx: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    ctx.obj.json = json


def main() -> None:
    """Exit status 0: done; 1: failed; 2: what was asked for makes no sense."""
    context = Context()
    try:
        with bootstrap.database_errors(), context:
            app(obj=context)
    except DicomNodeError as error:
        _fail(context, error.code, str(error), error.exit_code)
    except OSError as error:
        if not _takes_nothing(sys.stdout):
            raise
        _fail(context, "output", f"the output cannot be written: {error.strerror}", 1)


def _takes_nothing(stream: TextIO) -> bool:
    """Whether nothing can be printed; what waits to be is then thrown away, or Python would fail again at its end.

    It is tried, for the error does not say of which file it is.
    """
    try:
        stream.write("\n")
        stream.flush()
        return False
    except OSError:
        _throw_away(stream)
        return True


def _throw_away(stream: TextIO) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _fail(context: Context, code: str, words: str, exit_code: int) -> NoReturn:
    try:
        context.errors.print(f"[bold red]{code}[/bold red]: ", end="", highlight=False)
        context.errors.print(words, markup=False, highlight=False, soft_wrap=True)
    except OSError:  # where standard error goes there may be no space either
        _throw_away(sys.stderr)
    raise SystemExit(exit_code) from None
