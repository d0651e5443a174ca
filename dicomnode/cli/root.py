"""The command line: `dicomnode NOUN VERB`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Annotated, Any, NoReturn, TextIO

import typer
from typer.core import TyperCommand, TyperGroup

from dicomnode import __version__, bootstrap
from dicomnode.cli.context import Context
from dicomnode.cli.setting_options import takes_settings
from dicomnode.errors import DicomNodeError

# Each noun and verb, in the order of the help, and the module here that registers it
_MODULES = {
    **{noun: noun for noun in ("rules", "models", "destinations", "sources", "studies", "jobs", "deliveries")},
    "run": "roles",
    **dict.fromkeys(("up", "status", "doctor", "settings"), "node"),
    **{verb: verb for verb in ("check", "conformance", "preview")},
}


# What the help says of each, so that it need not import them all: as they say it themselves, and a test says so
HELP = {
    "rules": "Rules: which model runs on which series, and where its results go.",
    "models": "Models: bundles, networks with a card, and which version of each runs.",
    "destinations": "Destinations: PACS, archives and viewers that results are sent to.",
    "sources": "Sources: settings for modalities and archives that send to the node, by their AE title.",
    "studies": "Studies: what came in, where it went, and why.",
    "jobs": "Jobs: one model on one series each.",
    "deliveries": "Deliveries: one result to one destination each.",
    "run": "Run one role of a node in the foreground.",
    "up": "Run the whole node in the foreground: receivers, workers and Triton. ^C stops it.",
    "status": "What the node is doing now: its processes, its work and its disk.",
    "doctor": "Look whether all is there: home, disk, database, port, Triton, GPU, models, rules, destinations.",
    "settings": "Every setting: its value, where the value comes from, and what it is for.",
    "check": "Say of SEG, SR and other result objects, from any maker, everything that is wrong with them.",
    "conformance": "Print the DICOM Conformance Statement (PS3.2) of this configuration, as Markdown.",
    "preview": "Show the results of a job over its images in a browser, with OHIF. ^C ends it.",
}


class Commands(TyperGroup):
    """A module is imported when a command of its is asked for: each process of a node is one, and holds no more.

    Contexts and commands are those of the click that typer brings along, under private names.
    """

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """With commands that have a name and a help, and nothing to run."""
        known, self.commands = self.commands, {name: TyperCommand(name, help=words) for name, words in HELP.items()}
        try:
            super().format_help(ctx, formatter)
        finally:
            self.commands = known

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_MODULES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.commands:  # of one that there is not, the others are looked at for one like it
            names = [cmd_name] if cmd_name in _MODULES else list(_MODULES)
            for module in dict.fromkeys(_MODULES[name] for name in names):
                self.commands.update(_registered(module))
        return super().get_command(ctx, cmd_name)


def _registered(module: str) -> Mapping[str, Any]:
    program = typer.Typer(rich_markup_mode="rich", pretty_exceptions_enable=False)
    import_module(f"dicomnode.cli.{module}").register(program)
    commands: Mapping[str, Any] = typer.main.get_group(program).commands
    _let_flow(commands)
    return commands


def _let_flow(commands: Mapping[str, Any]) -> None:
    """Paragraphs of the help end their lines where the screen does; what begins with \\b keeps its own (click)."""
    for command in commands.values():
        parts = (command.help or "").split("\n\n")
        command.help = "\n\n".join(part if part.startswith("\b") else part.replace("\n", " ") for part in parts)
        _let_flow(getattr(command, "commands", {}))


app = typer.Typer(
    name="dicomnode",
    help="An AI node for hospitals: DICOM studies in, segmentations and reports back in the PACS.",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


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
