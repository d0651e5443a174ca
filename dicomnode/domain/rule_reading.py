"""A rule from what YAML or JSON gave, and whether it can be meant so."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn, TypeVar

from dicomnode.domain.class_facts import CLASS_FACTS, class_fact, how_written, looks_like_one
from dicomnode.domain.document import Node, every
from dicomnode.domain.job import Priority
from dicomnode.domain.patterns import bounded_pattern
from dicomnode.domain.rules import (
    FACTS,
    ORDERING,
    ORIENTATIONS,
    STEP,
    All,
    AnyOf,
    Choice,
    Comparison,
    Condition,
    Not,
    Operator,
    Origin,
    Parameter,
    Preference,
    Role,
    Rule,
    RuleState,
    StudyConditions,
    Vocabulary,
    Window,
    fact_vr,
    steps_of,
)
from dicomnode.domain.schedule import parse_window
from dicomnode.domain.values import (
    Kind,
    NotComparable,
    Operand,
    goes_over_midnight,
    has_contents,
    is_ordered,
    kind_of,
    span_of,
)
from dicomnode.errors import InvalidRule

NESTED_MOST = 16
ORDER_MOST = 1_000_000
# What every rule may say, and what only one with a model
OF_EVERY_RULE = ("name", "description", "order", "when", "study", "stop", "state", "enabled")
OF_A_JOB = (
    "model", "version", "choose", "roles", "parameters", "priority", "schedule", "destinations", "results",
)  # fmt: skip
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NAME_WORDS = "letters, digits, '.', '_' and '-', at most 64"
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,31}")
_VERSION_WORDS = "active, or a version: letters, digits, '.', '+', '_' and '-', at most 32"
PARAMETER = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_PARAMETER_WORDS = "letters, digits, '_' and '-', a letter first, at most 64"
RESULT = re.compile(r"[A-Z][A-Z0-9_]{0,15}")
_SUBJECT = re.compile(rf"{STEP}(?:\.{STEP})*")
_TAG = re.compile(r"\(?([0-9a-fA-F]{4}), ?([0-9a-fA-F]{4})\)?")  # as viewers show it
_GROUPS = ("all", "any", "not")
S = TypeVar("S")
T = TypeVar("T")


def parse_rule(document: object, vocabulary: Vocabulary | None = None) -> Rule:
    """A rule from what YAML gave; raises InvalidRule with the path of what is wrong, of several things all.

    With a vocabulary, keywords must be in it and operands must suit their VR. A stored rule is read without:
    what was valid once stays valid when the dictionary changes.
    """
    root, conditions = Node(document, "", InvalidRule), _Reader(vocabulary)
    root.mapping()
    read: list[Callable[[], dict[str, Any]]] = [
        lambda: _only(root, *OF_EVERY_RULE, *OF_A_JOB),
        lambda: _of_every_rule(root, conditions),
        lambda: _job(root, conditions) if "model" in root else _no_job(root),
    ]
    _, common, job = every(read)
    return Rule(**common, **job)


def _of_every_rule(root: Node, conditions: _Reader) -> dict[str, Any]:
    description = root.get("description", "")
    return _named(
        {
            "name": lambda: root["name"].matching(NAME, _NAME_WORDS),
            "description": lambda: _plain_text(description, 1000, "\n\t") if description.value else "",
            "order": lambda: _order(root.get("order", 100)),
            "when": lambda: conditions.condition(root["when"], 0),
            "study": lambda: _study(root["study"], conditions) if "study" in root else StudyConditions(),
            "stop": lambda: root.get("stop", False).boolean(),
            "state": lambda: _state(root),
        }
    )


def _job(root: Node, conditions: _Reader) -> dict[str, Any]:
    """What only a rule with a model has."""
    roles = root.get("roles", {})
    return _named(
        {
            "model": lambda: root["model"].matching(NAME, _NAME_WORDS),
            "version": lambda: root.get("version", "active").matching(VERSION, _VERSION_WORDS),
            "choose": lambda: _choose(root.get("choose", "all")),
            "roles": lambda: _each(roles.mapping(), lambda name: _role(name, roles, conditions)),
            "parameters": lambda: _parameters(root.get("parameters", {})),
            "priority": lambda: Priority(root.get("priority", "routine").one_of([str(p) for p in Priority])),
            "schedule": lambda: _schedule(root.get("schedule", "now")),
            "destinations": lambda: _names(root.get("destinations", []), NAME, _NAME_WORDS),
            "results": lambda: _names(root.get("results", []), RESULT, "a kind of result is in capitals, as SEG"),
        }
    )


def _no_job(root: Node) -> dict[str, Any]:
    if root.get("stop", False).value is not True:
        root.fail("model is missing; only a rule that says `stop: true` may go without")
    meaningless = "it means nothing in a rule without a model, which runs nothing"
    _each((name for name in OF_A_JOB if name in root), lambda name: root[name].fail(meaningless))
    return {}


def _named(readers: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """The parts of a rule by name; all of them are read before what is wrong is raised."""
    return dict(zip(readers, every(readers.values()), strict=True))


def _each(things: Iterable[S], read: Callable[[S], T]) -> tuple[T, ...]:
    return tuple(every(partial(read, thing) for thing in things))


def _order(node: Node) -> int:
    value = node.value
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > ORDER_MOST:
        node.fail(f"order is a whole number from {-ORDER_MOST} to {ORDER_MOST}; lower is asked first")
    return value


def _state(root: Node) -> RuleState:
    """`enabled` is how rules of before say it."""
    words = [str(state) for state in RuleState]
    if "enabled" not in root:
        return RuleState(root.get("state", "enabled").one_of(words))
    enabled = root["enabled"].boolean()
    state = RuleState(root.get("state", "enabled" if enabled else "disabled").one_of(words))
    if enabled is (state is RuleState.DISABLED):
        root["enabled"].fail(f"it contradicts `state: {state}`; leave enabled out")
    return state


def _study(node: Node, conditions: _Reader) -> StudyConditions:
    _only(node, "has", "has_not")
    if not node.mapping():
        node.fail("has or has_not is needed, as in {has: [{Modality: PT}]}")
    return StudyConditions(
        *_each(("has", "has_not"), lambda name: _conditions(node[name], conditions) if name in node else ())
    )


def _conditions(node: Node, conditions: _Reader) -> tuple[Condition, ...]:
    """A list of conditions, or one."""
    if isinstance(node.value, Mapping):
        return (conditions.condition(node, 0),)
    return _filled(node, _each(node.items(), lambda n: conditions.condition(n, 0)))


def _choose(node: Node) -> tuple[Preference, ...]:
    """A list of preferences, or one; none for `all`."""
    if node.value == "all":
        return ()
    nodes = list(node.items()) if isinstance(node.value, list) else [node]
    preferences = _filled(node, _each(nodes, _preference))
    for number, preference in enumerate(preferences):
        if preference.choice in {earlier.choice for earlier in preferences[:number]}:
            nodes[number].fail(f"{preference.choice} stands there already")
    return preferences


def _preference(node: Node) -> Preference:
    if isinstance(node.value, Mapping):
        _only(node, Choice.KERNEL)
        kernels = node[Choice.KERNEL]
        return Preference(Choice.KERNEL, _filled(kernels, _each(kernels.items(), partial(_plain_text, most=64))))
    choice = Choice(node.one_of([str(choice) for choice in Choice]))
    if choice is Choice.KERNEL:
        node.fail("kernel takes the kernels in order of preference, as in {kernel: [B30f, Br40]}")
    return Preference(choice)


def _role(name: str, roles: Node, conditions: _Reader) -> Role:
    node = roles[name]
    if not NAME.fullmatch(name):
        node.fail(f"{name!r} is not allowed: {_NAME_WORDS}")
    _only(node, "when", "from", "choose")
    if "choose" in node and node["choose"].value == "all":
        node["choose"].fail("a role takes one series: say which, as in [most_instances]")
    return Role(
        name,
        **_named(
            {
                "when": lambda: conditions.condition(node["when"], 0),
                "origin": lambda: Origin(node.get("from", "study").one_of([str(origin) for origin in Origin])),
                "choose": lambda: _choose(node.get("choose", "all")),
            }
        ),
    )


def _parameters(node: Node) -> dict[str, Parameter]:
    return _named({name: partial(_parameter, name, node[name]) for name in node.mapping()})


def _parameter(name: str, node: Node) -> Parameter:
    if not PARAMETER.fullmatch(name):
        node.fail(f"{name!r} is not allowed: {_PARAMETER_WORDS}")
    return node.value if isinstance(node.value, bool) else _operand(node)


def _schedule(node: Node) -> tuple[Window, ...]:
    """A list of daily hours, or one; none for `now`."""
    if node.value == "now":
        return ()
    nodes = list(node.items()) if isinstance(node.value, list) else [node]
    return _filled(node, _each(nodes, _window))


def _window(node: Node) -> Window:
    try:
        return parse_window(node.text())
    except ValueError as error:
        node.fail(str(error))


def _names(node: Node, pattern: re.Pattern[str], words: str) -> tuple[str, ...]:
    return _each(node.items(), lambda n: n.matching(pattern, words))


def _only(node: Node, *known: str) -> dict[str, Any]:
    """As Node.only, but it says where each unknown name stands, for the line of a file."""
    _each((name for name in node.mapping() if name not in known), lambda name: _unknown(node[name], name, known))
    return {}


def _unknown(node: Node, name: str, known: Sequence[str]) -> NoReturn:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    hint = f" (did you mean {near[0]}?)" if near else ""
    node.fail(f"unknown{hint}; known: {', '.join(known)}")


def _filled(node: Node, things: tuple[T, ...]) -> tuple[T, ...]:
    if not things:
        node.fail("the list is empty")
    return things


def parse_condition(document: object, vocabulary: Vocabulary | None = None) -> Condition:
    return _Reader(vocabulary).condition(Node(document, "when", InvalidRule), 0)


class _Reader:
    def __init__(self, vocabulary: Vocabulary | None) -> None:
        self._vocabulary = vocabulary

    def condition(self, node: Node, depth: int) -> Condition:
        if depth > NESTED_MOST:
            node.fail(f"conditions are nested over {NESTED_MOST} deep")
        parts = _each(node.mapping(), lambda key: self._entry(node, key, depth))
        if not parts:
            node.fail("a condition is needed, as in {Modality: CT}")
        return parts[0] if len(parts) == 1 else All(parts)

    def _entry(self, node: Node, key: str, depth: int) -> Condition:
        child = node[key]
        if key == "not":
            return Not(self.condition(child, depth + 1))
        if key in _GROUPS:
            parts = _filled(child, _each(child.items(), lambda n: self.condition(n, depth + 1)))
            return All(parts) if key == "all" else AnyOf(parts)
        return self._about(self._subject(child, key), child)

    def _about(self, subject: str, node: Node) -> Condition:
        """What is said of one attribute: a value, a list of values, or operators with theirs."""
        if isinstance(node.value, Mapping):
            parts = _each(node.mapping(), lambda key: self._operation(subject, _operator(node, key), node[key]))
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
        if asked := class_fact(key):
            return asked.subject
        if looks_like_one(key):
            node.fail(f"{key!r} is no fact: {how_written(key)}")
        if not _SUBJECT.fullmatch(key):
            node.fail(f"{key!r} is no attribute: {_how_attributes_are_named(key)}")
        steps = steps_of(key)
        for step in steps:
            self._check_keyword(node, step, alone=len(steps) == 1)
        return ".".join(_private_in_lower_case(step) for step in steps)

    def _check_keyword(self, node: Node, step: str, alone: bool) -> None:
        known = self._vocabulary
        if known is None or step.startswith("(") or step in known or (alone and step in FACTS):
            return
        near = difflib.get_close_matches(step, [*known, *FACTS, *CLASS_FACTS, *_GROUPS], n=3, cutoff=0.75)
        hint = f"; did you mean {' or '.join(near)}?" if near else "; keywords are those of PS3.6, as in Modality"
        node.fail(f"{step!r} is no attribute's keyword and no fact{hint}")

    def _kind(self, subject: str) -> Kind | None:
        """None when nobody can say before a header is seen."""
        if self._vocabulary is None:
            return None
        vr = fact_vr(subject) or self._vocabulary.get(steps_of(subject)[-1])
        return kind_of(vr) if vr else None


def _how_attributes_are_named(key: str) -> str:
    if tag := _TAG.fullmatch(key):
        group, element = tag.groups()
        if int(group, 16) % 2 == 0:
            return "those of the standard go by their keyword (PS3.6), as SliceThickness does for (0018,0050)"
        return (
            "a private one is named with its creator, in quotes, as in "
            f'"({group},{element[2:]},CREATOR)"; of the element the last two digits'
        )
    if key.startswith("(") or key.endswith(")"):
        return 'quote a private tag, or YAML takes it apart at its commas: "(0019,10,GEMS_ACQU_01)"'
    return (
        "a keyword such as Modality, a path such as RequestAttributesSequence.RequestedProcedureDescription, "
        'or a private tag such as "(0019,10,GEMS_ACQU_01)"'
    )


def _operator(node: Node, key: str) -> Operator:
    return Operator(key) if key in tuple(Operator) else _unknown(node[key], key, tuple(Operator))


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
    return _filled(node, _each(node.items(), _operand))


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
    operator, operands = comparison.operator, comparison.operands
    if kind is Kind.NONE:
        node.fail(f"{comparison.subject} holds no value that compares; only exists can ask for it")
    unordered = operator in ORDERING and not is_ordered(kind)
    if unordered or (operator is Operator.CONTAINS and not has_contents(kind)):
        node.fail(f"{operator} does not apply to {comparison.subject}, which is a {kind}")
    if operator in (Operator.CONTAINS, Operator.MATCHES) or (kind is Kind.TEXT and operator not in ORDERING):
        return
    try:
        spans = [span_of(kind, o) for o in operands] if is_ordered(kind) else []
    except NotComparable as error:
        node.fail(str(error))
    if operator is Operator.BETWEEN and spans[0].low > spans[1].high and not goes_over_midnight(kind, *operands):
        node.fail(f"{operands[0]} comes after {operands[1]}")


def _check_orientation(comparison: Comparison, node: Node) -> None:
    """A fact of four values: any other word is a mistake, as transverse for axial is."""
    if comparison.subject != "Orientation" or comparison.operator is Operator.MATCHES:
        return
    for operand in comparison.operands:
        if str(operand).casefold() not in ORIENTATIONS:
            node.fail(f"{operand!r} is no orientation: it is one of {', '.join(ORIENTATIONS)}")
