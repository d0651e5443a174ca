"""Rules: which model runs on which series. A rule is data: a closed tree of conditions, read in rule_reading.

name: torso-ct
description: thin axial CT of the trunk
order: 100                              # lower is asked first, then by name
when:                                   # several in one mapping: all of them
  all:
    - Modality: CT                      # short for {equals: CT}
    - ImageType: {contains: AXIAL}
    - SliceThickness: {at_most: 5}
    - any:
        - BodyPartExamined: [CHEST, ABDOMEN]          # short for {one_of: [...]}
        - SeriesDescription: {matches: "(?i)torso|trunk"}
    - not: {ImageType: {contains: LOCALIZER}}
    - NumberOfInstances: {at_least: 10}               # a fact the node knows, see FACTS
    - Class(slice-ct-region): chest                   # what a model said of the series, see domain.class_facts
study:                                  # what else is in the study
  has: [{Modality: PT}]                 # each holds for some series
  has_not: [{Modality: SR}]             # each holds for none
choose: [thinnest_slices, {kernel: [B30f, Br40]}]     # one of those that match; all: every one
roles:                                  # further series that the model needs
  pet: {when: {Modality: PT}, from: study, choose: [most_instances]}
model: torso-ct                         # may be left out with `stop: true`
version: active                         # or one of the registered ones, as "1.0.0"
parameters: {overlap: 0.5}              # as far as the model takes them
priority: routine                       # stat, high, routine, low
schedule: now                           # or "20:00-06:00", or a list of such
destinations: [pacs]                    # none named: all destinations
results: [SEG, SR]                      # what is sent; none named: all
stop: false                             # true: a series that it matches is not shown to later rules
state: enabled                          # enabled, shadow, disabled

How values compare is in domain.values, what a condition says of a series in domain.conditions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import time
from enum import StrEnum
from functools import lru_cache
from typing import Any

from dicomnode.domain.class_facts import class_vr, models_of
from dicomnode.domain.job import Priority
from dicomnode.domain.values import Operand

# What the node knows of a series beside its attributes, with the VR it compares as; FLAG is true or false.
FACTS: Mapping[str, str] = {
    "CallingAETitle": "AE",
    "CalledAETitle": "AE",
    "NumberOfInstances": "IS",
    "ReceivedTimeOfDay": "TM",
    "AgeInYears": "DS",
    "IsLocalizer": "FLAG",
    "IsAVolume": "FLAG",
    "Orientation": "CS",
    "MeasuredSliceSpacing": "DS",
}
# Beside them those of domain.class_facts, which name a model.
# Facts that take the headers of all instances: they are worked out only when a rule asks for them.
FACTS_OF_ALL_HEADERS = frozenset({"IsLocalizer", "IsAVolume", "Orientation", "MeasuredSliceSpacing"})
ORIENTATIONS = ("axial", "coronal", "sagittal", "oblique")
# Keyword → VR (PS3.6). Given as an argument, for the dictionary is not in the standard library.
Vocabulary = Mapping[str, str]

# one step of a path: a keyword, or a private tag by group, element and creator
STEP = r"(?:[A-Za-z][A-Za-z0-9]*|\([0-9a-fA-F]{4},[0-9a-fA-F]{2},[^()\\]{1,64}\))"
_STEPS = re.compile(STEP)


class Operator(StrEnum):
    EQUALS = "equals"
    ONE_OF = "one_of"
    CONTAINS = "contains"
    MATCHES = "matches"
    AT_LEAST = "at_least"
    AT_MOST = "at_most"
    BETWEEN = "between"  # both ends included
    EXISTS = "exists"  # `exists: false` is read as not exists


Parameter = str | int | float | bool
ORDERING = frozenset({Operator.AT_LEAST, Operator.AT_MOST, Operator.BETWEEN})


@dataclass(frozen=True, slots=True)
class Comparison:
    """One attribute or fact against operands: one, but several for one_of, two for between, none for exists."""

    subject: str  # a keyword, a path of them, a private tag, or a fact
    operator: Operator
    operands: tuple[Operand, ...] = ()

    @property
    def steps(self) -> tuple[str, ...]:
        return steps_of(self.subject)


@dataclass(frozen=True, slots=True)
class All:
    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    part: Condition


Condition = Comparison | All | AnyOf | Not


class RuleState(StrEnum):
    ENABLED = "enabled"
    SHADOW = "shadow"  # decided and recorded, nothing runs
    DISABLED = "disabled"  # asked nothing


class Choice(StrEnum):
    """How one of several series is preferred; each decides among those that the ones before leave equal."""

    THINNEST_SLICES = "thinnest_slices"  # by MeasuredSliceSpacing, else SliceThickness; unknown last
    MOST_INSTANCES = "most_instances"
    KERNEL = "kernel"  # ConvolutionKernel, in the order of `values`, others last
    LATEST = "latest"  # by SeriesDate and SeriesTime, else AcquisitionDate and -Time; unknown last
    LOWEST_NUMBER = "lowest_number"  # SeriesNumber; the last resort of every choice, then the UID


@dataclass(frozen=True, slots=True)
class Preference:
    choice: Choice
    values: tuple[str, ...] = ()  # of KERNEL


class Origin(StrEnum):
    STUDY = "study"  # of the same study
    PRIOR = "prior"  # of the newest earlier study of the same patient that has one


@dataclass(frozen=True, slots=True)
class Role:
    """A further series that the model needs beside the one that `when` finds, by the name the model card gives it."""

    name: str
    when: Condition
    origin: Origin = Origin.STUDY
    choose: tuple[Preference, ...] = ()


@dataclass(frozen=True, slots=True)
class StudyConditions:
    """Each of `has` holds for some series of the study, the one in question too; each of `has_not` for none."""

    has: tuple[Condition, ...] = ()
    has_not: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Window:
    """Daily hours, the node's local time; one that ends before it begins goes over midnight."""

    start: time
    end: time


@dataclass(frozen=True, slots=True)
class Rule:
    name: str
    when: Condition
    model: str = ""  # "": the rule runs nothing and is there to stop others
    version: str = "active"  # of the model, or the one that is active when the series is routed
    description: str = ""
    order: int = 100  # lower first, then by name: what `stop` keeps from being asked
    study: StudyConditions = StudyConditions()
    choose: tuple[Preference, ...] = ()  # none: every series that matches
    roles: tuple[Role, ...] = ()
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    priority: Priority = Priority.ROUTINE
    schedule: tuple[Window, ...] = ()  # none: now
    destinations: tuple[str, ...] = ()  # none: all
    results: tuple[str, ...] = ()  # kinds to send, as "SEG"; none: all that the model gives
    stop: bool = False  # a series that it matches is not shown to the rules after it
    state: RuleState = RuleState.ENABLED

    @property
    def enabled(self) -> bool:
        """Whether it is asked at all."""
        return self.state is not RuleState.DISABLED

    @property
    def runs_model(self) -> bool:
        """Whether it makes jobs: it has a model, and is no shadow."""
        return bool(self.model) and self.state is RuleState.ENABLED

    @property
    def needs_study(self) -> bool:
        """Whether it can only be decided once the whole study is there."""
        return bool(self.study.has or self.study.has_not or self.choose or self.roles)


@lru_cache(maxsize=4096)
def steps_of(subject: str) -> tuple[str, ...]:
    """The path of an attribute: sequences first, the attribute last; of a fact the fact."""
    return (subject,) if fact_vr(subject) else tuple(_STEPS.findall(subject))


def fact_vr(subject: str) -> str:
    """The VR that a fact compares as; "" of what is no fact."""
    return FACTS.get(subject) or class_vr(subject)


def facts_in(condition: Condition) -> frozenset[str]:
    """The facts that a condition asks for."""
    match condition:
        case All(parts) | AnyOf(parts):
            return frozenset().union(*map(facts_in, parts))
        case Not(part):
            return facts_in(part)
        case Comparison(subject):
            return frozenset({subject} if fact_vr(subject) else ())


def classes_asked(rule: Rule) -> frozenset[str]:
    """The models whose classes its conditions ask for: of the series, of others in the study, of roles."""
    conditions = (rule.when, *rule.study.has, *rule.study.has_not, *(role.when for role in rule.roles))
    return models_of(frozenset().union(*map(facts_in, conditions)))


# ------------------------------------------------------------------------------------------------ printing


def rule_document(rule: Rule) -> dict[str, Any]:
    """The rule as parse_rule reads it, JSON-able, with every default written out but what is empty anyway."""
    return {
        "name": rule.name,
        **_unless_empty("description", rule.description),
        "order": rule.order,
        "when": condition_document(rule.when),
        **_unless_empty("study", _study_document(rule.study)),
        **(_job_document(rule) if rule.model else {}),
        "stop": rule.stop,
        "state": str(rule.state),
    }


def _job_document(rule: Rule) -> dict[str, Any]:
    return {
        "choose": choose_document(rule.choose),
        **_unless_empty("roles", {role.name: _role_document(role) for role in rule.roles}),
        "model": rule.model,
        "version": rule.version,
        **_unless_empty("parameters", dict(rule.parameters)),
        "priority": str(rule.priority),
        "schedule": [window_text(window) for window in rule.schedule] or "now",
        "destinations": list(rule.destinations),
        **_unless_empty("results", list(rule.results)),
    }


def _unless_empty(name: str, value: Any) -> dict[str, Any]:
    return {name: value} if value else {}


def _study_document(study: StudyConditions) -> dict[str, Any]:
    return {
        **_unless_empty("has", [condition_document(condition) for condition in study.has]),
        **_unless_empty("has_not", [condition_document(condition) for condition in study.has_not]),
    }


def _role_document(role: Role) -> dict[str, Any]:
    chosen = _unless_empty("choose", choose_document(role.choose) if role.choose else None)
    return {"when": condition_document(role.when), "from": str(role.origin), **chosen}


def choose_document(choose: tuple[Preference, ...]) -> str | list[Any]:
    """ "all", or the preferences in their order."""
    return [{str(p.choice): list(p.values)} if p.values else str(p.choice) for p in choose] or "all"


def window_text(window: Window) -> str:
    """As it is written: 20:00-06:00."""
    return f"{window.start:%H:%M}-{window.end:%H:%M}"


def condition_document(condition: Condition) -> dict[str, Any]:
    match condition:
        case All(parts):
            return {"all": [condition_document(part) for part in parts]}
        case AnyOf(parts):
            return {"any": [condition_document(part) for part in parts]}
        case Not(part):
            return {"not": condition_document(part)}
        case Comparison(subject, operator, operands):
            return {subject: {str(operator): _printed(operator, operands)}}


def condition_text(condition: Condition) -> str:
    """On one line, for lists: Modality equals 'CT' and not (ImageType contains 'LOCALIZER')."""
    match condition:
        case All(parts) | AnyOf(parts):
            word = " and " if isinstance(condition, All) else " or "
            return word.join(_bracketed(part) if len(parts) > 1 else condition_text(part) for part in parts)
        case Not(part):
            return f"not ({condition_text(part)})"
        case Comparison(subject, operator, operands):
            shown = (str(o).lower() if isinstance(o, bool) else repr(o) for o in operands)
            words = [subject, str(operator).replace("_", " "), ", ".join(shown)]
            return " ".join(word for word in words if word)


def _bracketed(condition: Condition) -> str:
    text = condition_text(condition)
    return f"({text})" if isinstance(condition, All | AnyOf) and len(condition.parts) > 1 else text


def _printed(operator: Operator, operands: tuple[Operand, ...]) -> Any:
    if operator is Operator.EXISTS:
        return True
    return list(operands) if operator in (Operator.ONE_OF, Operator.BETWEEN) else operands[0]
