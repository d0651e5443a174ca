"""What conditions say of one another, without any series: which exclude each other, which one implies another.

Only what is certain counts: where nothing is found, both may be true of a series, or not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cache

from dicomnode.domain.class_facts import OF_ONE_CLASS, class_fact
from dicomnode.domain.rules import (
    FACTS,
    ORDERING,
    All,
    AnyOf,
    Comparison,
    Condition,
    Not,
    Operator,
    Vocabulary,
    condition_text,
    fact_vr,
)
from dicomnode.domain.values import (
    Kind,
    NotComparable,
    Span,
    contains,
    equal,
    goes_over_midnight,
    is_ordered,
    kind_of,
    overlap,
    span_of,
)

VALUES = frozenset({Operator.EQUALS, Operator.ONE_OF})
_SEVERAL_VALUES_EACH = frozenset({"Orientation"})  # of the facts: a series may have several


@dataclass(frozen=True, slots=True)
class Dictionary:
    """The VR of every keyword, and the keywords of attributes that hold one value at most (PS3.6)."""

    vrs: Vocabulary
    single_valued: Collection[str]

    def vr(self, subject: str) -> str:
        """ "" when nobody knows before a header is seen."""
        return fact_vr(subject) or self.vrs.get(subject.rpartition(".")[2], "")

    def is_single(self, subject: str) -> bool:
        """Of a path, every item of its sequences may hold another value."""
        if asked := class_fact(subject):
            return asked.kind in OF_ONE_CLASS
        return subject in self.single_valued or subject in FACTS.keys() - _SEVERAL_VALUES_EACH


@dataclass(frozen=True, slots=True)
class Claim:
    """A comparison that has to be true, or negated false, where it stands."""

    path: str
    comparison: Comparison
    negated: bool = False

    def words(self) -> str:
        return condition_text(Not(self.comparison) if self.negated else self.comparison)


def claims(condition: Condition, path: str) -> Iterator[Claim]:
    """What has to hold for the condition to be true, as far as it is no matter of alternatives."""
    match condition:
        case Comparison(subject):
            yield Claim(f"{path}.{subject}", condition)
        case All(parts):
            for number, part in enumerate(parts):
                yield from claims(part, f"{path}.all[{number}]")
        case Not(Comparison(subject) as comparison):
            yield Claim(f"{path}.not.{subject}", comparison, True)
        case Not(AnyOf(parts)):
            for number, part in enumerate(parts):
                if isinstance(part, Comparison):
                    yield Claim(f"{path}.not.any[{number}].{part.subject}", part, True)


# ------------------------------------------------------------------------------------------------ two claims


def exclude(one: Claim, other: Claim, known: Dictionary) -> bool:
    """Whether no series makes both true."""
    if one.negated or other.negated:
        positive, negative = (other, one) if one.negated else (one, other)
        return not positive.negated and _implies_claim(positive.comparison, negative.comparison, known)
    return _contradicts(one.comparison, other.comparison, known)


def _contradicts(one: Comparison, other: Comparison, known: Dictionary) -> bool:
    if one.subject != other.subject or not known.is_single(one.subject):
        return False
    return _certainly(_apart, one, other, known)


def _certainly(
    test: Callable[[Kind, Comparison, Comparison], bool], one: Comparison, other: Comparison, known: Dictionary
) -> bool:
    """Of one subject; False when nobody knows its VR, or an operand is no value of it, as stored rules may have."""
    vr = known.vr(one.subject)
    try:
        return bool(vr) and test(kind_of(vr), one, other)
    except NotComparable:
        return False


def _apart(kind: Kind, one: Comparison, other: Comparison) -> bool:
    """Whether no single value makes both true. A person's name is written in up to three ways, and each is it."""
    if {Operator.EXISTS, Operator.MATCHES} & {one.operator, other.operator} or kind is Kind.NAME:
        return False
    if is_ordered(kind) and kind is not Kind.TEXT:
        return not any(overlap(a, b) for a in _spans(kind, one) for b in _spans(kind, other))
    if {one.operator, other.operator} <= VALUES:
        return not any(equal(kind, a, b) for a in one.operands for b in other.operands)
    if one.operator is Operator.CONTAINS and other.operator in VALUES:
        return not any(contains(kind, value, one.operands[0]) for value in other.operands)
    if other.operator is Operator.CONTAINS and one.operator in VALUES:
        return _apart(kind, other, one)
    return False


def _implies_claim(one: Comparison, other: Comparison, known: Dictionary) -> bool:
    """Whether a value that makes the one true makes the other true; every comparison needs a value."""
    if one.subject != other.subject:
        return False
    if one == other or other.operator is Operator.EXISTS:
        return True
    return _certainly(_stronger, one, other, known)


def _stronger(kind: Kind, one: Comparison, other: Comparison) -> bool:
    if {Operator.EXISTS, Operator.MATCHES} & {one.operator, other.operator} or kind is Kind.NAME:
        return False
    on_a_scale = is_ordered(kind) and (kind is not Kind.TEXT or {one.operator, other.operator} <= ORDERING)
    if on_a_scale:
        wide = _spans(kind, other)
        return all(any(w.low <= s.low and s.high <= w.high for w in wide) for s in _spans(kind, one))
    by_value = VALUES | {Operator.CONTAINS} if kind is Kind.CODE else VALUES
    if one.operator in by_value and other.operator in by_value:
        return all(any(equal(kind, value, wanted) for wanted in other.operands) for value in one.operands)
    if other.operator is Operator.CONTAINS and one.operator in VALUES | {Operator.CONTAINS}:
        return all(contains(kind, value, other.operands[0]) for value in one.operands)
    return False


def _spans(kind: Kind, comparison: Comparison) -> list[Span]:
    """The values for which it is true."""
    spans = [span_of(kind, operand) for operand in comparison.operands]
    match comparison.operator:
        case Operator.AT_LEAST:
            return [Span(spans[0].low, math.inf)]
        case Operator.AT_MOST:
            return [Span(-math.inf, spans[0].high)]
        case Operator.BETWEEN if goes_over_midnight(kind, *comparison.operands):
            return [Span(spans[0].low, math.inf), Span(-math.inf, spans[1].high)]
        case Operator.BETWEEN:
            return [Span(spans[0].low, spans[1].high)]
        case _:
            return spans


# -------------------------------------------------------------------------------------------- two conditions


def implies(one: Condition, other: Condition, known: Dictionary) -> bool:
    """Whether every series that makes the one true certainly makes the other true."""
    return _implication(known)(_pushed_down(one, False), _pushed_down(other, False))


def _pushed_down(condition: Condition, negated: bool) -> Condition:
    """The same with Not at comparisons only, by De Morgan."""
    match condition:
        case All(parts) | AnyOf(parts):
            group = All if isinstance(condition, All) is not negated else AnyOf
            return group(tuple(_pushed_down(part, negated) for part in parts))
        case Not(part):
            return _pushed_down(part, not negated)
        case Comparison():
            return Not(condition) if negated else condition


def _implication(known: Dictionary) -> Callable[[Condition, Condition], bool]:
    """Of conditions pushed down; each pair of their parts is looked at once."""

    @cache
    def follows(one: Condition, other: Condition) -> bool:
        if isinstance(one, AnyOf):
            return all(follows(part, other) for part in one.parts)
        if isinstance(other, All):
            return all(follows(one, part) for part in other.parts)
        if isinstance(one, All) and any(follows(part, other) for part in one.parts):
            return True
        if isinstance(other, AnyOf):
            return any(follows(one, part) for part in other.parts)
        return _literal_implies(one, other, known)

    return follows


def _literal_implies(one: Condition, other: Condition, known: Dictionary) -> bool:
    match one, other:
        case Comparison(), Comparison():
            return _implies_claim(one, other, known)
        case Comparison(), Not(Comparison() as denied):
            return _contradicts(one, denied, known)
        case Not(Comparison() as absent), Not(Comparison() as denied):
            return _implies_claim(denied, absent, known)
    return False
