"""Tables that lose nothing: as wide as they need to be in a pipe or a file, whole words on a narrow screen."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markdown import Markdown, TableElement
from rich.table import Table
from rich.text import Text

_WIDEST = 1000  # columns
_READABLE = 160  # columns, of running text that no screen limits
_LINED, _BARE = 3, 2  # characters that a column takes beside its words: with a line, without


class Free:
    """As wide as it needs to be, however narrow the screen."""

    def __init__(self, whole: RenderableType) -> None:
        self._whole = whole

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = console.measure(self._whole, options=options.update(width=_WIDEST)).maximum
        yield from console.render(self._whole, options.update(width=width))


def is_free(console: Console) -> bool:
    """Whether no screen limits what is printed, and nobody said how wide it has to be."""
    return not console.is_terminal and "COLUMNS" not in os.environ


def print_table(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The title is as wide as the screen, also over a narrow table."""
    console.print(Text(title, style="bold"), soft_wrap=not console.is_terminal)
    if is_free(console):
        console.print(Free(table(columns, rows, _WIDEST)), crop=False)
    else:
        console.print(table(columns, rows, console.width))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Table:
    """Lines between the columns go before texts or words are broken, and the longest words before shorter ones."""
    cells = list(zip(columns, *rows, strict=True))
    words = [max(map(_longest_word, column)) for column in cells]
    texts = [max(Text(cell).cell_len for cell in column) for column in cells]
    lined, bare = width - _LINED * len(words) - 1, width - _BARE * len(words)
    has_lines = sum(texts) <= lined or (sum(texts) > bare and sum(words) <= lined)
    made = Table(header_style="bold cyan")
    if not has_lines:
        made.box, made.show_edge, made.pad_edge, made.padding = box.SIMPLE_HEAD, False, False, (0, 1, 0, 0)
    for column, wide in zip(columns, shared_out(texts, words, lined if has_lines else bare), strict=True):
        made.add_column(Text(column), overflow="fold", width=wide)
    for row in rows:
        made.add_row(*map(Text, row))
    return made


def shared_out(texts: Sequence[int], words: Sequence[int], room: int) -> list[int]:
    """A width for each column: no word is broken as long as there is room, then no text.

    `texts` and `words`: the longest text and the longest word of each column.
    """
    widths = _capped(words, room)
    while (spare := room - sum(widths)) > 0 and (short := [n for n, wide in enumerate(widths) if wide < texts[n]]):
        for number in short[:spare]:
            widths[number] += 1
    return widths


def _capped(lengths: Sequence[int], room: int) -> list[int]:
    """As they are, but for the longest, which are cut to one length so that all of them together have room."""
    most = max(lengths)
    while most > 1 and sum(min(length, most) for length in lengths) > room:
        most -= 1
    return [min(length, most) for length in lengths]


def _longest_word(text: str) -> int:
    return max((Text(word).cell_len for word in text.split()), default=1)


class _WholeCells(TableElement):
    """Rich cuts a long word in a cell of Markdown, as a digest, and says so by three dots; it is to be copied."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for part in super().__rich_console__(console, options):
            if isinstance(part, Table):
                for column in part.columns:
                    column.overflow = "fold"
            yield part


class _WholeMarkdown(Markdown):
    elements = {**Markdown.elements, "table_open": _WholeCells}  # noqa: RUF012 - as Rich has it


def print_markdown(console: Console, text: str) -> None:
    console.print(_WholeMarkdown(text), width=_READABLE if is_free(console) else None)
