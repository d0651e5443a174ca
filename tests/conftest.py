"""Fixtures that every test may use."""

from __future__ import annotations

from tests.database_fixtures import (
    database_url,
    migrated_postgresql,
    migrated_sqlite,
    migrated_url,
    postgres_url,
    postgresql,
    sqlite_url,
)
from tests.server_fixtures import dcmqrscp, orthanc, orthanc_of_session, store_scp

__all__ = [
    "database_url",
    "dcmqrscp",
    "migrated_postgresql",
    "migrated_sqlite",
    "migrated_url",
    "orthanc",
    "orthanc_of_session",
    "postgres_url",
    "postgresql",
    "sqlite_url",
    "store_scp",
]
