"""A walk through a parsed YAML or JSON document that knows where it is, so that errors name the path."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NoReturn, TypeVar

from dicomnode.errors import UsageError

_MISSING = object()
T = TypeVar("T")


class Node:
    """A value in a document, its path, and the error to raise when it is not what was asked for."""

    def __init__(self, value: object, path: str, error: type[UsageError]) -> None:
        self.value, self.path, self._error = value, path, error

    def fail(self, message: str) -> NoReturn:
        raise self._error(message, self.path)

    def __getitem__(self, key: str) -> Node:
        child = self.get(key, _MISSING)
        if child.value is _MISSING:
            self.fail(f"{key} is missing")
        return child

    def get(self, key: str, default: object) -> Node:
        return Node(self.mapping().get(key, default), f"{self.path}.{key}" if self.path else key, self._error)

    def __contains__(self, key: str) -> bool:
        return key in self.mapping()

    def mapping(self) -> Mapping[str, object]:
        if not isinstance(self.value, Mapping):
            self.fail(f"{_shown(self.value)} is not a mapping of names to values")
        if others := [_shown(key) for key in self.value if not isinstance(key, str)]:
            self.fail(f"this is not a mapping of names to values: quote {', '.join(others)} if it is a name")
        return self.value

    def only(self, *known: str) -> None:
        """Refuses names that mean nothing here: a misspelt one would otherwise be ignored in silence."""
        if unknown := [k for k in self.mapping() if k not in known]:
            self.fail(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")

    def items(self) -> Iterator[Node]:
        if not isinstance(self.value, Sequence) or isinstance(self.value, str | bytes):
            self.fail(f"{_shown(self.value)} is not a list")
        return iter([Node(v, f"{self.path}[{i}]", self._error) for i, v in enumerate(self.value)])

    def text(self, most: int | None = None) -> str:
        if not isinstance(self.value, str) or not self.value.strip():
            self.fail(f"{_shown(self.value)} is not text (quote it if it looks like a number)")
        if most is not None and len(self.value) > most:
            self.fail(f"{_shown(self.value)} has over {most} characters")
        return self.value

    def matching(self, pattern: re.Pattern[str], words: str) -> str:
        text = self.text()
        if not pattern.fullmatch(text):
            self.fail(f"{text!r} is not allowed: {words}")
        return text

    def one_of(self, choices: Sequence[str]) -> str:
        if self.value not in choices:
            self.fail(f"{_shown(self.value)} is not one of {', '.join(choices)}")
        return str(self.value)

    def number(self) -> float:
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            self.fail(f"{_shown(self.value)} is not a number")
        return float(self.value)

    def whole(self, least: int, most: int) -> int:
        """A whole number from `least` to `most`."""
        number = self.number()
        if number != int(number) or not least <= number <= most:
            self.fail(f"{number:g} is no whole number from {least} to {most}")
        return int(number)

    def numbers(self, count: int) -> list[float]:
        numbers = [n.number() for n in self.items()]
        if len(numbers) != count:
            self.fail(f"{count} numbers are needed, {len(numbers)} are there")
        return numbers

    def boolean(self) -> bool:
        if not isinstance(self.value, bool):
            written = " (small letters, no quotes)" if isinstance(self.value, str) else ""
            self.fail(f"{_shown(self.value)} is not true or false{written}")
        return self.value


def every(parts: Iterable[Callable[[], T]]) -> list[T]:
    """What each part gives; raises one error of everything that is wrong with any of them."""
    given: list[T] = []
    wrong: list[UsageError] = []
    for part in parts:
        try:
            given.append(part())
        except UsageError as error:
            wrong += error.each
    if wrong:
        raise all_of(wrong)
    return given


def all_of(errors: Sequence[UsageError], between: str = "; ", before: str = "") -> UsageError:
    """One error that says what several say, each once; of one that one."""
    several = list({str(error): error for error in errors}.values())
    if len(several) == 1:
        return several[0]
    return type(several[0])(before + between.join(map(str, several)), several=several)


def _shown(value: object) -> str:
    return "nothing" if value is None else repr(value)[:60]
