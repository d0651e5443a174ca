"""What every rule comes to for every series of a study: the rules asked in their order, with all that has a say.

Two phases. When a series is complete, rules that look at one series are decided; those that look at the study wait,
and so does what comes after a rule that may still stop the series. When the study is complete, all are decided.

In both, a rule that asks for the classes that a model gives waits while a job may still give them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from dicomnode.domain.class_waits import (
    Awaited,
    Prospect,
    awaited_classes,
    awaited_in_study,
    never_coming,
    with_nothing_given,
)
from dicomnode.domain.conditions import Decision, Explanation, decide, explain
from dicomnode.domain.rules import (
    Condition,
    Origin,
    Role,
    Rule,
    RuleState,
    classes_asked,
    condition_document,
    condition_text,
)
from dicomnode.domain.selection import Selection, select, series_name
from dicomnode.domain.study import Evidence
from dicomnode.errors import InvalidRule

_SHOWN_CHARACTERS = 120
_ORDER_UNREADABLE = 100  # of a rule of which nobody can say: what a rule has that does not say


class OutcomeKind(StrEnum):
    """What a rule came to for a series."""

    MATCHED = "matched"
    SHADOW = "shadow"  # it would have matched
    NOT_MATCHED = "not-matched"
    NOT_CHOSEN = "not-chosen"  # another series of the study is preferred
    STUDY_CONDITION_FALSE = "study-condition-false"
    ROLE_MISSING = "role-missing"  # the model's further series is not there
    WAITS_FOR_STUDY = "waits-for-study"
    WAITS_FOR_CLASSES = "waits-for-classes"  # that a model gives: its job is not over
    STOPPED = "stopped"  # an earlier rule stopped the series
    UNREADABLE = "unreadable"  # the rule is


@dataclass(frozen=True, slots=True)
class Asked:
    """A rule's revision as it is asked; what cannot be read must not keep the others from it."""

    name: str
    revision: int
    rule: Rule | InvalidRule
    lack: str = ""  # why its model cannot give classes here, where somebody asks for them

    @property
    def order(self) -> tuple[int, str]:
        return (self.rule.order if isinstance(self.rule, Rule) else _ORDER_UNREADABLE, self.name)


@dataclass(frozen=True, slots=True)
class StudyClause:
    """What a condition on the study found: a series for which it holds, if there is one."""

    condition: Condition
    wanted: bool  # some series must fit; else none may
    series_instance_uid: str = ""
    explanation: Explanation | None = None
    words: str = ""

    @property
    def holds(self) -> bool:
        return self.wanted == bool(self.series_instance_uid)

    def document(self) -> dict[str, Any]:
        return {
            "has" if self.wanted else "has_not": condition_document(self.condition),
            "holds": self.holds,
            "series": self.series_instance_uid or None,
            "words": self.words,
        }


@dataclass(frozen=True, slots=True)
class Filled:
    """The series that a role found."""

    role: Role
    selection: Selection
    words: str  # names it: "PT series 4"

    def document(self) -> dict[str, Any]:
        return {"role": self.role.name, "from": str(self.role.origin), **self.selection.document()}


@dataclass(frozen=True, slots=True)
class RuleOutcome:
    """What one rule came to for one series, and all that was looked at on the way."""

    asked: Asked
    kind: OutcomeKind
    words: str
    decision: Decision | None = None  # None: the rule was not asked, or cannot be read
    deferred: bool = False  # it took the whole study to know, or will
    study: tuple[StudyClause, ...] = ()
    selection: Selection | None = None
    filled: tuple[Filled, ...] = ()
    stopped_by: str = ""  # the rule that stopped the series, or may still
    awaits: frozenset[Awaited] = frozenset()  # the classes that it waits for

    @property
    def rule(self) -> Rule:
        """Of an outcome with a decision."""
        assert isinstance(self.asked.rule, Rule)
        return self.asked.rule

    @property
    def runs(self) -> bool:
        """Whether a model is to run."""
        return self.kind is OutcomeKind.MATCHED and bool(self.rule.model)

    @property
    def roles(self) -> dict[str, str]:
        """Role → Series Instance UID."""
        return {found.role.name: found.selection.series_instance_uid for found in self.filled}

    def document(self) -> dict[str, Any]:
        """JSON-able, for the database and for --json."""
        return {
            "rule": self.asked.name,
            "revision": self.asked.revision,
            "outcome": str(self.kind),
            "matches": self.kind is OutcomeKind.MATCHED,
            "words": self.words,
            **({"when": self.decision.explanation.document()} if self.decision else {}),
            **({"study": [clause.document() for clause in self.study]} if self.study else {}),
            **({"choose": self.selection.document()} if self.selection else {}),
            **({"roles": [found.document() for found in self.filled]} if self.filled else {}),
            **({"stopped_by": self.stopped_by} if self.stopped_by else {}),
            **({"awaits": sorted({model for _, model in self.awaits})} if self.awaits else {}),
        }


@dataclass(frozen=True, slots=True)
class SeriesOutcomes:
    """What the rules came to for one series, in the order in which they were asked; none of one without images."""

    evidence: Evidence
    outcomes: tuple[RuleOutcome, ...]

    @property
    def series_instance_uid(self) -> str:
        return self.evidence.series_instance_uid


def decide_study(
    rules: Iterable[Asked],
    study: Iterable[Evidence],
    priors: Sequence[Sequence[Evidence]] = (),
    complete: bool = True,
) -> list[SeriesOutcomes]:
    """For each series of the study, in an order that does not depend on how they came.

    `priors` are earlier studies of the patient, the newest first. While the study is not complete, `study` may hold
    one series alone.
    """
    ordered = sorted(rules, key=lambda asked: asked.order)
    shown = list(study)
    while True:
        decided = _Study(shown, priors, complete).decided(ordered)
        never = _never_coming(decided, complete)
        if not never:
            return decided
        shown = list(with_nothing_given(shown, never, _lacks(ordered)))


def decide_series(rules: Iterable[Asked], series: Evidence) -> SeriesOutcomes:
    """What can be said of a series before its study is complete."""
    (outcomes,) = decide_study(rules, [series], complete=False)
    return outcomes


def _never_coming(decided: Sequence[SeriesOutcomes], complete: bool) -> frozenset[Awaited]:
    awaited = frozenset[Awaited]().union(*(o.awaits for series in decided for o in series.outcomes))
    if not awaited:
        return awaited
    return never_coming(awaited, [series.evidence for series in decided], list(_prospects(decided, complete)))


def _prospects(decided: Iterable[SeriesOutcomes], complete: bool) -> Iterator[Prospect]:
    """Rules that will make a job: when the study is complete those of a series alone have made theirs before."""
    for series in decided:
        for outcome in series.outcomes:
            now = outcome.kind is OutcomeKind.MATCHED and (outcome.deferred or not complete)
            waits = outcome.kind in (OutcomeKind.WAITS_FOR_STUDY, OutcomeKind.WAITS_FOR_CLASSES)
            if (now or waits) and not outcome.asked.lack and outcome.rule.runs_model:
                yield Prospect(series.series_instance_uid, outcome.rule.model, outcome.awaits)


def _lacks(rules: Iterable[Asked]) -> dict[str, str]:
    return {asked.rule.model: asked.lack for asked in rules if isinstance(asked.rule, Rule) and asked.lack}


@dataclass(slots=True)
class _Subject:
    """A series while the rules are asked one after the other."""

    evidence: Evidence
    stopped_by: str = ""
    awaited: str = ""  # a rule that may stop it once the study is complete, or its classes are known
    awaits: frozenset[Awaited] = frozenset()  # those classes
    deferred: bool = False  # what the rules from here on say took the whole study
    outcomes: list[RuleOutcome] = field(default_factory=list)


class _Study:
    def __init__(self, study: Iterable[Evidence], priors: Sequence[Sequence[Evidence]], complete: bool) -> None:
        self._all = sorted(study, key=lambda e: (series_name(e), e.series_instance_uid))
        self._priors = priors
        self._complete = complete
        self._subjects = [_Subject(evidence) for evidence in self._all]
        self._with_images = [subject for subject in self._subjects if not subject.evidence.no_image]

    def decided(self, rules: Iterable[Asked]) -> list[SeriesOutcomes]:
        for asked in rules:
            if isinstance(asked.rule, InvalidRule):
                self._tell_unreadable(asked, asked.rule)
            elif asked.rule.enabled:
                self._ask(asked, asked.rule)
        return [SeriesOutcomes(subject.evidence, tuple(subject.outcomes)) for subject in self._subjects]

    def _tell_unreadable(self, asked: Asked, error: InvalidRule) -> None:
        for subject in self._with_images:
            words = f"rule {asked.name} cannot be read: {error}"
            subject.outcomes.append(RuleOutcome(asked, OutcomeKind.UNREADABLE, words))

    def _ask(self, asked: Asked, rule: Rule) -> None:
        """One rule of all series; what it stops is stopped for the rules after it, not for itself."""
        shown = [subject.evidence for subject in self._with_images if not subject.stopped_by]
        decisions = {e.series_instance_uid: decide(rule, e.header, e.facts) for e in shown}
        asks = classes_asked(rule)
        matching = [e for e in shown if decisions[e.series_instance_uid].matches]
        together = self._complete and matching
        question = _Question(
            asked,
            rule,
            self._complete,
            decisions,
            clauses=_clauses(rule, self._all) if together else (),
            selection=select(rule.choose, matching) if together and rule.choose else None,
            role_studies={Origin.STUDY: [shown], Origin.PRIOR: self._priors},
            awaited={e.series_instance_uid: awaited_classes(rule.when, e) for e in shown} if asks else {},
            awaited_in_study=awaited_in_study(rule, self._all, shown) if asks and self._complete else frozenset(),
        )
        told = [(subject, question.outcome(subject)) for subject in self._with_images]
        for subject, outcome in told:
            _settle(subject, rule, outcome)


def _settle(subject: _Subject, rule: Rule, outcome: RuleOutcome) -> None:
    subject.outcomes.append(outcome)
    if not rule.stop or rule.state is RuleState.SHADOW:
        return
    if outcome.kind is OutcomeKind.MATCHED:
        subject.stopped_by = rule.name
    elif outcome.kind in (OutcomeKind.WAITS_FOR_STUDY, OutcomeKind.WAITS_FOR_CLASSES):
        subject.awaited, subject.awaits = subject.awaited or rule.name, subject.awaits | outcome.awaits
    if rule.needs_study and outcome.decision is not None and outcome.decision.matches:
        subject.deferred = True


def _clauses(rule: Rule, study: Sequence[Evidence]) -> tuple[StudyClause, ...]:
    has = tuple(_clause(condition, True, study) for condition in rule.study.has)
    return has + tuple(_clause(condition, False, study) for condition in rule.study.has_not)


def _clause(condition: Condition, wanted: bool, study: Sequence[Evidence]) -> StudyClause:
    for evidence in study:
        explanation = explain(condition, evidence.header, evidence.facts)
        if explanation.holds:
            which = "" if wanted else ", which it must not"
            words = f"the study has {series_name(evidence)}{which}: {explanation.words()}"
            return StudyClause(condition, wanted, evidence.series_instance_uid, explanation, words)
    return StudyClause(condition, wanted, words=f"no series of the study has {_shown(condition)}")


@dataclass(frozen=True, slots=True)
class _Question:
    """One rule, and what it finds in the study for all of its series alike."""

    asked: Asked
    rule: Rule
    complete: bool
    decisions: Mapping[str, Decision]  # of the series shown to the rule
    clauses: tuple[StudyClause, ...]
    selection: Selection | None
    role_studies: Mapping[Origin, Sequence[Sequence[Evidence]]]  # where a role may find its series, best first
    awaited: Mapping[str, frozenset[Awaited]]  # of the series shown to the rule: classes that settle its condition
    awaited_in_study: frozenset[Awaited]  # of any series: classes on which what the study comes to depends

    def outcome(self, subject: _Subject) -> RuleOutcome:
        decision = self.decisions.get(subject.evidence.series_instance_uid)
        if decision is None:
            return self._stopped(subject)
        if own := self.awaited.get(subject.evidence.series_instance_uid):
            return self._waits_for_classes(subject, decision, own | subject.awaits)
        if not decision.matches:
            return RuleOutcome(self.asked, OutcomeKind.NOT_MATCHED, decision.why(), decision)
        if subject.awaits:
            words = (
                f"waits for rule {subject.awaited}, which may stop it once {_given_words(subject.awaits)} are known"
            )
            return self._waits_for_classes(subject, decision, subject.awaits, words)
        if subject.awaited:
            words = f"waits for rule {subject.awaited}, which may stop it once the study is complete"
            return self._waits(decision, words, subject.awaited)
        if self.rule.needs_study and not self.complete:
            needs = "; ".join(_needed_words(self.rule))
            words = f"waits for the whole study: {decision.explanation.words()}; it needs {needs}"
            return self._waits(decision, words)
        if self.awaited_in_study:
            return self._waits_for_classes(subject, decision, self.awaited_in_study)
        return self._decided(subject, decision)

    def _stopped(self, subject: _Subject) -> RuleOutcome:
        by, deferred = subject.stopped_by, subject.deferred
        words = f"rule {self.rule.name} was not asked: rule {by} stopped it"
        return RuleOutcome(self.asked, OutcomeKind.STOPPED, words, deferred=deferred, stopped_by=by)

    def _waits(self, decision: Decision, words: str, for_rule: str = "") -> RuleOutcome:
        words = f"rule {self.rule.name} {words}"
        kind = OutcomeKind.WAITS_FOR_STUDY
        return RuleOutcome(self.asked, kind, words, decision, deferred=True, stopped_by=for_rule)

    def _waits_for_classes(
        self, subject: _Subject, decision: Decision, awaits: frozenset[Awaited], words: str = ""
    ) -> RuleOutcome:
        elsewhere = " of its study" * any(uid != subject.evidence.series_instance_uid for uid, _ in awaits)
        words = f"rule {self.rule.name} {words or f'waits for {_given_words(awaits)}{elsewhere}'}"
        deferred, kind = subject.deferred or self.rule.needs_study, OutcomeKind.WAITS_FOR_CLASSES
        by = subject.awaited if subject.awaits else ""
        return RuleOutcome(self.asked, kind, words, decision, deferred=deferred, stopped_by=by, awaits=awaits)

    def _decided(self, subject: _Subject, decision: Decision) -> RuleOutcome:
        """`when` holds, and all that the rule looks at is there."""
        filled, missing = self._roles(subject.evidence)
        kind, words = self._refused(subject.evidence, missing) or self._matched(decision, filled)
        deferred = subject.deferred or self.rule.needs_study
        return RuleOutcome(self.asked, kind, words, decision, deferred, self.clauses, self.selection, filled)

    def _refused(self, own: Evidence, missing: Role | None) -> tuple[OutcomeKind, str] | None:
        name, selection = self.rule.name, self.selection
        for clause in self.clauses:
            if not clause.holds:
                return OutcomeKind.STUDY_CONDITION_FALSE, f"rule {name} did not match: {clause.words}"
        if selection is not None and selection.series_instance_uid != own.series_instance_uid:
            words = selection.passed_over[own.series_instance_uid]
            return OutcomeKind.NOT_CHOSEN, f"rule {name} did not choose it: {words}"
        if missing is not None:
            return OutcomeKind.ROLE_MISSING, f"rule {name} did not match: {_missing_words(missing)}"
        return None

    def _matched(self, decision: Decision, filled: tuple[Filled, ...]) -> tuple[OutcomeKind, str]:
        words = [decision.explanation.words(), *(clause.words for clause in self.clauses)]
        words += [self.selection.words] if self.selection else []
        words += [f"{found.role.name} is {found.words}" for found in filled]
        if self.rule.state is RuleState.SHADOW:
            return OutcomeKind.SHADOW, f"rule {self.rule.name}, a shadow, would have matched: {'; '.join(words)}"
        words += ["no rule after it is asked"] if self.rule.stop else []
        return OutcomeKind.MATCHED, f"rule {self.rule.name} matched: {'; '.join(words)}"

    def _roles(self, own: Evidence) -> tuple[tuple[Filled, ...], Role | None]:
        """The series of every role, or the first role that finds none. No series has two parts."""
        filled: list[Filled] = []
        taken = {own.series_instance_uid}
        for role in self.rule.roles:
            found = self._found(role, taken)
            if found is None:
                return tuple(filled), role
            filled.append(found)
            taken.add(found.selection.series_instance_uid)
        return tuple(filled), None

    def _found(self, role: Role, taken: set[str]) -> Filled | None:
        for study in self.role_studies[role.origin]:
            fitting = [e for e in study if e.series_instance_uid not in taken and _fits(role, e)]
            if fitting:
                selection = select(role.choose, fitting)
                (chosen,) = (e for e in fitting if e.series_instance_uid == selection.series_instance_uid)
                earlier = " of an earlier study" if role.origin is Origin.PRIOR else ""
                return Filled(role, selection, f"{series_name(chosen)}{earlier}")
        return None


def _given_words(awaits: Iterable[Awaited]) -> str:
    models = sorted({model for _, model in awaits})
    return f"the classes that {' and '.join(models)} give{'s' * (len(models) == 1)}"


def _fits(role: Role, evidence: Evidence) -> bool:
    return not evidence.no_image and explain(role.when, evidence.header, evidence.facts).holds


def _needed_words(rule: Rule) -> Iterator[str]:
    """What a rule looks for in the study beside the series itself."""
    yield from (f"a series with {_shown(condition)}" for condition in rule.study.has)
    yield from (f"no series with {_shown(condition)}" for condition in rule.study.has_not)
    for role in rule.roles:
        earlier = " of an earlier study" if role.origin is Origin.PRIOR else ""
        yield f"a series{earlier} as {role.name}, with {_shown(role.when)}"
    if rule.choose:
        yield "all series that match, to choose one of them"


def _missing_words(role: Role) -> str:
    prior = role.origin is Origin.PRIOR
    where = "no earlier study of the patient has a series that" if prior else "no series of the study"
    return f"{where} fits as {role.name}: {_shown(role.when)}"


def _shown(condition: Condition) -> str:
    """As much of it as one reads in a sentence; the rule has the rest."""
    text = condition_text(condition)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1].rstrip()}…"
