"""The State port on SQLAlchemy: each method is one transaction over the functions of the modules beside it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import sqlalchemy as sa

from dicomnode.adapters.db import (
    administration,
    classes,
    commitment_wishes,
    completion,
    deliveries,
    delivery_views,
    destinations,
    evidence,
    executors,
    forget,
    jobs,
    limits,
    model_removal,
    models,
    past,
    peaks,
    proofs,
    queueing,
    receive,
    routing,
    rules,
    senders,
    story,
)
from dicomnode.adapters.db.evidence import record_evidence as keep_evidence
from dicomnode.adapters.db.session import Transactions, Unit, WorkQueue, open_engine
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
from dicomnode.ports import (
    DeliveryChange,
    DeliveryFilter,
    DeliveryOutcome,
    DeliveryView,
    DeliveryWork,
    DestinationView,
    Event,
    Executor,
    Forgotten,
    JobChange,
    JobFilter,
    JobOutcome,
    JobView,
    JobWork,
    ModelVersion,
    NewJob,
    PastStudy,
    ProofWork,
    Pulse,
    RuleRevision,
    Running,
    SeriesRouting,
    StoredFile,
    StudyFilter,
    StudyView,
)

EVERY_DELIVERY = DeliveryFilter()

P = ParamSpec("P")
R = TypeVar("R")


class SqlState:
    """The node's business state in SQLite or PostgreSQL. Thread-safe; several processes may have one each."""

    def __init__(self, engine: sa.Engine, queue: WorkQueue) -> None:
        self.engine = engine
        self._transactions = Transactions(engine, queue)
        self._read, self._write = self._transactions.read, self._transactions.write

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.engine.dispose()

    # receive
    def record_instances(self, instances: Sequence[ReceivedInstance]) -> list[Recorded]:
        return self._write(receive.record_instances, instances)

    def record_event(self, event: Event) -> None:
        self._write(_record_event, event)

    def association_ended(self, association: str, how: str) -> None:
        self._write(completion.association_ended, association, how)

    def associations_lost(self, receiver: str, but: str) -> None:
        self._write(completion.associations_lost, receiver, but)

    # complete
    def receiving_series(self, most: int | None = None) -> list[SeriesSigns]:
        return self._read(completion.receiving_series, most)

    def places(self, series_instance_uid: str) -> list[Place]:
        return self._read(completion.places, series_instance_uid)

    def record_count(
        self, series_instance_uid: str, instances: int, source: str, asked_before_s: float = 0.0
    ) -> None:
        self._write(completion.record_count, series_instance_uid, instances, source, asked_before_s)

    def quiet_series(self, quiet_period_s: float, most: int = 100) -> list[str]:
        return self._read(completion.quiet_series, quiet_period_s, most)

    def complete_series(
        self, series_instance_uid: str, quiet_period_s: float, verdict: Verdict | None = None
    ) -> Series | None:
        return self._write(completion.complete_series, series_instance_uid, quiet_period_s, verdict)

    def complete_unrouted(self, older_than_s: float = 0.0) -> list[Series]:
        return self._read(completion.complete_unrouted, older_than_s)

    def receiving_studies(self, most: int | None = None) -> list[StudySigns]:
        return self._read(completion.receiving_studies, most)

    def own_series(self, study_instance_uid: str) -> list[str]:
        return self._read(completion.own_series, study_instance_uid)

    def complete_study(self, study_instance_uid: str, verdict: Verdict) -> int | None:
        return self._write(completion.complete_study, study_instance_uid, verdict)

    def complete_unrouted_studies(self, older_than_s: float = 0.0) -> list[tuple[str, int]]:
        return self._read(completion.complete_unrouted_studies, older_than_s)

    # what senders say and may
    def record_announcement(self, announcement: Announcement) -> None:
        self._write(senders.record_announcement, announcement)

    def announcement(self, sop_instance_uid: str) -> Announcement | None:
        return self._read(senders.announcement, sop_instance_uid)

    def rejections(self, most: int = 3) -> list[Event]:
        return self._read(senders.rejections, most)

    def sources(self) -> list[Source]:
        return self._read(senders.sources)

    def put_source(self, source: Source) -> None:
        self._write(senders.put_source, source)

    def remove_source(self, ae_title: str) -> None:
        self._write(senders.remove_source, ae_title)

    # route
    def enabled_rules(self) -> list[RuleRevision]:
        return self._read(rules.enabled_rules)

    def active_model(self, name: str) -> ModelVersion | None:
        return self._read(models.active_model, name)

    def shadow_of(self, name: str) -> ModelVersion | None:
        return self._read(models.shadow_of, name)

    def model_version(self, name: str, version: str) -> ModelVersion | None:
        return self._read(models.model_version, name, version)

    def record_routing(
        self,
        series: Series,
        jobs: Sequence[NewJob],
        why: str,
        detail: Mapping[str, Any],
        evidence: Evidence | None = None,
    ) -> list[str]:
        return self._write(routing.record_routing, series, jobs, why, detail, evidence)

    def record_study_routing(
        self, study_instance_uid: str, generation: int, routings: Sequence[SeriesRouting]
    ) -> list[str]:
        return self._write(routing.record_study_routing, study_instance_uid, generation, routings)

    def study_series(self, study_instance_uid: str) -> list[Series]:
        return self._read(evidence.study_series, study_instance_uid)

    def study_evidence(self, study_instance_uid: str) -> list[Evidence]:
        return self._read(evidence.study_evidence, study_instance_uid)

    def class_news(self, study_instance_uid: str) -> Mapping[str, ClassNews]:
        return self._read(classes.class_news, study_instance_uid)

    def prior_studies(self, study_instance_uid: str, most: int = 10) -> list[str]:
        return self._read(evidence.prior_studies, study_instance_uid, most)

    def series(self, series_instance_uid: str) -> Series:
        return self._read(evidence.series, series_instance_uid)

    def series_without_facts(self, most: int = 10, *, without_any: bool = True) -> list[Series]:
        return self._read(evidence.series_without_facts, most, without_any)

    def record_evidence(self, evidence: Evidence) -> None:
        self._write(keep_evidence, evidence)

    def record_facts(self, series_instance_uid: str, generation: int, facts: Header) -> None:
        self._write(evidence.record_facts, series_instance_uid, generation, facts)

    def past(
        self, keywords: Sequence[str], facts: Sequence[str], since: datetime | None = None, page: int = 1000
    ) -> Iterator[PastStudy]:
        """A transaction a page: none is open while the caller works."""
        after: past.Place | None = None
        while True:
            studies, after = self._read(past.past_page, keywords, facts, since, after, page)
            yield from studies
            if after is None:
                return

    # infer, encode
    def start_job(self, job_id: str, run: int | None = None) -> JobWork | None:
        return self._write(jobs.start_job, job_id, run)

    def finish_job(self, job_id: str, outcome: JobOutcome, attempt: int | None = None) -> None:
        self._write(jobs.finish_job, job_id, outcome, attempt)

    # deliver
    def start_delivery(self, delivery_id: str, run: int | None = None) -> DeliveryWork | None:
        return self._write(deliveries.start_delivery, delivery_id, run)

    def finish_delivery(self, delivery_id: str, outcome: DeliveryOutcome, attempt: int | None = None) -> None:
        self._write(deliveries.finish_delivery, delivery_id, outcome, attempt)

    def may_send(self, delivery_id: str) -> bool:
        return self._read(deliveries.may_send, delivery_id)

    def proofs_due(self, but: Collection[str] = ()) -> list[ProofWork]:
        return self._write(proofs.proofs_due, but) if self._read(proofs.is_any_due) else []

    def proof_answered(self, transaction_uid: str, answer: ProofAnswer) -> bool:
        return self._write(proofs.proof_answered, transaction_uid, answer)

    def proof_put_off(self, transaction_uid: str, words: str) -> None:
        self._write(proofs.proof_put_off, transaction_uid, words)

    def proof_unsupported(self, transaction_uid: str, words: str) -> None:
        self._write(proofs.proof_unsupported, transaction_uid, words)

    # what senders ask us to commit to
    def record_wish(
        self, calling_ae_title: str, called_ae_title: str, transaction_uid: str, references: Sequence[Reference]
    ) -> None:
        self._write(commitment_wishes.record_wish, calling_ae_title, called_ae_title, transaction_uid, references)

    def open_wish(self, calling_ae_title: str, transaction_uid: str) -> CommitmentWish | None:
        return self._read(commitment_wishes.open_wish, calling_ae_title, transaction_uid)

    def wishes_due(self) -> list[CommitmentWish]:
        return self._write(commitment_wishes.wishes_due) if self._read(commitment_wishes.is_any_due) else []

    def wish_told(self, calling_ae_title: str, transaction_uid: str, words: str) -> None:
        self._write(commitment_wishes.wish_told, calling_ae_title, transaction_uid, words)

    def wish_put_off(self, calling_ae_title: str, transaction_uid: str, words: str) -> None:
        self._write(commitment_wishes.wish_put_off, calling_ae_title, transaction_uid, words)

    def instances_in_use(self, uids: Sequence[str]) -> Mapping[str, tuple[str, StoredFile]]:
        return self._read(commitment_wishes.instances_in_use, uids)

    def age_s(self, since: datetime) -> float:
        return self._read(commitment_wishes.age_s, since)

    # administration
    def add_rule(self, name: str, document: Mapping[str, Any], *, author: str = "", reason: str = "") -> RuleRevision:
        return self._write(rules.add_rule, name, document, author, reason)

    def remove_rule(self, name: str, *, author: str = "", reason: str = "") -> None:
        self._write(rules.remove_rule, name, author, reason)

    def rules(self) -> list[RuleRevision]:
        return self._read(rules.rules)

    def rule_history(self, name: str) -> list[RuleRevision]:
        return self._read(rules.rule_history, name)

    def models(self) -> list[ModelVersion]:
        return self._read(models.models)

    def models_in_use(self) -> list[ModelVersion]:
        return self._read(models.models_in_use)

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
        return self._write(models.add_model, card, digest, path, activate, author, reason)

    def activate_model(self, name: str, version: str, *, author: str = "", reason: str = "") -> ModelVersion:
        return self._write(models.activate_model, name, version, author, reason)

    def deactivate_model(self, name: str, *, author: str = "", reason: str = "") -> ModelVersion:
        return self._write(models.deactivate_model, name, author, reason)

    def rollback_model(self, name: str, *, author: str = "", reason: str = "") -> ModelVersion:
        return self._write(models.rollback_model, name, author, reason)

    def shadow_model(self, name: str, version: str = "", *, author: str = "", reason: str = "") -> ModelVersion:
        return self._write(models.shadow_model, name, version, author, reason)

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
        return self._change(dry_run, model_removal.remove_model, name, version, files_only, author, reason)

    def model_changes(self, name: str) -> list[ModelChange]:
        return self._read(models.model_changes, name)

    def record_acceptance(self, name: str, version: str, acceptance: Acceptance) -> ModelVersion:
        return self._write(models.record_acceptance, name, version, acceptance)

    def record_tuning(self, name: str, version: str, tuning: Mapping[str, Any]) -> ModelVersion:
        return self._write(models.record_tuning, name, version, tuning)

    def add_destination(self, destination: Destination, *, replace: bool = False) -> int:
        return self._write(destinations.add_destination, destination, replace)

    def remove_destination(self, name: str) -> int:
        return self._write(destinations.remove_destination, name)

    def destinations(self) -> list[Destination]:
        return self._read(destinations.destinations)

    def deliveries_on_their_way(self) -> Mapping[str, int]:
        return self._read(destinations.deliveries_on_their_way)

    def destination_views(self) -> list[DestinationView]:
        return self._read(delivery_views.destination_views)

    def deliveries(self, which: DeliveryFilter = EVERY_DELIVERY, *, most: int = 100) -> list[DeliveryView]:
        return self._read(delivery_views.deliveries, which, most)

    def delivery(self, delivery_id: str) -> DeliveryView:
        return self._read(delivery_views.delivery, delivery_id)

    def retry_delivery(self, delivery_id: str, *, dry_run: bool = False) -> DeliveryChange:
        return self._change(dry_run, delivery_views.retry, delivery_id)

    def drop_delivery(self, delivery_id: str, *, reason: str = "", dry_run: bool = False) -> DeliveryChange:
        return self._change(dry_run, delivery_views.drop, delivery_id, reason)

    def jobs(self, which: JobFilter = JobFilter(), *, most: int = 100) -> list[JobView]:  # noqa: B008
        return self._read(story.jobs, which, most)

    def job(self, job_id: str) -> JobView:
        return self._read(lambda session: story.job_view(administration.find_job(session, job_id)))

    def retry_job(self, job_id: str, *, dry_run: bool = False) -> JobChange:
        return self._change(dry_run, administration.retry_job, job_id)

    def cancel_job(self, job_id: str, *, dry_run: bool = False) -> JobChange:
        return self._change(dry_run, administration.cancel_job, job_id)

    def prioritise_job(
        self, job_id: str, priority: Priority, *, now: bool = False, dry_run: bool = False
    ) -> JobChange:
        return self._change(dry_run, administration.prioritise_job, job_id, priority, now)

    def rerun_study(self, key: str, *, dry_run: bool = False) -> list[str]:
        return self._change(dry_run, administration.rerun_study, key)

    def forget_study(self, key: str, *, dry_run: bool = False) -> Forgotten:
        return self._change(dry_run, forget.forget_study, key)

    def _change(
        self, dry_run: bool, function: Callable[Concatenate[Unit, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        do = self._transactions.rehearse if dry_run else self._transactions.write
        return do(function, *args, **kwargs)

    def studies(self, which: StudyFilter = StudyFilter(), *, most: int = 100) -> list[StudyView]:  # noqa: B008
        return self._read(story.studies, which, most)

    def study(self, key: str) -> StudyView:
        return self._read(story.study, key)

    def studies_named(self, key: str) -> list[StudyView]:
        return self._read(story.studies_named, key)

    def only_study(self, key: str) -> StudyView:
        return self._read(story.only_study, key)

    def events(self, study_instance_uid: str) -> list[Event]:
        return self._read(story.events, study_instance_uid)

    def last_event_number(self) -> int:
        return self._read(story.last_event_number)

    def events_after(self, number: int, most: int = 200) -> list[tuple[int, Event]]:
        return self._read(story.events_after, number, most)

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        return self._read(story.counts)

    # for the job engine
    def open_work(self) -> tuple[dict[str, int], dict[str, int]]:
        """Jobs and deliveries that wait or run, each with the number of its ticket in the queue."""
        return self._read(story.open_work)

    def taken_back(self, running: Collection[Running]) -> dict[Running, str]:
        """Of what a process does those jobs that are not its any more, and why."""
        return self._read(jobs.taken_back, running)

    def model_limits(self) -> Mapping[str, int]:
        return self._read(limits.model_limits)

    def limit_model(self, name: str, at_once: int | None, *, dry_run: bool = False) -> int | None:
        return self._change(dry_run, limits.limit_model, name, at_once)

    def waiting_job(self, job_id: str, run: int) -> JobWork | None:
        return self._read(jobs.waiting_job, job_id, run)

    def hold_job(self, job_id: str, run: int, reason: str) -> bool:
        return self._write(queueing.hold_job, job_id, run, reason)

    def requeue_job(self, job_id: str, run: int, why: str = "the queue had lost it") -> bool:
        return self._write(queueing.requeue_job, job_id, run, why)

    def peak(self, digest: str, host: str, engine: str) -> tuple[Mapping[str, float], int] | None:
        return self._read(peaks.peak, digest, host, engine)

    def record_peak(self, digest: str, host: str, engine: str, memory: Mapping[str, float], voxels: int) -> None:
        self._write(peaks.record_peak, digest, host, engine, memory, voxels)

    def leave_job(self, job_id: str, run: int, reason: str, machine: str, again_s: float = 0.0) -> bool:
        return self._write(queueing.leave_job, job_id, run, reason, machine, again_s)

    def lose_job(self, job_id: str, run: int) -> bool:
        return self._write(jobs.lose_job, job_id, run)

    def requeue_delivery(self, delivery_id: str, run: int) -> bool:
        return self._write(deliveries.requeue_delivery, delivery_id, run)

    def beat(self, executor: Executor) -> None:
        """The executor's heartbeat, by the database's clock."""
        self._write(executors.beat, executor)

    def forget_executor(self, executor_id: str) -> None:
        self._write(executors.forget, executor_id)

    def executors(self) -> list[Pulse]:
        """Every process that runs jobs, or did, and how long its heartbeat is ago."""
        return self._read(executors.pulses)


def _record_event(unit: Unit, event: Event) -> None:
    unit.tell(
        event.kind,
        event.message,
        study_instance_uid=event.study_instance_uid,
        series_instance_uid=event.series_instance_uid,
        job_id=event.job_id,
        delivery_id=event.delivery_id,
        detail=dict(event.detail),
    )


def open_state(url: str, queue: WorkQueue) -> SqlState:
    """The state in the database at `url`, an SQLAlchemy URL; its tables must be there (see migrate)."""
    return SqlState(open_engine(url), queue)
