"""What a command does now, for somebody who waits for it: a line on the terminal that is gone when it is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from dicomnode.ports.progress import Told, nobody

if TYPE_CHECKING:
    from dicomnode.cli.context import Context


@contextmanager
def working(context: Context, doing: str) -> Iterator[Told]:
    """Shows `doing`, and whatever is told after it, with the seconds since the beginning, on standard error.

    Nothing where that is no terminal, or with --json: pipes and logs stay clean.
    """
    if context.json or not context.errors.is_terminal:
        yield nobody
        return
    words = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    columns = (SpinnerColumn(), TimeElapsedColumn(), words)
    with Progress(*columns, console=context.errors, transient=True, redirect_stdout=False) as progress:
        task = progress.add_task(doing, total=None)
        yield lambda now: progress.update(task, description=now, refresh=True)
