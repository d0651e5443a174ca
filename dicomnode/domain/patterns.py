"""Regular expressions that cannot run for long.

Python's `re` has no time limit, and a pattern such as `(a+)+b` takes hours on thirty characters. So what a
pattern may cost is bounded when the rule is read, not while it runs: the number of ways in which a
backtracking matcher can take a text of n characters is at most

    choices * n ** (repeats + 1) / (repeats + 1)!

where `repeats` counts the unbounded repeats that follow one another (`+ 1`: the place where the search starts)
and `choices` multiplies alternatives and optional parts. From that follows the longest text a pattern
is tried on. A pattern that could not even read the 64 characters of an LO (PS3.5 6.2) is refused, and so are
repeats of something that itself varies or may be empty, back-references and look-arounds, for which no such bound
holds: a repeat of nothing is not even ended by the end of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import factorial
from re import _constants as _op  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

PATTERN_CHARACTERS_MOST = 200
TEXT_CHARACTERS_LEAST = 64
TEXT_CHARACTERS_MOST = 4096
_WAYS_MOST = 20_000_000  # a few tenths of a second
_UNROLLED_MOST = 16  # a repeat of at most so many counts as that many copies

_ONE_CHARACTER = {_op.LITERAL, _op.NOT_LITERAL, _op.IN, _op.ANY, _op.AT, _op.CATEGORY, _op.RANGE}
_REPEATS = {_op.MAX_REPEAT, _op.MIN_REPEAT, _op.POSSESSIVE_REPEAT}


@dataclass(frozen=True, slots=True)
class _Cost:
    choices: int = 1
    repeats: int = 0

    def then(self, other: _Cost) -> _Cost:
        return _Cost(self.choices * other.choices, self.repeats + other.repeats)

    def ways(self, characters: int) -> float:
        return self.choices * float(characters) ** (self.repeats + 1) / factorial(self.repeats + 1)

    @property
    def varies(self) -> bool:
        return self.choices > 1 or self.repeats > 0


@dataclass(frozen=True, slots=True)
class BoundedPattern:
    """A compiled pattern and the longest text it may be tried on."""

    expression: re.Pattern[str]
    characters_most: int

    def found_in(self, text: str) -> bool:
        """True when the pattern is found anywhere in the text; False for a text that is too long."""
        return len(text) <= self.characters_most and self.expression.search(text) is not None


@lru_cache(maxsize=1024)
def bounded_pattern(pattern: str) -> BoundedPattern:
    """Raises ValueError saying what is wrong with the pattern."""
    if len(pattern) > PATTERN_CHARACTERS_MOST:
        raise ValueError(f"a pattern has at most {PATTERN_CHARACTERS_MOST} characters, this one has {len(pattern)}")
    try:
        expression = re.compile(pattern)
        cost = _sequence(_parser.parse(pattern))
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
    return BoundedPattern(expression, _longest_text(pattern, cost))


def _longest_text(pattern: str, cost: _Cost) -> int:
    if cost.ways(TEXT_CHARACTERS_LEAST) > _WAYS_MOST:
        raise ValueError(f"{pattern!r} could take too long: use fewer of * + ? |, or several conditions under `all`")
    longest = TEXT_CHARACTERS_LEAST
    while longest < TEXT_CHARACTERS_MOST and cost.ways(longest * 2) <= _WAYS_MOST:
        longest *= 2
    return longest


def _sequence(items: Iterable[tuple[Any, Any]]) -> _Cost:
    cost = _Cost()
    for operator, argument in items:
        cost = cost.then(_part(operator, argument))
    return cost


def _part(operator: Any, argument: Any) -> _Cost:
    if operator in _ONE_CHARACTER:
        return _Cost()
    if operator in _REPEATS:
        return _repeat(*argument)
    if operator is _op.BRANCH:
        branches = [_sequence(branch) for branch in argument[1]]
        return _Cost(sum(b.choices for b in branches), max(b.repeats for b in branches))
    if operator is _op.SUBPATTERN:
        return _sequence(argument[3])
    if operator is _op.ATOMIC_GROUP:
        return _sequence(argument)
    raise ValueError("look-arounds, back-references and conditions are not allowed: combine conditions with `not`")


def _repeat(least: int, most: int, body: Any) -> _Cost:
    inner, (shortest, _) = _sequence(body), body.getwidth()
    if most > 1 and not shortest:
        raise ValueError("a repeat of something that may be empty could take too long, as in (a?){9} or (^)*")
    if most <= _UNROLLED_MOST:
        cost = _Cost(most - least + 1)
        return cost.then(_Cost(inner.choices**most, inner.repeats * most))
    if inner.varies:
        raise ValueError("a repeat of something that varies in length could take too long, as in (a+)+ or (a|bc)*")
    return _Cost(1, 0 if least == most else 1)
