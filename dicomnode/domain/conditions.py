"""What a condition says of a series, clause by clause and in words.

An attribute that is missing, empty or unreadable makes a comparison false and never an error. Of several
values, and of several items of a sequence, one that fits is enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dicomnode.domain.class_facts import found_class
from dicomnode.domain.identifying import is_identifying
from dicomnode.domain.patterns import bounded_pattern
from dicomnode.domain.rules import All, AnyOf, Comparison, Condition, Not, Operator, Rule, condition_document
from dicomnode.domain.study import Element, Header
from dicomnode.domain.values import (
    Kind,
    NotComparable,
    Operand,
    at_least,
    at_most,
    between,
    contains,
    equal,
    has_contents,
    is_ordered,
    kind_of,
    printable,
    text_of,
)

# The note of a fact that nobody worked out, because the other conditions settle the matter without it
NOT_LOOKED_AT = "not looked at: the other conditions decide"
_HIDDEN = "(not shown: it identifies the patient)"
_SHOWN_CHARACTERS = 60
_SHOWN_CLAUSES = 3
_KEPT_CHARACTERS = 200
_KEPT_VALUES = 16


@dataclass(frozen=True, slots=True)
class Found:
    """A value found for a comparison, with the VR it came with."""

    vr: str
    value: object
    identifying: bool = False  # says who the patient is


@dataclass(frozen=True, slots=True)
class Explanation:
    """A condition's truth, the values found for it, and those of its parts.

    Words and documents of it are stored: values that identify the patient stay out of them.
    """

    condition: Condition
    holds: bool
    parts: tuple[Explanation, ...] = ()
    found: tuple[Found, ...] = ()
    present: bool = False  # a comparison's attribute is in the header, maybe without a value
    note: str = ""  # why a value that is there could not be compared
    remark: str = ""  # what the node says of a fact: why it is so, or why it is not known

    def deciding(self) -> tuple[Explanation, ...]:
        """The comparisons that made it true or false: turn the others over and nothing changes."""
        if isinstance(self.condition, Comparison):
            return () if self.remark == NOT_LOOKED_AT else (self,)
        if isinstance(self.condition, Not):
            return self.parts[0].deciding()
        return tuple(clause for part in self.parts if part.holds == self.holds for clause in part.deciding())

    def words(self) -> str:
        """The clauses that decided, in words."""
        clauses = list(dict.fromkeys(comparison_words(clause) for clause in self.deciding()))
        more = len(clauses) - _SHOWN_CLAUSES
        return "; ".join(clauses[:_SHOWN_CLAUSES]) + (f"; and {more} more" if more > 0 else "")

    def document(self) -> dict[str, Any]:
        """JSON-able, for the database and for --json."""
        document: dict[str, Any] = {"holds": self.holds}
        if not isinstance(self.condition, Comparison):
            return document | {_group(self.condition): [part.document() for part in self.parts]}
        document["clause"] = condition_document(self.condition)
        document["found"] = [shown_value(f) for f in self.found[:_KEPT_VALUES]] if self.present else None
        document["words"] = comparison_words(self)
        return document


@dataclass(frozen=True, slots=True)
class Decision:
    """What a rule says of a series."""

    rule: Rule
    explanation: Explanation

    @property
    def matches(self) -> bool:
        return self.explanation.holds

    def why(self) -> str:
        """One sentence: rule torso-ct did not match: Modality is 'MR', not 'CT'."""
        verb = "matched" if self.matches else "did not match"
        return f"rule {self.rule.name} {verb}: {self.explanation.words()}"

    def document(self) -> dict[str, Any]:
        return {"rule": self.rule.name, "matches": self.matches, "when": self.explanation.document()}


def decide(rule: Rule, header: Header, facts: Header) -> Decision:
    return Decision(rule, explain(rule.when, header, facts))


def explain(condition: Condition, header: Header, facts: Header) -> Explanation:
    """Every clause is evaluated, the ones that no longer matter too: an explanation shows them all."""
    match condition:
        case All(conditions):
            parts = tuple(explain(c, header, facts) for c in conditions)
            return Explanation(condition, all(p.holds for p in parts), parts)
        case AnyOf(conditions):
            parts = tuple(explain(c, header, facts) for c in conditions)
            return Explanation(condition, any(p.holds for p in parts), parts)
        case Not(inner):
            part = explain(inner, header, facts)
            return Explanation(condition, not part.holds, (part,))
        case Comparison():
            return _compared(condition, header, facts)


def settled(condition: Condition, header: Header, facts: Header, unknown: Collection[str] = ()) -> bool | None:
    """What it comes to whatever the unknown facts turn out to be; None when it depends on them (Kleene's logic).

    Nothing is explained, and what no longer matters is not evaluated: this is asked of a whole archive.
    """
    match condition:
        case Comparison(subject):
            return None if subject in unknown else _is_true(condition, header, facts)
        case All(parts):
            return _first_of(False, parts, header, facts, unknown)
        case AnyOf(parts):
            return _first_of(True, parts, header, facts, unknown)
        case Not(inner):
            value = settled(inner, header, facts, unknown)
            return None if value is None else not value


def _first_of(
    decisive: bool, parts: Iterable[Condition], header: Header, facts: Header, unknown: Collection[str]
) -> bool | None:
    """The decisive value if any part has it; else None if any part is open, else the other value."""
    is_open = False
    for part in parts:
        value = settled(part, header, facts, unknown)
        if value is decisive:
            return decisive
        is_open = is_open or value is None
    return None if is_open else not decisive


# ---------------------------------------------------------------------------------------------- comparing


def _is_true(comparison: Comparison, header: Header, facts: Header) -> bool:
    """As _compared, up to the first value that fits."""
    exists = comparison.operator is Operator.EXISTS
    for element in _elements(comparison, header, facts):
        for value in element.values:
            try:
                if exists or _holds(comparison, kind_of(element.vr), value):
                    return True
            except NotComparable:
                continue
    return False


def _elements(comparison: Comparison, header: Header, facts: Header) -> Iterable[Element]:
    fact = facts.get(comparison.subject) or found_class(comparison.subject, facts)
    return (fact,) if fact is not None else _at(header, comparison.steps)


def _compared(comparison: Comparison, header: Header, facts: Header) -> Explanation:
    elements = tuple(_elements(comparison, header, facts))
    identifying = comparison.subject not in facts and is_identifying(comparison.steps)
    found = tuple(Found(e.vr, value, identifying) for e in elements for value in e.values)
    remark = next((printable(e.note)[:_KEPT_CHARACTERS] for e in elements if e.note), "")
    if comparison.operator is Operator.EXISTS:
        return Explanation(comparison, bool(found), (), found, bool(elements), remark=remark)
    holds, note = False, ""
    for value in found:
        try:
            holds = holds or _holds(comparison, kind_of(value.vr), value.value)
        except NotComparable as error:
            note = note or str(error)
    return Explanation(comparison, holds, (), found, bool(elements), "" if holds else note, remark)


def _at(header: Header, steps: tuple[str, ...]) -> Iterator[Element]:
    """The elements that a path leads to: one for each item of the sequences on the way."""
    element = header.get(steps[0])
    if element is None:
        return
    if len(steps) == 1:
        yield element
        return
    for item in element.values:
        if isinstance(item, Mapping):
            yield from _at(item, steps[1:])


def _holds(comparison: Comparison, kind: Kind, value: object) -> bool:
    if isinstance(value, Mapping) or kind is Kind.NONE:
        raise NotComparable("it holds items or bulk data; only exists can ask for it")
    return _TESTS[comparison.operator](kind, value, comparison.operands)


def _one_of(kind: Kind, value: object, operands: tuple[Operand, ...]) -> bool:
    """One operand that the value cannot be compared with says nothing of the others."""
    reasons = []
    for operand in operands:
        try:
            if equal(kind, value, operand):
                return True
        except NotComparable as error:
            reasons.append(error)
    if len(reasons) == len(operands):
        raise reasons[0]
    return False


def _matches(kind: Kind, value: object, operands: tuple[Operand, ...]) -> bool:
    pattern, text = bounded_pattern(str(operands[0])), text_of(value)
    if len(text) > pattern.characters_most:
        raise NotComparable(
            f"it is longer than the {pattern.characters_most} characters this pattern may be tried on"
        )
    return pattern.found_in(text)


def _contains(kind: Kind, value: object, operands: tuple[Operand, ...]) -> bool:
    if not has_contents(kind):
        raise NotComparable(f"contains does not apply to a {kind}")
    return contains(kind, value, operands[0])


def _at_least(kind: Kind, value: object, operands: tuple[Operand, ...]) -> bool:
    return at_least(_ordered(kind), value, operands[0])


def _at_most(kind: Kind, value: object, operands: tuple[Operand, ...]) -> bool:
    return at_most(_ordered(kind), value, operands[-1])


def _ordered(kind: Kind) -> Kind:
    if not is_ordered(kind):
        raise NotComparable(f"a {kind} has no order")
    return kind


_TESTS: Mapping[Operator, Callable[[Kind, object, tuple[Operand, ...]], bool]] = {
    Operator.EQUALS: lambda kind, value, operands: equal(kind, value, operands[0]),
    Operator.ONE_OF: _one_of,
    Operator.CONTAINS: _contains,
    Operator.MATCHES: _matches,
    Operator.AT_LEAST: _at_least,
    Operator.AT_MOST: _at_most,
    Operator.BETWEEN: lambda kind, value, operands: between(_ordered(kind), value, operands[0], operands[1]),
}


# --------------------------------------------------------------------------------------------------- words


def found_words(clause: Explanation, in_full: bool = False) -> str:
    """What was found for a comparison, without what was asked: 7, or missing.

    `in_full`: for the eyes of whoever asks, with what identifies the patient; never to be stored.
    """
    if not clause.present:
        return "missing"
    if not clause.found:
        return f"not known ({clause.remark})" if clause.remark else "empty"
    hidden = clause.found[0].identifying and not in_full
    note = "it cannot be compared" if clause.note and hidden else printable(clause.note)[:_KEPT_CHARACTERS]
    more = note or clause.remark
    return _shown_values(clause.found, in_full) + (f" ({more})" if more else "")


def comparison_words(clause: Explanation) -> str:
    """A comparison with what was found: SliceThickness is 7, over 5."""
    comparison = clause.condition
    assert isinstance(comparison, Comparison)
    subject, operator = comparison.subject, comparison.operator
    if not clause.found:
        return f"{subject} is {found_words(clause)}"
    if operator is Operator.EXISTS:
        return f"{subject} is there"
    if clause.note:
        return f"{subject} is {found_words(clause)}"
    value = _shown_values(clause.found)
    template = (_TRUE_WORDS if clause.holds else _FALSE_WORDS)[operator]
    first, last = _quoted(comparison.operands[0]), _quoted(comparison.operands[-1])
    listed = ", ".join(map(_quoted, comparison.operands))
    remark = f" ({clause.remark})" if clause.remark else ""
    return f"{subject} is {value}" + template.format(first=first, last=last, listed=listed) + remark


_TRUE_WORDS: Mapping[Operator, str] = {
    Operator.EQUALS: "",
    Operator.ONE_OF: "",
    Operator.CONTAINS: ", with {first}",
    Operator.MATCHES: ", which matches {first}",
    Operator.AT_LEAST: ", at least {first}",
    Operator.AT_MOST: ", at most {first}",
    Operator.BETWEEN: ", from {first} to {last}",
}
_FALSE_WORDS: Mapping[Operator, str] = {
    Operator.EQUALS: ", not {first}",
    Operator.ONE_OF: ", none of {listed}",
    Operator.CONTAINS: ", without {first}",
    Operator.MATCHES: ", which does not match {first}",
    Operator.AT_LEAST: ", below {first}",
    Operator.AT_MOST: ", over {first}",
    Operator.BETWEEN: ", not from {first} to {last}",
}


def shown_value(found: Found, in_full: bool = False) -> str | int | float:
    """A value for people, JSON and databases, which all refuse some of what a header may hold.

    Names of persons stay out, and unless `in_full` all that identifies the patient; items are only counted.
    """
    value = found.value
    if kind_of(found.vr) is Kind.NAME:
        return "(a name)"
    if found.identifying and not in_full:
        return _HIDDEN
    if isinstance(value, Mapping):
        return f"(an item of {len(value)} attributes)"
    if isinstance(value, int | float) and math.isfinite(value):
        return value
    return printable(text_of(value)[:_KEPT_CHARACTERS])


def _shown_values(found: tuple[Found, ...], in_full: bool = False) -> str:
    shown = [shown_value(f, in_full) for f in found[:_KEPT_VALUES]]
    if _HIDDEN in shown:
        return _HIDDEN
    text = "\\".join(text_of(v) for v in shown)
    text = text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
    plain = all(isinstance(v, int | float) for v in shown) or any(kind_of(f.vr) is Kind.NAME for f in found)
    return text if plain or text.startswith("(an item") else f"'{text}'"


def _quoted(operand: Operand) -> str:
    return f"'{operand}'" if isinstance(operand, str) else text_of(operand)


def _group(condition: Condition) -> str:
    return next(iter(condition_document(condition)))
