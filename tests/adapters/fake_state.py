"""A State for tests: the port's behaviour in memory, without transactions of its own or a queue.

`clock` gives the time. What a real State enqueues is listed in `enqueued_jobs` and `enqueued_deliveries`.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from dicomnode.domain.destination import Destination
from dicomnode.domain.job import (
    ACTIVE_JOB_STATES,
    OPEN_DELIVERY_STATES,
    DeliveryEvent,
    DeliveryState,
    JobEvent,
    JobState,
    delivery_backoff_s,
    job_backoff_s,
    next_delivery_state,
    next_job_state,
)
from dicomnode.domain.model_card import ModelCard
from dicomnode.domain.result import StoredResult
from dicomnode.domain.study import ReceivedInstance, Recorded, Series, SeriesState
from dicomnode.errors import AlreadyActive, AlreadyExists, NotFound, UsageError
from dicomnode.ports import (
    Delivered,
    DeliveryOutcome,
    DeliveryWork,
    Event,
    JobFailed,
    JobFinished,
    JobOutcome,
    JobRefused,
    JobView,
    JobWork,
    ModelVersion,
    NewJob,
    RuleRevision,
    StudyView,
)
from tests.adapters.fake_records import DeliveryRecord, JobRecord, SeriesRecord, job_view, model_words, series_view

F = TypeVar("F", bound=Callable[..., Any])
RETRYABLE_DELIVERIES = frozenset({DeliveryState.WAITING, DeliveryState.FAILED, DeliveryState.CANCELLED})
OWN_MANUFACTURER = "dicomnode"


class FakeClock:
    """Stands still until it is told to go on."""

    def __init__(self, start: datetime = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)) -> None:
        self._start, self._passed = start, 0.0

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._passed)

    def monotonic(self) -> float:
        return self._passed

    def advance(self, seconds: float) -> None:
        self._passed += seconds


def _locked(method: F) -> F:
    @wraps(method)
    def with_lock(self: FakeState, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return method(self, *args, **kwargs)

    return with_lock  # type: ignore[return-value]


class FakeState:
    def __init__(self, clock: Any = None) -> None:
        self.clock = clock or FakeClock()
        self.enqueued_jobs: list[tuple[str, float]] = []  # job id, delay in seconds
        self.enqueued_deliveries: list[tuple[str, float]] = []
        self.story: list[Event] = []
        self.routing_details: dict[str, Mapping[str, Any]] = {}
        self._lock = threading.RLock()
        self._ids = itertools.count(1)
        self._series: dict[str, SeriesRecord] = {}
        self._studies: dict[str, datetime] = {}
        self._rules: dict[str, list[RuleRevision]] = {}
        self._in_force: set[str] = set()
        self._models: list[ModelVersion] = []
        self._destinations: dict[str, Destination] = {}
        self._jobs: dict[str, JobRecord] = {}
        self._deliveries: dict[str, DeliveryRecord] = {}

    # ------------------------------------------------------------------------------------------ receive

    @_locked
    def record_instances(self, instances: Sequence[ReceivedInstance]) -> list[Recorded]:
        return [self._record(instance) for instance in instances]

    def _record(self, instance: ReceivedInstance) -> Recorded:
        now, own = self.clock.now(), self._is_own(instance)
        self._studies.setdefault(instance.study_instance_uid, now)
        uid = instance.series_instance_uid
        if uid not in self._series:
            state = SeriesState.OWN_RESULT if own else SeriesState.RECEIVING
            self._series[uid] = SeriesRecord(instance, state, now)
        series = self._series[uid]
        digests = series.digests.setdefault(instance.sop_instance_uid, set())
        recorded = Recorded.OWN_RESULT if own else _verdict(instance, digests)
        if not digests:
            series.instances[instance.sop_instance_uid] = instance
        digests.add(instance.sha256)
        if recorded is Recorded.NEW:
            series.state = SeriesState.RECEIVING
        if recorded is Recorded.CONFLICT:
            self._tell("instance.conflict", "An image came again with other content; the first stays in use", series)
        elif series.state in (SeriesState.RECEIVING, SeriesState.OWN_RESULT):
            series.last_received_at = now
        return recorded

    def _is_own(self, instance: ReceivedInstance) -> bool:
        results = [result for job in self._jobs.values() for result in job.outcome.results]
        same = any(
            instance.sop_instance_uid == r.sop_instance_uid or instance.series_instance_uid == r.series_instance_uid
            for r in results
        )
        return same or (instance.manufacturer == OWN_MANUFACTURER and instance.modality in {"SEG", "SR"})

    @_locked
    def record_event(self, event: Event) -> None:
        self.story.append(event)

    def _tell(self, kind: str, message: str, series: SeriesRecord, **more: Any) -> None:
        first = series.first
        self.story.append(
            Event(self.clock.now(), kind, message, first.study_instance_uid, first.series_instance_uid, **more)
        )

    # ----------------------------------------------------------------------------------------- complete

    @_locked
    def quiet_series(self, quiet_period_s: float, most: int = 100) -> list[str]:
        quiet = [uid for uid, series in self._series.items() if self._is_quiet(series, quiet_period_s)]
        return sorted(quiet, key=lambda uid: self._series[uid].last_received_at)[:most]

    def _is_quiet(self, series: SeriesRecord, quiet_period_s: float) -> bool:
        age = self.clock.now() - series.last_received_at
        return series.state is SeriesState.RECEIVING and age >= timedelta(seconds=quiet_period_s)

    @_locked
    def complete_series(self, series_instance_uid: str, quiet_period_s: float) -> Series | None:
        series = self._series.get(series_instance_uid)
        if series is None or not self._is_quiet(series, quiet_period_s):
            return None
        series.state, series.generation = SeriesState.COMPLETE, series.generation + 1
        self._tell("series.complete", f"The series is complete: {len(series.instances)} instances", series)
        return series.value()

    @_locked
    def complete_unrouted(self) -> list[Series]:
        return [s.value() for s in self._series.values() if s.state is SeriesState.COMPLETE]

    # -------------------------------------------------------------------------------------------- route

    @_locked
    def enabled_rules(self) -> list[RuleRevision]:
        return [rule for rule in self.rules() if rule.document.get("enabled", True)]

    @_locked
    def active_model(self, name: str) -> ModelVersion | None:
        return next((m for m in self._models if m.name == name and m.active), None)

    @_locked
    def record_routing(
        self, series: Series, jobs: Sequence[NewJob], why: str, detail: Mapping[str, Any]
    ) -> list[str]:
        row = self._series.get(series.series_instance_uid)
        if row is None or row.state is not SeriesState.COMPLETE or row.generation != series.generation:
            return []
        row.state, row.why = (SeriesState.ROUTED if jobs else SeriesState.NOT_ROUTED), why
        self.routing_details[series.series_instance_uid] = detail
        self._tell("series.routed" if jobs else "series.not-routed", why, row, detail=detail)
        for job in self._active_jobs(row):
            if job.generation < row.generation:
                self._end_job(job, JobEvent.CANCEL, "superseded", "more images of the series came")
        return [job_id for new in jobs if (job_id := self._make_job(row, new))]

    def _active_jobs(self, series: SeriesRecord) -> list[JobRecord]:
        return [j for j in self._jobs.values() if j.series is series and j.state in ACTIVE_JOB_STATES]

    def _same_active(self, series: SeriesRecord, new: NewJob) -> JobRecord | None:
        wanted = (new.model.id, new.rule.id)
        return next((j for j in self._active_jobs(series) if (j.new.model.id, j.new.rule.id) == wanted), None)

    def _make_job(self, series: SeriesRecord, new: NewJob) -> str | None:
        if self._same_active(series, new):
            return None
        job = JobRecord(f"{next(self._ids):016x}", series, new, series.generation, self.clock.now())
        self._jobs[job.id] = job
        self.enqueued_jobs.append((job.id, 0.0))
        self._tell("job.made", f"{model_words(new.model)}: by rule {new.rule.name}", series, job_id=job.id)
        return job.id

    # ------------------------------------------------------------------------------------ infer, encode

    @_locked
    def start_job(self, job_id: str) -> JobWork | None:
        job = self._jobs.get(job_id)
        if job is None or job.state not in ACTIVE_JOB_STATES:
            return None
        job.state = next_job_state(job.state, JobEvent.START)
        job.attempts, job.started_at, job.code, job.reason = job.attempts + 1, self.clock.now(), "", ""
        self._tell_job("job.started", "started", job)
        return JobWork(
            job.id,
            job.series.value(),
            job.new.model,
            job.new.rule.name,
            job.new.rule.revision,
            job.new.destinations,
            job.attempts,
            job.created_at,
            self._predecessor(job),
        )

    def _predecessor(self, job: JobRecord) -> StoredResult | None:
        earlier = [
            j
            for j in self._jobs.values()
            if j.series is job.series and j is not job and j.state is JobState.SUCCEEDED
            if (j.new.rule.name, j.new.model.name) == (job.new.rule.name, job.new.model.name)
        ]
        results = [r for j in reversed(earlier) for r in j.outcome.results if r.kind == "SR"]
        return results[0] if results else None

    @_locked
    def finish_job(self, job_id: str, outcome: JobOutcome) -> None:
        job = self._jobs[job_id]
        if job.state not in ACTIVE_JOB_STATES:
            return
        match outcome:
            case JobFinished():
                job.outcome = outcome
                self._end_job(job, JobEvent.FINISH, "", outcome.note)
                self._make_deliveries(job)
            case JobRefused():
                self._end_job(job, JobEvent.REFUSE, outcome.code, outcome.reason)
            case JobFailed():
                self._fail_job(job, outcome)

    def _fail_job(self, job: JobRecord, outcome: JobFailed) -> None:
        delay_s = job_backoff_s(job.attempts) if outcome.retryable else None
        if delay_s is None:
            self._end_job(job, JobEvent.FAIL, outcome.code, outcome.reason)
            return
        job.state = next_job_state(job.state, JobEvent.POSTPONE)
        job.code, job.reason = outcome.code, outcome.reason
        self.enqueued_jobs.append((job.id, delay_s))
        self._tell_job("job.postponed", outcome.reason, job)

    def _end_job(self, job: JobRecord, event: JobEvent, code: str, reason: str) -> None:
        job.state = next_job_state(job.state, event)
        job.code, job.reason, job.finished_at = code, reason, self.clock.now()
        words = "finished" if job.state is JobState.SUCCEEDED else str(job.state)
        self._tell_job(f"job.{words}", f"{words}: {reason}" if reason else words, job)

    def _tell_job(self, kind: str, words: str, job: JobRecord) -> None:
        self._tell(kind, f"{model_words(job.new.model)}: {words}", job.series, job_id=job.id)

    # ------------------------------------------------------------------------------------------ deliver

    def _make_deliveries(self, job: JobRecord) -> None:
        for result in job.outcome.results:
            for name in job.new.destinations:
                if name in self._destinations:
                    delivery = DeliveryRecord(f"{next(self._ids):016x}", job, name, result, self.clock.now())
                    self._deliveries[delivery.id] = delivery
                    self.enqueued_deliveries.append((delivery.id, 0.0))

    @_locked
    def start_delivery(self, delivery_id: str) -> DeliveryWork | None:
        delivery = self._deliveries.get(delivery_id)
        if delivery is None or delivery.state not in OPEN_DELIVERY_STATES:
            return None
        delivery.state = next_delivery_state(delivery.state, DeliveryEvent.START)
        delivery.attempts += 1
        destination = self._destinations[delivery.destination]
        return DeliveryWork(delivery.id, destination, delivery.result, delivery.attempts)

    @_locked
    def finish_delivery(self, delivery_id: str, outcome: DeliveryOutcome) -> None:
        delivery = self._deliveries[delivery_id]
        if delivery.state is not DeliveryState.SENDING:
            return
        if isinstance(outcome, Delivered):
            delivery.state = next_delivery_state(delivery.state, DeliveryEvent.DELIVER)
            delivery.reason, delivery.delivered_at = outcome.status, self.clock.now()
            delivery.next_attempt_at = None
            self._tell_delivery("delivery.sent", outcome.status, delivery)
            return
        age_s = (self.clock.now() - delivery.created_at).total_seconds()
        delay_s = delivery_backoff_s(delivery.attempts, age_s) if outcome.retryable else None
        event = DeliveryEvent.FAIL if delay_s is None else DeliveryEvent.POSTPONE
        delivery.state, delivery.reason = next_delivery_state(delivery.state, event), outcome.reason
        if delay_s is not None:
            delivery.next_attempt_at = self.clock.now() + timedelta(seconds=delay_s)
            self.enqueued_deliveries.append((delivery.id, delay_s))
        self._tell_delivery(f"delivery.{delivery.state}", outcome.reason, delivery)

    def _tell_delivery(self, kind: str, words: str, delivery: DeliveryRecord) -> None:
        message = f"{delivery.result.kind} to {delivery.destination}: {words}"
        self._tell(kind, message, delivery.job.series, job_id=delivery.job.id, delivery_id=delivery.id)

    # ----------------------------------------------------------------------------------- administration

    @_locked
    def add_rule(self, name: str, document: Mapping[str, Any]) -> RuleRevision:
        revisions = self._rules.setdefault(name, [])
        if name in self._in_force and dict(revisions[-1].document) == dict(document):
            return revisions[-1]
        revisions.append(RuleRevision(next(self._ids), name, len(revisions) + 1, dict(document)))
        self._in_force.add(name)
        return revisions[-1]

    @_locked
    def remove_rule(self, name: str) -> None:
        if name not in self._in_force:
            raise NotFound(f"there is no rule {name}")
        self._in_force.remove(name)

    @_locked
    def rules(self) -> list[RuleRevision]:
        return [self._rules[name][-1] for name in sorted(self._in_force)]

    @_locked
    def add_model(self, card: ModelCard, digest: str, path: Path) -> ModelVersion:
        same = next((m for m in self._models if (m.name, m.version) == (card.name, card.version)), None)
        if same and same.digest != digest:
            raise AlreadyExists(f"{card.name} {card.version} is registered with other content")
        self._models = [replace(m, active=m.active and m.name != card.name) for m in self._models]
        id = same.id if same else next(self._ids)
        model = ModelVersion(id, card.name, card.version, digest, path, card, True)
        self._models = [m for m in self._models if m.id != id] + [model]
        return model

    @_locked
    def models(self) -> list[ModelVersion]:
        return sorted(self._models, key=lambda m: (m.name, m.id))

    @_locked
    def add_destination(self, destination: Destination) -> None:
        if destination.name in self._destinations:
            raise AlreadyExists(f"destination {destination.name} exists")
        self._destinations[destination.name] = destination

    @_locked
    def remove_destination(self, name: str) -> None:
        if self._destinations.pop(name, None) is None:
            raise NotFound(f"no destination {name}")

    @_locked
    def destinations(self) -> list[Destination]:
        return [self._destinations[name] for name in sorted(self._destinations)]

    @_locked
    def jobs(self, *, state: JobState | None = None, most: int = 100) -> list[JobView]:
        newest = reversed(self._jobs.values())
        return [job_view(job, self._deliveries.values()) for job in newest if state in (None, job.state)][:most]

    @_locked
    def job(self, job_id: str) -> JobView:
        return job_view(self._find_job(job_id), self._deliveries.values())

    def _find_job(self, key: str) -> JobRecord:
        found = [job for id, job in self._jobs.items() if key and id.startswith(key)]
        if not found:
            raise NotFound(f"there is no job {key}")
        if len(found) > 1 and key not in self._jobs:
            raise UsageError(f"more than one job begins with {key}; give more of its id")
        return self._jobs.get(key, found[0])

    def _deliveries_of(self, job: JobRecord, states: Iterable[DeliveryState]) -> list[DeliveryRecord]:
        return [d for d in self._deliveries.values() if d.job is job and d.state in states]

    @_locked
    def retry_job(self, job_id: str) -> None:
        job = self._find_job(job_id)
        failed = self._deliveries_of(job, RETRYABLE_DELIVERIES)
        if job.state is JobState.SUCCEEDED and failed:
            for delivery in failed:
                delivery.state = next_delivery_state(delivery.state, DeliveryEvent.RETRY)
                delivery.attempts, delivery.next_attempt_at = 0, None
                self.enqueued_deliveries.append((delivery.id, 0.0))
                self._tell_delivery("delivery.retried", "queued again by the administrator", delivery)
            return
        state = next_job_state(job.state, JobEvent.RETRY)
        if self._same_active(job.series, job.new):
            raise AlreadyActive("a job does the same on this series already")
        job.state, job.attempts, job.code, job.reason = state, 0, "", ""
        job.started_at = job.finished_at = None
        self.enqueued_jobs.append((job.id, 0.0))
        self._tell_job("job.retried", "queued again by the administrator", job)

    @_locked
    def cancel_job(self, job_id: str) -> None:
        job = self._find_job(job_id)
        still_open = self._deliveries_of(job, OPEN_DELIVERY_STATES)
        if job.state is not JobState.SUCCEEDED or not still_open:
            self._end_job(job, JobEvent.CANCEL, "cancelled", "by the administrator")
        for delivery in still_open:
            delivery.state = next_delivery_state(delivery.state, DeliveryEvent.CANCEL)
            self._tell_delivery("delivery.cancelled", "cancelled by the administrator", delivery)

    @_locked
    def studies(self, most: int = 100) -> list[StudyView]:
        newest = sorted(self._studies, key=lambda uid: self._studies[uid], reverse=True)
        return [self._study_view(uid) for uid in newest[:most]]

    @_locked
    def study(self, key: str) -> StudyView:
        for view in self.studies(most=len(self._studies)):
            series_uids = {s.series_instance_uid for s in view.series}
            if key in {view.study_instance_uid, view.accession_number, view.patient_id} | series_uids:
                return view
        raise NotFound(f"no study {key}")

    @_locked
    def events(self, study_instance_uid: str) -> list[Event]:
        return [event for event in self.story if event.study_instance_uid == study_instance_uid]

    @_locked
    def last_event_number(self) -> int:
        return len(self.story)

    @_locked
    def events_after(self, number: int, most: int = 200) -> list[tuple[int, Event]]:
        return list(enumerate(self.story, start=1))[number : number + most]

    @_locked
    def counts(self) -> Mapping[str, Mapping[str, int]]:
        return {
            "studies": {"all": len(self._studies)},
            "instances": {"all": sum(len(ids) for s in self._series.values() for ids in s.digests.values())},
            "series": Counter(str(s.state) for s in self._series.values()),
            "jobs": Counter(str(j.state) for j in self._jobs.values()),
            "deliveries": Counter(str(d.state) for d in self._deliveries.values()),
        }

    # -------------------------------------------------------------------------------------------- views

    def _study_view(self, uid: str) -> StudyView:
        rows = [s for s in self._series.values() if s.first.study_instance_uid == uid]
        first = rows[0].first
        return StudyView(
            uid,
            first.patient_id,
            first.accession_number,
            first.study_date,
            first.study_description,
            self._studies[uid],
            tuple(map(series_view, rows)),
        )


def _verdict(instance: ReceivedInstance, digests: set[str]) -> Recorded:
    if not digests:
        return Recorded.NEW
    return Recorded.DUPLICATE if instance.sha256 in digests else Recorded.CONFLICT
