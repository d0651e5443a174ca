"""The business state's tables. Their constraints guard what must never be, whatever the code does.

One active job per (series, model version, rule revision); one delivery per (result, destination); one active
version and one shadow per model; one revision in force per rule; a UID once. The job engine's own tables are not
here.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from dicomnode.adapters.db.columns import Prose, UtcDateTime, words
from dicomnode.domain.job import ACTIVE_JOB_STATES, OPEN_DELIVERY_STATES, DeliveryState, JobState, Priority
from dicomnode.domain.study import SeriesState, StudyState

_Key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_Uid = sa.String(64)
_Json = sa.JSON()
# for documents whose parts are asked for one by one
_Document = sa.JSON().with_variant(JSONB(), "postgresql")


class Base(DeclarativeBase):
    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime(),
        JobState: words(JobState, "state"),
        DeliveryState: words(DeliveryState, "state"),
        SeriesState: words(SeriesState, "state"),
        StudyState: sa.Enum(
            StudyState, values_callable=lambda states: [str(s) for s in states], native_enum=False, length=16
        ),
        Priority: words(Priority, "priority"),
    }


def _only_one(name: str, *columns: str, where: str) -> sa.Index:
    """A partial unique index: SQLite and PostgreSQL both have them."""
    condition = sa.text(where)
    return sa.Index(name, *columns, unique=True, sqlite_where=condition, postgresql_where=condition)


def among(states: frozenset[Any]) -> str:
    """A condition in SQL, as partial indexes have it."""
    return "state IN (" + ", ".join(f"'{state}'" for state in sorted(states)) + ")"


class StudyRow(Base):
    __tablename__ = "study"

    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(_Uid, unique=True)
    patient_id: Mapped[str] = mapped_column(sa.String(64), index=True)
    accession_number: Mapped[str] = mapped_column(sa.String(64), index=True)
    study_date: Mapped[str] = mapped_column(sa.String(32))
    description: Mapped[str] = mapped_column(sa.String(256))
    received_at: Mapped[datetime] = mapped_column(index=True)
    state: Mapped[StudyState] = mapped_column(server_default="routed", index=True)
    generation: Mapped[int] = mapped_column(default=0, server_default="0")  # how often it was found complete
    completed_at: Mapped[datetime | None]

    series: Mapped[list[SeriesRow]] = relationship(back_populates="study", order_by="SeriesRow.id")


class SeriesRow(Base):
    __tablename__ = "series"
    __table_args__ = (sa.Index("ix_series_state_last_received_at", "state", "last_received_at"),)

    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    study_id: Mapped[int] = mapped_column(_Key, sa.ForeignKey("study.id"), index=True)
    series_instance_uid: Mapped[str] = mapped_column(_Uid, unique=True)
    state: Mapped[SeriesState]
    generation: Mapped[int] = mapped_column(default=0)  # how often it was found complete
    modality: Mapped[str] = mapped_column(sa.String(16))
    description: Mapped[str] = mapped_column(sa.String(256))
    series_number: Mapped[int | None] = mapped_column(sa.BigInteger)
    calling_ae_title: Mapped[str] = mapped_column(sa.String(16))
    called_ae_title: Mapped[str] = mapped_column(sa.String(16))
    first_received_at: Mapped[datetime]
    last_received_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]
    why: Mapped[str] = mapped_column(Prose(), default="")  # the last routing decision in words
    # of one that is NOT_ROUTED: a rule may still make a job, and people see it as WAITING, which no row is
    waits: Mapped[bool] = mapped_column(default=False, server_default=sa.false())
    # what the source answered when it was asked how many instances there are
    counted_instances: Mapped[int | None]
    counted_from: Mapped[str] = mapped_column(sa.String(256), default="", server_default=sa.text("''"))
    counted_at: Mapped[datetime | None]

    study: Mapped[StudyRow] = relationship(back_populates="series")

    @property
    def standing(self) -> SeriesState:
        """Its state as people see it."""
        return SeriesState.WAITING if self.waits and self.state is SeriesState.NOT_ROUTED else self.state


class InstanceRow(Base):
    """A file in the store. Of files with one SOP Instance UID and other bytes the first is the one in use."""

    __tablename__ = "instance"
    __table_args__ = (
        sa.UniqueConstraint("sop_instance_uid", "sha256"),
        _only_one("uq_instance_in_use", "sop_instance_uid", where="in_use"),
    )

    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    series_id: Mapped[int] = mapped_column(_Key, sa.ForeignKey("series.id"), index=True)
    sop_instance_uid: Mapped[str] = mapped_column(_Uid)
    sop_class_uid: Mapped[str] = mapped_column(_Uid)
    transfer_syntax_uid: Mapped[str] = mapped_column(_Uid)
    instance_number: Mapped[int | None] = mapped_column(sa.BigInteger)
    path: Mapped[str] = mapped_column(sa.String(512))
    size_bytes: Mapped[int] = mapped_column(sa.BigInteger)
    sha256: Mapped[str] = mapped_column(sa.String(64))
    in_use: Mapped[bool]
    received_at: Mapped[datetime]
    number_of_frames: Mapped[int] = mapped_column(default=1, server_default="1")
    plane: Mapped[str] = mapped_column(sa.String(32), default="", server_default=sa.text("''"))
    position_mm: Mapped[float | None]
    images_announced: Mapped[int | None]


class ArrivalRow(Base):
    """What one association brought of one series, and how the association ended, if it did."""

    __tablename__ = "arrival"
    __table_args__ = (sa.UniqueConstraint("series_id", "association"),)

    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    series_id: Mapped[int] = mapped_column(_Key, sa.ForeignKey("series.id"))
    association: Mapped[str] = mapped_column(sa.String(128), index=True)  # begins with its receiver's name
    calling_ae_title: Mapped[str] = mapped_column(sa.String(16))
    instances: Mapped[int]
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    ended_how: Mapped[str] = mapped_column(sa.String(16), default="")  # released, aborted, lost


class EvidenceRow(Base):
    """A series' header and facts, so that rules can be asked about the past from the database alone."""

    __tablename__ = "evidence"
    # so that looking for what lacks facts reads no documents
    __table_args__ = (
        sa.Index(
            "ix_evidence_lacking",
            "series_id",
            sqlite_where=sa.text("NOT all_facts"),
            postgresql_where=sa.text("NOT all_facts"),
        ),
    )

    series_id: Mapped[int] = mapped_column(_Key, sa.ForeignKey("series.id"), primary_key=True)
    generation: Mapped[int]  # of the series
    header: Mapped[dict[str, Any]] = mapped_column(_Document)
    facts: Mapped[dict[str, Any]] = mapped_column(_Document)
    all_facts: Mapped[bool]
    no_image: Mapped[str] = mapped_column(Prose(), default="")

    series: Mapped[SeriesRow] = relationship()


class AnnouncementRow(Base):
    """What a modality or an archive said about instances to come or there: an MPPS or an IAN object."""

    __tablename__ = "announcement"

    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    kind: Mapped[str] = mapped_column(sa.String(8))  # mpps, ian
    sop_instance_uid: Mapped[str] = mapped_column(_Uid, unique=True)
    calling_ae_title: Mapped[str] = mapped_column(sa.String(16))
    state: Mapped[str] = mapped_column(sa.String(16))  # in progress, completed, discontinued, available
    document: Mapped[dict[str, Any]] = mapped_column(_Json)  # the data set as DICOM JSON (PS3.18 F)
    received_at: Mapped[datetime]
    changed_at: Mapped[datetime]

    series: Mapped[list[AnnouncedSeriesRow]] = relationship(back_populates="announcement")


class AnnouncedSeriesRow(Base):
    __tablename__ = "announced_series"

    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    announcement_id: Mapped[int] = mapped_column(_Key, sa.ForeignKey("announcement.id"), index=True)
    study_instance_uid: Mapped[str] = mapped_column(_Uid, index=True)
    series_instance_uid: Mapped[str] = mapped_column(_Uid, index=True)
    sop_instance_uids: Mapped[list[str]] = mapped_column(_Json)

    announcement: Mapped[AnnouncementRow] = relationship(back_populates="series")


class SourceRow(Base):
    """What the node knows and wants of one sender, by its AE title."""

    __tablename__ = "source"

    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    ae_title: Mapped[str] = mapped_column(sa.String(16), unique=True)
    document: Mapped[dict[str, Any]] = mapped_column(_Json)
    changed_at: Mapped[datetime]


class RuleRow(Base):
    """An immutable revision of a rule; at most one of a name is in force."""

    __tablename__ = "rule"
    __table_args__ = (
        sa.UniqueConstraint("name", "revision"),
        _only_one("uq_rule_in_force", "name", where="in_force"),
    )

    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(64))
    revision: Mapped[int]
    document: Mapped[dict[str, Any]] = mapped_column(_Json)
    in_force: Mapped[bool]
    created_at: Mapped[datetime]
    author: Mapped[str] = mapped_column(sa.String(64), default="", server_default=sa.text("''"))
    reason: Mapped[str] = mapped_column(Prose(), default="", server_default=sa.text("''"))
    removed_at: Mapped[datetime | None]
    removed_by: Mapped[str] = mapped_column(sa.String(64), default="", server_default=sa.text("''"))
    removed_why: Mapped[str] = mapped_column(Prose(), default="", server_default=sa.text("''"))


class ModelRow(Base):
    __tablename__ = "model"
    __table_args__ = (
        sa.UniqueConstraint("name", "version"),
        _only_one("uq_model_active", "name", where="active"),
        _only_one("uq_model_shadow", "name", where="shadow"),
    )

    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(48))
    version: Mapped[str] = mapped_column(sa.String(32))
    digest: Mapped[str] = mapped_column(sa.String(64))
    path: Mapped[str] = mapped_column(sa.String(1024))
    card: Mapped[dict[str, Any]] = mapped_column(_Json)
    active: Mapped[bool]
    created_at: Mapped[datetime]
    shadow: Mapped[bool] = mapped_column(default=False, server_default=sa.false())
    tuning: Mapped[dict[str, Any] | None] = mapped_column(_Json)  # candidates of engines, and the chosen one
    author: Mapped[str] = mapped_column(sa.String(64), default="", server_default=sa.text("''"))
    reason: Mapped[str] = mapped_column(Prose(), default="", server_default=sa.text("''"))

    acceptances: Mapped[list[ModelAcceptanceRow]] = relationship(
        order_by="ModelAcceptanceRow.at", lazy="selectin", cascade="all, delete-orphan"
    )


class ModelAcceptanceRow(Base):
    """What came of a version's golden cases on one machine, the last time that they were run there."""

    __tablename__ = "model_acceptance"

    model_id: Mapped[int] = mapped_column(
        _Key, sa.ForeignKey("model.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    host: Mapped[str] = mapped_column(sa.String(255), primary_key=True)  # "": of before hosts were kept
    at: Mapped[datetime]
    document: Mapped[dict[str, Any]] = mapped_column(_Json)  # as domain.acceptance has it


class ModelPeakRow(Base):
    """What a version took of memory when it ran last on one machine and engine."""

    __tablename__ = "model_peak"

    model_id: Mapped[int] = mapped_column(
        _Key, sa.ForeignKey("model.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    host: Mapped[str] = mapped_column(sa.String(255), primary_key=True)
    engine: Mapped[str] = mapped_column(sa.String(128), primary_key=True)
    memory: Mapped[dict[str, float]] = mapped_column(_Json)  # as ports.InferenceEngine.taken has it
    voxels: Mapped[int] = mapped_column(sa.BigInteger)  # of the main series of that run


class ModelChangeRow(Base):
    """Who made which version active, or a shadow, and why; never changed."""

    __tablename__ = "model_change"

    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    at: Mapped[datetime]
    kind: Mapped[str] = mapped_column(sa.String(16))
    name: Mapped[str] = mapped_column(sa.String(48), index=True)
    version: Mapped[str] = mapped_column(sa.String(32))
    author: Mapped[str] = mapped_column(sa.String(64), default="")
    reason: Mapped[str] = mapped_column(Prose(), default="")


class ModelLimitRow(Base):
    """How many jobs of a model, whatever version, may run at once; without a row its card says. 0: any number."""

    __tablename__ = "model_limit"

    name: Mapped[str] = mapped_column(sa.String(48), primary_key=True)
    at_once: Mapped[int]


class DestinationRow(Base):
    """A removed destination stays, out of force, for the story of what it was sent."""

    __tablename__ = "destination"
    __table_args__ = (_only_one("uq_destination_in_force", "name", where="in_force"),)

    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(64))
    kind: Mapped[str] = mapped_column(sa.String(8))
    address: Mapped[str] = mapped_column(sa.String(1024))
    in_force: Mapped[bool]
    created_at: Mapped[datetime]
    options: Mapped[dict[str, Any] | None] = mapped_column(_Json)  # as domain.delivery_options has it
    # of an outage, as domain.outage has it
    down_since: Mapped[datetime | None]
    failures: Mapped[int] = mapped_column(default=0, server_default="0")
    probe_at: Mapped[datetime | None]
    down_words: Mapped[str] = mapped_column(Prose(), default="", server_default=sa.text("''"))
    # until then it is not asked for proof, which it could not give
    unprovable_until: Mapped[datetime | None]
    unprovable_words: Mapped[str] = mapped_column(Prose(), default="", server_default=sa.text("''"))


class CommitmentRow(Base):
    """A request for proof of several deliveries to a destination; answers come by its Transaction UID (PS3.4 J.3)."""

    __tablename__ = "commitment"

    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    transaction_uid: Mapped[str] = mapped_column(_Uid, unique=True)
    destination_id: Mapped[int] = mapped_column(_Key, sa.ForeignKey("destination.id"), index=True)
    items: Mapped[dict[str, str]] = mapped_column(_Json)  # SOP Instance UID → delivery
    asked_at: Mapped[datetime] = mapped_column(index=True)
    answered_at: Mapped[datetime | None]


class CommitmentWishRow(Base):
    """What a sender asked us to commit to (PS3.4 J.3.2), until it was told."""

    __tablename__ = "commitment_wish"
    __table_args__ = (sa.UniqueConstraint("calling_ae_title", "transaction_uid"),)

    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    calling_ae_title: Mapped[str] = mapped_column(sa.String(16))
    called_ae_title: Mapped[str] = mapped_column(sa.String(16))
    transaction_uid: Mapped[str] = mapped_column(_Uid)
    items: Mapped[list[list[str]]] = mapped_column(_Json)  # SOP Class UID and SOP Instance UID of each
    asked_at: Mapped[datetime] = mapped_column(index=True)
    next_at: Mapped[datetime | None] = mapped_column(index=True)  # when it is to be told; None: no more
    tries: Mapped[int]
    words: Mapped[str] = mapped_column(Prose(), default="")  # how it ended, or why it has not yet


class JobRow(Base):
    """One model on one series. `run` numbers its tickets in the queue: an old ticket starts nothing."""

    __tablename__ = "job"
    __table_args__ = (
        _only_one("uq_job_active", "series_id", "model_id", "rule_id", where=among(ACTIVE_JOB_STATES)),
        sa.Index("ix_job_state_created_at", "state", "created_at"),
    )

    id: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    series_id: Mapped[int] = mapped_column(_Key, sa.ForeignKey("series.id"), index=True)
    rule_id: Mapped[int] = mapped_column(_Key, sa.ForeignKey("rule.id"))
    model_id: Mapped[int] = mapped_column(_Key, sa.ForeignKey("model.id"))
    generation: Mapped[int]  # of the series when it was routed
    state: Mapped[JobState]
    priority: Mapped[Priority]
    destinations: Mapped[list[str]] = mapped_column(_Json)
    # what the rule wants of it: see routing.options_of; jobs of before there were any have none
    options: Mapped[dict[str, Any] | None] = mapped_column(_Json)
    not_before: Mapped[datetime | None]  # a schedule window's begin
    run: Mapped[int]
    attempts: Mapped[int] = mapped_column(default=0)
    crashes: Mapped[int] = mapped_column(default=0)  # of the attempts, those whose process died
    code: Mapped[str] = mapped_column(sa.String(64), default="")
    reason: Mapped[str] = mapped_column(Prose(), default="")
    timings_s: Mapped[dict[str, float]] = mapped_column(_Json, default=dict)
    details: Mapped[dict[str, Any]] = mapped_column(_Json, default=dict)
    created_at: Mapped[datetime] = mapped_column(index=True)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    # of a model's shadow version: its results are kept here and sent nowhere, and take no other's place
    shadow: Mapped[bool] = mapped_column(default=False, server_default=sa.false())

    series: Mapped[SeriesRow] = relationship()
    rule: Mapped[RuleRow] = relationship()
    model: Mapped[ModelRow] = relationship()
    results: Mapped[list[ResultRow]] = relationship(back_populates="job", order_by="ResultRow.id")


class ResultRow(Base):
    __tablename__ = "result"

    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    job_id: Mapped[str] = mapped_column(sa.String(32), sa.ForeignKey("job.id"), index=True)
    kind: Mapped[str] = mapped_column(sa.String(16))
    sop_class_uid: Mapped[str] = mapped_column(_Uid)
    sop_instance_uid: Mapped[str] = mapped_column(_Uid, unique=True)
    series_instance_uid: Mapped[str] = mapped_column(_Uid, index=True)
    path: Mapped[str] = mapped_column(sa.String(512))
    size_bytes: Mapped[int] = mapped_column(sa.BigInteger)
    sha256: Mapped[str] = mapped_column(sa.String(64))
    created_at: Mapped[datetime]
    # the later job, of more images or another version, whose result takes this one's place
    superseded_by: Mapped[str | None] = mapped_column(sa.String(32))

    job: Mapped[JobRow] = relationship(back_populates="results")
    deliveries: Mapped[list[DeliveryRow]] = relationship(back_populates="result", order_by="DeliveryRow.id")


class DeliveryRow(Base):
    """One result to one destination; `run` as in a job."""

    __tablename__ = "delivery"
    __table_args__ = (
        sa.UniqueConstraint("result_id", "destination_id"),
        sa.Index(
            "ix_delivery_open",
            "state",
            sqlite_where=sa.text(among(OPEN_DELIVERY_STATES)),
            postgresql_where=sa.text(among(OPEN_DELIVERY_STATES)),
        ),
        sa.Index(
            "ix_delivery_ask_at",
            "ask_at",
            sqlite_where=sa.text("ask_at IS NOT NULL"),
            postgresql_where=sa.text("ask_at IS NOT NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    result_id: Mapped[int] = mapped_column(_Key, sa.ForeignKey("result.id"))
    destination_id: Mapped[int] = mapped_column(_Key, sa.ForeignKey("destination.id"), index=True)
    state: Mapped[DeliveryState]
    run: Mapped[int]
    attempts: Mapped[int] = mapped_column(default=0)
    reason: Mapped[str] = mapped_column(Prose(), default="")  # the last failure, or what the peer answered
    since: Mapped[datetime]  # when it, or its retry by the administrator, began: the age the backoff sees
    next_attempt_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]
    failure: Mapped[str] = mapped_column(sa.String(32), default="", server_default=sa.text("''"))  # its kind
    sending_since: Mapped[datetime | None]
    # proof, as domain.proof has it
    ask_at: Mapped[datetime | None]  # when it is to be asked for next; None: not at all
    asks: Mapped[int] = mapped_column(default=0, server_default="0")
    losses: Mapped[int] = mapped_column(default=0, server_default="0")  # how often it was not kept
    proven_at: Mapped[datetime | None]
    proof_words: Mapped[str] = mapped_column(Prose(), default="", server_default=sa.text("''"))

    result: Mapped[ResultRow] = relationship(back_populates="deliveries")
    destination: Mapped[DestinationRow] = relationship()


class EventRow(Base):
    """One line of a study's story; written in the transaction of what it tells, never changed."""

    __tablename__ = "event"

    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    at: Mapped[datetime]
    kind: Mapped[str] = mapped_column(sa.String(64))
    message: Mapped[str] = mapped_column(Prose())
    study_instance_uid: Mapped[str] = mapped_column(_Uid, default="", index=True)
    series_instance_uid: Mapped[str] = mapped_column(_Uid, default="")
    job_id: Mapped[str] = mapped_column(sa.String(32), default="")
    delivery_id: Mapped[str] = mapped_column(sa.String(32), default="")
    detail: Mapped[dict[str, Any]] = mapped_column(_Json, default=dict)


class ExecutorRow(Base):
    """A process that runs jobs, and its last heartbeat by the database's clock."""

    __tablename__ = "executor"

    id: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    host: Mapped[str] = mapped_column(sa.String(128))  # host and boot: pids mean something only there
    pid: Mapped[int]
    pid_started: Mapped[float]
    beat_at: Mapped[datetime]
