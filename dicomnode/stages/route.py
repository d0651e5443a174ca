"""Which models run on a series: every enabled rule is asked, and what each said is kept in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dicomnode.domain.conditions import Decision, decide
from dicomnode.domain.rules import parse_rule
from dicomnode.domain.study import Element, Header, Series
from dicomnode.errors import CannotDecode, InvalidRule
from dicomnode.imaging.attributes import read_header
from dicomnode.ports import Clock, InstanceStore, NewJob, RuleRevision, State

NO_RULE = "no rule exists; add one with dicomnode rules add FILE"
# PS3.6 annex A: raw data, registrations, fiducials, segmentations and the like begin so. Some of them have
# rows and columns, but none is an image that a model could look at.
_NO_SOURCE_IMAGES = "1.2.840.10008.5.1.4.1.1.66"
_UNREADABLE_MOST = 8


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
        try:
            header = self._header(series)
        except CannotDecode as error:
            return Routing((), str(error), {"code": error.code})
        if reason := no_image_reason(series, header):
            return Routing((), reason, {"code": "no-image"})
        return combine([self._apply(revision, header, facts_of(series)) for revision in rules])

    def _header(self, series: Series) -> Header:
        """Of the first instance that can be read; raises the first one's error when the first few cannot."""
        first: CannotDecode | None = None
        for instance in series.instances[:_UNREADABLE_MOST]:
            try:
                return read_header(Path(self._store.path(instance.path)))
            except CannotDecode as error:
                first = first or error
        raise first or CannotDecode("the series has no instance")

    def _apply(self, revision: RuleRevision, header: Header, facts: Header) -> Outcome:
        try:
            decision = decide(parse_rule(revision.document), header, facts)
        except InvalidRule as error:
            return Outcome(f"rule {revision.name} cannot be read: {error}", revision)
        if not decision.matches:
            return Outcome(decision.why(), revision, decision)
        model = self._state.active_model(decision.rule.model)
        if model is None:
            missing = (
                f"{decision.why()}; but no model {decision.rule.model} is registered (dicomnode models add FOLDER)"
            )
            return Outcome(missing, revision, decision)
        destinations, words = self._destinations(decision)
        job = NewJob(revision, model, decision.rule.priority, destinations)
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


def combine(outcomes: list[Outcome]) -> Routing:
    """The rules that made a job first: whoever reads the reason wants to know what runs."""
    ordered = [o for o in outcomes if o.job] + [o for o in outcomes if not o.job]
    jobs = tuple(o.job for o in ordered if o.job)
    why = ". ".join([ordered[0].words, *(o.words[:1].upper() + o.words[1:] for o in ordered[1:])])
    return Routing(jobs, why, {"rules": [o.document() for o in ordered]})


def facts_of(series: Series) -> Header:
    """What domain.rules.FACTS names, of this series."""
    return {
        "CallingAETitle": Element("AE", (series.calling_ae_title,) if series.calling_ae_title else ()),
        "CalledAETitle": Element("AE", (series.called_ae_title,) if series.called_ae_title else ()),
        "NumberOfInstances": Element("IS", (len(series.instances),)),
    }


def no_image_reason(series: Series, header: Header) -> str:
    """Why there is nothing in it for a model to look at: a report, a presentation state, a plan; else ""."""
    classes = {instance.sop_class_uid for instance in series.instances}
    pixels = all(keyword in header and header[keyword].values for keyword in ("Rows", "Columns"))
    if pixels and not any(uid.startswith(_NO_SOURCE_IMAGES) for uid in classes):
        return ""
    return f"the series holds no image to work on: it is {series.modality or 'of no modality'}"
