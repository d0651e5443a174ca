"""Evidence for rules, signals of completeness, who changed which rule, and what a job is to do."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)
UID = sa.String(64)
DOCUMENT = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    _study_and_series()
    _evidence()
    _announcements()
    _rules_and_jobs()


def text(name: str, length: int | None = None) -> sa.Column[str]:
    """Empty in the rows that are there; a column with a default is added without copying the table."""
    return sa.Column(name, sa.String(length) if length else sa.Text(), nullable=False, server_default=sa.text("''"))


def _study_and_series() -> None:
    states = sa.Enum("receiving", "complete", "routed", name="studystate", native_enum=False, length=16)
    op.add_column("study", sa.Column("state", states, nullable=False, server_default="routed"))
    op.add_column("study", sa.Column("generation", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("study", sa.Column("completed_at", TIME))
    op.create_index(op.f("ix_study_state"), "study", ["state"])
    op.add_column("series", sa.Column("counted_instances", sa.Integer()))
    op.add_column("series", text("counted_from", 256))
    op.add_column("series", sa.Column("counted_at", TIME))
    op.add_column("instance", sa.Column("number_of_frames", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("instance", text("plane", 32))
    op.add_column("instance", sa.Column("position_mm", sa.Double()))
    op.add_column("instance", sa.Column("images_announced", sa.Integer()))
    op.create_table(
        "arrival",
        sa.Column("id", KEY, nullable=False),
        sa.Column("series_id", KEY, nullable=False),
        sa.Column("association", sa.String(128), nullable=False),
        sa.Column("calling_ae_title", sa.String(16), nullable=False),
        sa.Column("instances", sa.Integer(), nullable=False),
        sa.Column("first_at", TIME, nullable=False),
        sa.Column("last_at", TIME, nullable=False),
        sa.Column("ended_at", TIME),
        sa.Column("ended_how", sa.String(16), nullable=False),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name=op.f("fk_arrival_series_id_series")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_arrival")),
        sa.UniqueConstraint("series_id", "association", name=op.f("uq_arrival_series_id_association")),
    )
    op.create_index(op.f("ix_arrival_association"), "arrival", ["association"])


def _evidence() -> None:
    op.create_table(
        "evidence",
        sa.Column("series_id", KEY, nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("header", DOCUMENT, nullable=False),
        sa.Column("facts", DOCUMENT, nullable=False),
        sa.Column("all_facts", sa.Boolean(), nullable=False),
        sa.Column("no_image", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name=op.f("fk_evidence_series_id_series")),
        sa.PrimaryKeyConstraint("series_id", name=op.f("pk_evidence")),
    )
    lacking = sa.text("NOT all_facts")
    op.create_index("ix_evidence_lacking", "evidence", ["series_id"], sqlite_where=lacking, postgresql_where=lacking)


def _announcements() -> None:
    op.create_table(
        "announcement",
        sa.Column("id", KEY, nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("sop_instance_uid", UID, nullable=False),
        sa.Column("calling_ae_title", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("received_at", TIME, nullable=False),
        sa.Column("changed_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_announcement")),
        sa.UniqueConstraint("sop_instance_uid", name=op.f("uq_announcement_sop_instance_uid")),
    )
    op.create_table(
        "announced_series",
        sa.Column("id", KEY, nullable=False),
        sa.Column("announcement_id", KEY, nullable=False),
        sa.Column("study_instance_uid", UID, nullable=False),
        sa.Column("series_instance_uid", UID, nullable=False),
        sa.Column("sop_instance_uids", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["announcement_id"], ["announcement.id"], name=op.f("fk_announced_series_announcement_id_announcement")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_announced_series")),
    )
    for column in ("announcement_id", "study_instance_uid", "series_instance_uid"):
        op.create_index(op.f(f"ix_announced_series_{column}"), "announced_series", [column])
    op.create_table(
        "source",
        sa.Column("id", KEY, nullable=False),
        sa.Column("ae_title", sa.String(16), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("changed_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_source")),
        sa.UniqueConstraint("ae_title", name=op.f("uq_source_ae_title")),
    )


def _rules_and_jobs() -> None:
    for column in (text("author", 64), text("reason"), text("removed_by", 64), text("removed_why")):
        op.add_column("rule", column)
    op.add_column("rule", sa.Column("removed_at", TIME))
    op.add_column("job", sa.Column("options", sa.JSON()))
    op.add_column("job", sa.Column("not_before", TIME))
    op.create_index(op.f("ix_job_created_at"), "job", ["created_at"])
    op.add_column("result", sa.Column("superseded_by", sa.String(32)))


ADDED = {
    "study": ("state", "generation", "completed_at"),
    "series": ("counted_instances", "counted_from", "counted_at"),
    "instance": ("number_of_frames", "plane", "position_mm", "images_announced"),
    "rule": ("author", "reason", "removed_at", "removed_by", "removed_why"),
    "job": ("options", "not_before"),
    "result": ("superseded_by",),
}


def downgrade() -> None:
    for table in ("source", "announced_series", "announcement", "evidence", "arrival"):
        op.drop_table(table)
    op.drop_index(op.f("ix_study_state"), "study")
    op.drop_index(op.f("ix_job_created_at"), "job")
    for table, columns in ADDED.items():
        for column in columns:
            op.drop_column(table, column)
