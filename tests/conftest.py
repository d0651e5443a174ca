"""Fixtures that every test may use."""

from __future__ import annotations

from hypothesis import settings

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

settings.register_profile("dicomnode", deadline=None)  # no test depends on how busy the machine is
settings.load_profile("dicomnode")

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
