"""Rules from YAML files, read as people mean them.

YAML 1.1 takes NO for false, 0123 for 83, 12:30 for 750 and 2024-01-31 for an object, and a name written twice
for the second one. All of these stand in rules as what they look like, so only true, false, null and decimal
numbers are anything but text here, and a name written twice is an error.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from dicomnode.domain.rules import Rule, Vocabulary, parse_rule
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


def read_rules(path: Path, vocabulary: Vocabulary) -> list[Rule]:
    """The rules of a file, one a YAML document; raises InvalidRule naming the file and the place in it."""
    documents = _documents(path)
    if not documents:
        raise InvalidRule("the file holds no rule", str(path))
    return [_rule(document, path, number, vocabulary) for number, document in enumerate(documents, start=1)]


def _documents(path: Path) -> list[Any]:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MOST + 1)
        if len(content) > FILE_BYTES_MOST:
            raise InvalidRule(f"the file is larger than {FILE_BYTES_MOST} bytes", str(path))
        return [d for d in yaml.load_all(content.decode("utf-8-sig"), Loader=_Loader) if d is not None]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise InvalidRule(error.problem or "this is no YAML", place) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise InvalidRule(str(error), str(path)) from error


def _rule(document: Any, path: Path, number: int, vocabulary: Vocabulary) -> Rule:
    try:
        return parse_rule(document, vocabulary)
    except InvalidRule as error:
        message = str(error).removeprefix(f"{error.path}: ")
        place = f"{path}" + (f" (rule {number})" if number > 1 else "")
        raise InvalidRule(message, f"{place}: {error.path}" if error.path else place) from error


def rule_yaml(document: Any) -> str:
    """The document as YAML that read_rules reads; quoted wherever YAML 1.1 would take it for something else."""
    return str(yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True, width=100))
