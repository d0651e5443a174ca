"""What a rule is asked about: the header of a series and the facts that the rule needs, read from its files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from dicomnode.domain.age import age_in_years
from dicomnode.domain.class_facts import ClassNews, open_subjects
from dicomnode.domain.conditions import NOT_LOOKED_AT, settled
from dicomnode.domain.rules import FACTS, FACTS_OF_ALL_HEADERS, Condition, facts_in
from dicomnode.domain.schedule import NODE_ZONE
from dicomnode.domain.study import Element, Evidence, Header, Series
from dicomnode.errors import CannotDecode
from dicomnode.imaging.attributes import read_header
from dicomnode.imaging.series_facts import facts_of_all_headers
from dicomnode.ports import InstanceStore, State

# PS3.6 annex A: raw data, registrations, fiducials, segmentations and the like begin so. Some of them have
# rows and columns, but none is an image that a model could look at.
_NO_SOURCE_IMAGES = "1.2.840.10008.5.1.4.1.1.66"
_UNREADABLE_MOST = 8
_ALL_EVERY = 1000  # times that something to do is looked for

log = logging.getLogger(__name__)

Place = Callable[[str], Path]  # of a StoredInstance's path


def gather(series: Series, place: Place, conditions: Collection[Condition], sparing: bool = False) -> Evidence:
    """The facts that the conditions ask for; raises CannotDecode when no header can be read.

    `sparing`: not those of all headers where the rest settles the matter; the node routes so.
    """
    return completed(first_look(series, place), series, place, conditions, sparing)


def first_look(series: Series, place: Place) -> Evidence:
    """Without the facts of all headers; raises CannotDecode when no header can be read."""
    header = _header(series, place)
    facts = {**known_facts(series), "AgeInYears": age_in_years(header)}
    reason = no_image_reason(series, header)
    return Evidence(series.series_instance_uid, series.generation, header, facts, no_image=reason)


def unreadable(series: Series, reason: str) -> Evidence:
    """Of a series of which no header can be read: all that will ever be known of it."""
    return Evidence(series.series_instance_uid, series.generation, {}, known_facts(series), True, reason)


def completed(
    evidence: Evidence, series: Series, place: Place, conditions: Collection[Condition], sparing: bool
) -> Evidence:
    """With the facts of all headers if they are needed, as gather says, else with a note that they were not."""
    asking = [condition for condition in conditions if _wanted([condition])]
    if evidence.no_image or not asking:
        return evidence
    if any(not sparing or is_open(condition, evidence) for condition in asking):
        return with_all_facts(evidence, series, place)
    return with_notes(evidence)


def with_all_facts(evidence: Evidence, series: Series, place: Place) -> Evidence:
    """With those of all headers: what costs is reading these, so that all are worked out at once."""
    if evidence.all_facts:
        return evidence
    facts = facts_of_all_headers([place(instance.path) for instance in series.instances], FACTS_OF_ALL_HEADERS)
    return replace(evidence, facts={**evidence.facts, **facts}, all_facts=True)


def with_notes(evidence: Evidence) -> Evidence:
    """Facts that nobody worked out say so, as what decides without them needs it."""
    unread = {name: Element(FACTS[name], (), NOT_LOOKED_AT) for name in FACTS_OF_ALL_HEADERS - evidence.facts.keys()}
    return replace(evidence, facts={**evidence.facts, **unread})


def with_classes(evidence: Evidence, news: Mapping[str, ClassNews]) -> Evidence:
    """With what jobs gave of the series as it is; evidence of an earlier generation stays as it is."""
    found = news.get(evidence.series_instance_uid)
    if found is None or found.generation != evidence.generation:
        return evidence
    return replace(evidence, facts={**evidence.facts, **found.facts}, awaited=found.awaited)


def to_keep(evidence: Evidence) -> Evidence:
    """Without the facts that nobody looked at."""
    known = {name: element for name, element in evidence.facts.items() if element.note != NOT_LOOKED_AT}
    return replace(evidence, facts=known)


def is_open(condition: Condition, evidence: Evidence) -> bool:
    """Whether it depends on facts of all headers that are not known."""
    if evidence.all_facts:
        return False
    unknown = FACTS_OF_ALL_HEADERS | open_subjects(facts_in(condition), evidence.facts)
    return settled(condition, evidence.header, evidence.facts, unknown) is None


def _wanted(conditions: Iterable[Condition]) -> frozenset[str]:
    return frozenset().union(*map(facts_in, conditions)) & FACTS_OF_ALL_HEADERS


def _header(series: Series, place: Place) -> Header:
    """Of the first instance that can be read; raises the first one's error when the first few cannot."""
    first: CannotDecode | None = None
    for instance in series.instances[:_UNREADABLE_MOST]:
        try:
            return read_header(place(instance.path))
        except CannotDecode as error:
            first = first or error
    raise first or CannotDecode("the series has no instance")


def known_facts(series: Series) -> Header:
    """The facts that the database has."""
    return {
        "CallingAETitle": Element("AE", (series.calling_ae_title,) if series.calling_ae_title else ()),
        "CalledAETitle": Element("AE", (series.called_ae_title,) if series.called_ae_title else ()),
        "NumberOfInstances": Element("IS", (len(series.instances),)),
        "ReceivedTimeOfDay": _received_time_of_day(series),
    }


def _received_time_of_day(series: Series) -> Element:
    """When the last image came, by the clock on the node's wall, as TM (PS3.5 6.2)."""
    if series.received_at is None:
        return Element("TM", (), "it was not received by a node")
    return Element("TM", (series.received_at.astimezone(NODE_ZONE).strftime("%H%M%S"),))


def no_image_reason(series: Series, header: Header) -> str:
    """Why there is nothing in it for a model to look at: a report, a presentation state, a plan; else ""."""
    classes = {instance.sop_class_uid for instance in series.instances}
    pixels = all(keyword in header and header[keyword].values for keyword in ("Rows", "Columns"))
    if pixels and not any(uid.startswith(_NO_SOURCE_IMAGES) for uid in classes):
        return ""
    return f"the series holds no image to work on: it is {series.modality or 'of no modality'}"


class FactFinder:
    """Completes the evidence that routing could do without, so that rules can be asked about the past at once."""

    def __init__(self, state: State, store: InstanceStore) -> None:
        self._state, self._store = state, store
        self._told = ""  # why files could not be read, said once
        self._turns = 0  # until series without any evidence are looked for again

    def some(self, most: int = 10) -> int:
        """Of the newest series that lack facts; of how many. 0: there is nothing to do for now.

        Only an older node leaves series without any evidence: they are looked for at the start and now and then.
        """
        of_all = self._turns <= 0
        lacking = self._state.series_without_facts(most, without_any=of_all)
        if not (of_all and lacking):
            self._turns = _ALL_EVERY if of_all else self._turns - 1
        try:
            for series in lacking:
                self._complete(series)
        except OSError as error:  # the disk is away for a moment: what is read then must not be kept
            self._tell(error.strerror or str(error))
            return 0
        self._told = ""
        return len(lacking)

    def _tell(self, why: str) -> None:
        if why != self._told:
            log.warning("facts of headers are not read for now: %s", why)
        self._told = why

    def _complete(self, series: Series) -> None:
        """A header that is kept stays as it is: its file may be gone by now."""
        kept = next((e for e in self._state.study_evidence(series.study_instance_uid) if _is_of(e, series)), None)
        if kept is None:
            self._state.record_evidence(self._evidence(series))
            return
        facts = with_all_facts(kept, series, self._place).facts
        found = {name: facts[name] for name in FACTS_OF_ALL_HEADERS}
        self._state.record_facts(series.series_instance_uid, series.generation, found)

    def _evidence(self, series: Series) -> Evidence:
        try:
            return with_all_facts(first_look(series, self._place), series, self._place)
        except CannotDecode as error:
            return unreadable(series, str(error))

    def _place(self, path: str) -> Path:
        return Path(self._store.path(path))


def _is_of(evidence: Evidence, series: Series) -> bool:
    return (evidence.series_instance_uid, evidence.generation) == (series.series_instance_uid, series.generation)
