"""A document of headings, paragraphs and tables, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Table:
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    words: tuple[str, ...] = ()  # a paragraph each
    tables: tuple[Table, ...] = ()
    sections: tuple[Section, ...] = ()


def markdown(section: Section, number: str = "") -> str:
    """With numbered headings: 4.2.1."""
    return "\n".join(_lines(section, number)).rstrip() + "\n"


def _lines(section: Section, number: str) -> Iterator[str]:
    depth = number.count(".") + 2 if number else 1
    yield f"{'#' * depth} {number} {section.title}" if number else f"# {section.title}"
    yield ""
    for words in section.words:
        yield from (words, "")
    for table in section.tables:
        yield from (*_table(table), "")
    for count, inner in enumerate(section.sections, 1):
        yield from _lines(inner, f"{number}.{count}" if number else str(count))


def _table(table: Table) -> Iterator[str]:
    yield _row(table.columns)
    yield _row(["---"] * len(table.columns))
    yield from map(_row, table.rows)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
