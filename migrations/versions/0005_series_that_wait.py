"""Series that wait for their study or for classes, told apart from those that go nowhere."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """With a default the column is added without copying the table.

    What waits as the node is upgraded is not marked: it says so when its study is complete.
    """
    op.add_column("series", sa.Column("waits", sa.Boolean(), nullable=False, server_default=sa.false()))


ADDED = {"series": ("waits",)}


def downgrade() -> None:
    op.drop_column("series", "waits")
