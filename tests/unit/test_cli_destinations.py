"""`dicomnode destinations`, with the node's state and its sink in memory."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from dicomnode.cli.context import Context
from dicomnode.cli.destinations import app
from dicomnode.domain.destination import Destination, DimseAddress
from dicomnode.errors import AlreadyExists, DestinationUnavailable, InvalidDestination, NotFound, UsageError
from tests.adapters.fake_sink import FakeSink
from tests.adapters.fake_state import FakeState
from tests.adapters.state_material import ARCHIVE, succeeded


class Node:
    """Runs commands on a context of fakes."""

    def __init__(self) -> None:
        self.context = Context()
        self.context.__dict__.update(
            state=FakeState(), sink=FakeSink(), console=Console(file=io.StringIO(), width=200)
        )

    @property
    def state(self) -> FakeState:
        return self.context.__dict__["state"]

    @property
    def sink(self) -> FakeSink:
        return self.context.__dict__["sink"]

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments), obj=self.context)

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout)

    def names(self) -> list[str]:
        return [destination.name for destination in self.state.destinations()]

    @property
    def screen(self) -> str:
        return self.context.console.file.getvalue()


@pytest.fixture
def node() -> Node:
    return Node()


def test_add_list_remove(node: Node) -> None:
    assert node.run("add", "pacs", "--dimse", "ORTHANC@127.0.0.1:4242").exit_code == 0
    assert node.run("add", "web", "--stow", "http://node:secret@pacs/dicom-web").exit_code == 0
    assert node.json("list") == [
        {"name": "pacs", "kind": "dimse", "address": "ORTHANC@127.0.0.1:4242", "waiting": 0, "away_since": None},
        {
            "name": "web",
            "kind": "stow",
            "address": "http://node:***@pacs/dicom-web",
            "waiting": 0,
            "away_since": None,
        },
    ]
    assert str(node.state.destinations()[1].address) == "http://node:secret@pacs/dicom-web"
    assert node.run("remove", "web").exit_code == 0
    assert node.names() == ["pacs"]


def test_the_table_hides_passwords(node: Node) -> None:
    node.run("add", "web", "--stow", "http://node:secret@pacs/dicom-web")
    node.run("list")
    assert "http://node:***@pacs/dicom-web" in node.screen
    assert "secret" not in node.screen


@pytest.mark.parametrize(
    "arguments",
    [
        ("pacs",),
        ("pacs", "--dimse", "A@h:1", "--stow", "http://h"),
        ("pacs", "--dimse", "h:104"),
        ("pacs", "--stow", "h"),
        ("a b", "--dimse", "A@h:1"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(node: Node, arguments: tuple[str, ...]) -> None:
    error = node.run("add", *arguments).exception
    assert isinstance(error, InvalidDestination)
    assert error.exit_code == 2
    assert node.names() == []


def test_dry_runs_change_nothing(node: Node) -> None:
    assert "nothing was changed" in node.json("add", "pacs", "--dimse", "A@h:1", "--dry-run")["message"]
    assert node.names() == []
    node.state.add_destination(Destination("pacs", DimseAddress("A", "h", 1)))
    assert isinstance(node.run("add", "pacs", "--dimse", "A@h:1", "--dry-run").exception, AlreadyExists)
    assert "nothing was changed" in node.json("remove", "pacs", "--dry-run")["message"]
    assert node.names() == ["pacs"]
    assert isinstance(node.run("remove", "other", "--dry-run").exception, NotFound)


def test_echo(node: Node) -> None:
    node.state.add_destination(Destination("pacs", DimseAddress("A", "h", 1)))
    assert node.json("echo", "pacs") == {"message": "pacs: A@h:1 answered", "name": "pacs", "ok": True}
    node.sink.stop("pacs")
    failed = node.run("echo", "pacs", "--json")
    assert failed.exit_code == 1
    assert json.loads(failed.stdout)["retryable"] is True


def test_echo_fails_in_words(node: Node) -> None:
    node.state.add_destination(Destination("pacs", DimseAddress("A", "h", 1)))
    node.sink.stop("pacs")
    error = node.run("echo", "pacs").exception
    assert isinstance(error, DestinationUnavailable)
    assert error.exit_code == 1


def test_echo_of_an_unknown_name_lists_the_known(node: Node) -> None:
    node.state.add_destination(Destination("pacs", DimseAddress("A", "h", 1)))
    with pytest.raises(NotFound, match="there are: pacs"):
        raise node.run("echo", "other").exception or AssertionError


# --------------------------------------------------------------------- what waits for a destination that changes


@pytest.fixture
def waiting(node: Node) -> Node:
    """Two deliveries wait for the archive."""
    node.state.add_destination(ARCHIVE)
    succeeded(node.state)
    return node


def test_an_address_is_changed_only_with_replace(waiting: Node) -> None:
    error = waiting.run("add", "archive", "--dimse", "A@new:1").exception
    assert isinstance(error, AlreadyExists)
    assert f"already, {ARCHIVE.address}; give --replace to change its address" in str(error)
    assert waiting.state.destinations() == [ARCHIVE]


def test_replace_changes_the_address_and_takes_along_what_waits(waiting: Node) -> None:
    (other,) = [job.job_id for job in waiting.state.jobs()]
    tried = waiting.json("add", "archive", "--dimse", "A@new:1", "--replace", "--dry-run")
    assert "could be changed: A@new:1, before ARCHIVE@192.0.2.1:104; 2 deliveries wait for it" in tried["message"]
    assert "nothing was changed" in tried["message"]
    assert waiting.state.destinations() == [ARCHIVE]
    done = waiting.json("add", "archive", "--dimse", "A@new:1", "--replace")
    assert (
        "is changed: A@new:1, before ARCHIVE@192.0.2.1:104; 2 deliveries wait for it, and go there" in done["message"]
    )
    assert waiting.json("list") == [
        {"name": "archive", "kind": "dimse", "address": "A@new:1", "waiting": 2, "away_since": None}
    ]
    assert all(delivery.destination == "archive" for delivery in waiting.state.job(other).deliveries)


def test_replace_adds_what_is_not_there(node: Node) -> None:
    assert "is added: A@h:1" in node.json("add", "pacs", "--dimse", "A@h:1", "--replace")["message"]


def test_removing_what_deliveries_wait_for_needs_a_yes(waiting: Node) -> None:
    tried = waiting.json("remove", "archive", "--dry-run")
    assert "2 deliveries wait for it and would be cancelled, which --yes allows" in tried["message"]
    error = waiting.run("remove", "archive").exception
    assert isinstance(error, UsageError)
    assert error.exit_code == 2
    assert "2 deliveries wait for archive; give --yes" in str(error)
    assert "--replace" in str(error)
    assert waiting.names() == ["archive"]
    done = waiting.json("remove", "archive", "--yes")
    assert done["cancelled"] == 2
    assert "once archive is added again, `dicomnode jobs retry JOB` sends them" in done["message"]
    assert waiting.names() == []


def test_removing_what_nothing_waits_for_needs_no_yes(node: Node) -> None:
    node.run("add", "pacs", "--dimse", "A@h:1")
    assert node.json("remove", "pacs") == {"message": "pacs is removed", "name": "pacs", "cancelled": 0}


def test_removing_an_unknown_name_lists_the_known(waiting: Node) -> None:
    assert "there are: archive" in str(waiting.run("remove", "other").exception)
