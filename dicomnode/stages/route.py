"""Which models run on a series: every enabled rule is asked, and what each said is kept in words.

A series is routed when it is complete, by the rules that look at one series; its study when that is complete, by
those that look at the study and those that had to wait for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dicomnode.domain.class_facts import open_subjects
from dicomnode.domain.conditions import settled
from dicomnode.domain.job import Priority
from dicomnode.domain.routing import Asked, OutcomeKind, RuleOutcome, SeriesOutcomes, decide_series, decide_study
from dicomnode.domain.rule_reading import parse_rule
from dicomnode.domain.rules import (
    FACTS_OF_ALL_HEADERS,
    Condition,
    Rule,
    RuleState,
    classes_asked,
    facts_in,
)
from dicomnode.domain.study import Evidence, Series
from dicomnode.errors import CannotDecode, InvalidRule
from dicomnode.ports import Clock, InstanceStore, ModelVersion, NewJob, RuleRevision, SeriesRouting, State
from dicomnode.stages.evidence import completed, first_look, to_keep, unreadable, with_classes
from dicomnode.stages.preceding import lacking, models_before
from dicomnode.stages.study_evidence import StudyEvidence

NO_RULE = "no rule exists; add one with dicomnode rules add FILE"
_ACTIVE = "active"
_WITHOUT_NEWS = frozenset({OutcomeKind.NOT_MATCHED, OutcomeKind.WAITS_FOR_STUDY})
_WAITS = OutcomeKind.WAITS_FOR_CLASSES


@dataclass(frozen=True, slots=True)
class Routing:
    """Where a series goes, and why in words and in JSON."""

    jobs: tuple[NewJob, ...]
    why: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    evidence: Evidence | None = None  # that rules were asked about
    settled: frozenset[str] = frozenset()  # the rules that were decided with the whole study


class RouteStage:
    def __init__(self, state: State, store: InstanceStore, clock: Clock) -> None:
        self._state, self._store, self._clock = state, store, clock

    def route(self, series: Series) -> list[str]:
        """Decides and records; the ids of the jobs that were made. Raises StateError."""
        started_s = self._clock.monotonic()
        routing = self.decide(series)
        kept = to_keep(routing.evidence) if routing.evidence else None
        detail = self._timed(routing.detail, started_s)
        return self._state.record_routing(series, routing.jobs, routing.why, detail, kept)

    def route_study(self, study_instance_uid: str, generation: int) -> list[str]:
        """What the series' own routing could not decide; the ids of the jobs that were made. Raises StateError."""
        started_s = self._clock.monotonic()
        routings = [
            SeriesRouting(series, r.jobs, r.why, self._timed(r.detail, started_s), r.settled)
            for series, r in self.decide_study(study_instance_uid)
        ]
        return self._state.record_study_routing(study_instance_uid, generation, routings)

    def decide(self, series: Series) -> Routing:
        """Of a series alone; reads what is needed and changes nothing."""
        revisions = self._state.enabled_rules()
        asked = self._asked(revisions)
        try:
            evidence = self._look(series, asked)
        except CannotDecode as error:
            why = str(error) if asked else self._no_rule()
            return Routing((), why, {"code": error.code}, unreadable(series, str(error)))
        if not asked:
            return Routing((), self._no_rule(), {}, evidence)
        if evidence.no_image:
            return Routing((), evidence.no_image, {"code": "no-image"}, evidence)
        said = self._say(revisions, decide_series(asked, evidence).outcomes)
        return combine(said, [s for s in said if not s.outcome.deferred], evidence)

    def decide_study(self, study_instance_uid: str) -> list[tuple[Series, Routing]]:
        """Of the series of a study, those of which there is more to say now; only evidence is kept."""
        revisions = self._state.enabled_rules()
        asked = self._asked(revisions)
        rules = [a.rule for a in asked if isinstance(a.rule, Rule)]
        if not any(rule.needs_study for rule in rules):
            return []
        found = StudyEvidence(self._state, self._store, rules).find(study_instance_uid)
        decided = decide_study(asked, found.evidence, found.priors)
        return [
            (found.series[outcomes.series_instance_uid], self._of_study(revisions, outcomes))
            for outcomes in decided
            if any(o.kind is _WAITS or (o.deferred and o.kind not in _WITHOUT_NEWS) for o in outcomes.outcomes)
        ]

    def _of_study(self, revisions: Sequence[RuleRevision], outcomes: SeriesOutcomes) -> Routing:
        said = self._say(revisions, outcomes.outcomes)
        settled = [s for s in said if s.outcome.deferred and s.outcome.kind is not _WAITS]
        return combine(said, settled, outcomes.evidence)

    def _no_rule(self) -> str:
        return "every rule is disabled" if self._state.rules() else NO_RULE

    def _look(self, series: Series, asked: Sequence[Asked]) -> Evidence:
        """Raises CannotDecode when no header can be read."""
        first = first_look(series, self._place)
        if any(isinstance(a.rule, Rule) and classes_asked(a.rule) for a in asked):
            first = with_classes(first, self._state.class_news(series.study_instance_uid))
        return completed(first, series, self._place, list(_conditions(asked, first)), sparing=True)

    def _place(self, path: str) -> Path:
        return Path(self._store.path(path))

    def _timed(self, detail: Mapping[str, Any], started_s: float) -> dict[str, Any]:
        return {**detail, "seconds": round(self._clock.monotonic() - started_s, 4)}

    def _asked(self, revisions: Sequence[RuleRevision]) -> list[Asked]:
        """With what keeps the models whose classes are asked for from giving any."""
        asked = [_asked(revision) for revision in revisions]
        models = frozenset[str]().union(*(classes_asked(a.rule) for a in asked if isinstance(a.rule, Rule)))
        return [
            replace(a, lack=self._lack(a.rule)) if isinstance(a.rule, Rule) and a.rule.model in models else a
            for a in asked
        ]

    def _lack(self, rule: Rule) -> str:
        model, missing = self._model(rule)
        if model is None:
            return missing
        return "" if model.card.classification else f"{model.name} {model.version} gives no classes"

    # ------------------------------------------------------------------------------------------- what it comes to

    def _say(self, revisions: Sequence[RuleRevision], outcomes: Iterable[RuleOutcome]) -> list[Said]:
        by_name = {revision.name: revision for revision in revisions}
        return [self._said(by_name[outcome.asked.name], outcome) for outcome in outcomes]

    def _said(self, revision: RuleRevision, outcome: RuleOutcome) -> Said:
        if not outcome.runs:
            return Said(outcome.words, outcome)
        rule = outcome.rule
        destinations, words, lacks = self._destinations(rule)
        model, missing = self._model(rule)
        if model is not None:
            missing = lacking(model, self._state)
        if model is None or missing:
            named = {"model": rule.model, "version": rule.version}
            return Said(f"{outcome.words}; but {missing}", outcome, lacks=named | lacks)
        shadow = self._state.shadow_of(rule.model) if rule.version == _ACTIVE else None
        job = NewJob(
            revision,
            model,
            rule.priority,
            destinations,
            parameters=dict(rule.parameters),
            objects=rule.results,
            inputs=outcome.roles,
            schedule=rule.schedule,
            before=models_before(model, self._state),
        )
        beside = as_shadow(job, shadow, models_before(shadow, self._state)) if shadow else None
        return Said(f"{outcome.words}{words}", outcome, job, beside, lacks)

    def _model(self, rule: Rule) -> tuple[ModelVersion | None, str]:
        """The version that is to run, or why there is none and what to do."""
        if rule.version == _ACTIVE:
            active = self._state.active_model(rule.model)
            return active, "" if active else self._none_active(rule.model)
        missing = (
            f"no version {rule.version} of {rule.model} is registered (dicomnode models add FOLDER, or let the rule "
            "say version: active)"
        )
        return self._state.model_version(rule.model, rule.version), missing

    def _none_active(self, name: str) -> str:
        versions = [model.version for model in self._state.models() if model.name == name]
        if not versions:
            return f"no model {name} is registered (dicomnode models add FOLDER)"
        there = ", ".join(versions)
        return f"no version of {name} is active, of {there} (dicomnode models activate {name} {versions[-1]})"

    def _destinations(self, rule: Rule) -> tuple[tuple[str, ...], str, dict[str, Any]]:
        """Those that the rule names and that exist, all when it names none; and what is amiss, as words and data."""
        known = [destination.name for destination in self._state.destinations()]
        named = rule.destinations
        going = tuple(name for name in named if name in known) if named else tuple(known)
        absent = [name for name in named if name not in known]
        words = "".join(f"; destination {name} does not exist" for name in absent)
        lacks = {"destinations": absent} if absent else {}
        return going, words if going else f"{words}; its results are kept here and go nowhere", lacks


@dataclass(frozen=True, slots=True)
class Said:
    """What one rule came to, with what the node has to carry it out."""

    words: str
    outcome: RuleOutcome
    job: NewJob | None = None
    shadow: NewJob | None = None  # the same of the model's shadow version
    lacks: Mapping[str, Any] = field(default_factory=dict)  # what the rule names and the node has not, JSON-able

    @property
    def jobs(self) -> tuple[NewJob, ...]:
        return tuple(job for job in (self.job, self.shadow) if job is not None)

    def document(self) -> dict[str, Any]:
        model = f"{self.job.model.name} {self.job.model.version}" if self.job else None
        shadow = {"shadow": f"{self.shadow.model.name} {self.shadow.model.version}"} if self.shadow else {}
        lacks = {"lacks": dict(self.lacks)} if self.lacks else {}
        return {**self.outcome.document(), "words": self.words, "model": model, **shadow, **lacks}


def as_shadow(job: NewJob, model: ModelVersion, before: Mapping[str, ModelVersion]) -> NewJob:
    """The same of another version, after everything else and with results that go nowhere."""
    return replace(job, model=model, before=before, priority=Priority.LOW, destinations=(), shadow=True)


def _asked(revision: RuleRevision) -> Asked:
    """A rule that cannot be read must not stop the others, so the error is a value."""
    try:
        return Asked(revision.name, revision.revision, parse_rule(revision.document))
    except InvalidRule as error:
        return Asked(revision.name, revision.revision, error)


def _conditions(asked: Iterable[Asked], first: Evidence) -> Iterable[Condition]:
    """Those that matter for the series: none after a rule that stops it, whatever its images hold."""
    for rule in sorted((a for a in asked if isinstance(a.rule, Rule)), key=lambda a: a.order):
        assert isinstance(rule.rule, Rule)
        yield rule.rule.when
        if _surely_stops(rule.rule, first):
            return


def _surely_stops(rule: Rule, first: Evidence) -> bool:
    if not rule.stop or rule.needs_study or rule.state is not RuleState.ENABLED:
        return False
    unknown = FACTS_OF_ALL_HEADERS | open_subjects(facts_in(rule.when), first.facts)
    return settled(rule.when, first.header, first.facts, unknown) is True


def combine(said: Sequence[Said], deciding: Sequence[Said], evidence: Evidence) -> Routing:
    """The jobs of those that are decided now; in words, what runs comes first, and what never could comes last."""
    ordered = sorted(said, key=_rank)
    jobs = tuple(job for s in deciding for job in s.jobs)
    why = ". ".join([ordered[0].words, *(s.words[:1].upper() + s.words[1:] for s in ordered[1:])])
    names = frozenset(s.outcome.asked.name for s in deciding)
    return Routing(jobs, why, {"rules": [s.document() for s in ordered]}, evidence, names)


def _rank(said: Said) -> int:
    if said.job:
        return 0
    return 2 if said.outcome.kind in (OutcomeKind.NOT_MATCHED, OutcomeKind.STOPPED) else 1
