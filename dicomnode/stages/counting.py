"""Asks sources how many instances a series or a study has, beside the sweep: a source that is dead delays nobody."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

from dicomnode.domain.completeness import CountSigns, SeriesSigns, SourceCount, StudySigns, believable
from dicomnode.domain.destination import Address, DimseAddress, without_password
from dicomnode.domain.source import Source
from dicomnode.errors import DicomNodeError
from dicomnode.ports import Clock, Event, State

LOG = logging.getLogger(__name__)

ASKED_AT_ONCE = 4
ASKED_AT_ONCE_OF_ONE = 2  # so that one source that gives no answer leaves room for the others
AGAIN_FIRST_S, AGAIN_MOST_S = 0.5, 30.0  # until a source is asked again that had other than what is here, or nothing
FAILED_FIRST_S, FAILED_MOST_S = 5.0, 300.0  # until a source is asked again that could not be asked


class InstanceCounter(Protocol):
    """Asks a source for NumberOfSeriesRelatedInstances (0020,1209) or NumberOfStudyRelatedInstances (0020,1208)."""

    def count(self, source: Source, study_instance_uid: str, series_instance_uid: str) -> int | None:
        """None when it does not know the series. Raises DeliveryError within seconds, with what to do."""

    def count_study(
        self, source: Source, study_instance_uid: str, here: SourceCount, own_series: Collection[str]
    ) -> SourceCount | None:
        """As count; the series in `own_series` are left out when with them it has more than is here."""


class NoCounter:
    """For a node that has nobody to ask."""

    def count(self, source: Source, study_instance_uid: str, series_instance_uid: str) -> int | None:
        return None

    def count_study(
        self, source: Source, study_instance_uid: str, here: SourceCount, own_series: Collection[str]
    ) -> SourceCount | None:
        return None


class AddressCounter(Protocol):
    """What an InstanceCounter asks one kind of address."""

    def count(self, address: Address, study_instance_uid: str, series_instance_uid: str) -> int | None: ...

    def count_whole(self, address: Address, study_instance_uid: str) -> SourceCount | None: ...

    def count_by_series(self, address: Address, study_instance_uid: str) -> Mapping[str, int]: ...


class SourceCounter:
    """An `InstanceCounter` for every source: the counter of its address' kind ("dimse" or "stow")."""

    def __init__(self, counters: Mapping[str, AddressCounter]) -> None:
        self._counters = counters

    def count(self, source: Source, study_instance_uid: str, series_instance_uid: str) -> int | None:
        if source.query is None:
            return None
        return self._of(source.query).count(source.query, study_instance_uid, series_instance_uid)

    def count_study(
        self, source: Source, study_instance_uid: str, here: SourceCount, own_series: Collection[str]
    ) -> SourceCount | None:
        if source.query is None:
            return None
        asked = self._of(source.query)
        whole = asked.count_whole(source.query, study_instance_uid)
        if whole is None or (whole.instances is not None and not (own_series and _is_more(whole, here))):
            return whole
        return _without_own(whole, asked.count_by_series(source.query, study_instance_uid), own_series)

    def _of(self, address: Address) -> AddressCounter:
        return self._counters["dimse" if isinstance(address, DimseAddress) else "stow"]


def _is_more(count: SourceCount, here: SourceCount) -> bool:
    return count.is_more_than(here.instances or 0, here.series or 0)


def _without_own(whole: SourceCount, by_series: Mapping[str, int], own_series: Collection[str]) -> SourceCount:
    """Unless the list of series was cut off: archives limit how many they give, and say so nowhere."""
    if len(by_series) < (whole.series or 1) or sum(by_series.values()) < (whole.instances or 0):
        return whole
    others = [instances for uid, instances in by_series.items() if uid not in own_series]
    return SourceCount(sum(others), len(others), sum(by_series.values()) - sum(others))


def asked_words(address: Address) -> str:
    """As in "C-FIND to PACS@192.0.2.1:104"."""
    how = "C-FIND" if isinstance(address, DimseAddress) else "QIDO-RS"
    return f"{how} to {without_password(str(address))}"


def backoff_s(times: int, first_s: float, most_s: float) -> float:
    """Seconds to wait after so many times in a row."""
    return float(min(first_s * 2 ** min(times - 1, 30), most_s))


@dataclass(slots=True)
class _Turn:
    """When something may be asked again."""

    times: int = 0
    not_before_s: float = 0.0
    said: int | None = None  # the last answer: once so many are here, it is worth asking before the time

    def is_due(self, now_s: float, instances: int = 0) -> bool:
        return now_s >= self.not_before_s or (self.said is not None and instances >= self.said)

    def later(self, now_s: float, first_s: float, most_s: float) -> None:
        self.times += 1
        self.not_before_s = now_s + backoff_s(self.times, first_s, most_s)


Subject = SeriesSigns | StudySigns
_Key = tuple[str, str]  # Study Instance UID; Series Instance UID, or "" for the study itself


def _key(about: Subject) -> _Key:
    return about.study_instance_uid, about.series_instance_uid if isinstance(about, SeriesSigns) else ""


@dataclass(frozen=True, slots=True)
class _Question:
    about: Subject
    source: Source
    asked_at_s: float
    answer: Future[SourceCount | None]


@dataclass(frozen=True, slots=True)
class _StudyAnswer:
    asked: StudySigns
    asked_at_s: float
    signs: CountSigns


def _still_says(instances: int, asked: Subject, now: Subject) -> bool:
    """An answer is of the moment at which it was asked; that there are more holds longer."""
    return instances > now.instances or asked.instances == now.instances


def _count_signs(question: _Question, count: SourceCount | None) -> CountSigns | None:
    """None when the source does not know of any instance, or says what cannot be."""
    instances = _said(count)
    if count is None or not instances:
        return None
    source = asked_words(question.source.query) if question.source.query else question.source.ae_title
    return CountSigns(instances, source, 0.0, count.series or 0, count.own_results)


def _said(count: SourceCount | None) -> int:
    """0 where it says nothing that can be believed."""
    return believable((count.instances if count else None) or 0) or 0


class SourceQuestions:
    """Questions that are under way, and when the next may be asked. Used by one thread, the sweep's."""

    def __init__(self, counter: InstanceCounter, state: State, clock: Clock) -> None:
        self._counter, self._state, self._clock = counter, state, clock
        self._pool = ThreadPoolExecutor(ASKED_AT_ONCE, thread_name_prefix="count")
        self._open: dict[_Key, _Question] = {}
        self._turns: dict[_Key, _Turn] = {}
        self._sources: dict[str, _Turn] = {}  # by AE title
        self._told: set[tuple[_Key, str]] = set()  # failures that the story has
        self._studies: dict[str, _StudyAnswer] = {}  # by Study Instance UID

    def close(self) -> None:
        """What is under way is not waited for longer than the counter's own timeouts."""
        self._pool.shutdown(cancel_futures=True)

    @property
    def under_way(self) -> list[Future[SourceCount | None]]:
        return [question.answer for question in self._open.values()]

    def is_open(self, about: Subject) -> bool:
        return _key(about) in self._open

    def ask(self, about: Subject, source: Source) -> None:
        """Unless it is asked already, or it is not the time."""
        now_s = self._clock.monotonic()
        if not self._is_open_to(about, source, now_s):
            return
        question = self._of_series(about, source) if isinstance(about, SeriesSigns) else self._of_study(about, source)
        self._open[_key(about)] = _Question(about, source, now_s, self._pool.submit(question))

    def _is_open_to(self, about: Subject, source: Source, now_s: float) -> bool:
        own, of_all = self._turns.get(_key(about)), self._sources.get(source.ae_title)
        if self.is_open(about) or (of_all is not None and not of_all.is_due(now_s)):
            return False
        if own is not None and not own.is_due(now_s, about.instances):
            return False
        of_source = sum(question.source.ae_title == source.ae_title for question in self._open.values())
        return of_source < ASKED_AT_ONCE_OF_ONE and len(self._open) < ASKED_AT_ONCE

    def _of_series(self, series: SeriesSigns, source: Source) -> Callable[[], SourceCount | None]:
        def ask() -> SourceCount | None:
            instances = self._counter.count(source, series.study_instance_uid, series.series_instance_uid)
            return None if instances is None else SourceCount(instances)

        return ask

    def _of_study(self, study: StudySigns, source: Source) -> Callable[[], SourceCount | None]:
        uid, here = study.study_instance_uid, SourceCount(study.instances, study.series)
        own_series = frozenset(self._state.own_series(uid))
        return lambda: self._counter.count_study(source, uid, here, own_series)

    def collect(self, receiving: Mapping[str, SeriesSigns]) -> dict[str, CountSigns]:
        """Keeps the answers that have come; gives back those about series that are received."""
        found: dict[str, CountSigns] = {}
        for key, question in [(key, q) for key, q in self._open.items() if q.answer.done()]:
            del self._open[key]
            try:
                count = question.answer.result()
            except (DicomNodeError, OSError) as error:
                self._failed(question, error)
                continue
            self._answered(question, count)
            signs = _count_signs(question, count)
            if signs is None:
                continue
            if isinstance(question.about, StudySigns):
                self._studies[key[0]] = _StudyAnswer(question.about, question.asked_at_s, signs)
            elif key[1] in receiving and _still_says(signs.instances, question.about, receiving[key[1]]):
                age_s = self._age_s(question.asked_at_s)
                self._state.record_count(key[1], signs.instances, signs.source, age_s)
                found[key[1]] = replace(signs, age_s=age_s)
        return found

    def _age_s(self, asked_at_s: float) -> float:
        return max(0.0, self._clock.monotonic() - asked_at_s)

    def of_study(self, study: StudySigns) -> CountSigns | None:
        """What its source answered last, as old as the question; None when it says nothing about the study now."""
        kept = self._studies.get(study.study_instance_uid)
        if kept is None or not _still_says(kept.signs.instances, kept.asked, study):
            return None
        return replace(kept.signs, age_s=self._age_s(kept.asked_at_s))

    def forget_all_but(self, subjects: Iterable[Subject]) -> None:
        """Of series and studies that are not received any more nothing is kept."""
        keys = {_key(about) for about in subjects}
        self._turns = {key: turn for key, turn in self._turns.items() if key in keys}
        self._told = {(key, words) for key, words in self._told if key in keys}
        self._studies = {uid: answer for uid, answer in self._studies.items() if (uid, "") in keys}

    def _answered(self, question: _Question, count: SourceCount | None) -> None:
        self._sources.pop(question.source.ae_title, None)
        about = question.about
        series = about.series if isinstance(about, StudySigns) else 0
        said = _said(count)
        if said != about.instances or (count and count.series and series and count.series != series):
            turn = self._turns.setdefault(_key(about), _Turn())
            turn.later(self._clock.monotonic(), AGAIN_FIRST_S, AGAIN_MOST_S)
            turn.said = said if said > about.instances else None

    def _failed(self, question: _Question, error: Exception) -> None:
        now_s, source = self._clock.monotonic(), question.source.ae_title
        self._sources.setdefault(source, _Turn()).later(now_s, FAILED_FIRST_S, FAILED_MOST_S)
        key = _key(question.about)
        if (key, str(error)) in self._told:
            return
        self._told.add((key, str(error)))
        what = "series" if key[1] else "study"
        LOG.warning("%s could not be asked how many instances there are: %s", source, error)
        event = Event(
            at=self._clock.now(),
            kind=f"{what}.count-failed",
            message=f"{source} could not be asked how many instances the {what} has: {error}",
            study_instance_uid=key[0],
            series_instance_uid=key[1],
            detail={"code": getattr(error, "code", type(error).__name__), "source": source},
        )
        self._state.record_event(event)
