"""Rules from YAML files: everything that is wrong with them by file, line, column and path in the rule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from dicomnode.cli.rule_yaml import Document, Mistake, documents_in
from dicomnode.domain.document import all_of, every
from dicomnode.domain.rule_reading import parse_rule
from dicomnode.domain.rules import Rule, Vocabulary
from dicomnode.errors import InvalidRule, UsageError

FILE_BYTES_MOST = 1 << 20


@dataclass(frozen=True, slots=True)
class PlacedRule:
    """A rule and where its file says what."""

    rule: Rule
    source: str
    document: Document

    def place(self, path: str) -> str:
        """torso.yaml:12:5, of the path or of the nearest one around it."""
        line, column = self.document.place(path)
        return f"{self.source}:{line}:{column}"


def read_rules(path: Path, vocabulary: Vocabulary | None = None) -> list[Rule]:
    """The rules of a file; raises InvalidRule naming the file, the line and column, and the path in the rule."""
    return [placed.rule for placed in placed_rules([path], vocabulary)]


def placed_rules(paths: Iterable[Path], vocabulary: Vocabulary | None = None) -> list[PlacedRule]:
    """The rules of several files; raises one InvalidRule of everything that is wrong in any of them."""
    try:
        files = every(partial(_of_file, path, vocabulary) for path in paths)
    except InvalidRule as error:
        raise listed(error.each) from error
    return [placed for file in files for placed in file]


def rules_in(text: str, source: str, vocabulary: Vocabulary | None = None) -> list[Rule]:
    """The rules of a text, one a YAML document; `source` is what errors call it."""
    try:
        return [placed.rule for placed in _of_text(text, source, vocabulary)]
    except InvalidRule as error:
        raise listed(error.each) from error


def listed(errors: Sequence[UsageError]) -> UsageError:
    """One error with a line for each; of one that one."""
    return all_of(errors, between="\n  ", before=f"{len(errors)} things are wrong:\n  ")


def _of_file(path: Path, vocabulary: Vocabulary | None) -> list[PlacedRule]:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MOST + 1)
    except OSError as error:
        raise InvalidRule(_why_not_opened(error), str(path)) from error
    if len(content) > FILE_BYTES_MOST:
        raise InvalidRule(f"the file is larger than {FILE_BYTES_MOST} bytes, which no rules are", str(path))
    try:
        return _of_text(content.decode("utf-8-sig"), str(path), vocabulary)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InvalidRule("this is no UTF-8 text: save the file as UTF-8", f"{path}:{line}") from error


def _why_not_opened(error: OSError) -> str:
    match error:
        case FileNotFoundError():
            return "there is no such file"
        case IsADirectoryError():
            return f"this is a folder: name the files in it, as in {error.filename}/*.yaml"
        case PermissionError():
            return "this user may not read the file"
    return f"the file cannot be read: {error.strerror}"


def _of_text(text: str, source: str, vocabulary: Vocabulary | None) -> list[PlacedRule]:
    placed = every(partial(_placed, item, source, vocabulary) for item in list(documents_in(text)))
    if not placed:
        raise InvalidRule("the file holds no rule", source)
    return placed


def _placed(item: Document | Mistake, source: str, vocabulary: Vocabulary | None) -> PlacedRule:
    if isinstance(item, Mistake):
        raise InvalidRule(item.words, ":".join(map(str, (source, *(item.place or ())))))
    try:
        return PlacedRule(parse_rule(item.value, vocabulary), source, item)
    except InvalidRule as error:
        in_order = sorted(error.each, key=lambda e: item.place(e.path))
        raise all_of([_where(e, item, source) for e in in_order]) from error


def _where(error: UsageError, document: Document, source: str) -> InvalidRule:
    line, column = document.place(error.path)
    place = f"{source}:{line}:{column}"
    return InvalidRule(error.message, f"{place}: {error.path}" if error.path else place)


def rule_yaml(document: Any) -> str:
    """The document as YAML that read_rules reads; quoted wherever YAML 1.1 would take it for something else."""
    return str(
        yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True, width=100, default_flow_style=None)
    )
