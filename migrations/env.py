"""Alembic's environment: our tables only, one migrating process at a time, never a long wait for a lock."""

from __future__ import annotations

import os
from typing import Any

import sqlalchemy as sa
from alembic import context

from dicomnode.adapters.db.session import open_engine
from dicomnode.adapters.db.tables import Base

# A migration that waits for a lock makes everything behind it wait too: better it fails and is run again.
LOCK_TIMEOUT = "10s"
# Any number that no other program locks on this database.
ADVISORY_LOCK = 0x44494341


def database_url() -> str:
    """From the caller (see dicomnode.adapters.db.migration), `-x url=…`, or the node's own setting."""
    given = context.config.attributes.get("url") or context.get_x_argument(as_dictionary=True).get("url")
    url = given or os.environ.get("DICOMNODE_DATABASE_URL")
    if not url:
        raise SystemExit("give the database: alembic -x url=URL …, or DICOMNODE_DATABASE_URL")
    return str(url)


def include_object(thing: object, name: str | None, kind: str, reflected: bool, compared_to: object) -> bool:
    """Leaves out the job engine's tables, which lie beside ours in SQLite; it migrates them itself."""
    return not (kind == "table" and reflected and name in engine_tables())


def engine_tables() -> frozenset[str]:
    from dbos._schemas.system_database import SystemSchema

    return frozenset({*(table.name for table in SystemSchema.metadata_obj.tables.values()), "dbos_migrations"})


def configure(**keywords: Any) -> None:
    context.configure(
        target_metadata=Base.metadata,
        include_object=include_object,
        compare_type=True,
        compare_server_default=True,
        render_as_batch=True,  # SQLite cannot alter most things in place
        **keywords,
    )


def run_online() -> None:
    engine = open_engine(database_url())
    try:
        # SQLite's write lock, taken when the transaction begins, keeps a second migrating process out.
        with engine.connect().execution_options(writes=True) as connection, connection.begin():
            if connection.dialect.name == "postgresql":
                connection.execute(sa.text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
                connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))
            configure(connection=connection)
            context.run_migrations()
    finally:
        engine.dispose()


def run_offline() -> None:
    configure(url=database_url(), literal_binds=True, dialect_opts={"paramstyle": "named"})
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    run_offline()
else:
    run_online()
