"""A rule from what YAML or JSON gave, and whether it can be meant so."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Mapping

from dicomnode.domain.document import Node
from dicomnode.domain.job import Priority
from dicomnode.domain.patterns import bounded_pattern
from dicomnode.domain.rules import (
    FACTS,
    ORDERING,
    ORIENTATIONS,
    STEP,
    All,
    AnyOf,
    Comparison,
    Condition,
    Not,
    Operator,
    Rule,
    RuleState,
    Vocabulary,
    steps_of,
)
from dicomnode.domain.values import Kind, NotComparable, Operand, has_contents, is_ordered, kind_of, span_of
from dicomnode.errors import InvalidRule

NESTED_MOST = 16
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NAME_WORDS = "letters, digits, '.', '_' and '-', at most 64"
_SUBJECT = re.compile(rf"{STEP}(?:\.{STEP})*")
_GROUPS = ("all", "any", "not")


def parse_rule(document: object, vocabulary: Vocabulary | None = None) -> Rule:
    """A rule from what YAML gave; raises InvalidRule with the path of what is wrong.

    With a vocabulary, keywords must be in it and operands must suit their VR. A stored rule is read without:
    what was valid once stays valid when the dictionary changes.
    """
    root = Node(document, "", InvalidRule)
    root.only("name", "description", "when", "model", "priority", "destinations", "enabled")
    return Rule(
        name=root["name"].matching(_NAME, _NAME_WORDS),
        when=_Reader(vocabulary).condition(root["when"], 0),
        model=root["model"].matching(_NAME, _NAME_WORDS),
        priority=Priority(root.get("priority", "routine").one_of([str(p) for p in Priority])),
        destinations=tuple(n.matching(_NAME, _NAME_WORDS) for n in root.get("destinations", []).items()),
        description=_plain_text(root["description"], 1000, "\n\t") if root.get("description", "").value else "",
        state=RuleState.ENABLED if root.get("enabled", True).boolean() else RuleState.DISABLED,
    )


def parse_condition(document: object, vocabulary: Vocabulary | None = None) -> Condition:
    return _Reader(vocabulary).condition(Node(document, "when", InvalidRule), 0)


class _Reader:
    def __init__(self, vocabulary: Vocabulary | None) -> None:
        self._vocabulary = vocabulary

    def condition(self, node: Node, depth: int) -> Condition:
        if depth > NESTED_MOST:
            node.fail(f"conditions are nested over {NESTED_MOST} deep")
        parts = tuple(self._entry(node, key, depth) for key in node.mapping())
        if not parts:
            node.fail("a condition is needed, as in {Modality: CT}")
        return parts[0] if len(parts) == 1 else All(parts)

    def _entry(self, node: Node, key: str, depth: int) -> Condition:
        child = node[key]
        if key == "not":
            return Not(self.condition(child, depth + 1))
        if key in _GROUPS:
            parts = tuple(self.condition(n, depth + 1) for n in child.items())
            if not parts:
                child.fail("the list is empty")
            return All(parts) if key == "all" else AnyOf(parts)
        return self._about(self._subject(node, key), child)

    def _about(self, subject: str, node: Node) -> Condition:
        """What is said of one attribute: a value, a list of values, or operators with theirs."""
        if isinstance(node.value, Mapping):
            node.only(*Operator)
            parts = tuple(self._operation(subject, Operator(key), node[key]) for key in node.mapping())
            if not parts:
                node.fail(f"an operator is needed: {', '.join(Operator)}")
            return parts[0] if len(parts) == 1 else All(parts)
        return self._operation(subject, Operator.ONE_OF if isinstance(node.value, list) else Operator.EQUALS, node)

    def _operation(self, subject: str, operator: Operator, node: Node) -> Condition:
        if operator is Operator.EXISTS:
            exists = Comparison(subject, operator)
            return exists if node.boolean() else Not(exists)
        if FACTS.get(subject) == "FLAG":
            return _flag(subject, operator, node)
        comparison = Comparison(subject, operator, _READ[operator](node))
        kind = self._kind(subject)
        _check_pattern(comparison, node)
        if kind is not None:
            _check_operands(comparison, kind, node)
            _check_orientation(comparison, node)
        return comparison

    def _subject(self, node: Node, key: str) -> str:
        if not _SUBJECT.fullmatch(key):
            node.fail(
                f"{key!r} is no attribute: a keyword such as Modality, a path such as "
                "RequestAttributesSequence.RequestedProcedureDescription, "
                "or a private tag such as (0019,10,GEMS_ACQU_01)"
            )
        steps = steps_of(key)
        for step in steps:
            self._check_keyword(node, step, alone=len(steps) == 1)
        return ".".join(_private_in_lower_case(step) for step in steps)

    def _check_keyword(self, node: Node, step: str, alone: bool) -> None:
        known = self._vocabulary
        if known is None or step.startswith("(") or step in known or (alone and step in FACTS):
            return
        near = difflib.get_close_matches(step, [*known, *FACTS, *_GROUPS], n=3, cutoff=0.75)
        hint = f"; did you mean {' or '.join(near)}?" if near else "; keywords are those of PS3.6, as in Modality"
        node.fail(f"{step!r} is no attribute's keyword and no fact{hint}")

    def _kind(self, subject: str) -> Kind | None:
        """None when nobody can say before a header is seen."""
        if self._vocabulary is None:
            return None
        vr = FACTS.get(subject) or self._vocabulary.get(steps_of(subject)[-1])
        return kind_of(vr) if vr else None


def _private_in_lower_case(step: str) -> str:
    """The tag's hexadecimal digits; the creator stays as it is written."""
    return step[:9].lower() + step[9:] if step.startswith("(") else step


def _flag(subject: str, operator: Operator, node: Node) -> Comparison:
    if operator is not Operator.EQUALS or not isinstance(node.value, bool):
        node.fail(f"{subject} is true or false, as in {{{subject}: true}}")
    return Comparison(subject, operator, (node.value,))


def _operand(node: Node) -> Operand:
    if isinstance(node.value, bool) or not isinstance(node.value, str | int | float):
        node.fail(f"{node.value!r} is neither text nor a number (quote text that YAML takes for something else)")
    if not isinstance(node.value, str) and not abs(node.value) < 1e300:
        node.fail("the number is not finite")
    return node.value if not isinstance(node.value, str) else _plain_text(node, most=1024)


def _plain_text(node: Node, most: int, allowed: str = "") -> str:
    """Text that every database, JSON and terminal takes."""
    text = node.text(most=most)
    if any(unicodedata.category(c) in ("Cc", "Cs") and c not in allowed for c in text):
        node.fail("the text holds control characters")
    return text


def _one(node: Node) -> tuple[Operand, ...]:
    return (_operand(node),)


def _several(node: Node) -> tuple[Operand, ...]:
    operands = tuple(_operand(n) for n in node.items())
    if not operands:
        node.fail("the list is empty")
    return operands


def _two(node: Node) -> tuple[Operand, ...]:
    operands = _several(node)
    if len(operands) != 2:
        node.fail("between takes two values: [lowest, highest]")
    return operands


def _pattern(node: Node) -> tuple[Operand, ...]:
    return (_plain_text(node, most=1024),)


_READ: Mapping[Operator, Callable[[Node], tuple[Operand, ...]]] = {
    Operator.EQUALS: _one,
    Operator.ONE_OF: _several,
    Operator.CONTAINS: _one,
    Operator.MATCHES: _pattern,
    Operator.AT_LEAST: _one,
    Operator.AT_MOST: _one,
    Operator.BETWEEN: _two,
}


def _check_pattern(comparison: Comparison, node: Node) -> None:
    if comparison.operator is Operator.MATCHES:
        try:
            bounded_pattern(str(comparison.operands[0]))
        except ValueError as error:
            node.fail(str(error))


def _check_operands(comparison: Comparison, kind: Kind, node: Node) -> None:
    """Refuses what can never be true: an operator that the VR does not have, an operand of another kind."""
    operator = comparison.operator
    if kind is Kind.NONE:
        node.fail(f"{comparison.subject} holds no value that compares; only exists can ask for it")
    unordered = operator in ORDERING and not is_ordered(kind)
    if unordered or (operator is Operator.CONTAINS and not has_contents(kind)):
        node.fail(f"{operator} does not apply to {comparison.subject}, which is a {kind}")
    if operator in (Operator.CONTAINS, Operator.MATCHES) or (kind is Kind.TEXT and operator not in ORDERING):
        return
    try:
        spans = [span_of(kind, o) for o in comparison.operands] if is_ordered(kind) else []
    except NotComparable as error:
        node.fail(str(error))
    if operator is Operator.BETWEEN and spans[0].low > spans[1].high:
        node.fail(f"{comparison.operands[0]} comes after {comparison.operands[1]}")


def _check_orientation(comparison: Comparison, node: Node) -> None:
    """A fact of four values: any other word is a mistake, as transverse for axial is."""
    if comparison.subject != "Orientation" or comparison.operator is Operator.MATCHES:
        return
    for operand in comparison.operands:
        if str(operand).casefold() not in ORIENTATIONS:
            node.fail(f"{operand!r} is no orientation: it is one of {', '.join(ORIENTATIONS)}")
