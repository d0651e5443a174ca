"""`dicomnode up`, `status`, `doctor`, `settings`: the node as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Annotated

import typer
from rich.text import Text

from dicomnode import bootstrap
from dicomnode.cli.context import Context
from dicomnode.cli.setting_options import takes_settings
from dicomnode.errors import DatabaseAway, DatabaseUnusable, NotFound
from dicomnode.node import doctor as node_doctor
from dicomnode.node import status as node_status
from dicomnode.node.up import Line, run_node

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_MARKS = {"ok": ("✓", "green"), "note": ("•", "yellow"), "bad": ("✗", "bold red"), "skipped": ("-", "dim")}
_WORDS = {"all": "in all"}
_STYLES = {"good": "green", "bad": "bold red", "plain": "", "quiet": "dim"}


def register(program: typer.Typer) -> None:
    program.command()(up)
    program.command()(status)
    program.command()(doctor)
    program.command("settings")(settings)


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

    A node that starts says which of its processes are up, and what the others do.

    Example: dicomnode status --json
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    found = _status(context)
    if context.json:
        context.print_json(found)
        return
    context.console.print(
        Text(found.ae_title, style="bold").append(f" {node_status.in_words(found)}", style="not bold"), soft_wrap=True
    )
    context.show([asdict(p) for p in found.processes], ["name", "state", "doing", "pid", "since"], "Processes")
    if found.database:
        context.console.print(f"The database cannot be asked: {found.database}", markup=False, highlight=False)
    else:
        context.show(list(_work(found)), ["what", "states"], "Work")
    context.console.print(f"jobs: {node_status.jobs_in_words(context.settings)}", highlight=False, soft_wrap=True)
    for trouble in found.troubles:
        context.console.print(f"models: {trouble}", highlight=False, markup=False, soft_wrap=True)
    if found.turned_away:
        context.show([asdict(event) for event in found.turned_away], ["at", "message"], "Turned away last")
    free = "" if found.free_bytes is None else f"{found.free_bytes / 1e9:.1f} GB free under "
    context.console.print(f"disk: {free}{found.home}", highlight=False, markup=False, soft_wrap=True)


def _status(context: Context) -> node_status.NodeStatus:
    """Raises what the database says, unless there is something to tell without it."""
    try:
        with bootstrap.database_errors():
            return node_status.read_status(context.settings, context.state.counts(), context.state.rejections())
    except (DatabaseAway, DatabaseUnusable, NotFound) as error:
        found = node_status.read_status(context.settings, database=str(error))
        if found.state == "stopped":
            raise
        if found.state == "starting" and isinstance(error, NotFound):
            return replace(found, database="it is being made")
        return found


def _work(found: node_status.NodeStatus) -> Iterator[dict[str, str]]:
    for what, states in found.work.items():
        counted = ", ".join(f"{number} {_WORDS.get(state, state)}" for state, number in states.items() if number)
        yield {"what": what, "states": counted or "none"}


@takes_settings
def doctor(ctx: typer.Context, as_json: Json = False) -> None:
    """Look whether all is there: home, disk, database, port, Triton, GPU, models, rules, destinations.

    Exit status 1 when something that the node needs is missing. Example: dicomnode doctor
    """
    context: Context = ctx.obj
    context.json = context.json or as_json
    findings = node_doctor.examine(context.settings)
    if context.json:
        context.print_json(findings)
    else:
        for finding in findings:
            mark, style = _MARKS[finding.verdict]
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
