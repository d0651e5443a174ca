"""Which attributes and facts rules look at, so that nothing else need be read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from dicomnode.domain.class_facts import class_fact, known_by
from dicomnode.domain.rules import (
    All,
    AnyOf,
    Choice,
    Comparison,
    Condition,
    Not,
    Rule,
    fact_vr,
)

# Beside the conditions: by these a series is named in reasons, and the lowest number has the last word of a choice
_ALWAYS = frozenset({"Modality", "SeriesNumber"})
# What domain.selection looks at
_CHOICE_NEEDS: Mapping[Choice, frozenset[str]] = {
    Choice.THINNEST_SLICES: frozenset({"MeasuredSliceSpacing", "SliceThickness"}),
    Choice.MOST_INSTANCES: frozenset({"NumberOfInstances"}),
    Choice.KERNEL: frozenset({"ConvolutionKernel"}),
    Choice.LATEST: frozenset({"SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime"}),
    Choice.LOWEST_NUMBER: frozenset({"SeriesNumber"}),
}


@dataclass(frozen=True, slots=True)
class Needs:
    """Sorted; attributes of sequences by the outermost sequence."""

    keywords: tuple[str, ...]
    facts: tuple[str, ...]


def needs_of(rules: Iterable[Rule]) -> Needs:
    names = _ALWAYS.union(*(_of_rule(rule) for rule in rules))
    facts = {name for name in names if fact_vr(name)}
    return Needs(tuple(sorted(names - facts)), tuple(sorted(facts)))


def conditions_of(rule: Rule) -> tuple[Condition, ...]:
    """All of them: on the series, on the study, on the series of its roles."""
    return (rule.when, *rule.study.has, *rule.study.has_not, *(role.when for role in rule.roles))


def choices_of(rule: Rule) -> frozenset[Choice]:
    """Those by which it prefers one series to another."""
    preferences = [rule.choose, *(role.choose for role in rule.roles)]
    return frozenset(preference.choice for of_one in preferences for preference in of_one)


def _of_rule(rule: Rule) -> frozenset[str]:
    chosen = frozenset[str]().union(*(_CHOICE_NEEDS[choice] for choice in choices_of(rule)))
    return chosen.union(*(_subjects(condition) for condition in conditions_of(rule)))


def _subjects(condition: Condition) -> Iterator[str]:
    match condition:
        case All(parts) | AnyOf(parts):
            for part in parts:
                yield from _subjects(part)
        case Not(part):
            yield from _subjects(part)
        case Comparison():
            yield condition.steps[0]
            if asked := class_fact(condition.subject):
                yield known_by(asked.model)
