"""Which models run on a series: every enabled rule is asked, and what each said is kept in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dicomnode.domain.conditions import Decision, decide
from dicomnode.domain.rule_reading import parse_rule
from dicomnode.domain.rules import Rule
from dicomnode.domain.study import Series
from dicomnode.errors import CannotDecode, InvalidRule
from dicomnode.ports import Clock, InstanceStore, NewJob, RuleRevision, State
from dicomnode.stages.evidence import Evidence, gather

NO_RULE = "no rule exists; add one with dicomnode rules add FILE"


@dataclass(frozen=True, slots=True)
class Routing:
    """Where a series goes, and why in words and in JSON."""

    jobs: tuple[NewJob, ...]
    why: str
    detail: Mapping[str, Any] = field(default_factory=dict)


class RouteStage:
    def __init__(self, state: State, store: InstanceStore, clock: Clock) -> None:
        self._state, self._store, self._clock = state, store, clock

    def route(self, series: Series) -> list[str]:
        """Decides and records; the ids of the jobs that were made. Raises StateError."""
        started_s = self._clock.monotonic()
        routing = self.decide(series)
        detail = {**routing.detail, "seconds": round(self._clock.monotonic() - started_s, 4)}
        return self._state.record_routing(series, routing.jobs, routing.why, detail)

    def decide(self, series: Series) -> Routing:
        """Reads what is needed and changes nothing."""
        rules = [r for r in self._state.enabled_rules() if r.document.get("enabled", True)]
        if not rules:
            return Routing((), NO_RULE if not self._state.rules() else "every rule is disabled")
        asked = [(revision, _read(revision)) for revision in rules]
        conditions = [rule.when for _, rule in asked if isinstance(rule, Rule)]
        try:
            evidence = gather(series, self._place, conditions, sparing=True)
        except CannotDecode as error:
            return Routing((), str(error), {"code": error.code})
        if evidence.no_image:
            return Routing((), evidence.no_image, {"code": "no-image"})
        return combine([self._apply(revision, rule, evidence) for revision, rule in asked])

    def _place(self, path: str) -> Path:
        return Path(self._store.path(path))

    def _apply(self, revision: RuleRevision, rule: Rule | InvalidRule, evidence: Evidence) -> Outcome:
        if isinstance(rule, InvalidRule):
            return Outcome(f"rule {revision.name} cannot be read: {rule}", revision)
        decision = decide(rule, evidence.header, evidence.facts)
        if not decision.matches:
            return Outcome(decision.why(), revision, decision)
        model = self._state.active_model(rule.model)
        if model is None:
            missing = f"{decision.why()}; but no model {rule.model} is registered (dicomnode models add FOLDER)"
            return Outcome(missing, revision, decision)
        destinations, words = self._destinations(decision)
        job = NewJob(revision, model, rule.priority, destinations)
        return Outcome(f"{decision.why()}{words}", revision, decision, job)

    def _destinations(self, decision: Decision) -> tuple[tuple[str, ...], str]:
        """Those that the rule names and that exist, all when it names none; and words for what is amiss."""
        known = [destination.name for destination in self._state.destinations()]
        named = decision.rule.destinations
        going = tuple(name for name in named if name in known) if named else tuple(known)
        words = "".join(f"; destination {name} does not exist" for name in named if name not in known)
        return going, words if going else f"{words}; its results are kept here and go nowhere"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one rule came to."""

    words: str
    revision: RuleRevision
    decision: Decision | None = None  # None: the rule could not be read
    job: NewJob | None = None

    def document(self) -> dict[str, Any]:
        said = self.decision.document() if self.decision else {"rule": self.revision.name, "matches": False}
        model = f"{self.job.model.name} {self.job.model.version}" if self.job else None
        return {**said, "revision": self.revision.revision, "words": self.words, "model": model}


def _read(revision: RuleRevision) -> Rule | InvalidRule:
    """One that cannot be read must not stop the others, so the error is a value."""
    try:
        return parse_rule(revision.document)
    except InvalidRule as error:
        return error


def combine(outcomes: list[Outcome]) -> Routing:
    """The rules that made a job first: whoever reads the reason wants to know what runs."""
    ordered = [o for o in outcomes if o.job] + [o for o in outcomes if not o.job]
    jobs = tuple(o.job for o in ordered if o.job)
    why = ". ".join([ordered[0].words, *(o.words[:1].upper() + o.words[1:] for o in ordered[1:])])
    return Routing(jobs, why, {"rules": [o.document() for o in ordered]})
