"""Fixtures that every test may use."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.compiled_statements import statements_compiled_once
from tests.database_fixtures import (
    database_url,
    emptied_postgresql,
    migrated_postgresql,
    migrated_sqlite,
    migrated_url,
    postgres_url,
    postgresql,
    postgresql_of_session,
    sqlite_url,
)
from tests.server_fixtures import certificates, dcmqrscp, orthanc, orthanc_of_session, store_scp

# Threads of torch spin while they wait for one another (libgomp's manual, OMP_WAIT_POLICY). Where more want to run
# than there are cores, as tests and their servers do, a small network took ten times the processor time.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

settings.register_profile("dicomnode", deadline=None)  # no test depends on how busy the machine is
settings.load_profile("dicomnode")


@pytest.fixture(autouse=True)
def log_left_as_found() -> Iterator[None]:
    """Libraries that silence a whole process were found by the tests that came after them."""
    root = logging.getLogger()
    level, filters = root.level, list(root.filters)
    yield
    assert (root.level, root.filters) == (level, filters)


__all__ = [
    "certificates",
    "database_url",
    "dcmqrscp",
    "emptied_postgresql",
    "log_left_as_found",
    "migrated_postgresql",
    "migrated_sqlite",
    "migrated_url",
    "orthanc",
    "orthanc_of_session",
    "postgres_url",
    "postgresql",
    "postgresql_of_session",
    "sqlite_url",
    "statements_compiled_once",
    "store_scp",
]
