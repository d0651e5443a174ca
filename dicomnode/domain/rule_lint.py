"""What is wrong with rules that read well: conditions that exclude one another, values that never come, twins,
rules that another one keeps from being asked. What a rule asks of models and destinations is in rule_fit.

Only what is certain is found: a rule without findings may still match nothing that a hospital has.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain

from dicomnode.domain.clauses import VALUES, Claim, Dictionary, claims, exclude, implies
from dicomnode.domain.rules import (
    All,
    AnyOf,
    Choice,
    Comparison,
    Condition,
    Not,
    Operator,
    Origin,
    Preference,
    Rule,
    RuleState,
    condition_document,
)

# PS3.5 6.2: what a value may hold, for the VRs that rules compare as text
_CHARACTERS_MOST: Mapping[str, int] = {"AE": 16, "CS": 16, "SH": 16, "LO": 64, "UI": 64}
_ONE_VALUE_WITH_BACKSLASHES = frozenset({"LT", "ST", "UT", "UR", "UN"})


class Severity(StrEnum):
    ERROR = "error"  # it can never work as it is written, whatever is registered later; not added unless forced
    WARNING = "warning"  # something is not there yet, or it is hardly what was meant
    ADVICE = "advice"  # it works, at a price


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong in which rule, where in it (as `rules show` prints it), and what to do."""

    rule: str
    path: str
    problem: str
    remedy: str
    severity: Severity = Severity.ERROR


Found = tuple[str, str, str]  # path, problem, remedy


def named(rule: Rule, found: Iterable[Found], severity: Severity = Severity.ERROR) -> list[Finding]:
    return [Finding(rule.name, path, problem, remedy, severity) for path, problem, remedy in found]


def findings_in(rule: Rule, dictionary: Dictionary) -> list[Finding]:
    """In a rule alone."""
    each = (_in_condition(condition, path, dictionary) for path, condition in conditions_of(rule))
    errors = chain(*each, _excluded_by_study(rule, dictionary))
    idle = chain(_always_in_study(rule, dictionary), _about_choice(rule))
    return named(rule, errors) + named(rule, idle, Severity.WARNING)


def conditions_of(rule: Rule) -> Iterator[tuple[str, Condition]]:
    """Every condition of a rule with its path."""
    yield "when", rule.when
    yield from ((f"study.has[{number}]", condition) for number, condition in enumerate(rule.study.has))
    yield from ((f"study.has_not[{number}]", condition) for number, condition in enumerate(rule.study.has_not))
    yield from ((f"roles.{role.name}.when", role.when) for role in rule.roles)


def _in_condition(condition: Condition, path: str, known: Dictionary) -> Iterator[Found]:
    yield from _never_there(condition, path, known)
    yield from _exclusions(condition, path, (), known)


# --------------------------------------------------------------------------------- conditions that exclude


def _exclusions(condition: Condition, path: str, context: tuple[Claim, ...], known: Dictionary) -> Iterator[Found]:
    """Claims that cannot be true together, with those in whose company (`context`) the condition stands."""
    own = tuple(claims(condition, path))
    for number, claim in enumerate(own):
        for other in (*context, *own[:number]):
            if exclude(other, claim, known):
                yield claim.path, _both(other, claim), "no series can have both: change or remove one of the two"
                return
    for part, place in _branches(condition, path):
        inside = isinstance(part, Not)
        inner = part.part if isinstance(part, Not) else part
        yield from _exclusions(inner, place, () if inside else (*context, *own), known)


def _both(other: Claim, claim: Claim) -> str:
    return f"it says {claim.words()}, and {other.path} says {other.words()}"


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


# --------------------------------------------------------------------------------- values that never come


def _never_there(condition: Condition, path: str, known: Dictionary) -> Iterator[Found]:
    match condition:
        case All(parts) | AnyOf(parts):
            word = "all" if isinstance(condition, All) else "any"
            for number, part in enumerate(parts):
                yield from _never_there(part, f"{path}.{word}[{number}]", known)
        case Not(part):
            yield from _never_there(part, f"{path}.not", known)
        case Comparison(subject, operator, operands):
            if operator in VALUES or operator is Operator.CONTAINS:
                for operand in operands:
                    yield from _impossible(f"{path}.{subject}", str(operand), known.vr(subject))


def _impossible(path: str, operand: str, vr: str) -> Iterator[Found]:
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


# ------------------------------------------------------------------------------- the study and the choice


def _excluded_by_study(rule: Rule, known: Dictionary) -> Iterator[Found]:
    """What the rule itself finds is in the study, too: a role from another study is not."""
    there = [("when", rule.when), *((f"study.has[{n}]", condition) for n, condition in enumerate(rule.study.has))]
    there += [(f"roles.{role.name}.when", role.when) for role in rule.roles if role.origin is Origin.STUDY]
    for number, absent in enumerate(rule.study.has_not):
        for path, condition in there:
            if implies(condition, absent, known):
                problem = f"no series of the study may be so, and {path} asks for one that is: it never matches"
                yield f"study.has_not[{number}]", problem, "change or remove one of the two"
                break


def _always_in_study(rule: Rule, known: Dictionary) -> Iterator[Found]:
    for number, condition in enumerate(rule.study.has):
        if implies(rule.when, condition, known):
            problem = "it is always true: the series that `when` finds is in the study itself"
            yield f"study.has[{number}]", problem, "say what the other series has that this one has not, or remove it"


def _about_choice(rule: Rule) -> Iterator[Found]:
    choices = [("choose", rule.choose, rule.when)]
    choices += [(f"roles.{role.name}.choose", role.choose, role.when) for role in rule.roles]
    for path, preferences, condition in choices:
        for number, preference in enumerate(preferences):
            for claim in claims(condition, f"{path.removesuffix('choose')}when"):
                if not claim.negated and _settles(claim.comparison, preference):
                    problem = f"it never decides: {claim.path} says {claim.words()}, so all series are alike in it"
                    yield f"{path}[{number}]", problem, "remove one of the two"


_CHOSEN_BY: Mapping[Choice, str] = {
    Choice.MOST_INSTANCES: "NumberOfInstances",
    Choice.THINNEST_SLICES: "MeasuredSliceSpacing",
    Choice.KERNEL: "ConvolutionKernel",
    Choice.LOWEST_NUMBER: "SeriesNumber",
}


def _settles(comparison: Comparison, preference: Preference) -> bool:
    """Whether a claim leaves every series the same by the preference."""
    if comparison.subject != _CHOSEN_BY.get(preference.choice) or comparison.operator is not Operator.EQUALS:
        return False
    if preference.choice is Choice.KERNEL:
        return str(comparison.operands[0]).casefold() == preference.values[0].casefold()
    return True


# ----------------------------------------------------------------------------------- rules among others


def twins(rules: Sequence[Rule], others: Iterable[Rule] = ()) -> Iterator[Finding]:
    """Rules that run the same on the same as one before them or as one of the others."""
    seen: dict[tuple[object, ...], Rule] = {_meaning(rule): rule for rule in others if _runs(rule)}
    for rule in filter(_runs, rules):
        first = seen.setdefault(_meaning(rule), rule)
        if first.name != rule.name and not min(first, rule, key=place_of).stop:
            problem = (
                f"it runs {rule.model} on the same series as rule {first.name}, so each would be worked on twice"
            )
            remedy = f"keep one of the two: dicomnode rules remove {rule.name}"
            yield Finding(rule.name, "when", problem, remedy, Severity.WARNING)


def _runs(rule: Rule) -> bool:
    return bool(rule.model) and rule.state is RuleState.ENABLED


def same_names(rules: Sequence[Rule]) -> Iterator[Finding]:
    for number, rule in enumerate(rules):
        if rule.name in {earlier.name for earlier in rules[:number]}:
            yield Finding(
                rule.name, "name", "two of these rules have this name", "the last one would win: rename one"
            )


def never_asked(rules: Sequence[Rule], others: Sequence[Rule], dictionary: Dictionary) -> Iterator[Finding]:
    """Rules before which another one, with `stop`, takes every series that they would match."""
    everyone = sorted([*rules, *others], key=place_of)
    for number, rule in enumerate(everyone):
        stop = next((earlier for earlier in everyone[:number] if _takes_all(earlier, rule, dictionary)), None)
        if stop and rule in rules:
            problem = f"it never gets a series: rule {stop.name} (order {stop.order}) takes all of them and says stop"
            remedy = f"give it an order below {stop.order}, or change what they match"
            yield Finding(rule.name, "order", problem, remedy, Severity.WARNING)
        elif stop and stop in rules:
            problem = f"rule {rule.name} (order {rule.order}) would never get a series: this one takes all of them"
            remedy = f"give it an order above {rule.order}, or change what they match"
            yield Finding(stop.name, "stop", problem, remedy, Severity.WARNING)


def place_of(rule: Rule) -> tuple[int, str]:
    """Where it stands in the order of asking."""
    return rule.order, rule.name


def _takes_all(stop: Rule, rule: Rule, known: Dictionary) -> bool:
    """Whether every series that the rule would match is certainly stopped before it.

    One that takes one series of several, or needs further ones, may leave some.
    """
    if not stop.stop or stop.state is not RuleState.ENABLED or stop.choose or stop.roles:
        return False
    here = (rule.when, *rule.study.has)
    return (
        implies(rule.when, stop.when, known)
        and all(any(implies(one, wanted, known) for one in here) for wanted in stop.study.has)
        and all(any(implies(no, nor, known) for nor in rule.study.has_not) for no in stop.study.has_not)
    )


def _meaning(rule: Rule) -> tuple[object, ...]:
    """Equal for rules that differ only in the order of parts, and in what one of them could say for both."""
    return (
        rule.model,
        rule.version,
        _ordered(rule.when),
        frozenset(map(_ordered, rule.study.has)),
        frozenset(map(_ordered, rule.study.has_not)),
        rule.choose,
        frozenset((role.name, _ordered(role.when), role.origin, role.choose) for role in rule.roles),
        json.dumps(dict(rule.parameters), sort_keys=True),
        frozenset(rule.results),  # the SEG to one place and the SR to another take two rules
    )


def _ordered(condition: Condition) -> str:
    match condition:
        case All(parts) | AnyOf(parts):
            word = "all" if isinstance(condition, All) else "any"
            return f"{word}({', '.join(sorted({_ordered(part) for part in parts}))})"
        case Not(part):
            return f"not({_ordered(part)})"
        case Comparison():
            return json.dumps(condition_document(condition), sort_keys=True)
