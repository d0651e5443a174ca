"""Lines of words behind labels: broken between words only, so that a UID or a path can be copied in one piece."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

_GAP = 2  # columns between the labels and the words


class Labelled:
    """Rows of a label and words. Into a pipe or a file lines are not broken at all."""

    def __init__(self, rows: Iterable[tuple[Text, Text]]) -> None:
        self._rows = list(rows)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        indent = max((label.cell_len for label, _ in self._rows), default=0) + _GAP
        for label, words in self._rows:
            head = label.copy()
            for line in _lines(words, console, options.max_width - indent):
                head.pad_right(indent - head.cell_len)
                head.append_text(line)
                head.no_wrap, head.overflow = True, "ignore"
                yield head
                head = Text()


def _lines(words: Text, console: Console, width: int) -> Iterator[Text]:
    for line in words.split("\n", allow_blank=True):
        if not console.is_terminal:
            yield line
            continue
        longest = max(map(len, line.plain.split()), default=1)
        for part in line.wrap(console, max(width, longest)):
            part.rstrip()
            yield part
