"""What FakeState keeps of series, jobs and deliveries, and how it shows them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from dicomnode.domain.job import DeliveryState, JobState
from dicomnode.domain.result import StoredResult
from dicomnode.domain.study import ReceivedInstance, Series, SeriesState, StoredInstance
from dicomnode.ports import DeliveryView, JobFinished, JobView, ModelVersion, NewJob, SeriesView


@dataclass
class SeriesRecord:
    first: ReceivedInstance
    state: SeriesState
    last_received_at: datetime
    instances: dict[str, ReceivedInstance] = field(default_factory=dict)
    digests: dict[str, set[str]] = field(default_factory=dict)
    generation: int = 0
    why: str = ""

    def value(self) -> Series:
        ordered = sorted(
            self.instances.values(),
            key=lambda i: (i.instance_number is None, i.instance_number or 0, i.sop_instance_uid),
        )
        return Series(
            self.first.study_instance_uid,
            self.first.series_instance_uid,
            self.first.modality,
            self.first.calling_ae_title,
            self.first.called_ae_title,
            tuple(
                StoredInstance(i.sop_instance_uid, i.sop_class_uid, i.transfer_syntax_uid, i.path, i.instance_number)
                for i in ordered
            ),
            self.generation,
        )


@dataclass
class JobRecord:
    id: str
    series: SeriesRecord
    new: NewJob
    generation: int
    created_at: datetime
    state: JobState = JobState.QUEUED
    attempts: int = 0
    code: str = ""
    reason: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    outcome: JobFinished = field(default_factory=lambda: JobFinished(()))


@dataclass
class DeliveryRecord:
    id: str
    job: JobRecord
    destination: str
    result: StoredResult
    created_at: datetime
    state: DeliveryState = DeliveryState.QUEUED
    attempts: int = 0
    reason: str = ""
    next_attempt_at: datetime | None = None
    delivered_at: datetime | None = None


def model_words(model: ModelVersion) -> str:
    return f"{model.name} {model.version}"


def series_view(series: SeriesRecord) -> SeriesView:
    return SeriesView(
        series.first.series_instance_uid,
        series.state,
        series.first.modality,
        series.first.series_description,
        len(series.instances),
        series.last_received_at,
        series.first.calling_ae_title,
        series.why,
    )


def delivery_view(delivery: DeliveryRecord) -> DeliveryView:
    return DeliveryView(
        delivery_id=delivery.id,
        job_id=delivery.job.id,
        destination=delivery.destination,
        kind=delivery.result.kind,
        sop_instance_uid=delivery.result.sop_instance_uid,
        state=delivery.state,
        attempts=delivery.attempts,
        reason=delivery.reason,
        next_attempt_at=delivery.next_attempt_at,
        delivered_at=delivery.delivered_at,
    )


def job_view(job: JobRecord, deliveries: Iterable[DeliveryRecord]) -> JobView:
    first = job.series.first
    return JobView(
        job_id=job.id,
        state=job.state,
        study_instance_uid=first.study_instance_uid,
        series_instance_uid=first.series_instance_uid,
        series_description=first.series_description,
        model=model_words(job.new.model),
        rule=f"{job.new.rule.name} revision {job.new.rule.revision}",
        priority=job.new.priority,
        attempts=job.attempts,
        code=job.code,
        reason=job.reason,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        timings_s=job.outcome.timings_s,
        details=job.outcome.details,
        results=job.outcome.results,
        deliveries=tuple(delivery_view(d) for d in deliveries if d.job is job),
    )
