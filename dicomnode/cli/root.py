"""The command line: `dicomnode NOUN VERB`."""

from __future__ import annotations

from typing import Annotated

import typer

from dicomnode import __version__
from dicomnode.cli import destinations, jobs, models, node, roles, rules, sources, studies
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
app.add_typer(roles.app, name="run")
node.register(app)


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
        app(obj=context)
    except DicomNodeError as error:
        context.errors.print(f"[bold red]{error.code}[/bold red]: ", end="", highlight=False)
        context.errors.print(str(error), markup=False, highlight=False)
        raise SystemExit(error.exit_code) from None
