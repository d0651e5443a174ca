"""`dicomnode deliveries`, and the options of `destinations`, with the node's state in memory."""

from __future__ import annotations

from io import StringIO

import pytest
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from dicomnode.cli import deliveries as deliveries_cli
from dicomnode.domain.delivery_options import DeliveryOptions, Wish
from dicomnode.domain.job import DeliveryState
from dicomnode.domain.proof import ProofAnswer
from dicomnode.errors import DicomNodeError, IllegalTransition, InvalidDestination, NotFound, UsageError
from dicomnode.ports import Delivered, NotDelivered
from tests.adapters.state_material import ARCHIVE, STUDY, succeeded
from tests.unit.test_cli_destinations import Node as DestinationsNode


class Node(DestinationsNode):
    def deliveries(self, *arguments: str) -> Result:
        return CliRunner().invoke(deliveries_cli.app, list(arguments), obj=self.context)

    def listed(self, *arguments: str) -> list[dict[str, object]]:
        import json

        self.context.json = False
        return json.loads(self.deliveries(*arguments, "--json").stdout)  # type: ignore[no-any-return]


@pytest.fixture
def node() -> Node:
    """A SEG that was refused by the archive, and an SR that was sent."""
    node = Node()
    node.state.add_destination(ARCHIVE)
    job = node.state.job(succeeded(node.state))
    for delivery in job.deliveries:
        node.state.start_delivery(delivery.delivery_id)
        outcome = (
            NotDelivered("answered 0xA900 data set does not match SOP class", False, "status")
            if delivery.kind == "SEG"
            else Delivered("stored, with 0xB000 coercion of data elements")
        )
        node.state.finish_delivery(delivery.delivery_id, outcome)
    return node


def ids(node: Node) -> dict[str, str]:
    return {view.kind: view.delivery_id for view in node.state.deliveries()}


def test_list_tells_failures_warnings_and_states_apart(node: Node) -> None:
    node.deliveries("list")
    assert "failure status: answered 0xA900" in " ".join(node.screen.split())
    assert "0xB000 coercion" in " ".join(node.screen.split())
    assert {(d["kind"], d["state"], d["failure"]) for d in node.listed("list")} == {
        ("SEG", "failed", "status"),
        ("SR", "sent", ""),
    }
    assert [d["kind"] for d in node.listed("list", "--state", "sent")] == ["SR"]
    assert [d["kind"] for d in node.listed("list", "--failure", "status")] == ["SEG"]
    assert [d["kind"] for d in node.listed("list", "--study", "A-23", "--state", "failed")] == ["SEG"]
    assert node.listed("list", "--failure", "partial") == []


def test_a_destination_that_never_was_is_named(node: Node) -> None:
    assert isinstance(node.deliveries("list", "--destination", "archve").exception, NotFound)


def test_show_says_all_of_one(node: Node) -> None:
    node.deliveries("show", ids(node)["SR"][:8])
    for words in ("sent", "stored, with 0xB000", "ARCHIVE@192.0.2.1:104", STUDY, "asked again"):
        assert words in node.screen
    (shown,) = [node.listed("show", ids(node)["SR"])]
    assert shown["state"] == "sent"  # type: ignore[call-overload]


def test_nothing_is_cut_off_in_a_pipe(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # which a library may have set for the whole process
    node.context.console = Console(width=30, file=StringIO())
    node.deliveries("show", ids(node)["SEG"])
    assert node.state.delivery(ids(node)["SEG"]).reason in node.screen
    node.deliveries("list")
    assert "SEG to archive" in node.screen
    assert node.state.delivery(ids(node)["SEG"]).reason in node.screen


def test_proof_is_shown(node: Node) -> None:
    node.state.clock.advance(5)
    (work,) = node.state.proofs_due()
    uids = frozenset(r.sop_instance_uid for r in work.references)
    node.state.proof_answered(work.transaction_uid, ProofAnswer(uids, words="ARCHIVE committed to keep it"))
    node.deliveries("show", ids(node)["SR"])
    assert "committed" in node.screen
    assert "ARCHIVE committed to keep it" in node.screen


def test_retry_and_drop_by_options_mean_what_failed_or_waits_and_can_be_tried(node: Node) -> None:
    tried = node.listed("retry", "--destination", "archive", "--dry-run")
    assert tried["message"] == "1 delivery would be queued again; nothing was changed"  # type: ignore[call-overload]
    assert node.state.delivery(ids(node)["SEG"]).state is DeliveryState.FAILED
    node.deliveries("retry", "--failure", "status")
    assert node.state.delivery(ids(node)["SEG"]).state is DeliveryState.QUEUED
    assert node.state.delivery(ids(node)["SR"]).state is DeliveryState.SENT
    node.deliveries("drop", ids(node)["SEG"][:6], "--reason", "sent by hand")
    assert node.state.delivery(ids(node)["SEG"]).reason == "dropped by the administrator: sent by hand"


def test_what_was_sent_is_sent_again_only_when_it_is_named(node: Node) -> None:
    assert isinstance(node.deliveries("retry", "--state", "sent").exception, UsageError)
    node.deliveries("retry", ids(node)["SR"])
    assert node.state.delivery(ids(node)["SR"]).state is DeliveryState.QUEUED


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("retry",), UsageError),
        (("drop",), UsageError),
        (("retry", "abc", "--destination", "archive"), UsageError),
        (("drop", "abc"), NotFound),
        (("retry", "--failure", "tls"), IllegalTransition),
    ],
)
def test_what_is_not_clear_is_refused(node: Node, arguments: tuple[str, ...], error: type[DicomNodeError]) -> None:
    assert isinstance(node.deliveries(*arguments).exception, error)


# ------------------------------------------------------------------------------------- destinations' options


def options(node: Node, name: str = "archive") -> DeliveryOptions:
    return next(one.options for one in node.state.destinations() if one.name == name)


def test_options_are_set_and_shown_and_tried(node: Node) -> None:
    given = ("set", "archive", "--commitment", "yes", "--max-associations", "1", "--max-rate", "2MB")
    assert "nothing was changed" in node.json(*given, "--dry-run")["message"]
    assert options(node) == DeliveryOptions()
    node.run(*given)
    assert options(node) == DeliveryOptions(commitment=Wish.YES, bytes_per_s=2_000_000, associations=1)
    shown = node.json("show", "archive")
    assert shown["options"] == {"commitment": "yes", "bytes_per_s": 2_000_000, "associations": 1}
    assert shown["deliveries"] == {"failed": 1, "sent": 1}
    assert "already; nothing was changed" in node.json(*given)["message"]
    node.run("set", "archive", "--max-rate", "0")
    assert options(node).bytes_per_s == 0


def test_options_stay_when_the_address_changes_and_go_when_its_kind_does(node: Node) -> None:
    node.run("set", "archive", "--max-associations", "2", "--commitment", "no")
    node.run("add", "archive", "--dimse", "A@new:1", "--replace")
    assert options(node) == DeliveryOptions(commitment=Wish.NO, associations=2)
    node.run("add", "archive", "--stow", "https://new/dicom-web", "--replace", "--token", "env:TOKEN")
    assert options(node) == DeliveryOptions(token="env:TOKEN")


def test_a_secret_is_refused_and_not_repeated(node: Node) -> None:
    error = node.run("add", "web", "--stow", "https://h/dicom-web", "--token", "s3cret").exception
    assert isinstance(error, InvalidDestination)
    assert "s3cret" not in str(error)


def test_a_password_in_the_url_is_remarked_upon(node: Node) -> None:
    said = node.json("add", "web", "--stow", "http://node:secret@h/dicom-web")["message"]
    assert "the password lies in the node's database" in said
    assert "unencrypted" in said
    assert "secret" not in said


def test_an_outage_is_shown(node: Node) -> None:
    node.state.retry_delivery(ids(node)["SEG"])
    node.state.start_delivery(ids(node)["SEG"])
    node.state.finish_delivery(ids(node)["SEG"], NotDelivered("connection refused", True, "no-connection"))
    node.run("show", "archive")
    assert "1 attempt): connection refused" in node.screen
    assert node.json("list")[0]["away_since"] is not None


def test_one_looks_and_the_others_say_that_they_go_when_it_is_back(node: Node) -> None:
    for kind in ("SEG", "SR"):
        node.state.retry_delivery(ids(node)[kind])
    for kind in ("SEG", "SR"):
        if (work := node.state.start_delivery(ids(node)[kind])) is not None:
            failed = NotDelivered("connection refused", True, "no-connection")
            node.state.finish_delivery(ids(node)[kind], failed, work.attempt)
    looks, waits = (node.state.delivery(ids(node)[kind]) for kind in ("SEG", "SR"))
    assert (looks.parked, waits.parked) == (False, True)
    node.deliveries("list")
    assert node.screen.count("it goes out when archive answers again") == 1
    assert node.screen.count("connection refused; attempt 2 at") == 1
    node.deliveries("show", waits.delivery_id)
    assert node.screen.count("it goes out when archive answers again") == 2
