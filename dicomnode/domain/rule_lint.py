"""What is wrong with rules that read well: conditions that exclude one another, values that never come, twins.

Only what is certain is found: a rule without findings may still match nothing that a hospital has.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dicomnode.domain.rules import (
    FACTS,
    All,
    AnyOf,
    Comparison,
    Condition,
    Not,
    Operator,
    Rule,
    Vocabulary,
    condition_document,
    condition_text,
)
from dicomnode.domain.values import Kind, Span, contains, equal, is_ordered, kind_of, overlap, span_of

_VALUES = frozenset({Operator.EQUALS, Operator.ONE_OF})
_SEVERAL_VALUES_EACH = frozenset({"Orientation"})  # of the facts: a series may have several
# PS3.5 6.2: what a value may hold, for the VRs that rules compare as text
_CHARACTERS_MOST: Mapping[str, int] = {"AE": 16, "CS": 16, "SH": 16, "LO": 64, "UI": 64}
_ONE_VALUE_WITH_BACKSLASHES = frozenset({"LT", "ST", "UT", "UR", "UN"})


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong in which rule, where in it (as `rules show` prints it), and what to do."""

    rule: str
    path: str
    problem: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Dictionary:
    """The VR of every keyword, and the keywords of attributes that hold one value at most (PS3.6)."""

    vrs: Vocabulary
    single_valued: Collection[str]

    def vr(self, subject: str) -> str:
        """ "" when nobody knows before a header is seen."""
        return FACTS.get(subject) or self.vrs.get(subject.rpartition(".")[2], "")

    def is_single(self, subject: str) -> bool:
        """Of a path, every item of its sequences may hold another value."""
        return subject in self.single_valued or subject in FACTS.keys() - _SEVERAL_VALUES_EACH


@dataclass(frozen=True, slots=True)
class _Claim:
    """A comparison that has to be true, or negated false, where it stands."""

    path: str
    comparison: Comparison
    negated: bool = False

    def words(self) -> str:
        return condition_text(Not(self.comparison) if self.negated else self.comparison)


def findings_in(rule: Rule, dictionary: Dictionary) -> list[Finding]:
    """In a rule alone."""
    found = [*_never_there(rule.when, "when", dictionary), *_exclusions(rule.when, "when", (), dictionary)]
    return [Finding(rule.name, path, problem, remedy) for path, problem, remedy in found]


# --------------------------------------------------------------------------------- conditions that exclude

_Found = tuple[str, str, str]


def _exclusions(condition: Condition, path: str, context: tuple[_Claim, ...], known: Dictionary) -> Iterator[_Found]:
    """Claims that cannot be true together, with those in whose company (`context`) the condition stands."""
    own = tuple(_claims(condition, path))
    for number, claim in enumerate(own):
        for other in (*context, *own[:number]):
            if _exclude(other, claim, known):
                yield claim.path, _both(other, claim), "no series can have both: change or remove one of the two"
                return
    for part, place in _branches(condition, path):
        inside = isinstance(part, Not)
        inner = part.part if isinstance(part, Not) else part
        yield from _exclusions(inner, place, () if inside else (*context, *own), known)


def _both(other: _Claim, claim: _Claim) -> str:
    return f"it says {claim.words()}, and {other.path} says {other.words()}"


def _claims(condition: Condition, path: str) -> Iterator[_Claim]:
    """What has to hold for the condition to be true, as far as it is no matter of alternatives."""
    match condition:
        case Comparison(subject):
            yield _Claim(f"{path}.{subject}", condition)
        case All(parts):
            for number, part in enumerate(parts):
                yield from _claims(part, f"{path}.all[{number}]")
        case Not(Comparison(subject) as comparison):
            yield _Claim(f"{path}.not.{subject}", comparison, True)
        case Not(AnyOf(parts)):
            for number, part in enumerate(parts):
                if isinstance(part, Comparison):
                    yield _Claim(f"{path}.not.any[{number}].{part.subject}", part, True)


def _branches(condition: Condition, path: str) -> Iterator[tuple[Condition, str]]:
    """The alternatives in it, and what is negated as a whole: each is looked at by itself."""
    match condition:
        case All(parts):
            for number, part in enumerate(parts):
                yield from _branches(part, f"{path}.all[{number}]")
        case AnyOf(parts):
            yield from ((part, f"{path}.any[{number}]") for number, part in enumerate(parts))
        case Not(part) if not isinstance(part, Comparison):
            yield condition, f"{path}.not"


def _exclude(one: _Claim, other: _Claim, known: Dictionary) -> bool:
    subject = one.comparison.subject
    if subject != other.comparison.subject or (one.negated and other.negated):
        return False
    if one.negated or other.negated:
        positive, negative = (other, one) if one.negated else (one, other)
        return _denied(positive.comparison, negative.comparison, known)
    vr = known.vr(subject)
    return bool(vr) and known.is_single(subject) and _apart(kind_of(vr), one.comparison, other.comparison)


def _denied(positive: Comparison, negative: Comparison, known: Dictionary) -> bool:
    """Every comparison needs a value, so none is true of an attribute that has none."""
    if negative.operator is Operator.EXISTS or positive == negative:
        return True
    vr = known.vr(positive.subject)
    if not vr or not {positive.operator, negative.operator} <= _VALUES:
        return False
    kind = kind_of(vr)
    covered = (any(equal(kind, value, no) for no in negative.operands) for value in positive.operands)
    return all(covered)


def _apart(kind: Kind, one: Comparison, other: Comparison) -> bool:
    """Whether no single value makes both true."""
    if {Operator.EXISTS, Operator.MATCHES} & {one.operator, other.operator}:
        return False
    if is_ordered(kind) and kind is not Kind.TEXT:
        return not any(overlap(a, b) for a in _spans(kind, one) for b in _spans(kind, other))
    if {one.operator, other.operator} <= _VALUES:
        return not any(equal(kind, a, b) for a in one.operands for b in other.operands)
    if one.operator is Operator.CONTAINS and other.operator in _VALUES:
        return not any(contains(kind, value, one.operands[0]) for value in other.operands)
    if other.operator is Operator.CONTAINS and one.operator in _VALUES:
        return _apart(kind, other, one)
    return False


def _spans(kind: Kind, comparison: Comparison) -> list[Span]:
    """The values for which it is true."""
    spans = [span_of(kind, operand) for operand in comparison.operands]
    match comparison.operator:
        case Operator.AT_LEAST:
            return [Span(spans[0].low, math.inf)]
        case Operator.AT_MOST:
            return [Span(-math.inf, spans[0].high)]
        case Operator.BETWEEN:
            return [Span(spans[0].low, spans[1].high)]
        case _:
            return spans


# --------------------------------------------------------------------------------- values that never come


def _never_there(condition: Condition, path: str, known: Dictionary) -> Iterator[_Found]:
    match condition:
        case All(parts) | AnyOf(parts):
            word = "all" if isinstance(condition, All) else "any"
            for number, part in enumerate(parts):
                yield from _never_there(part, f"{path}.{word}[{number}]", known)
        case Not(part):
            yield from _never_there(part, f"{path}.not", known)
        case Comparison(subject, operator, operands):
            if operator in _VALUES or operator is Operator.CONTAINS:
                for operand in operands:
                    yield from _impossible(f"{path}.{subject}", str(operand), known.vr(subject))


def _impossible(path: str, operand: str, vr: str) -> Iterator[_Found]:
    """A value that no attribute of the VR can hold (PS3.5 6.2)."""
    vr = vr.split(" ")[0]
    most = _CHARACTERS_MOST.get(vr)
    if "\\" in operand and vr and vr not in _ONE_VALUE_WITH_BACKSLASHES:
        parts = operand.split("\\")
        yield (
            path,
            f"{operand!r} is {len(parts)} values: a backslash stands between values and is never in one",
            f"ask for each by itself, as in {path.rpartition('.')[2]}: {{contains: {parts[0]}}}",
        )
    elif most and len(operand) > most:
        yield (
            path,
            f"{operand!r} is longer than the {most} characters that a {vr} holds",
            "shorten it, or use matches",
        )


# ----------------------------------------------------------------------------------- rules among others


def twins(rules: Sequence[Rule], others: Iterable[Rule] = ()) -> Iterator[Finding]:
    """Rules that say the same of the same model as one before them or as one of the others."""
    seen: dict[str, str] = {_meaning(rule): rule.name for rule in others if rule.enabled}
    for rule in rules:
        if rule.enabled and (first := seen.setdefault(_meaning(rule), rule.name)) != rule.name:
            problem = f"it runs {rule.model} on the same series as rule {first}, so each would be worked on twice"
            yield Finding(rule.name, "when", problem, f"keep one of the two: dicomnode rules remove {rule.name}")


def same_names(rules: Sequence[Rule]) -> Iterator[Finding]:
    for number, rule in enumerate(rules):
        if rule.name in {earlier.name for earlier in rules[:number]}:
            yield Finding(
                rule.name, "name", "two of these rules have this name", "the last one would win: rename one"
            )


def _meaning(rule: Rule) -> str:
    """Equal for rules that differ only in the order of parts."""
    return f"{rule.model} {_ordered(rule.when)}"


def _ordered(condition: Condition) -> str:
    match condition:
        case All(parts) | AnyOf(parts):
            word = "all" if isinstance(condition, All) else "any"
            return f"{word}({', '.join(sorted({_ordered(part) for part in parts}))})"
        case Not(part):
            return f"not({_ordered(part)})"
        case Comparison():
            return json.dumps(condition_document(condition), sort_keys=True)


def missing(
    rule: Rule, modalities: Mapping[str, Sequence[str]], destinations: Collection[str], dictionary: Dictionary
) -> list[Finding]:
    """What the rule needs of the node and is not there: `modalities` are those that each active model takes."""
    found = [*_about_model(rule, modalities, dictionary), *_about_destinations(rule, destinations)]
    return [Finding(rule.name, path, problem, remedy) for path, problem, remedy in found]


def _about_model(rule: Rule, modalities: Mapping[str, Sequence[str]], dictionary: Dictionary) -> Iterator[_Found]:
    if rule.model not in modalities:
        yield "model", f"no model {rule.model} is registered", _near(rule.model, modalities, "models add FOLDER")
    elif claim := _other_modality(rule, modalities[rule.model], dictionary):
        takes = " or ".join(modalities[rule.model])
        problem = f"the model {rule.model} takes {takes}, and the rule says {claim.words()}"
        yield claim.path, problem, "name a modality that the model takes, or another model"


def _about_destinations(rule: Rule, destinations: Collection[str]) -> Iterator[_Found]:
    for number, name in enumerate(rule.destinations):
        if name not in destinations:
            remedy = _near(name, destinations, f"destinations add {name} ...")
            yield f"destinations[{number}]", f"destination {name} does not exist", remedy
    if not rule.destinations and not destinations:
        yield (
            "destinations",
            "there is no destination yet, so results stay here",
            "dicomnode destinations add NAME ...",
        )


def _other_modality(rule: Rule, modalities: Sequence[str], dictionary: Dictionary) -> _Claim | None:
    taken = _Claim("model", Comparison("Modality", Operator.ONE_OF, tuple(modalities)))
    return next((claim for claim in _claims(rule.when, "when") if _exclude(taken, claim, dictionary)), None)


def _near(name: str, known: Iterable[str], command: str) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"dicomnode {command}" + (f", or did you mean {near[0]}?" if near else "")
