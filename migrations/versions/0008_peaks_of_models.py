"""What versions took of memory on each machine and engine: until now a worker forgot it when it ended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "model_peak",
        sa.Column("model_id", KEY, autoincrement=False, nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("engine", sa.String(128), nullable=False),
        sa.Column("memory", sa.JSON(), nullable=False),
        sa.Column("voxels", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"], ["model.id"], name=op.f("fk_model_peak_model_id_model"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("model_id", "host", "engine", name=op.f("pk_model_peak")),
    )


def downgrade() -> None:
    op.drop_table("model_peak")
