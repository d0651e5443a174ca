"""The commands as `dicomnode` has them, loaded when they are asked for."""

from __future__ import annotations

from typing import Any

from typer.main import get_command

from dicomnode.cli.root import app

PROGRAM: Any = get_command(app)


def children(command: Any) -> dict[str, Any]:
    """The commands under one, by name; none under what is a command itself."""
    if not hasattr(command, "list_commands"):
        return {}
    context = command.make_context(command.name, [], resilient_parsing=True)
    return {name: command.get_command(context, name) for name in command.list_commands(context)}
