"""`dicomnode run ROLE`: one process of a node, for hosts that share the work."""

from __future__ import annotations

from typing import Annotated

import typer

from dicomnode.cli.setting_options import takes_settings
from dicomnode.node import roles

app = typer.Typer(help="Run one role of a node in the foreground.", no_args_is_help=True)


def register(program: typer.Typer) -> None:
    program.add_typer(app, name="run")


Name = Annotated[str, typer.Option(help="Name of this process in logs and status.")]
Supervised = Annotated[bool, typer.Option("--supervised", hidden=True)]


@app.command()
@takes_settings
def receiver(ctx: typer.Context, name: Name = "receiver-1", supervised: Supervised = False) -> None:
    """Accept DICOM associations and keep what they bring.

    Example: dicomnode run receiver --dicom-port 11112
    """
    roles.run("receiver", ctx.obj.settings, name, supervised=supervised)


@app.command()
@takes_settings
def worker(ctx: typer.Context, name: Name = "worker-1", supervised: Supervised = False) -> None:
    """Find complete series, route them, run jobs and deliver results.

    Example: dicomnode run worker --database-url postgresql+psycopg://node@db/node
    """
    roles.run("worker", ctx.obj.settings, name, supervised=supervised)


@app.command()
@takes_settings
def triton(ctx: typer.Context, name: Name = "triton", supervised: Supervised = False) -> None:
    """Keep this host's Triton server running.

    Example: dicomnode run triton
    """
    roles.run("triton", ctx.obj.settings, name, supervised=supervised)
