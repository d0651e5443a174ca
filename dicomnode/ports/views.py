"""Studies, jobs and deliveries as people see them, and which of them are meant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from dicomnode.domain.destination import Destination
from dicomnode.domain.job import DeliveryState, JobState, Priority
from dicomnode.domain.outage import Health
from dicomnode.domain.result import StoredResult
from dicomnode.domain.study import Evidence, SeriesState, StudyState


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs are meant; what is not given leaves all."""

    states: tuple[JobState, ...] = ()
    model: str = ""  # name, or "name version"
    rule: str = ""
    destination: str = ""
    study_instance_uid: str = ""
    since: datetime | None = None  # made then or later
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class StudyFilter:
    """Which studies are meant; what is not given leaves all. Of jobs: studies that have such a one."""

    series_states: tuple[SeriesState, ...] = ()
    job_states: tuple[JobState, ...] = ()
    model: str = ""
    rule: str = ""
    destination: str = ""
    since: datetime | None = None  # received then or later
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as people see it."""

    job_id: str
    state: JobState
    study_instance_uid: str
    series_instance_uid: str
    series_description: str
    model: str  # "torso-ct 1.0.0"
    rule: str  # "torso revision 2"
    priority: Priority
    attempts: int
    code: str
    reason: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    timings_s: Mapping[str, float]
    details: Mapping[str, Any]
    results: tuple[StoredResult, ...]
    deliveries: tuple[DeliveryView, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)  # role → Series Instance UID
    not_before: datetime | None = None
    superseded: Mapping[str, str] = field(default_factory=dict)  # SOP Instance UID → the later job
    shadow: bool = False  # of the model's shadow version: nothing of it is sent


@dataclass(frozen=True, slots=True)
class DeliveryView:
    delivery_id: str
    job_id: str
    destination: str
    kind: str
    sop_instance_uid: str
    state: DeliveryState
    attempts: int
    reason: str
    next_attempt_at: datetime | None
    delivered_at: datetime | None  # when it was sent
    failure: str = ""  # of what kind the last one was: domain.delivery_failure.FailureKind
    proof: str = ""  # what the destination said when it was asked whether it keeps the object, or why it was not
    proven_at: datetime | None = None
    ask_at: datetime | None = None  # when it is asked for proof next
    study_instance_uid: str = ""
    size_bytes: int = 0
    address: str = ""  # as people may see it
    since: datetime | None = None
    parked: bool = False  # it goes out when its destination answers again, long before `next_attempt_at`


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Which deliveries are meant; what is not given leaves all."""

    states: tuple[DeliveryState, ...] = ()
    destination: str = ""
    failure: str = ""
    job_id: str = ""
    study_instance_uid: str = ""
    since: datetime | None = None  # begun then or later
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class DeliveryChange:
    """What an administrator's change made of a delivery, or would make."""

    before: DeliveryView
    after: DeliveryView


@dataclass(frozen=True, slots=True)
class DestinationView:
    """A destination and how it is."""

    destination: Destination
    health: Health
    states: Mapping[str, int]  # of deliveries → how many
    unprovable: str = ""  # why it is not asked for proof now


@dataclass(frozen=True, slots=True)
class SeriesView:
    series_instance_uid: str
    state: SeriesState
    modality: str
    description: str
    instances: int
    last_received_at: datetime
    calling_ae_title: str
    why: str  # the last routing decision in words


@dataclass(frozen=True, slots=True)
class StudyView:
    study_instance_uid: str
    patient_id: str
    accession_number: str
    study_date: str
    description: str
    received_at: datetime
    series: tuple[SeriesView, ...]
    state: StudyState = StudyState.ROUTED


@dataclass(frozen=True, slots=True)
class PastSeries:
    """A received series and, of its evidence, what was asked for."""

    series_instance_uid: str
    description: str
    modality: str
    state: SeriesState
    received_at: datetime
    evidence: Evidence | None  # None: it was never read


@dataclass(frozen=True, slots=True)
class PastStudy:
    study_instance_uid: str
    accession_number: str
    received_at: datetime
    series: tuple[PastSeries, ...]


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was taken out of the database; the files are to be removed by whoever asked."""

    study_instance_uid: str
    series: int
    instances: int
    jobs: int
    results: int
    paths: tuple[str, ...]  # relative to the store's root
    sent: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # destination → kind → how many stay there


@dataclass(frozen=True, slots=True)
class JobChange:
    """What an administrator's change made of a job, or would make."""

    before: JobView
    after: JobView


EVERY_JOB, EVERY_STUDY, EVERY_DELIVERY = JobFilter(), StudyFilter(), DeliveryFilter()
