"""What is to be done, and what came of it: decisions, jobs, deliveries and the lines of a study's story."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from dicomnode.domain.acceptance import Acceptance, decisive
from dicomnode.domain.destination import Destination
from dicomnode.domain.halt import Halt
from dicomnode.domain.job import Priority
from dicomnode.domain.model_card import ModelCard
from dicomnode.domain.proof import Reference
from dicomnode.domain.result import StoredResult
from dicomnode.domain.rules import Parameter, Window
from dicomnode.domain.study import Series


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
    shadow: bool = False  # runs beside the active one, for comparison; its results go nowhere
    acceptances: tuple[Acceptance, ...] = field(default=(), compare=False)  # one a machine, the newest last
    # What `models optimise` found: {"chosen": {"engine": ..., "precision": ...}, "candidates": [...]}
    tuning: Mapping[str, Any] | None = field(default=None, hash=False)
    author: str = ""
    reason: str = ""
    created_at: datetime | None = field(default=None, compare=False)

    @property
    def acceptance(self) -> Acceptance | None:
        """The one that decides whether it may run at all; None: its golden cases were never run."""
        return decisive(self.acceptances)

    def acceptance_on(self, host: str) -> Acceptance | None:
        """What is known of it on a machine; None: it was never tried there."""
        return next((one for one in reversed(self.acceptances) if one.counts_on(host)), None)

    @property
    def chosen_engine(self) -> str:
        """One of model_card.ENGINES that tuning chose; "" when there is none and the card decides."""
        return str((self.tuning or {}).get("chosen", {}).get("engine", ""))

    @property
    def chosen_precision(self) -> str:
        return str((self.tuning or {}).get("chosen", {}).get("precision", ""))

    @property
    def state(self) -> str:
        """In one word: active, shadow, failed (its acceptance), removed (its files), registered."""
        if self.active or self.shadow:
            return "active" if self.active else "shadow"
        if self.path == Path():
            return "removed"
        failed = self.acceptance is not None and not self.acceptance.allows_activation
        return "failed" if failed else "registered"


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
    shadow: bool = False  # of the model's shadow version: nothing of it is sent, and it takes no other's place
    before: Mapping[str, ModelVersion] = field(default_factory=dict)  # that run first, by what cards call them


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
    # Those in force of an earlier run of the same rule and model on this series (late images), which this run's
    # supersede
    predecessors: tuple[StoredResult, ...] = ()
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    objects: tuple[str, ...] = ()  # kinds of results to send; none: all
    inputs: Mapping[str, Series] = field(default_factory=dict)  # role → a further series that the model needs
    before: Mapping[str, ModelVersion] = field(default_factory=dict)  # as of NewJob
    # What jobs on this series gave before: an object that comes out again stays the file that it was
    earlier: tuple[StoredResult, ...] = ()
    forms: tuple[str, ...] = ()  # of profile.FORMS, to be made beside what the model gives
    halt: Halt = field(default_factory=Halt, compare=False, repr=False)  # said when the job was cancelled
    priority: Priority = Priority.ROUTINE


QUARANTINED = "job.quarantined"  # an event: `detail` has result, reason and place


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A result that did not pass the node's own check, and is not sent."""

    kind: str
    reason: str
    place: str = ""  # where it lies; "" when it lies nowhere
    problem: str = ""  # why it could not be kept

    @property
    def words(self) -> str:
        said = f"{self.kind} did not pass its own check and is not sent: {self.reason}"
        if self.place:
            return f"{said}; kept in quarantine: {self.place}"
        return f"{said}; it could not be kept in quarantine: {self.problem}" if self.problem else said


@dataclass(frozen=True, slots=True)
class JobFinished:
    results: tuple[StoredResult, ...]
    timings_s: Mapping[str, float] = field(default_factory=dict)  # stage name → seconds
    details: Mapping[str, Any] = field(default_factory=dict)  # JSON-able: measurements, engine, peak memory
    note: str = ""
    quarantined: tuple[Quarantined, ...] = ()


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
    quarantined: tuple[Quarantined, ...] = ()


@dataclass(frozen=True, slots=True)
class JobStopped:
    """Its halt was said: what becomes of the job was decided elsewhere, and the work ended."""

    reason: str


JobOutcome = JobFinished | JobRefused | JobFailed | JobStopped


@dataclass(frozen=True, slots=True)
class DeliveryWork:
    delivery_id: str
    job_id: str
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
    failure: str = ""  # one of domain.delivery_failure.FailureKind


@dataclass(frozen=True, slots=True)
class NotYet:
    """Others had the destination's associations: no attempt was made."""

    delay_s: float


DeliveryOutcome = Delivered | NotDelivered | NotYet


@dataclass(frozen=True, slots=True)
class ProofWork:
    """Objects that a destination is to be asked about, under one Transaction UID (PS3.4 J.3.2)."""

    transaction_uid: str
    destination: Destination
    references: tuple[Reference, ...]


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
