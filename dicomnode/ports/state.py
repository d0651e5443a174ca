"""What the node knows and remembers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from dicomnode.domain.acceptance import Acceptance
from dicomnode.domain.announcement import Announcement
from dicomnode.domain.class_facts import ClassNews
from dicomnode.domain.commitment_wish import CommitmentWish
from dicomnode.domain.completeness import Place, SeriesSigns, StudySigns, Verdict
from dicomnode.domain.destination import Destination
from dicomnode.domain.job import Priority
from dicomnode.domain.model_card import ModelCard
from dicomnode.domain.model_change import ModelChange
from dicomnode.domain.proof import ProofAnswer, Reference
from dicomnode.domain.source import Source
from dicomnode.domain.study import Evidence, Header, ReceivedInstance, Recorded, Series
from dicomnode.ports.instances import StoredFile
from dicomnode.ports.views import (
    EVERY_DELIVERY,
    EVERY_JOB,
    EVERY_STUDY,
    DeliveryChange,
    DeliveryFilter,
    DeliveryView,
    DestinationView,
    Forgotten,
    JobChange,
    JobFilter,
    JobView,
    PastStudy,
    StudyFilter,
    StudyView,
)
from dicomnode.ports.work import (
    DeliveryOutcome,
    DeliveryWork,
    Event,
    JobOutcome,
    JobWork,
    ModelVersion,
    NewJob,
    ProofWork,
    RuleRevision,
    SeriesRouting,
)


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
    def receiving_series(self, most: int | None = None) -> list[SeriesSigns]:
        """The signs of RECEIVING series, those longest without an image first; all without a `most`."""

    def places(self, series_instance_uid: str) -> list[Place]:
        """Of its instances in use, each in its stack."""

    def record_count(
        self, series_instance_uid: str, instances: int, source: str, asked_before_s: float = 0.0
    ) -> None:
        """The source's answer to how many instances it has of a series, and how long ago it was asked."""

    def quiet_series(self, quiet_period_s: float, most: int = 100) -> list[str]:
        """UIDs of RECEIVING series in which nothing arrived for so long."""

    def complete_series(
        self, series_instance_uid: str, quiet_period_s: float, verdict: Verdict | None = None
    ) -> Series | None:
        """RECEIVING → COMPLETE if it is still quiet for so long and, with a verdict, has as many instances as then.

        None when another process was first or an image came. The event says by which signal.
        """

    def complete_unrouted(self, older_than_s: float = 0.0) -> list[Series]:
        """COMPLETE series whose routing was never recorded: left behind by a process that died.

        Only those that are complete for so long, or that an administrator, or a classifier's end, had routed again.
        """

    def receiving_studies(self, most: int | None = None) -> list[StudySigns]:
        """The signs of RECEIVING studies none of whose series is RECEIVING or COMPLETE."""

    def own_series(self, study_instance_uid: str) -> list[str]:
        """Series Instance UIDs of the node's own results in a study, whether they came back or not."""

    def complete_study(self, study_instance_uid: str, verdict: Verdict) -> int | None:
        """RECEIVING → COMPLETE, as complete_series; its generation, or None."""

    def complete_unrouted_studies(self, older_than_s: float = 0.0) -> list[tuple[str, int]]:
        """(Study Instance UID, generation) of COMPLETE studies whose routing was never recorded, as the series."""

    # what senders say and may
    def record_announcement(self, announcement: Announcement) -> None:
        """New, or what it is now."""

    def announcement(self, sop_instance_uid: str) -> Announcement | None: ...

    def rejections(self, most: int = 3) -> list[Event]:
        """Senders that were turned away, those of last first."""

    def sources(self) -> list[Source]: ...

    def put_source(self, source: Source) -> None:
        """A new one, or in place of the one of that AE title."""

    def remove_source(self, ae_title: str) -> None: ...

    # route
    def enabled_rules(self) -> list[RuleRevision]:
        """All that are asked, shadows too, in the order in which they are asked."""

    def active_model(self, name: str) -> ModelVersion | None: ...

    def shadow_of(self, name: str) -> ModelVersion | None:
        """The version of the model that runs beside the active one."""

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

        A job that is active already for the same (series, model version, rule revision) is not made twice, nor one
        of a rule that has made its job of the series as it is. Nothing happens when classes that the evidence awaits
        are there meanwhile: the series stays COMPLETE, to be routed with them.
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

    def class_news(self, study_instance_uid: str) -> Mapping[str, ClassNews]:
        """By Series Instance UID: the classes that jobs gave of the series as it is, and which are still to come.

        When such a job ends, in the transaction of finish_job, its classes are kept with the evidence, and where a
        rule asks for them the series is COMPLETE once more, of the same generation, and its study RECEIVING.
        """

    def prior_studies(self, study_instance_uid: str, most: int = 10) -> list[str]:
        """Earlier studies of the same patient by PatientID, newest first by Study Date; Study Instance UIDs."""

    def series(self, series_instance_uid: str) -> Series:
        """Raises NotFound."""

    def series_without_facts(self, most: int = 10, *, without_any: bool = True) -> list[Series]:
        """Series that were routed or not routed whose evidence is not there or lacks the facts of all headers.

        Newest first. Those without any evidence only if `without_any`: finding that there are none takes long.
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
        """QUEUED → RUNNING; None when it was cancelled or is over, or waits for its schedule or its model's limit.

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

    def may_send(self, delivery_id: str) -> bool:
        """Whether a delivery that is SENDING has one of the associations that its destination allows at once."""

    def proofs_due(self, but: Collection[str] = ()) -> list[ProofWork]:
        """What destinations are to be asked about now, one request each, but of those named; nobody else gets it."""

    def proof_answered(self, transaction_uid: str, answer: ProofAnswer) -> bool:
        """SENT → ACCEPTED or COMMITTED, or sent again; False when there is no such transaction."""

    def proof_put_off(self, transaction_uid: str, words: str) -> None:
        """There is no answer yet, and why."""

    def proof_unsupported(self, transaction_uid: str, words: str) -> None:
        """There will be none: the deliveries stay as they are, with these words."""

    # what senders ask us to commit to
    def record_wish(
        self, calling_ae_title: str, called_ae_title: str, transaction_uid: str, references: Sequence[Reference]
    ) -> None:
        """Raises AlreadyExists for another wish under that Transaction UID; the same again is harmless."""

    def open_wish(self, calling_ae_title: str, transaction_uid: str) -> CommitmentWish | None:
        """None once its sender was told, or is given up."""

    def wishes_due(self) -> list[CommitmentWish]:
        """Those whose senders are to be told now; nobody else gets them before their next time."""

    def wish_told(self, calling_ae_title: str, transaction_uid: str, words: str) -> None: ...

    def wish_put_off(self, calling_ae_title: str, transaction_uid: str, words: str) -> None: ...

    def instances_in_use(self, uids: Sequence[str]) -> Mapping[str, tuple[str, StoredFile]]:
        """SOP Instance UID → SOP Class UID and file of what is indexed."""

    def age_s(self, since: datetime) -> float:
        """Seconds since then, by the database's clock."""

    # administration
    def add_rule(self, name: str, document: Mapping[str, Any], *, author: str = "", reason: str = "") -> RuleRevision:
        """A new rule, or the next revision of one; equal documents make no revision."""

    def remove_rule(self, name: str, *, author: str = "", reason: str = "") -> None: ...

    def rules(self) -> list[RuleRevision]:
        """Those in force, disabled ones too, by name."""

    def rule_history(self, name: str) -> list[RuleRevision]:
        """All revisions, the oldest first; raises NotFound."""

    def models(self) -> list[ModelVersion]:
        """Every registered version, by name, the oldest first."""

    def models_in_use(self) -> list[ModelVersion]:
        """Those that are active or a shadow, that a rule asks for by version, or of which jobs wait or run."""

    def add_model(
        self,
        card: ModelCard,
        digest: str,
        path: Path,
        *,
        activate: bool = True,
        author: str = "",
        reason: str = "",
    ) -> ModelVersion:
        """Registers a version, or finds it; with `activate` as activate_model. Raises AlreadyExists.

        A version is what its digest says: the same name and version with other content is refused.
        """

    def activate_model(self, name: str, version: str, *, author: str = "", reason: str = "") -> ModelVersion:
        """What rules that say `version: active` run from now on; it is no shadow any more.

        Raises NotFound, and IllegalTransition when its acceptance failed.
        """

    def deactivate_model(self, name: str, *, author: str = "", reason: str = "") -> ModelVersion:
        """No version is active any more; the one that was. Raises IllegalTransition when none was."""

    def rollback_model(self, name: str, *, author: str = "", reason: str = "") -> ModelVersion:
        """The version that was active before is active again. Raises IllegalTransition when there was none."""

    def shadow_model(self, name: str, version: str = "", *, author: str = "", reason: str = "") -> ModelVersion:
        """Runs beside the active version, with results that go nowhere; "" ends it. The version that it is, or was.

        Raises NotFound, and IllegalTransition of the active version and of one whose acceptance failed.
        """

    def remove_model(
        self,
        name: str,
        version: str,
        *,
        files_only: bool = False,
        author: str = "",
        reason: str = "",
        dry_run: bool = False,
    ) -> ModelVersion:
        """As it was before; its files are the caller's to remove. Of what jobs ran only the files may go.

        The changes stay in the history, and with `files_only` the version, which nobody can activate then.
        Raises NotFound, and IllegalTransition while it is active, a shadow, or asked for by rules or jobs.
        """

    def model_changes(self, name: str) -> list[ModelChange]:
        """What was made active or a shadow, by whom and why; oldest first."""

    def record_acceptance(self, name: str, version: str, acceptance: Acceptance) -> ModelVersion:
        """In place of an earlier one of that version and machine. Raises NotFound."""

    def record_tuning(self, name: str, version: str, tuning: Mapping[str, Any]) -> ModelVersion:
        """In place of an earlier one of that version; see ModelVersion.tuning. Raises NotFound."""

    def model_limits(self) -> Mapping[str, int]:
        """How many jobs of a model may run at once, where an administrator said so; 0: any number."""

    def limit_model(self, name: str, at_once: int | None, *, dry_run: bool = False) -> int | None:
        """Of all its versions together, on all hosts; 0: any number; None: as its card says. What it was.

        Jobs that waited for the limit are queued as far as they may run now. Raises NotFound.
        """

    def add_destination(self, destination: Destination, *, replace: bool = False) -> int:
        """With `replace` in place of the one of that name: how many deliveries that wait go there now.

        Raises AlreadyExists.
        """

    def remove_destination(self, name: str) -> int:
        """How many deliveries on their way to it were cancelled; raises NotFound."""

    def destinations(self) -> list[Destination]: ...

    def deliveries_on_their_way(self) -> Mapping[str, int]:
        """Destination → how many wait for it or are being sent; those of which there are none are left out."""

    def destination_views(self) -> list[DestinationView]:
        """The destinations with their outages and deliveries, by name."""

    def deliveries(self, which: DeliveryFilter = EVERY_DELIVERY, *, most: int = 100) -> list[DeliveryView]:
        """Newest first."""

    def delivery(self, delivery_id: str) -> DeliveryView:
        """By id or its unambiguous beginning; raises NotFound, Ambiguous."""

    def retry_delivery(self, delivery_id: str, *, dry_run: bool = False) -> DeliveryChange:
        """Sends it now, also what was sent. Raises IllegalTransition, NotFound."""

    def drop_delivery(self, delivery_id: str, *, reason: str = "", dry_run: bool = False) -> DeliveryChange:
        """It is not sent. Raises IllegalTransition when it was, NotFound."""

    def jobs(self, which: JobFilter = EVERY_JOB, *, most: int = 100) -> list[JobView]:
        """Newest first."""

    def job(self, job_id: str) -> JobView:
        """By id or its unambiguous beginning; raises NotFound."""

    # With `dry_run` each of the five that follow fails and answers as it would, and changes nothing.

    def retry_job(self, job_id: str, *, dry_run: bool = False) -> JobChange:
        """Queues it again; of one that succeeded, the deliveries that did not. Raises IllegalTransition."""

    def cancel_job(self, job_id: str, *, dry_run: bool = False) -> JobChange:
        """Ends it; of one that succeeded, the deliveries still to come. Raises IllegalTransition."""

    def prioritise_job(
        self, job_id: str, priority: Priority, *, now: bool = False, dry_run: bool = False
    ) -> JobChange:
        """Of a QUEUED job; `now`: without waiting for its schedule. Raises IllegalTransition.

        One that is as asked for already keeps its ticket, and nothing is told.
        """

    def studies(self, which: StudyFilter = EVERY_STUDY, *, most: int = 100) -> list[StudyView]:
        """Newest first."""

    def rerun_study(self, key: str, *, dry_run: bool = False) -> list[str]:
        """Its series are routed again by the rules in force, as if they had just come. Series Instance UIDs.

        `key` as in only_study(); of one series alone when it is a Series Instance UID. Series that are still received
        and own results are left out.
        """

    def forget_study(self, key: str, *, dry_run: bool = False) -> Forgotten:
        """Takes a study, its jobs, results and story out of the database; raises IllegalTransition while jobs run.

        `key` as in only_study().
        """

    def study(self, key: str) -> StudyView:
        """By Study Instance UID, Series Instance UID, accession number or patient ID (newest); raises NotFound."""

    def studies_named(self, key: str) -> list[StudyView]:
        """All that study() could mean, newest first; raises NotFound."""

    def only_study(self, key: str) -> StudyView:
        """As study(), but raises Ambiguous where several have that accession number or patient ID."""

    def events(self, study_instance_uid: str) -> list[Event]:
        """The study's story in the order it happened."""

    def last_event_number(self) -> int:
        """Number of the newest event of all; 0 when there is none."""

    def events_after(self, number: int, most: int = 200) -> list[tuple[int, Event]]:
        """(number, event) of all studies after that one, oldest first: what a running node shows."""

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """How many: "series", "jobs", "deliveries" → state → number; "studies", "instances" → {"all": number}."""
