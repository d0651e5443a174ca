"""`dicomnode up`, `status`, `doctor`, `settings`: the node as a whole."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from dicomnode.cli.context import Context
from dicomnode.cli.setting_options import takes_settings
from dicomnode.node import doctor as node_doctor
from dicomnode.node import status as node_status
from dicomnode.node.up import Line, run_node

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_STYLES = {"good": "green", "bad": "bold red", "plain": "", "quiet": "dim"}


def register(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(status)
    app.command()(doctor)
    app.command("settings")(settings)


@takes_settings
def up(ctx: typer.Context) -> None:
    """Run the whole node in the foreground: receivers, workers and Triton. ^C stops it.

    Example: dicomnode up --ae-title AINODE --dicom-port 11112
    """
    context: Context = ctx.obj

    def say(line: Line) -> None:
        text = Text(line.at.astimezone().strftime("%H:%M:%S "), style="dim")
        context.console.print(text.append(line.text, style=_STYLES[line.tone]), soft_wrap=True, highlight=False)

    run_node(context.settings, say)


@takes_settings
def status(ctx: typer.Context, as_json: Json = False) -> None:
    """What the node is doing now: its processes, its work and its disk.

    Example: dicomnode status --json
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    found = node_status.read_status(context.settings, context.state)
    if context.json:
        context.print_json(found)
        return
    context.console.print(
        f"[bold]{found.ae_title}[/bold] "
        + (f"listens on port {found.dicom_port}" if found.running else "is not running (`dicomnode up` starts it)")
    )
    context.show([asdict(p) for p in found.processes], ["name", "pid", "since"], "Processes")
    rows = [{"what": what, **counts} for what, counts in found.work.items()]
    context.show(
        [{"what": r.pop("what"), "states": ", ".join(f"{n} {s}" for s, n in r.items()) or "none"} for r in rows],
        ["what", "states"],
        "Work",
    )
    context.console.print(f"disk: {found.free_bytes / 1e9:.1f} GB free under {found.home}", highlight=False)


@takes_settings
def doctor(ctx: typer.Context, as_json: Json = False) -> None:
    """Look whether all is there: home, disk, database, port, Triton, models, rules, destinations.

    Exit status 1 when something that the node needs is missing. Example: dicomnode doctor
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    findings = node_doctor.examine(context.settings)
    if context.json:
        context.print_json(findings)
    else:
        for finding in findings:
            mark, style = {"ok": ("✓", "green"), "note": ("•", "yellow"), "bad": ("✗", "bold red")}[finding.verdict]
            context.console.print(f"[{style}]{mark}[/{style}] [bold]{finding.what:<17}[/bold]", end="")
            context.console.print(finding.words, highlight=False, markup=False, soft_wrap=True)
    if any(finding.verdict == "bad" for finding in findings):
        raise typer.Exit(1)


@takes_settings
def settings(ctx: typer.Context, as_json: Json = False) -> None:
    """Every setting: its value, where the value comes from, and what it is for.

    Example: dicomnode settings --json
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    rows = [
        {
            "setting": o.name,
            "value": "" if o.shown == () else o.shown,
            "origin": o.origin,
            "variable": o.variable,
            "help": o.help,
        }
        for o in context.origins
    ]
    context.show(rows, ["setting", "value", "origin", "help"], "Settings (each also a variable DICOMNODE_<SETTING>)")
