"""What every command gets: the settings, the parts of the node it needs, and one way to print."""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, is_dataclass
from datetime import date, datetime
from enum import Enum
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import typer
from rich.console import Console

from dicomnode import bootstrap
from dicomnode.cli.tables import print_table
from dicomnode.config import Origin, Settings, read_settings

if TYPE_CHECKING:
    from dicomnode.ports import InstanceStore, ResultSink, State


class Context:
    """Made by the root command; parts are built when a command first asks for them."""

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}  # settings given on the command line
        self.json = False
        self.may_begin = False  # whether a command may make the home and the database of a new node
        self.console = Console()
        self.errors = Console(stderr=True)
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    @cached_property
    def _read(self) -> tuple[Settings, list[Origin]]:
        return read_settings(self.given)

    @property
    def settings(self) -> Settings:
        return self._read[0]

    @property
    def origins(self) -> list[Origin]:
        return self._read[1]

    @cached_property
    def state(self) -> State:
        """Of a node that is there, unless the command may begin one. Raises NotFound."""
        made = bootstrap.state(self.settings) if self.may_begin else bootstrap.known_state(self.settings)
        self._closing.callback(made.close)
        return made

    @cached_property
    def store(self) -> InstanceStore:
        return bootstrap.instance_store(self.settings)

    @cached_property
    def sink(self) -> ResultSink:
        return bootstrap.result_sink(self.settings)

    def show(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], title: str) -> None:
        """A table of these columns, or with --json the whole rows."""
        if self.json:
            self.print_json(list(rows))
            return
        if not rows:
            self.console.print(f"[bold]{title}[/bold]: none")
            return
        cells = [[_cell(row.get(column)) for column in columns] for row in rows]
        print_table(self.console, title, [column.replace("_", " ") for column in columns], cells)

    def done(self, message: str, **fields: Any) -> None:
        """Says that a change was made, or with --json what it was."""
        if self.json:
            self.print_json({"message": message, **fields})
        else:
            # a terminal gets it broken between words, a pipe or a file as it is: UIDs and commands are to be copied
            self.console.print(message, highlight=False, markup=False, soft_wrap=not self.console.is_terminal)

    def print_json(self, value: Any) -> None:
        typer.echo(json_module.dumps(value, default=plain, indent=2, ensure_ascii=False))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def plain(value: Any) -> Any:
    """For json.dumps: what it does not know by itself."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
