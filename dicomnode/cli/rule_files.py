"""Rules from YAML files, read as people mean them.

YAML 1.1 takes NO for false, 0123 for 83, 12:30 for 750 and 2024-01-31 for an object, and a name written twice
for the second one. All of these stand in rules as what they look like, so only true, false, null and decimal
numbers are anything but text here, and a name written twice is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dicomnode.domain.rule_reading import parse_rule
from dicomnode.domain.rules import Rule, Vocabulary
from dicomnode.errors import InvalidRule

FILE_BYTES_MOST = 1 << 20


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as PyYAML has it

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):  # a few lines of aliases can stand for more than memory holds
            raise yaml.composer.ComposerError(
                None, None, "aliases (*name) are not allowed", self.peek_event().start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is written twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(true|false)$"), list("tf"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(null|~|)$"), ["n", "~", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"-?(0|[1-9][0-9]*)$"), list("-0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)([eE][-+]?[0-9]+)?$"), list("-0123456789")
)


def read_rules(path: Path, vocabulary: Vocabulary | None = None) -> list[Rule]:
    """The rules of a file; raises InvalidRule naming the file, the line and column, and the path in the rule."""
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MOST + 1)
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRule(str(error), str(path)) from error
    if len(content) > FILE_BYTES_MOST:
        raise InvalidRule(f"the file is larger than {FILE_BYTES_MOST} bytes", str(path))
    return rules_in(text, str(path), vocabulary)


def rules_in(text: str, source: str, vocabulary: Vocabulary | None = None) -> list[Rule]:
    """The rules of a text, one a YAML document; `source` is what errors call it."""
    documents = documents_in(text, source)
    if not documents:
        raise InvalidRule("the file holds no rule", source)
    return [_rule(document, source, vocabulary) for document in documents]


@dataclass(frozen=True, slots=True)
class Document:
    """What a YAML document says, and where each path of it stands: (line, column), both from 1."""

    value: Any
    places: Mapping[str, tuple[int, int]]

    def place(self, path: str) -> tuple[int, int]:
        """Of the path or, when it is not there, of the nearest one around it."""
        while path not in self.places:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.places[path]


def documents_in(text: str, source: str) -> list[Document]:
    """Those that are not empty; raises InvalidRule naming the place where it is no YAML."""
    try:
        return [document for document in _read(text) if document.value is not None]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise InvalidRule(error.problem or "this is no YAML", place) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidRule(str(error), source) from error


def _read(text: str) -> Iterator[Document]:
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            yield Document(loader.construct_document(node), dict(_places(node, "", node)))
    finally:
        loader.dispose()


def _places(node: yaml.Node, path: str, named: yaml.Node) -> Iterator[tuple[str, tuple[int, int]]]:
    """Paths as domain.document.Node writes them, each where its name stands, or its item in a list."""
    yield path, (named.start_mark.line + 1, named.start_mark.column + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = str(key.value)
            yield from _places(value, f"{path}.{name}" if path else name, key)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _places(item, f"{path}[{number}]", item)


def _rule(document: Document, source: str, vocabulary: Vocabulary | None) -> Rule:
    try:
        return parse_rule(document.value, vocabulary)
    except InvalidRule as error:
        message = str(error).removeprefix(f"{error.path}: ") if error.path else str(error)
        line, column = document.place(error.path)
        place = f"{source}:{line}:{column}"
        raise InvalidRule(message, f"{place}: {error.path}" if error.path else place) from error


def rule_yaml(document: Any) -> str:
    """The document as YAML that read_rules reads; quoted wherever YAML 1.1 would take it for something else."""
    return str(
        yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True, width=100, default_flow_style=None)
    )
