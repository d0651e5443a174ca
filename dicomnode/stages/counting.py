"""Asks sources how many instances a series has, beside the sweep: a source that is dead delays nobody."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Protocol

from dicomnode.domain.completeness import CountSigns, SeriesSigns
from dicomnode.domain.destination import Address, DimseAddress, without_password
from dicomnode.domain.source import Source
from dicomnode.errors import DicomNodeError
from dicomnode.ports import Clock, Event, State

LOG = logging.getLogger(__name__)

ASKED_AT_ONCE = 4
ASKED_AT_ONCE_OF_ONE = 2  # so that one source that gives no answer leaves room for the others
AGAIN_FIRST_S, AGAIN_MOST_S = 0.5, 30.0  # until a source is asked again that had too few, or did not know the series
FAILED_FIRST_S, FAILED_MOST_S = 5.0, 300.0  # until a source is asked again that could not be asked


class InstanceCounter(Protocol):
    """Asks a source for NumberOfSeriesRelatedInstances (0020,1209)."""

    def count(self, source: Source, study_instance_uid: str, series_instance_uid: str) -> int | None:
        """None when it does not know the series. Raises DeliveryError within seconds, with what to do."""


class AddressCounter(Protocol):
    """An InstanceCounter for one kind of address."""

    def count(self, address: Address, study_instance_uid: str, series_instance_uid: str) -> int | None: ...


class SourceCounter:
    """An `InstanceCounter` for every source: the counter of its address' kind ("dimse" or "stow")."""

    def __init__(self, counters: Mapping[str, AddressCounter]) -> None:
        self._counters = counters

    def count(self, source: Source, study_instance_uid: str, series_instance_uid: str) -> int | None:
        if source.query is None:
            return None
        kind = "dimse" if isinstance(source.query, DimseAddress) else "stow"
        return self._counters[kind].count(source.query, study_instance_uid, series_instance_uid)


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


@dataclass(frozen=True, slots=True)
class _Question:
    series: SeriesSigns
    source: Source
    answer: Future[int | None]


def _still_says(instances: int, asked: SeriesSigns, now: SeriesSigns) -> bool:
    """An answer is of the moment at which it was asked; that there are more holds longer."""
    return instances > now.instances or asked.instances == now.instances


class SourceQuestions:
    """Questions that are under way, and when the next may be asked. Used by one thread, the sweep's."""

    def __init__(self, counter: InstanceCounter, state: State, clock: Clock) -> None:
        self._counter, self._state, self._clock = counter, state, clock
        self._pool = ThreadPoolExecutor(ASKED_AT_ONCE, thread_name_prefix="count")
        self._open: dict[str, _Question] = {}  # by Series Instance UID
        self._series: dict[str, _Turn] = {}
        self._sources: dict[str, _Turn] = {}  # by AE title
        self._told: set[tuple[str, str]] = set()  # (series, failure) that the story has

    def close(self) -> None:
        """What is under way is not waited for longer than the counter's own timeouts."""
        self._pool.shutdown(cancel_futures=True)

    @property
    def any_open(self) -> bool:
        return bool(self._open)

    def is_open(self, series_instance_uid: str) -> bool:
        return series_instance_uid in self._open

    def ask(self, series: SeriesSigns, source: Source) -> None:
        """Unless it is asked already, or it is not the time."""
        now_s, uid = self._clock.monotonic(), series.series_instance_uid
        of_series, of_all = self._series.get(uid), self._sources.get(source.ae_title)
        if uid in self._open or (of_all is not None and not of_all.is_due(now_s)):
            return
        if of_series is not None and not of_series.is_due(now_s, series.instances):
            return
        of_source = sum(question.source.ae_title == source.ae_title for question in self._open.values())
        if of_source >= ASKED_AT_ONCE_OF_ONE or len(self._open) >= ASKED_AT_ONCE:
            return
        answer = self._pool.submit(self._counter.count, source, series.study_instance_uid, uid)
        self._open[uid] = _Question(series, source, answer)

    def wait(self, timeout_s: float) -> None:
        """Until an answer comes, at most so long."""
        wait([question.answer for question in self._open.values()], timeout_s, FIRST_COMPLETED)

    def collect(self, receiving: Mapping[str, SeriesSigns]) -> dict[str, CountSigns]:
        """Records the answers that have come for series that are received, and gives them back."""
        found: dict[str, CountSigns] = {}
        for uid, question in [(uid, q) for uid, q in self._open.items() if q.answer.done()]:
            del self._open[uid]
            try:
                instances = question.answer.result()
            except (DicomNodeError, OSError) as error:
                self._failed(question, error)
                continue
            self._answered(question, instances)
            if instances and uid in receiving and _still_says(instances, question.series, receiving[uid]):
                found[uid] = self._record(question, instances)
        return found

    def forget_all_but(self, series: Mapping[str, object]) -> None:
        """Of series that are not received any more nothing is kept."""
        self._series = {uid: turn for uid, turn in self._series.items() if uid in series}
        self._told = {(uid, words) for uid, words in self._told if uid in series}

    def _answered(self, question: _Question, instances: int | None) -> None:
        self._sources.pop(question.source.ae_title, None)
        if not instances or instances > question.series.instances:
            turn = self._series.setdefault(question.series.series_instance_uid, _Turn())
            turn.later(self._clock.monotonic(), AGAIN_FIRST_S, AGAIN_MOST_S)
            turn.said = instances or None

    def _record(self, question: _Question, instances: int) -> CountSigns:
        source = asked_words(question.source.query) if question.source.query else question.source.ae_title
        self._state.record_count(question.series.series_instance_uid, instances, source)
        return CountSigns(instances, source, 0.0)

    def _failed(self, question: _Question, error: Exception) -> None:
        now_s, source = self._clock.monotonic(), question.source.ae_title
        self._sources.setdefault(source, _Turn()).later(now_s, FAILED_FIRST_S, FAILED_MOST_S)
        uid = question.series.series_instance_uid
        if (uid, str(error)) in self._told:
            return
        self._told.add((uid, str(error)))
        LOG.warning("%s could not be asked how many instances there are: %s", source, error)
        event = Event(
            at=self._clock.now(),
            kind="series.count-failed",
            message=f"{source} could not be asked how many instances the series has: {error}",
            study_instance_uid=question.series.study_instance_uid,
            series_instance_uid=uid,
            detail={"code": getattr(error, "code", type(error).__name__), "source": source},
        )
        self._state.record_event(event)
