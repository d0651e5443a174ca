"""Where a study stands, in the values that advice about it goes by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from dicomnode.domain.completeness import (
    Need,
    Policy,
    SeriesSigns,
    StudySigns,
    Verdict,
    Wait,
    series_verdict,
    study_verdict,
)
from dicomnode.domain.contiguity import look_at_stack
from dicomnode.domain.routing import OutcomeKind
from dicomnode.domain.study import SeriesState, StudyState
from dicomnode.ports import Event, JobView, State, StudyView

ROUTINGS = ("series.routed", "series.not-routed", "series.waits")
_ACTIVE = "active"


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a series or a study waits for before it counts as complete."""

    words: str
    until: datetime  # it goes on by then, if nothing comes meanwhile
    short: bool = False  # somebody says that there are more instances


@dataclass(frozen=True, slots=True)
class Shortage:
    """A series or a study that was closed with fewer instances than there are."""

    here: int
    missing: int
    by: str  # who says so, as in "C-FIND to PACS@192.0.2.1:104"


@dataclass(frozen=True, slots=True)
class Lack:
    """Something that a rule named when it matched, and that the node did not have."""

    rule: str
    what: str  # "model torso-ct", "version 2.0.0 of model torso-ct", "destination pacs"
    series: tuple[str, ...]  # Series Instance UIDs
    is_destination: bool = False
    mended: bool = False  # it is there now, or the rule is another one
    registered: str = ""  # a version of the model that is there, where none is active: "torso-ct 1.0.0"


@dataclass(frozen=True, slots=True)
class Situation:
    """`waiting` and `short` are by Series Instance UID, and by Study Instance UID for the study as a whole."""

    study: StudyView
    jobs: Sequence[JobView]
    now: datetime
    waiting: Mapping[str, Waiting] = field(default_factory=dict)
    short: Mapping[str, Shortage] = field(default_factory=dict)
    lacks: Sequence[Lack] = ()
    awaiting: Mapping[str, Sequence[str]] = field(default_factory=dict)  # series → rules that wait for the study
    unreadable: Mapping[str, str] = field(default_factory=dict)  # series → why no rule could be asked of it
    without_images: frozenset[str] = frozenset()  # series of which no rule can make a job
    unwanted: frozenset[str] = frozenset()  # jobs with results that their rule does not want sent

    @property
    def is_study_open(self) -> bool:
        return self.study.state in (StudyState.RECEIVING, StudyState.COMPLETE)

    @property
    def study_rules(self) -> list[str]:
        """Rules that wait for the whole study."""
        return sorted({rule for rules in self.awaiting.values() for rule in rules})


def situation(
    state: State, study: StudyView, jobs: Sequence[JobView], events: Sequence[Event], policy: Policy, now: datetime
) -> Situation:
    routing = last_of_each(events, ROUTINGS)
    codes = {uid: str(event.detail.get("code", "")) for uid, event in routing.items()}
    return Situation(
        study=study,
        jobs=jobs,
        now=now,
        waiting=waits(state, study, policy, now),
        short=_shortages(study, events),
        lacks=_lacks(state, routing),
        awaiting={uid: rules for uid, event in routing.items() if (rules := rules_that_wait(event))},
        unreadable={uid: routing[uid].message for uid, code in codes.items() if code not in ("", "no-image")},
        without_images=frozenset(uid for uid, code in codes.items() if code == "no-image"),
        unwanted=frozenset(event.job_id for event in events if event.kind == "delivery.unwanted"),
    )


def last_of_each(events: Iterable[Event], kinds: Sequence[str]) -> dict[str, Event]:
    """Series Instance UID → the last event of these kinds."""
    return {event.series_instance_uid: event for event in events if event.kind in kinds}


def rules_that_wait(routing: Event) -> list[str]:
    """For the whole study, as a series was routed; for classes a job does, and that is shown."""
    rules = routing.detail.get("rules", [])
    return [rule["rule"] for rule in rules if rule.get("outcome") == OutcomeKind.WAITS_FOR_STUDY]


# ------------------------------------------------------------------------------------------------ completeness


def waits(state: State, study: StudyView, policy: Policy, now: datetime) -> dict[str, Waiting]:
    """Of those of its series that are still received, or of the study when all of them are here."""
    uid = study.study_instance_uid
    if any(series.state is SeriesState.RECEIVING for series in study.series):
        signs = [s for s in state.receiving_series() if s.study_instance_uid == uid]
        return {s.series_instance_uid: _waiting(_series_wait(state, s, policy), now, _is_short(s)) for s in signs}
    if study.state is not StudyState.RECEIVING:
        return {}
    of_study = [s for s in state.receiving_studies() if s.study_instance_uid == uid]
    return {s.study_instance_uid: _waiting(study_verdict(s, policy), now, _is_study_short(s)) for s in of_study}


def _series_wait(state: State, signs: SeriesSigns, policy: Policy) -> Verdict | Wait:
    found = series_verdict(signs, policy)
    if isinstance(found, Wait) and Need.CONTIGUITY in found.needs:
        stack = look_at_stack(state.places(signs.series_instance_uid), signs.modality)
        return series_verdict(signs, policy, stack)
    return found


def _waiting(found: Verdict | Wait, now: datetime, short: bool) -> Waiting:
    latest_s = found.latest_s if isinstance(found, Wait) else 0.0
    return Waiting(found.words, now + timedelta(seconds=max(0.0, latest_s)), short)


def _is_short(signs: SeriesSigns) -> bool:
    return signs.expected > signs.instances or signs.missing > 0


def _is_study_short(signs: StudySigns) -> bool:
    counted = signs.counted.instances if signs.counted else 0
    return counted > signs.instances or any(a.missing for a in signs.announced)


def _shortages(study: StudyView, events: Sequence[Event]) -> dict[str, Shortage]:
    """As it was when each series, and the study, was closed last."""
    closed = [s.series_instance_uid for s in study.series if s.state not in _NOT_CLOSED]
    complete = last_of_each(events, ("series.complete",))
    found = {uid: short for uid in closed if uid in complete and (short := shortage(complete[uid]))}
    of_series = sum(short.missing for short in found.values())
    of_study = last_of_each(events, ("study.complete",)).get("")
    short = shortage(of_study) if of_study and study.state is not StudyState.RECEIVING else None
    if short and short.missing > of_series:  # else what its series lack is all of it
        found[study.study_instance_uid] = short
    return found


_NOT_CLOSED = (SeriesState.RECEIVING, SeriesState.OWN_RESULT)


def shortage(complete: Event) -> Shortage | None:
    """By the signs that a decision keeps about who counted, and who announced, how many instances."""
    here, signs = complete.detail.get("instances", 0), complete.detail.get("signs", {})
    found = list(_said_missing(here, signs))
    missing, by = max(found, default=(0, ""))
    return Shortage(here, missing, by) if missing > 0 else None


def _said_missing(here: int, signs: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    if counted := signs.get("counted"):
        yield counted["instances"] - here, counted["source"]
    for announced in signs.get("announced", ()):
        yield announced["missing"], f"the {announced['kind'].upper()}"


# ------------------------------------------------------------------------------------------------------- rules


def _lacks(state: State, routing: Mapping[str, Event]) -> list[Lack]:
    """Of rules that are in force still, each thing once."""
    told = [(uid, rule) for uid, event in routing.items() for rule in event.detail.get("rules", [])]
    told = [(uid, rule) for uid, rule in told if rule.get("lacks")]
    if not told:
        return []
    in_force = {revision.name: revision.revision for revision in state.enabled_rules()}
    found: dict[tuple[str, str], Lack] = {}
    for uid, rule in told:
        changed = in_force.get(rule["rule"]) != rule["revision"]
        for lack in _lacks_of(state, rule, changed) if rule["rule"] in in_force else ():
            before = found.get((lack.rule, lack.what), lack).series
            found[lack.rule, lack.what] = replace(lack, series=(*before, uid))
    return list(found.values())


def _lacks_of(state: State, rule: Mapping[str, Any], changed: bool) -> Iterator[Lack]:
    lacks, name = rule["lacks"], rule["rule"]
    if model := lacks.get("model"):
        version = lacks.get("version", _ACTIVE)
        active = version == _ACTIVE
        there = state.active_model(model) if active else state.model_version(model, version)
        what = f"model {model}" if active else f"version {version} of model {model}"
        versions = [f"{m.name} {m.version}" for m in state.models() if m.name == model] if active else []
        yield Lack(name, what, (), mended=changed or there is not None, registered=versions[-1] if versions else "")
    known = {destination.name for destination in state.destinations()}
    for destination in lacks.get("destinations", ()):
        yield Lack(name, f"destination {destination}", (), True, mended=changed or destination in known)
