"""`dicomnode sources`, with the node's state and its sink in memory."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from dicomnode.cli.context import Context
from dicomnode.cli.sources import app
from dicomnode.domain.source import Source
from dicomnode.errors import AlreadyExists, DestinationUnavailable, InvalidSource, NotFound
from tests.adapters.fake_sink import FakeSink
from tests.adapters.fake_state import FakeState
from tests.adapters.state_material import instance

CT = "1.2.840.10008.5.1.4.1.1.2"


class Node:
    """Runs commands on a context of fakes."""

    def __init__(self) -> None:
        self.state, self.sink = FakeState(), FakeSink()
        self.context = Context()
        self.printed = io.StringIO()
        console = Console(file=self.printed, width=250)
        self.context.__dict__.update(state=self.state, sink=self.sink, console=console)

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments), obj=self.context)

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout)

    @property
    def screen(self) -> str:
        return self.printed.getvalue()


@pytest.fixture
def node() -> Node:
    return Node()


def test_add_list_show_remove(node: Node) -> None:
    arguments = ("--query-dimse", "PACS@192.0.2.1:104", "--quiet-period", "30", "--no-release")
    assert node.run("add", "CT1", *arguments, "--allow-sop-class", "CT Image Storage").exit_code == 0
    (source,) = node.state.sources()
    assert (source.quiet_period_s, source.release, source.allowed_sop_classes) == (30.0, False, (CT,))
    (row,) = node.json("list")
    assert row["query_dimse"] == "PACS@192.0.2.1:104"
    assert row["configured"] is True
    node.context.json = False
    node.run("show", "CT1")
    for words in ("PACS@192.0.2.1:104", "30 s", "is no signal", "only CT Image Storage"):
        assert words in node.screen
    assert node.run("remove", "CT1").exit_code == 0
    assert node.state.sources() == []


def test_commitment_is_switched_off_and_on_again(node: Node) -> None:
    node.run("add", "CT1", "--no-commitment")
    assert node.state.sources() == [Source("CT1", commitment=False)]
    node.run("show", "CT1")
    assert "refused" in node.screen
    node.run("add", "CT1", "--replace", "--report-dimse", "CT1@192.0.2.5:104")
    node.run("show", "CT1")
    assert "answered at CT1@192.0.2.5:104" in node.screen


def test_lists_are_repeatable_and_names_become_uids(node: Node) -> None:
    node.run(
        "add",
        "CT1",
        *("--refuse-sop-class", "SecondaryCaptureImageStorage", "--refuse-sop-class", "1.2.3"),
        *("--refuse-transfer-syntax", "JPEGBaseline8Bit", "--allow-transfer-syntax", "ExplicitVRLittleEndian"),
    )
    (source,) = node.state.sources()
    assert source.refused_sop_classes == ("1.2.840.10008.5.1.4.1.1.7", "1.2.3")
    assert source.refused_transfer_syntaxes == ("1.2.840.10008.1.2.4.50",)
    assert source.allowed_transfer_syntaxes == ("1.2.840.10008.1.2.1",)


def test_senders_without_settings_are_listed_too(node: Node) -> None:
    node.state.record_instances([instance(1)])
    node.run("add", "CT1")
    assert [(row["ae_title"], row["configured"]) for row in node.json("list")] == [("CT1", True), ("SCANNER", False)]


def test_passwords_are_not_shown(node: Node) -> None:
    node.run("add", "CT1", "--query-url", "http://u:secret@pacs/dicom-web")
    node.run("list")
    node.run("show", "CT1")
    assert "secret" not in node.screen + json.dumps(node.json("list")) + json.dumps(node.json("show", "CT1"))
    assert str(node.state.sources()[0].query) == "http://u:secret@pacs/dicom-web"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("CT1", "--query-dimse", "A@h:1", "--query-url", "http://h"), "give one of"),
        (("CT1", "--query-dimse", "h:104"), "--query-dimse"),
        (("A" * 17,), "is no AE title"),
        (("CT1", "--no-commitment", "--report-dimse", "A@h:1"), "who may not ask is not told"),
        (("CT1", "--quiet-period", "-1"), "quiet_period_s"),
        (("CT1", "--allow-sop-class", "CTImageStorag"), "--allow-sop-class: .*perhaps CTImageStorage"),
        (("CT1", "--refuse-transfer-syntax", "CTImageStorage"), "--refuse-transfer-syntax"),
        (("CT1", "--allow-sop-class", CT, "--refuse-sop-class", "CTImageStorage"), "both allowed and refused"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(node: Node, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidSource, match=message) as caught:
        raise node.run("add", *arguments).exception or AssertionError
    assert caught.value.exit_code == 2
    assert node.state.sources() == []


def test_settings_are_replaced_only_when_asked_to(node: Node) -> None:
    node.run("add", "CT1")
    error = node.run("add", "CT1", "--no-release").exception
    assert isinstance(error, AlreadyExists)
    assert "--replace" in str(error)
    assert node.run("add", "CT1", "--no-release", "--replace").exit_code == 0
    assert node.state.sources() == [Source("CT1", release=False)]


def test_dry_runs_change_nothing(node: Node) -> None:
    assert "nothing was changed" in node.json("add", "CT1", "--dry-run")["message"]
    assert node.state.sources() == []
    node.state.put_source(Source("CT1"))
    assert "nothing was changed" in node.json("remove", "CT1", "--dry-run")["message"]
    assert node.state.sources() == [Source("CT1")]
    for words in (["remove", "CT2", "--dry-run"], ["show", "CT2"], ["echo", "CT2"]):
        error = node.run(*words).exception
        assert isinstance(error, NotFound)
        assert "there are for: CT1" in str(error)


def test_echo_asks_the_query_address(node: Node) -> None:
    node.run("add", "CT1", "--query-dimse", "A@h:1")
    assert node.json("echo", "CT1") == {"message": "CT1: A@h:1 answered", "ae_title": "CT1", "ok": True}
    node.sink.stop("query")
    failed = node.run("echo", "CT1", "--json")
    assert (failed.exit_code, json.loads(failed.stdout)["ok"]) == (1, False)
    node.context.json = False
    assert isinstance(node.run("echo", "CT1").exception, DestinationUnavailable)


def test_echo_without_an_address_says_how_to_give_one(node: Node) -> None:
    node.run("add", "CT1")
    with pytest.raises(InvalidSource, match="--query-dimse AET@HOST:PORT"):
        raise node.run("echo", "CT1").exception or AssertionError
