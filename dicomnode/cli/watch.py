"""`--watch`: what a command shows, again and again, until ^C."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from time import sleep
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import typer
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.segment import Segment

from dicomnode import bootstrap
from dicomnode.cli.context import plain
from dicomnode.cli.tables import Free, is_free

if TYPE_CHECKING:
    from dicomnode.cli.context import Context

T = TypeVar("T")

Watch = Annotated[
    bool, typer.Option("--watch", help="Go on showing it as it changes, until ^C. With --json: a line a change.")
]
Every = Annotated[float, typer.Option("--every", min=0.1, metavar="SECONDS", help="With --watch: how often to look.")]
EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class View(Generic[T]):
    """What a command shows: how to look, to draw, and to say it in JSON."""

    look: Callable[[], T]
    draw: Callable[[T], RenderableType]
    document: Callable[[T], Any]
    parts: Callable[[T], Mapping[str, Any]]  # what changes by itself, as one job of a list; JSON-able
    end_first: bool = False  # whether its end is kept in sight when the screen is too small
    wide: bool = False  # a table that is as wide as it needs to be in a pipe or a file


def present(context: Context, view: View[T], *, watch: bool = False, every_s: float = EVERY_S) -> None:
    """Shows it once, or until ^C, which is no failure."""
    if not watch:
        found = view.look()
        if context.json:
            context.print_json(view.document(found))
        else:
            _print(context, view, found)
        return
    follow = _follow_lines if context.json else _follow_live if context.console.is_terminal else _follow_changes
    with suppress(KeyboardInterrupt), bootstrap.database_errors():
        follow(context, view, every_s)


def _print(context: Context, view: View[T], found: T) -> None:
    """Nothing is cut off; a terminal breaks what is too long for it."""
    drawn = view.draw(found)
    free = view.wide and is_free(context.console)
    context.console.print(Free(drawn) if free else drawn, highlight=False, crop=False)


def _looks(view: View[T], every_s: float) -> Iterator[T]:
    while True:
        yield view.look()
        sleep(every_s)


def _follow_live(context: Context, view: View[T], every_s: float) -> None:
    with Live(console=context.console, auto_refresh=False) as live:
        for found in _looks(view, every_s):
            drawn = view.draw(found)
            live.update(_End(drawn) if view.end_first else drawn, refresh=True)


def _follow_changes(context: Context, view: View[T], every_s: float) -> None:
    """For a pipe or a file: whole, whenever something changed."""
    last = None
    for found in _looks(view, every_s):
        parts = dict(view.parts(found))
        if parts != last:
            _print(context, view, found)
        last = parts


def _follow_lines(context: Context, view: View[T], every_s: float) -> None:
    """Each part when it is new or has changed. A part that leaves the list is not told."""
    last: Mapping[str, Any] = {}
    for found in _looks(view, every_s):
        parts = view.parts(found)
        for key, part in parts.items():
            if key not in last or last[key] != part:
                typer.echo(json.dumps(part, default=plain, ensure_ascii=False))
        last = parts


class _End:
    """The last lines, as many as the screen has."""

    def __init__(self, whole: RenderableType) -> None:
        self._whole = whole

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._whole, options.update(height=None), pad=False)
        for line in lines[-max(console.height - 1, 1) :]:
            yield from line
            yield Segment.line()
