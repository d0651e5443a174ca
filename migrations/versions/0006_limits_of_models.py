"""How many jobs of a model may run at once, where an administrator says so."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "model_limit",
        sa.Column("name", sa.String(48), nullable=False),
        sa.Column("at_once", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_model_limit")),
    )


def downgrade() -> None:
    op.drop_table("model_limit")
