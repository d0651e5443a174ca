"""pytest fixtures for databases; tests/conftest.py imports them.

`database_url` gives an empty database and `migrated_url` one with all tables, each on SQLite and on PostgreSQL;
`sqlite_url` and `postgres_url` give an empty one of their kind; `emptied_postgresql` has all tables and served
other tests before. PostgreSQL is a cluster of our own on a Unix socket in a temporary folder, run as the user
postgres where we are root, as it refuses to be.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from dicomnode.adapters import queue
from dicomnode.adapters.db.migration import migrate
from dicomnode.adapters.db.tables import Base

_NUMBERS = itertools.count(1)
TEMPLATE = "migrated"


def postgresql_programs() -> Path | None:
    """The folder with initdb and pg_ctl; Debian keeps them out of PATH."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((f for f in folders if (f / "initdb").exists() and (f / "pg_ctl").exists()), None)


def postgresql_missing() -> str:
    """Why no PostgreSQL can be started here; empty when one can."""
    if postgresql_programs() is None:
        return "PostgreSQL's server is not installed (apt install postgresql)"
    if os.geteuid() == 0 and _postgres_user() is None:
        return "PostgreSQL does not run as root, and there is no user postgres"
    return ""


def _postgres_user() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return None


class PostgreSql:
    """A private cluster that only processes of this machine reach, and that ends with its `with` block."""

    def __init__(self) -> None:
        programs = postgresql_programs()
        assert programs is not None
        self._programs = programs
        self._user = _postgres_user() if os.geteuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="dicomnode-postgresql-"))

    def __enter__(self) -> PostgreSql:
        if self._user is not None:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        data = self.folder / "data"
        self._run("initdb", "--pgdata", data, "--username", "postgres", "--auth", "trust", "--no-sync")
        # A test cluster need not survive a power cut.
        settings = f"-k {self.folder} -c listen_addresses='' -c fsync=off -c max_connections=200"
        log = self.folder / "log"
        self._run("pg_ctl", "start", "--wait", "--pgdata", data, "--log", log, "--options", settings)
        return self

    def __exit__(self, *exception: object) -> None:
        self._run("pg_ctl", "stop", "--pgdata", self.folder / "data", "--mode", "immediate")
        shutil.rmtree(self.folder)

    def _run(self, program: str, *arguments: str | Path) -> None:
        subprocess.run(
            [self._programs / program, *arguments],
            check=True,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
            user=self._user and self._user.pw_uid,
            group=self._user and self._user.pw_gid,
            extra_groups=self._user and [],
        )

    def url(self, name: str) -> str:
        return f"postgresql+psycopg://postgres@/{name}?host={self.folder}"

    def create(self, template: str = "template1") -> str:
        """A new database; its URL."""
        name = f"test_{os.getpid()}_{next(_NUMBERS)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def execute(self, statements: str, database: str = "postgres") -> None:
        """One statement by itself, or several with semicolons between them in one transaction."""
        with psycopg.connect(host=str(self.folder), user="postgres", dbname=database, autocommit=True) as connection:
            connection.execute(statements.encode())


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSql]:
    """One cluster for all tests of a process, or the test is skipped, saying why."""
    if reason := postgresql_missing():
        pytest.skip(reason)
    with PostgreSql() as server:
        yield server


@pytest.fixture(scope="session")
def migrated_postgresql(postgresql: PostgreSql) -> PostgreSql:
    """The cluster with a template that has all tables: to copy it takes less than to migrate again."""
    postgresql.execute(f"CREATE DATABASE {TEMPLATE}")
    migrate_all(postgresql.url(TEMPLATE))
    return postgresql


@pytest.fixture(scope="session")
def postgresql_of_session(migrated_postgresql: PostgreSql) -> str:
    return migrated_postgresql.create(TEMPLATE)


@pytest.fixture
def emptied_postgresql(postgresql: PostgreSql, postgresql_of_session: str) -> str:
    """A database with all tables and no rows, for tests that change rows and nothing else, and open no queue.

    To empty one takes milliseconds, to copy the template as long as a test; and the copies are a thousand files each.
    """
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    rows = [str(table.delete()) for table in reversed(Base.metadata.sorted_tables)]
    database = str(sa.make_url(postgresql_of_session).database)
    postgresql.execute(";".join([f"{others} AND pid <> pg_backend_pid()", *rows]), database)
    return postgresql_of_session


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("migrated") / "dicomnode.db"
    migrate_all(f"sqlite:///{file}")
    return file


def migrate_all(url: str) -> None:
    migrate(url)
    queue.migrate(url)


@pytest.fixture
def postgres_url(postgresql: PostgreSql) -> str:
    """An empty PostgreSQL database."""
    return postgresql.create()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """An SQLite database that is not there yet."""
    return f"sqlite:///{tmp_path / 'dicomnode.db'}"


BOTH = [pytest.param("sqlite"), pytest.param("postgresql", marks=pytest.mark.postgres)]


@pytest.fixture(params=BOTH)
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database, on SQLite and on PostgreSQL."""
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return url


@pytest.fixture(params=BOTH)
def migrated_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with all tables, on SQLite and on PostgreSQL."""
    if request.param == "postgresql":
        server: PostgreSql = request.getfixturevalue("migrated_postgresql")
        return server.create(TEMPLATE)
    file = tmp_path / "dicomnode.db"
    shutil.copy(request.getfixturevalue("migrated_sqlite"), file)
    return f"sqlite:///{file}"
