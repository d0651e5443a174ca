"""`dicomnode conformance`: what the node's DICOM services are, for those who connect to them."""

from __future__ import annotations

from typing import Annotated

import typer

from dicomnode.cli.context import Context
from dicomnode.cli.setting_options import takes_settings
from dicomnode.errors import DatabaseAway, DatabaseUnusable, NotFound
from dicomnode.node.conformance import Configuration, conformance_statement
from dicomnode.node.statement import markdown

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(program: typer.Typer) -> None:
    program.command()(conformance)


@takes_settings
def conformance(ctx: typer.Context, as_json: Json = False) -> None:
    """Print the DICOM Conformance Statement (PS3.2) of this configuration, as Markdown.

    It is made from what the node accepts, proposes and answers with these settings, and with the sources and
    destinations that it has, if there is a node under this home.

    Example: dicomnode conformance > conformance-statement.md
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    statement = conformance_statement(_configuration(context))
    if context.json:
        context.print_json(statement)
    else:
        typer.echo(markdown(statement), nl=False)


def _configuration(context: Context) -> Configuration:
    settings = context.settings
    try:
        return Configuration(settings, context.state.sources(), context.state.destinations())
    except (NotFound, DatabaseAway, DatabaseUnusable):
        return Configuration(settings)
