"""A rule, and a draft of its next revision, over all that was received: from the database alone, no file is read.

What both say of a series is found without explaining it; reasons are worked out for the few that are shown. Only
tallies and the last rows of each kind are kept, whatever the past is long.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from dicomnode.domain.class_facts import is_of_classes, open_subjects
from dicomnode.domain.conditions import settled
from dicomnode.domain.routing import Asked, OutcomeKind, RuleOutcome, decide_study
from dicomnode.domain.rule_needs import Needs, choices_of, conditions_of, needs_of
from dicomnode.domain.rules import (
    FACTS_OF_ALL_HEADERS,
    All,
    Choice,
    Condition,
    Not,
    Origin,
    Rule,
    RuleState,
    facts_in,
)
from dicomnode.domain.study import Evidence, SeriesState
from dicomnode.ports import PastSeries, PastStudy, State
from dicomnode.stages.asking import Priors, short_words

_TAKES = frozenset({OutcomeKind.MATCHED, OutcomeKind.SHADOW})


class Change(StrEnum):
    """What a draft would have done with a series, beside the rule in force."""

    NEW = "new"  # only the draft takes it
    GONE = "gone"  # only the rule in force takes it
    CHOSEN = "chosen"  # one of the two takes another series of the study instead
    INPUTS = "inputs"  # both take it, with other further series
    BOTH = "both"
    NEITHER = "neither"
    NOT_KNOWN = "not-known"  # facts that decide are not worked out yet, or no model gave the classes asked for
    NOT_READ = "not-read"  # nothing was ever read of it
    RECEIVING = "receiving"  # it, or its study where that has a say, is still being received
    NO_IMAGE = "no-image"  # no rule is asked about it
    OWN_RESULT = "own-result"  # no rule is asked about it


@dataclass(frozen=True, slots=True)
class Question:
    """A rule and what is asked before it and may keep a series from it."""

    rule: Rule
    stops: tuple[Asked, ...]

    @property
    def asked(self) -> Asked:
        return Asked(self.rule.name, 0, self.rule)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All that have a say."""
        return (*(stop.rule for stop in self.stops if isinstance(stop.rule, Rule)), self.rule)

    @property
    def needs_study(self) -> bool:
        return any(rule.needs_study for rule in self.rules)

    @property
    def needs_priors(self) -> bool:
        return any(role.origin is Origin.PRIOR for rule in self.rules for role in rule.roles)


def question(rule: Rule, others: Iterable[Asked]) -> Question:
    """Asked as if it were enabled, whatever its state; `others` are the rules in force."""
    enabled = replace(rule, state=RuleState.ENABLED)
    place = Asked(rule.name, 0, enabled).order
    stops = (asked for asked in others if isinstance(asked.rule, Rule) and _may_stop(asked.rule))
    return Question(enabled, tuple(a for a in stops if a.name != rule.name and a.order < place))


def _may_stop(rule: Rule) -> bool:
    return rule.stop and rule.state is RuleState.ENABLED


@dataclass(frozen=True, slots=True)
class Row:
    """A series and what became of it."""

    change: Change
    study: PastStudy
    series: PastSeries


@dataclass(slots=True)
class Tally:
    """Exact counts, and of each kind of difference the last rows received."""

    most: int
    studies: int = 0
    counts: Counter[Change] = field(default_factory=Counter)
    rows: dict[Change, deque[Row]] = field(default_factory=dict)

    @property
    def series(self) -> int:
        return self.counts.total()

    def add(self, row: Row) -> None:
        self.counts[row.change] += 1
        self.rows.setdefault(row.change, deque(maxlen=self.most)).append(row)

    def newest(self, change: Change) -> list[Row]:
        return list(reversed(self.rows.get(change, ())))


@dataclass(frozen=True, slots=True)
class Replay:
    """What is compared: the rule in force, None where there is none of the name, and what takes its place."""

    before: Question | None
    after: Question

    @property
    def needs(self) -> Needs:
        return needs_of(rule for side in self._sides for rule in side.rules)

    @property
    def needs_study(self) -> bool:
        return any(side.needs_study for side in self._sides)

    @property
    def _sides(self) -> tuple[Question, ...]:
        return tuple(side for side in (self.before, self.after) if side is not None)

    def tally(self, past: Iterable[PastStudy], priors: Priors, most: int) -> Iterator[Tally]:
        """The same tally after each study, for whoever tells how far it is."""
        told = Tally(most)
        before, after = _judge(self.before, priors), _judge(self.after, priors)
        same, together = self.before == self.after, self.needs_study
        for study in past:
            told.studies += 1
            evidence = _asked_about(study)
            new = after(study.study_instance_uid, evidence)
            old = new if same else before(study.study_instance_uid, evidence)
            both_take = any(v.takes for v in old.values()) and any(v.takes for v in new.values())
            waits = together and _is_receiving(study)
            for series in study.series:
                told.add(Row(_change(series, old, new, waits, both_take), study, series))
            yield told

    def reason(self, row: Row, priors: Priors) -> str:
        """What made the difference: why the rule in force did not take what is new, else the draft's words."""
        asked = self.before if row.change is Change.NEW and self.before is not None else self.after
        outcomes = dict(_StudyJudge(asked, priors).outcomes(row.study.study_instance_uid, _asked_about(row.study)))
        outcome = outcomes.get(row.series.series_instance_uid)
        return _words(outcome, row.change) if outcome else ""


def received(state: State) -> Priors:
    """Earlier studies as routing looks at them."""

    def priors(study_instance_uid: str) -> list[list[Evidence]]:
        return [state.study_evidence(uid) for uid in state.prior_studies(study_instance_uid)]

    return priors


# ------------------------------------------------------------------------------------------- of one series


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a question came to for a series; `takes` is None while it depends on what is not known."""

    takes: bool | None
    not_chosen: bool = False
    roles: Mapping[str, str] = field(default_factory=dict)

    @property
    def may_take(self) -> bool:
        return self.takes is not False or self.not_chosen


Verdicts = Mapping[str, Verdict]  # Series Instance UID → what it came to

_VERDICTS = {takes: Verdict(takes) for takes in (True, False, None)}


def _change(series: PastSeries, old: Verdicts, new: Verdicts, waits: bool, both_take: bool) -> Change:
    """`waits`: the study has a say and is still being received. `both_take`: each takes some series of the study."""
    if why := _never(series):
        return why
    one, other = old[series.series_instance_uid], new[series.series_instance_uid]
    if waits and (one.may_take or other.may_take):
        return Change.RECEIVING
    return _difference(one, other, both_take)


def _difference(one: Verdict, other: Verdict, both_take: bool) -> Change:
    if one.takes is None or other.takes is None:
        return Change.NOT_KNOWN
    if one.takes and other.takes:
        return Change.BOTH if one.roles == other.roles else Change.INPUTS
    if not one.takes and not other.takes:
        return Change.NEITHER
    passed_over = other if one.takes else one
    if passed_over.not_chosen and both_take:
        return Change.CHOSEN
    return Change.GONE if one.takes else Change.NEW


def _never(series: PastSeries) -> Change | None:
    """Why no rule can be asked about it."""
    if series.state is SeriesState.OWN_RESULT:
        return Change.OWN_RESULT
    if series.state is SeriesState.RECEIVING:
        return Change.RECEIVING
    if series.evidence is None:
        return Change.NOT_READ
    return Change.NO_IMAGE if series.evidence.no_image else None


def _is_receiving(study: PastStudy) -> bool:
    return any(series.state is SeriesState.RECEIVING for series in study.series)


def _asked_about(study: PastStudy) -> list[Evidence]:
    """As routing sees the study: what is still received and own results are no part of it."""
    hidden = (SeriesState.RECEIVING, SeriesState.OWN_RESULT)
    return [s.evidence for s in study.series if s.evidence is not None and s.state not in hidden]


# -------------------------------------------------------------------------------------------- of one study


def _judge(asked: Question | None, priors: Priors) -> Callable[[str, Sequence[Evidence]], Verdicts]:
    """What says of every series of a study what a question comes to; without a question nothing is taken."""
    if asked is None:
        return lambda study, evidence: {e.series_instance_uid: _VERDICTS[False] for e in evidence}
    if not asked.needs_study:
        whole = _with_stops(asked)
        asks = _class_facts(whole)
        return lambda study, evidence: {e.series_instance_uid: _VERDICTS[_settled(whole, e, asks)] for e in evidence}
    return _StudyJudge(asked, priors).verdicts


def _with_stops(asked: Question) -> Condition:
    """Rules of one series each, as one condition: none before it stops the series, and its own holds."""
    stops = tuple(Not(rule.when) for rule in asked.rules[:-1])
    return All((asked.rule.when, *stops)) if stops else asked.rule.when


def _class_facts(condition: Condition) -> frozenset[str]:
    return frozenset(filter(is_of_classes, facts_in(condition)))


def _settled(condition: Condition, evidence: Evidence, class_facts: frozenset[str]) -> bool | None:
    if evidence.no_image:
        return False
    headers = frozenset[str]() if evidence.all_facts else FACTS_OF_ALL_HEADERS
    unknown = headers | open_subjects(class_facts, evidence.facts)
    return settled(condition, evidence.header, evidence.facts, unknown)


class _StudyJudge:
    """Of a question on which the study has a say, by the code that routes."""

    def __init__(self, asked: Question, priors: Priors) -> None:
        self._question, self._asked = asked, asked.asked
        self._priors = priors
        self._conditions = [(c, _class_facts(c)) for rule in asked.rules for c in conditions_of(rule)]
        self._when = (asked.rule.when, _class_facts(asked.rule.when))
        self._asks_classes = any(class_facts for _, class_facts in self._conditions)
        self._measures = any(Choice.THINNEST_SLICES in choices_of(rule) for rule in asked.rules)

    def verdicts(self, study: str, evidence: Sequence[Evidence]) -> Verdicts:
        matches = {e.series_instance_uid: self._settled(e) for e in evidence}
        if not any(value is not False for value in matches.values()):
            return dict.fromkeys(matches, _VERDICTS[False])
        if any(self._is_open(e) for e in evidence):
            return {uid: _VERDICTS[False if value is False else None] for uid, value in matches.items()}
        return {uid: _verdict(outcome) for uid, outcome in self.outcomes(study, evidence)}

    def outcomes(self, study: str, evidence: Sequence[Evidence]) -> Iterator[tuple[str, RuleOutcome | None]]:
        """None of a series without images."""
        priors = self._priors(study) if self._question.needs_priors else ()
        for series in decide_study([*self._question.stops, self._asked], evidence, priors):
            outcome = next((o for o in series.outcomes if o.asked is self._asked), None)
            yield series.series_instance_uid, outcome

    def _is_open(self, evidence: Evidence) -> bool:
        """Whether what is not known of a series may change what the study comes to."""
        if evidence.no_image or (evidence.all_facts and not self._asks_classes):
            return False
        measures = self._measures and not evidence.all_facts
        return measures or any(_settled(c, evidence, asks) is None for c, asks in self._conditions)

    def _settled(self, evidence: Evidence) -> bool | None:
        return _settled(self._when[0], evidence, self._when[1])


def _verdict(outcome: RuleOutcome | None) -> Verdict:
    if outcome is None:
        return _VERDICTS[False]
    if outcome.kind in _TAKES:
        return Verdict(True, roles=outcome.roles)
    return Verdict(False, not_chosen=outcome.kind is OutcomeKind.NOT_CHOSEN)


def _words(outcome: RuleOutcome, change: Change) -> str:
    """Without the rule's name; of a choice nothing but that."""
    if change is Change.CHOSEN and outcome.kind in _TAKES and outcome.selection is not None:
        return outcome.selection.words
    return short_words(outcome)
