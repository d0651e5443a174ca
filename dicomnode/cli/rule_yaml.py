"""YAML read as people mean it in rules, with the place of everything, and what is wrong with it in plain words.

YAML 1.1 takes NO for false, 0123 for 83, 12:30 for 750 and 2024-01-31 for an object, and a name written twice
for the second one. All of these stand in rules as what they look like, so only true, false, null and decimal
numbers are anything but text here, and a name written twice is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

Place = tuple[int, int]  # line and column, both from 1


_NO_ALIASES = "aliases ({0}name) are not allowed; text that begins with {0} has to be quoted"


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as PyYAML has it

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Without anchors and aliases: a few lines of them can stand for more than memory holds."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, _NO_ALIASES.format("*"), event.start_mark)
        if getattr(event, "anchor", None) is not None:
            raise yaml.composer.ComposerError(None, None, _NO_ALIASES.format("&"), event.start_mark)
        return super().compose_node(parent, index)


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(true|false)$"), list("tf"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(null|~|)$"), ["n", "~", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"-?(0|[1-9][0-9]*)$"), list("-0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)([eE][-+]?[0-9]+)?$"), list("-0123456789")
)

_TEXT = "tag:yaml.org,2002:str"
_IMPLIED = re.compile(r"\.all\[\d+\]")


@dataclass(frozen=True, slots=True)
class Document:
    """What a YAML document says, and where each path of it stands."""

    value: Any
    places: Mapping[str, Place]

    def place(self, path: str) -> Place:
        """Of the path or, when it is not there, of the nearest one around it."""
        path = self._written(path)
        while path not in self.places:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.places[path]

    def _written(self, path: str) -> str:
        """Several names in one mapping mean all of them: the `all` that stands for it is not in the file."""
        at = 0
        while match := _IMPLIED.search(path, at):
            if path[: match.end()] in self.places:
                at = match.end()
            else:
                path, at = path[: match.start()] + path[match.end() :], match.start()
        return path


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is no YAML, in plain words, and where; nowhere when nobody can say."""

    words: str
    place: Place | None


def documents_in(text: str) -> Iterator[Document | Mistake]:
    """Those that are not empty, and every mistake; after one of the file's form nothing more can be read."""
    loader = None
    try:
        loader = _Loader(text)
        while loader.check_node():
            yield from _document(loader, loader.get_node())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        yield _mistake(error, text)
    finally:
        if loader is not None:
            loader.dispose()


def _document(loader: _Loader, node: yaml.Node) -> Iterator[Document | Mistake]:
    """With a slip it is read on as it was meant, so that all that is wrong is found at once."""
    yield from _slips(node)
    places = dict(_places(node, "", node))
    try:
        value = loader.construct_document(node)
    except (yaml.constructor.ConstructorError, ValueError) as error:
        yield _mistake(error, "")
        return
    if value is not None:
        yield Document(value, places)


def _slips(node: yaml.Node) -> Iterator[Mistake]:
    """What YAML takes without a word, and nobody means."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _slips(item)
    elif isinstance(node, yaml.MappingNode):
        yield from _cut_tag(node)
        yield from _written_twice(node)
        for _, value in node.value:
            yield from _slips(value)


def _written_twice(node: yaml.MappingNode) -> Iterator[Mistake]:
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value in seen:
            yield Mistake(f"{key.value} is written twice", _place(key.start_mark))
        seen.add(str(key.value))


def _cut_tag(node: yaml.MappingNode) -> Iterator[Mistake]:
    """In braces {(0019,10,ACME): 5} is three names, for a comma ends one there. Joins them again."""
    for begin, (key, _) in enumerate(list(node.value)):
        if not isinstance(key, yaml.ScalarNode) or key.style or not re.fullmatch(r"\([0-9a-fA-F]{4}", key.value):
            continue
        after = (number for number, (k, _) in enumerate(node.value) if number > begin and str(k.value).endswith(")"))
        end = next(after, begin)
        tag = ",".join(str(k.value) for k, _ in node.value[begin : end + 1])
        yield Mistake(f'in braces a comma ends a name: quote the tag, as in "{tag}"', _place(key.start_mark))
        whole = yaml.ScalarNode(_TEXT, tag, key.start_mark, key.end_mark, style='"')
        node.value[begin : end + 1] = [(whole, node.value[end][1])]
        yield from _cut_tag(node)  # the next one
        return


def _places(node: yaml.Node, path: str, named: yaml.Node) -> Iterator[tuple[str, Place]]:
    """Paths as domain.document.Node writes them, each where its name stands, or its item in a list."""
    yield path, _place(named.start_mark)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = str(key.value)
            yield from _places(value, f"{path}.{name}" if path else name, key)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _places(item, f"{path}[{number}]", item)


def _place(mark: yaml.Mark) -> Place:
    return mark.line + 1, mark.column + 1


# ------------------------------------------------------------------------------------------- in plain words

_QUOTE_IT = "text that begins with {0} has to be quoted, as in '{0}…'"
# What PyYAML says, by its beginning or a part of it, and what it comes to
_WORDS = (
    (r"character '\\t'|found a tab", "a tab stands here, and YAML takes spaces only: replace it by spaces"),
    (r"character '([@`%|>])'", _QUOTE_IT),
    (r"mapping values are not allowed", "a colon too many: quote text that holds ': ', or check the indentation"),
    (r"could not find expected ':'", "a name without its colon: write NAME: VALUE, with a space after the colon"),
    (r"unknown escape character", "in double quotes a backslash begins an escape: put patterns in single quotes"),
    (r"expected escape sequence", "in double quotes a backslash begins an escape: put patterns in single quotes"),
    (r"expected '<document start>'", "this belongs to no rule: check the indentation, and put --- between rules"),
    (r"while scanning a block scalar", "text that begins with | or > has to be quoted"),
    (r"while scanning a quoted scalar", "the quotation mark that opens in line {line} is not closed"),
    (r"expected ',' or '([\]}])'", "the bracket that opens in line {line} lacks a comma or its {0} here"),
    (r"while parsing a flow node", "a value is missing here; a bracket before it may not be closed"),
    (r"sequence entries are not allowed", "a list cannot begin here: put '- ' on a line of its own"),
    (r"expected <block end>", "this does not fit what begins in line {line}: check the indentation and the quotes"),
    (r"constructor for the tag|tag handle|expected .*URI", "text that begins with ! has to be quoted"),
    (r"scanning an? (anchor|alias)", "text that begins with & or * has to be quoted"),
    (r"unhashable key", "a list or mapping cannot be a name: quote it if it is one"),
    (r"special characters are not allowed", "a control character stands here: remove it"),
)


def _mistake(error: Exception, text: str) -> Mistake:
    if isinstance(error, yaml.reader.ReaderError):
        before = text[: error.position]
        place = before.count("\n") + 1, len(before) - before.rfind("\n")
        return Mistake(_plain(error.reason, 0), place)
    if isinstance(error, yaml.MarkedYAMLError):
        mark, opened = error.problem_mark or error.context_mark, error.context_mark
        said = f"{error.problem or ''} {error.context or ''}"
        if "could not find expected ':'" in said:
            mark = opened or mark  # where the name stands, and not where the next one does
        return Mistake(_plain(said, opened.line + 1 if opened else 0), _place(mark) if mark else None)
    if isinstance(error, RecursionError):
        return Mistake("it is nested too deep", None)
    return Mistake(_plain(str(error), 0), None)


def _plain(said: str, line: int) -> str:
    """What nobody foresaw is told as PyYAML has it."""
    for pattern, words in _WORDS:
        if match := re.search(pattern, said):
            return words.format(*match.groups(), line=line)
    return f"this is no YAML: {said.strip()}" if not said.startswith("aliases") else said.strip()
