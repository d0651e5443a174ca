"""What an administrator mistypes, and screens that take nothing: plain words, an exit status, and no traceback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from dicomnode.cli.root import main
from dicomnode.node import up
from tests.database_fixtures import PostgreSql

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`dicomnode ARGUMENTS`, in this process: its exit status, and what it said on standard error."""

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["dicomnode", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().err

    monkeypatch.setattr(up, "stop_on_signals", threading.Event)  # those of the tests stay as they are
    for name in [name for name in os.environ if name.startswith("DICOMNODE_")]:
        monkeypatch.delenv(name)
    return run


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://node:secret@db/x", "mysql is no database that the node can use: give postgresql+psycopg://"),
        ("postgresql+psycopg2://node:secret@db/x", "postgresql+psycopg2 is no database that the node can use"),
        ("postgresql+asyncpg://node:secret@db/x", "postgresql+asyncpg is no database that the node can use"),
        ("postgres://node:secret@db/x", "postgres is no database that the node can use"),
        ("postgresql+psycopg://node:secret@db:port/x", "is no URL"),
        ("postgresql+psycopg://node:sec:ret@db@db:5432x/x", "in a password are written %40, %3A and %2F"),
        ("postgresql+psycopg://node:secret@db:70000/x", "70000 is no port: 1 to 65535"),
        ("secret", "is no URL, as in postgresql+psycopg://"),
        (" ", "is no URL"),
        ("sqlite://", "needs the whole path of its file, as in sqlite:////folder/node.db"),
        ("sqlite:///:memory:", "needs the whole path"),
        ("sqlite:///node.db", "needs the whole path"),
        ("sqlite:////nowhere/at/all/node.db", "there is no folder /nowhere/at/all"),
    ],
)
@pytest.mark.parametrize("verb", [("destinations", "list"), ("up", "--dicom-port", "0")], ids=" ".join)
def test_urls_of_no_database(command: Command, tmp_path: Path, url: str, words: str, verb: tuple[str, ...]) -> None:
    status, said = command("--home", str(tmp_path / "node"), "--database-url", url, *verb)
    assert status == 2
    assert said.startswith("invalid-setting: database_url (--database-url or DICOMNODE_DATABASE_URL)")
    assert words in said
    assert "secret" not in said


def test_a_file_that_is_no_database(command: Command, tmp_path: Path) -> None:
    (tmp_path / "dicomnode.db").write_text("to do: buy milk" * 100)
    for words in (["jobs", "list"], ["status"], ["up", "--dicom-port", "0"]):
        status, said = command("--home", str(tmp_path), *words)
        assert status == 2
        assert f"{tmp_path / 'dicomnode.db'} cannot be used: file is not a database" in said


def test_a_database_of_a_later_version(command: Command, tmp_path: Path, migrated_sqlite: Path) -> None:
    (tmp_path / "dicomnode.db").write_bytes(migrated_sqlite.read_bytes())
    _of_a_later_version(f"sqlite:///{tmp_path / 'dicomnode.db'}")
    status, said = command("--home", str(tmp_path), "jobs", "list")
    assert (status, said.partition(":")[0]) == (2, "database-unusable")
    assert "a later version of dicomnode made its tables; run that version" in said


@pytest.mark.postgres
def test_a_postgresql_of_a_later_version(command: Command, tmp_path: Path, migrated_postgresql: PostgreSql) -> None:
    url = migrated_postgresql.create("migrated")
    _of_a_later_version(url)
    status, said = command("--home", str(tmp_path / "none"), "--database-url", url, "jobs", "list")
    assert status == 2
    assert "a later version of dicomnode made its tables" in said
    assert not (tmp_path / "none").exists()


def _of_a_later_version(url: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()


@pytest.mark.postgres
def test_a_postgresql_where_the_node_may_make_nothing(
    command: Command, tmp_path: Path, postgresql: PostgreSql
) -> None:
    url = postgresql.create()
    postgresql.execute("DROP ROLE IF EXISTS guest")
    postgresql.execute("CREATE ROLE guest LOGIN")
    status, said = command("--database-url", url.replace("postgres@", "guest@"), "jobs", "list")
    assert status == 2
    assert "permission denied" in said


def test_a_postgresql_that_does_not_answer(command: Command, tmp_path: Path) -> None:
    url = "postgresql+psycopg://node:secret@127.0.0.1:1/x"
    status, said = command("--home", str(tmp_path / "none"), "--database-url", url, "jobs", "list")
    assert (status, said.partition(":")[0]) == (1, "database-away")
    assert "Connection refused" in said
    assert "secret" not in said


def test_a_host_that_takes_the_connection_and_says_nothing(command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql+psycopg://node@127.0.0.1:{silent.getsockname()[1]}/x?connect_timeout=2"
        status, said = command("--database-url", url, "jobs", "list")
    assert status == 1
    assert "timeout expired" in said


READING = [
    ["destinations", "list"],
    ["sources", "list"],
    ["models", "list"],
    ["rules", "list"],
    ["rules", "lint"],
    ["rules", "explain", "torso-ct", "1.2.3"],
    ["studies", "list"],
    ["studies", "why", "1.2.3"],
    ["jobs", "list"],
    ["jobs", "show", "3f2a"],
    ["status"],
    ["destinations", "add", "pacs", "--dimse", "PACS@192.0.2.1:104", "--dry-run"],
]


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_a_mistyped_home_makes_no_folder(command: Command, tmp_path: Path, words: list[str]) -> None:
    home = tmp_path / "mistyped"
    status, said = command("--home", str(home), *words)
    assert status == 1
    assert f"there is no node under {home}; name the right folder (--home or DICOMNODE_HOME)" in said
    assert "dicomnode up" in said
    assert not home.exists()


def test_a_folder_of_something_else_is_left_as_it_is(command: Command, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert command("--home", str(tmp_path), "studies", "list")[0] == 1
    assert list(tmp_path.iterdir()) == []
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_a_mistyped_database_file_is_not_made(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "mistyped.db"
    status, said = command("--database-url", f"sqlite:///{file}", "studies", "list")
    assert status == 1
    assert f"there is no database {file}" in said
    assert not file.exists()


def test_a_node_may_be_set_up_before_it_runs(command: Command, tmp_path: Path) -> None:
    home = tmp_path / "new"
    assert command("--home", str(home), "destinations", "add", "pacs", "--dimse", "PACS@192.0.2.1:104")[0] == 0
    assert command("--home", str(home), "destinations", "list") == (0, "")


def _piped(arguments: str, target: str) -> subprocess.CompletedProcess[str]:
    line = f"set -o pipefail; '{sys.executable}' -m dicomnode {arguments} {target}"
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("arguments", ["settings", "settings --json"])
def test_a_full_disk_under_the_output(arguments: str) -> None:
    done = _piped(arguments, "> /dev/full")
    assert done.returncode == 1
    assert done.stderr.strip() == "output: the output cannot be written: No space left on device"


def test_nothing_can_be_said_anywhere() -> None:
    done = _piped("settings", "> /dev/full 2> /dev/full")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


@pytest.mark.parametrize("arguments", ["settings", "settings --json"])
def test_a_reader_that_goes_away(arguments: str) -> None:
    assert _piped(arguments, "| true").stderr == ""
