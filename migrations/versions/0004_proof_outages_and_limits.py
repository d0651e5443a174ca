"""Deliveries that are sent, accepted or committed; destinations' options and outages; commitments asked for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)
UID = sa.String(64)

BEFORE = ("queued", "sending", "waiting", "delivered", "failed", "cancelled")
AFTER = ("queued", "sending", "waiting", "sent", "accepted", "committed", "failed", "cancelled")
OPEN_SORTED = sa.text("state IN ('queued', 'sending', 'waiting')")


def text(name: str, length: int | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.String(length) if length else sa.Text(), nullable=False, server_default=sa.text("''"))


def number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=False, server_default="0")


def upgrade() -> None:
    _states(BEFORE, AFTER, {"delivered": "sent"})
    _delivery()
    _destination()
    _commitments()


def _states(before: tuple[str, ...], after: tuple[str, ...], renamed: dict[str, str]) -> None:
    """The states that the table takes. SQLite changes no constraint in place: the table is copied."""
    op.drop_index("ix_delivery_open", "delivery")
    with op.batch_alter_table("delivery") as batch:
        batch.drop_constraint(op.f("ck_delivery_state"), type_="check")
    for old, new in renamed.items():
        op.execute(f"UPDATE delivery SET state = '{new}' WHERE state = '{old}'")
    with op.batch_alter_table("delivery") as batch:
        words = ", ".join(f"'{state}'" for state in after)
        batch.create_check_constraint(op.f("ck_delivery_state"), f"state IN ({words})")
    op.create_index("ix_delivery_open", "delivery", ["state"], sqlite_where=OPEN_SORTED, postgresql_where=OPEN_SORTED)


def _delivery() -> None:
    for column in (
        text("failure", 32),
        sa.Column("sending_since", TIME),
        sa.Column("ask_at", TIME),
        number("asks"),
        number("losses"),
        sa.Column("proven_at", TIME),
        text("proof_words"),
    ):
        op.add_column("delivery", column)
    asked = sa.text("ask_at IS NOT NULL")
    op.create_index("ix_delivery_ask_at", "delivery", ["ask_at"], sqlite_where=asked, postgresql_where=asked)


def _destination() -> None:
    for column in (
        sa.Column("options", sa.JSON()),
        sa.Column("down_since", TIME),
        number("failures"),
        sa.Column("probe_at", TIME),
        text("down_words"),
        sa.Column("unprovable_until", TIME),
        text("unprovable_words"),
    ):
        op.add_column("destination", column)


def _commitments() -> None:
    op.create_table(
        "commitment",
        sa.Column("id", KEY, nullable=False),
        sa.Column("transaction_uid", UID, nullable=False),
        sa.Column("destination_id", KEY, nullable=False),
        sa.Column("items", sa.JSON(), nullable=False),
        sa.Column("asked_at", TIME, nullable=False),
        sa.Column("answered_at", TIME),
        sa.ForeignKeyConstraint(
            ["destination_id"], ["destination.id"], name=op.f("fk_commitment_destination_id_destination")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitment")),
        sa.UniqueConstraint("transaction_uid", name=op.f("uq_commitment_transaction_uid")),
    )
    op.create_index(op.f("ix_commitment_destination_id"), "commitment", ["destination_id"])
    op.create_index(op.f("ix_commitment_asked_at"), "commitment", ["asked_at"])
    op.create_table(
        "commitment_wish",
        sa.Column("id", KEY, nullable=False),
        sa.Column("calling_ae_title", sa.String(16), nullable=False),
        sa.Column("called_ae_title", sa.String(16), nullable=False),
        sa.Column("transaction_uid", UID, nullable=False),
        sa.Column("items", sa.JSON(), nullable=False),
        sa.Column("asked_at", TIME, nullable=False),
        sa.Column("next_at", TIME),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("words", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitment_wish")),
        sa.UniqueConstraint(
            "calling_ae_title", "transaction_uid", name=op.f("uq_commitment_wish_calling_ae_title_transaction_uid")
        ),
    )
    op.create_index(op.f("ix_commitment_wish_asked_at"), "commitment_wish", ["asked_at"])
    op.create_index(op.f("ix_commitment_wish_next_at"), "commitment_wish", ["next_at"])


ADDED = {
    "delivery": ("failure", "sending_since", "ask_at", "asks", "losses", "proven_at", "proof_words"),
    "destination": (
        "options",
        "down_since",
        "failures",
        "probe_at",
        "down_words",
        "unprovable_until",
        "unprovable_words",
    ),
}


def downgrade() -> None:
    op.drop_table("commitment_wish")
    op.drop_table("commitment")
    op.drop_index("ix_delivery_ask_at", "delivery")
    for table, columns in ADDED.items():
        for column in columns:
            op.drop_column(table, column)
    _states(AFTER, BEFORE, {"sent": "delivered", "accepted": "delivered", "committed": "delivered"})
