"""What is known of a model version beside its package: acceptance, tuning, shadow; and who changed what."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    _models()
    _changes()
    op.add_column("job", flag("shadow"))


def flag(name: str) -> sa.Column[bool]:
    """False in the rows that are there; a column with a default is added without copying the table."""
    return sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.false())


def text(name: str, length: int | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.String(length) if length else sa.Text(), nullable=False, server_default=sa.text("''"))


def _models() -> None:
    for column in (
        flag("shadow"),
        sa.Column("acceptance", sa.JSON()),
        sa.Column("tuning", sa.JSON()),
        text("author", 64),
        text("reason"),
    ):
        op.add_column("model", column)
    shadow = sa.text("shadow")
    op.create_index("uq_model_shadow", "model", ["name"], unique=True, sqlite_where=shadow, postgresql_where=shadow)


def _changes() -> None:
    op.create_table(
        "model_change",
        sa.Column("id", KEY, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("name", sa.String(48), nullable=False),
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("author", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_change")),
    )
    op.create_index(op.f("ix_model_change_name"), "model_change", ["name"])
    # so that the first change after the upgrade can be rolled back
    op.execute(
        "INSERT INTO model_change (at, kind, name, version, author, reason) "
        "SELECT created_at, 'activated', name, version, '', '' FROM model WHERE active ORDER BY id"
    )


ADDED = {
    "model": ("shadow", "acceptance", "tuning", "author", "reason"),
    "job": ("shadow",),
}


def downgrade() -> None:
    op.drop_table("model_change")
    op.drop_index("uq_model_shadow", "model")
    for table, columns in ADDED.items():
        for column in columns:
            op.drop_column(table, column)
