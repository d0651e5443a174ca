"""What the stages need from the world outside, as protocols; the adapters give it.

Threads throughout: every method may be called from several threads at once unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dicomnode.domain.announcement import Announcement
from dicomnode.domain.completeness import Place, SeriesSigns, StudySigns, Verdict
from dicomnode.domain.destination import Destination
from dicomnode.domain.job import DeliveryState, JobState, Priority
from dicomnode.domain.model_card import ModelCard
from dicomnode.domain.result import StoredResult
from dicomnode.domain.rules import Parameter, Window
from dicomnode.domain.source import Source
from dicomnode.domain.study import Evidence, Header, ReceivedInstance, Recorded, Series, SeriesState, StudyState
from dicomnode.imaging.geometry import Placement as Placement
from dicomnode.imaging.geometry import Rescale as Rescale
from dicomnode.imaging.geometry import VolumeGeometry


class Clock(Protocol):
    def now(self) -> datetime:
        """UTC, aware."""

    def monotonic(self) -> float:
        """Seconds, for durations."""


# ---------------------------------------------------------------------------------------------- instances


@dataclass(frozen=True, slots=True)
class StoredFile:
    path: str  # relative to the store's root
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Spooled:
    """An instance that survives a power cut but is not yet filed; `name` is unique in the spool."""

    name: str
    path: Path
    calling_ae_title: str
    called_ae_title: str
    received_at: datetime


class InstanceStore(Protocol):
    """Instances and results on disk. A spooled instance is safe; filing it only gives it its place."""

    def spool(self, chunks: Iterable[bytes | memoryview], *, calling_ae_title: str, called_ae_title: str) -> Spooled:
        """Writes a Part 10 file so that it survives a power cut; raises OutOfResources."""

    def spooled(self) -> Iterator[Spooled]:
        """What was spooled and not yet filed, oldest first: the work left behind by a process that died."""

    def file(self, spooled: Spooled, *, study: str, series: str, instance: str, sha256: str) -> StoredFile:
        """Gives a spooled instance its place (the spool keeps it until `discard`); repeats are harmless.

        When other bytes already lie in that place the new ones go beside them, under a name with their digest.
        """

    def discard(self, spooled: Spooled) -> None:
        """Takes it out of the spool; call it once the index has it."""

    def put_result(self, content: bytes, *, study: str, series: str, instance: str) -> StoredFile:
        """Stores a result object durably; the same content again is harmless."""

    def path(self, relative: str) -> Path:
        """Absolute path of a stored file."""

    def remove(self, paths: Iterable[str]) -> int:
        """Takes stored files out for good, and the folders they leave empty; how many were still there.

        Repeats are harmless. Raises CannotUnderstand, before anything is removed, for a path out of the store.
        """

    def files_of(self, study: str, older_than_s: float = 0.0) -> list[str]:
        """Relative paths of what lies stored of a study and got its place so long ago, known to anybody or not."""

    def discard_study(self, study: str) -> int:
        """Takes what is spooled of a study out of the spool, whoever spooled it; how many instances that were."""

    def free_bytes(self) -> int: ...


# -------------------------------------------------------------------------------------------------- state


@dataclass(frozen=True, slots=True)
class RuleRevision:
    """An immutable version of a rule; `document` is what domain.rule_reading.parse_rule reads."""

    id: int
    name: str
    revision: int
    document: Mapping[str, Any]
    author: str = ""
    reason: str = ""
    created_at: datetime | None = None
    in_force: bool = True
    removed_at: datetime | None = None  # when the rule was removed while this revision was in force
    removed_by: str = ""
    removed_why: str = ""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    id: int
    name: str
    version: str
    digest: str  # sha256 over the package's files
    path: Path  # absolute folder of the package
    card: ModelCard
    active: bool


@dataclass(frozen=True, slots=True)
class NewJob:
    """A decision to run a model on a series."""

    rule: RuleRevision
    model: ModelVersion
    priority: Priority
    destinations: tuple[str, ...]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    objects: tuple[str, ...] = ()  # kinds of results to send, as "SEG"; none: all
    inputs: Mapping[str, str] = field(default_factory=dict)  # role → Series Instance UID, of further series
    schedule: tuple[Window, ...] = ()  # when it may start; none: now


@dataclass(frozen=True, slots=True)
class SeriesRouting:
    """What was decided for one series; `detail` is JSON-able and holds what each rule said.

    `settled` names the rules that were decided with the whole study: of their jobs, `jobs` are all there should be.
    """

    series: Series
    jobs: tuple[NewJob, ...]
    why: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    settled: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class JobWork:
    """All that running a job needs."""

    job_id: str
    series: Series
    model: ModelVersion
    rule_name: str
    rule_revision: int
    destinations: tuple[str, ...]
    attempt: int  # 1 the first time
    created_at: datetime  # of the job: results are dated with it, so that a repeat gives the same bytes
    # The SR of an earlier run of the same rule and model on this series (late images), which this run's supersedes
    predecessor: StoredResult | None = None
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    objects: tuple[str, ...] = ()  # kinds of results to send; none: all
    inputs: Mapping[str, Series] = field(default_factory=dict)  # role → a further series that the model needs
    # What jobs on this series gave before: an object that comes out again stays the file that it was
    earlier: tuple[StoredResult, ...] = ()


@dataclass(frozen=True, slots=True)
class JobFinished:
    results: tuple[StoredResult, ...]
    timings_s: Mapping[str, float] = field(default_factory=dict)  # stage name → seconds
    details: Mapping[str, Any] = field(default_factory=dict)  # JSON-able: measurements, engine, peak memory
    note: str = ""


@dataclass(frozen=True, slots=True)
class JobRefused:
    """The series cannot be processed; never tried again by itself."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class JobFailed:
    code: str
    reason: str
    retryable: bool


JobOutcome = JobFinished | JobRefused | JobFailed


@dataclass(frozen=True, slots=True)
class DeliveryWork:
    delivery_id: str
    destination: Destination
    result: StoredResult
    attempt: int


@dataclass(frozen=True, slots=True)
class Delivered:
    status: str  # what the peer answered, in words


@dataclass(frozen=True, slots=True)
class NotDelivered:
    reason: str
    retryable: bool


DeliveryOutcome = Delivered | NotDelivered


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a study's story, in plain words. `kind` is a stable word, as in "series.complete"."""

    at: datetime
    kind: str
    message: str
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    job_id: str = ""
    delivery_id: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)


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
class Forgotten:
    """What was taken out of the database; the files are to be removed by whoever asked."""

    study_instance_uid: str
    series: int
    instances: int
    jobs: int
    results: int
    paths: tuple[str, ...]  # relative to the store's root


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
    delivered_at: datetime | None


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


class State(Protocol):
    """The node's business state. Each method is one transaction; times are the database's own clock's."""

    # receive
    def record_instances(self, instances: Sequence[ReceivedInstance]) -> list[Recorded]:
        """Indexes instances, in order; (re)opens their series. Repeats are harmless."""

    def record_event(self, event: Event) -> None: ...

    def association_ended(self, association: str, how: str) -> None:
        """released or aborted; after all that it brought was recorded."""

    def associations_lost(self, receiver: str, but: str) -> None:
        """Ends, as lost, the open associations of the receiver of that name, but those of its present process.

        Associations are called RECEIVER/PROCESS/NUMBER; `but` is the present RECEIVER/PROCESS.
        """

    # complete
    def receiving_series(self, most: int = 200) -> list[SeriesSigns]:
        """The signs of RECEIVING series, those longest without an image first."""

    def places(self, series_instance_uid: str) -> list[Place]:
        """Of its instances in use, each in its stack."""

    def record_count(self, series_instance_uid: str, instances: int, source: str) -> None:
        """The source's answer to how many instances it has of a series."""

    def quiet_series(self, quiet_period_s: float, most: int = 100) -> list[str]:
        """UIDs of RECEIVING series in which nothing arrived for so long."""

    def complete_series(
        self, series_instance_uid: str, quiet_period_s: float, verdict: Verdict | None = None
    ) -> Series | None:
        """RECEIVING → COMPLETE if it is still quiet for so long and, with a verdict, has as many instances as then.

        None when another process was first or an image came. The event says by which signal.
        """

    def complete_unrouted(self) -> list[Series]:
        """COMPLETE series whose routing was never recorded: left behind by a process that died."""

    def receiving_studies(self, most: int = 200) -> list[StudySigns]:
        """The signs of RECEIVING studies none of whose series is RECEIVING or COMPLETE."""

    def own_series(self, study_instance_uid: str) -> list[str]:
        """Series Instance UIDs of the node's own results in a study, whether they came back or not."""

    def complete_study(self, study_instance_uid: str, verdict: Verdict) -> int | None:
        """RECEIVING → COMPLETE, as complete_series; its generation, or None."""

    def complete_unrouted_studies(self) -> list[tuple[str, int]]:
        """(Study Instance UID, generation) of COMPLETE studies whose routing was never recorded."""

    # what senders say and may
    def record_announcement(self, announcement: Announcement) -> None:
        """New, or what it is now."""

    def announcement(self, sop_instance_uid: str) -> Announcement | None: ...

    def sources(self) -> list[Source]: ...

    def put_source(self, source: Source) -> None:
        """A new one, or in place of the one of that AE title."""

    def remove_source(self, ae_title: str) -> None: ...

    # route
    def enabled_rules(self) -> list[RuleRevision]:
        """All that are asked, shadows too, in the order in which they are asked."""

    def active_model(self, name: str) -> ModelVersion | None: ...

    def model_version(self, name: str, version: str) -> ModelVersion | None: ...

    def record_routing(
        self,
        series: Series,
        jobs: Sequence[NewJob],
        why: str,
        detail: Mapping[str, Any],
        evidence: Evidence | None = None,
    ) -> list[str]:
        """COMPLETE → ROUTED with its jobs enqueued, or → NOT_ROUTED; all in one transaction. Job ids.

        A job that is active already for the same (series, model version, rule revision) is not made twice.
        """

    def record_study_routing(
        self, study_instance_uid: str, generation: int, routings: Sequence[SeriesRouting]
    ) -> list[str]:
        """COMPLETE → ROUTED for the study: jobs that the series' own routing could not decide yet. Job ids.

        A job that the rule's revision made already for a series as it is now, with the same model and options,
        is not made again, whatever became of it. Active jobs of settled rules that are not wanted any more are
        cancelled.
        """

    def study_series(self, study_instance_uid: str) -> list[Series]:
        """Those that were routed or not routed: neither still received nor own results."""

    def study_evidence(self, study_instance_uid: str) -> list[Evidence]:
        """Of the series of a study, as far as it was recorded."""

    def prior_studies(self, study_instance_uid: str, most: int = 10) -> list[str]:
        """Earlier studies of the same patient by PatientID, newest first by Study Date; Study Instance UIDs."""

    def series(self, series_instance_uid: str) -> Series:
        """Raises NotFound."""

    def series_without_facts(self, most: int = 10) -> list[Series]:
        """Series that were routed or not routed whose evidence is not there or lacks the facts of all headers.

        Newest first.
        """

    def record_evidence(self, evidence: Evidence) -> None:
        """In place of what is kept of the series, unless more images came meanwhile."""

    def record_facts(self, series_instance_uid: str, generation: int, facts: Header) -> None:
        """Adds the facts of all headers to its evidence, unless it has changed meanwhile."""

    def past(
        self, keywords: Sequence[str], facts: Sequence[str], since: datetime | None = None, page: int = 1000
    ) -> Iterator[PastStudy]:
        """Received studies, oldest first, a page in memory at a time: of headers these keywords, of facts these."""

    # infer, encode
    def start_job(self, job_id: str, run: int | None = None) -> JobWork | None:
        """QUEUED → RUNNING; None when it was cancelled or is over.

        `run` is the number of the queue's ticket: None too when there is a newer one.
        """

    def finish_job(self, job_id: str, outcome: JobOutcome, attempt: int | None = None) -> None:
        """Ends it, or postpones it with its next run enqueued; results and deliveries with the same commit.

        `attempt` is the JobWork's: nothing happens when the job was started again since, or cancelled.
        """

    # deliver
    def start_delivery(self, delivery_id: str, run: int | None = None) -> DeliveryWork | None:
        """QUEUED or WAITING → SENDING; None as in start_job."""

    def finish_delivery(self, delivery_id: str, outcome: DeliveryOutcome, attempt: int | None = None) -> None:
        """Ends it, or postpones it by the backoff with the next attempt enqueued; `attempt` as in finish_job."""

    # administration
    def add_rule(self, name: str, document: Mapping[str, Any], *, author: str = "", reason: str = "") -> RuleRevision:
        """A new rule, or the next revision of one; equal documents make no revision."""

    def remove_rule(self, name: str, *, author: str = "", reason: str = "") -> None: ...

    def rules(self) -> list[RuleRevision]:
        """Those in force, disabled ones too, by name."""

    def rule_history(self, name: str) -> list[RuleRevision]:
        """All revisions, the oldest first; raises NotFound."""

    def add_model(self, card: ModelCard, digest: str, path: Path) -> ModelVersion:
        """Registers and activates it; the version that was active is not any more."""

    def models(self) -> list[ModelVersion]: ...

    def add_destination(self, destination: Destination) -> None: ...

    def remove_destination(self, name: str) -> None: ...

    def destinations(self) -> list[Destination]: ...

    def jobs(self, which: JobFilter = JobFilter(), *, most: int = 100) -> list[JobView]:
        """Newest first."""

    def job(self, job_id: str) -> JobView:
        """By id or its unambiguous beginning; raises NotFound."""

    def retry_job(self, job_id: str) -> None: ...

    def cancel_job(self, job_id: str) -> None: ...

    def prioritise_job(self, job_id: str, priority: Priority, *, now: bool = False) -> None:
        """Of a QUEUED job; `now`: without waiting for its schedule. Raises IllegalTransition."""

    def studies(self, which: StudyFilter = StudyFilter(), *, most: int = 100) -> list[StudyView]:
        """Newest first."""

    def rerun_study(self, key: str) -> list[str]:
        """Its series are routed again by the rules in force, as if they had just come. Series Instance UIDs.

        `key` as in study(); of one series alone when it is a Series Instance UID. Series that are still received
        and own results are left out.
        """

    def forget_study(self, key: str) -> Forgotten:
        """Takes a study, its jobs, results and story out of the database; raises IllegalTransition while jobs run."""

    def study(self, key: str) -> StudyView:
        """By Study Instance UID, Series Instance UID, accession number or patient ID (newest); raises NotFound."""

    def events(self, study_instance_uid: str) -> list[Event]:
        """The study's story in the order it happened."""

    def last_event_number(self) -> int:
        """Number of the newest event of all; 0 when there is none."""

    def events_after(self, number: int, most: int = 200) -> list[tuple[int, Event]]:
        """(number, event) of all studies after that one, oldest first: what a running node shows."""

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """How many: "series", "jobs", "deliveries" → state → number; "studies", "instances" → {"all": number}."""


@dataclass(frozen=True, slots=True)
class Executor:
    """A process that runs jobs, by an id of its own and by what its host can tell it by."""

    id: str
    host: str  # host, boot and pid namespace: a pid means something only there
    pid: int
    pid_started: float  # seconds since the epoch


@dataclass(frozen=True, slots=True)
class Pulse:
    executor: Executor
    age_s: float  # since its last heartbeat, by the database's clock


class EngineState(State, Protocol):
    """What the job engine needs of the state beyond what the stages do."""

    def open_work(self) -> tuple[dict[str, int], dict[str, int]]:
        """Jobs and deliveries that wait or run: id → number of its ticket in the queue."""

    def requeue_job(self, job_id: str, run: int) -> bool:
        """A new ticket for a job whose ticket `run` was lost; False if things went on meanwhile."""

    def requeue_delivery(self, delivery_id: str, run: int) -> bool:
        """As requeue_job."""

    def beat(self, executor: Executor) -> None:
        """The executor's heartbeat."""

    def forget_executor(self, executor_id: str) -> None: ...

    def executors(self) -> list[Pulse]: ...


class JobHandlers(Protocol):
    """What the job engine calls; both report by return value and raise nothing but bugs."""

    def perform(self, work: JobWork) -> JobOutcome: ...

    def deliver(self, work: DeliveryWork) -> DeliveryOutcome: ...


class JobEngine(AbstractContextManager["JobEngine"], Protocol):
    """Runs queued jobs and deliveries durably while entered; what a dead process left is taken over."""

    def wait_idle(self, timeout_s: float) -> bool:
        """True once nothing is queued or running, for demos and tests."""


# ---------------------------------------------------------------------------------------------- inference


class InferenceSession(Protocol):
    """One decoded volume, and those of further series if there are any, open for any number of models."""

    @property
    def volume(self) -> npt.NDArray[np.int16]:
        """(slice, row, column) int16, stored values, in the source's grid: decode straight into it."""

    @property
    def further(self) -> Sequence[npt.NDArray[np.int16]]:
        """Of the model card's roles in their order, as `volume`, each in its own grid."""

    @property
    def timings_s(self) -> Mapping[str, float]:
        """Of the last run: "before", "network" and "after", in seconds, as the model's host measured them."""

    def run(
        self,
        model: ModelVersion,
        geometry: VolumeGeometry,
        rescale: Rescale,
        *,
        timeout_s: float,
        further: Sequence[Placement] = (),
        parameters: Mapping[str, Parameter] | None = None,
    ) -> AbstractContextManager[npt.NDArray[np.uint8]]:
        """The label map, (slice, row, column) uint8, 0 for background, in the same grid; valid inside the `with`.

        `further` says where the further volumes lie; `parameters` are those of the model card that differ from it.

        Raises EngineUnavailable, InferenceTimeout, ModelFailed, OutOfResources (no shared memory left).
        """


class InferenceEngine(Protocol):
    def open(
        self, shape: tuple[int, int, int], further: Sequence[tuple[int, int, int]] = ()
    ) -> AbstractContextManager[InferenceSession]:
        """A session with room for a volume of this shape, and for further ones of these."""

    def prepare(self, models: Sequence[ModelVersion]) -> None:
        """Loads and warms these models, and no others, so that the first study does not wait."""

    def describe(self, model: ModelVersion) -> Mapping[str, str]:
        """Engine, precision and device as they really are, for provenance."""


# ----------------------------------------------------------------------------------------------- delivery


class ResultSink(Protocol):
    def send(self, destination: Destination, file: Path, result: StoredResult) -> str:
        """Sends one object; the peer's answer in words. Raises DestinationUnavailable, DestinationRefused."""

    def echo(self, destination: Destination) -> str:
        """C-ECHO, or a QIDO-RS request; the answer in words. Raises as `send` does."""
