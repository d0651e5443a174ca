"""What came of a version's golden cases is kept for each machine; until now the last one counted for all."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

_model = sa.table("model", sa.column("id", KEY), sa.column("acceptance", sa.JSON()))
_acceptance = sa.table(
    "model_acceptance",
    sa.column("model_id", KEY),
    sa.column("host", sa.String(255)),
    sa.column("at", sa.DateTime(timezone=True)),
    sa.column("document", sa.JSON()),
)


def upgrade() -> None:
    op.create_table(
        "model_acceptance",
        sa.Column("model_id", KEY, autoincrement=False, nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"], ["model.id"], name=op.f("fk_model_acceptance_model_id_model"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("model_id", "host", name=op.f("pk_model_acceptance")),
    )
    connection = op.get_bind()
    for number, document in connection.execute(sa.select(_model.c.id, _model.c.acceptance)).all():
        if document:
            connection.execute(_acceptance.insert().values(model_id=number, document=document, **_key(document)))
    op.drop_column("model", "acceptance")


def _key(document: dict[str, Any]) -> dict[str, Any]:
    return {"host": document.get("host", "")[:255], "at": datetime.fromisoformat(document["at"]).astimezone(UTC)}


def downgrade() -> None:
    """Of several machines the one that was tried last counts again."""
    op.add_column("model", sa.Column("acceptance", sa.JSON()))
    connection = op.get_bind()
    found = sa.select(_acceptance.c.model_id, _acceptance.c.document).order_by(_acceptance.c.at)
    for number, document in connection.execute(found).all():
        connection.execute(sa.update(_model).where(_model.c.id == number).values(acceptance=document))
    op.drop_table("model_acceptance")
