"""What becomes of a result at each peer and by each failure: its state, its kind of failure and the words shown.

docs/destinations.md has the table of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from dicomnode.domain.delivery_options import DeliveryOptions, Wish
from dicomnode.domain.destination import Destination
from dicomnode.domain.job import DeliveryState
from dicomnode.ports import DeliveryView
from tests.adapters import commitment_peer
from tests.adapters.commitment_peer import CommittingPacs
from tests.adapters.difficult_peers import DifficultPacs, WebPeer, abort_pdu, ends_in_the_middle, tcp_server
from tests.integration.delivering_node import TIMEOUTS, Node, sent
from tests.integration.test_failure_kinds import aborting, dimse, full, mute, nobody, other_kinds, rejecting, slow
from tests.servers import DcmQrScp, Orthanc

S = DeliveryState
Broken = Callable[[Path], AbstractContextManager[Destination]]
UNPROVEN = DeliveryOptions(commitment=Wish.NO)


def outcome(node: Node) -> DeliveryView:
    (view,) = node.deliveries()
    return view


# ------------------------------------------------------------------------------------- sent, accepted, committed


@pytest.mark.orthanc
def test_orthanc_by_stow_rs_is_sent_and_then_accepted(orthanc: Orthanc, tmp_path: Path) -> None:
    node = sent(tmp_path, replace(orthanc.stow_destination(), name="pacs"))
    assert {view.reason for view in node.deliveries()} == {"stored"}
    assert node.ask() == 1
    assert node.states() == {S.ACCEPTED}
    assert "found by QIDO-RS with its SOP class" in node.deliveries()[0].proof


@pytest.mark.orthanc
def test_what_orthanc_lost_is_not_accepted_and_sent_again_after_a_while(orthanc: Orthanc, tmp_path: Path) -> None:
    node = sent(tmp_path, replace(orthanc.stow_destination(), name="pacs"))
    orthanc.clear()
    for _ in range(12):
        node.ask(after_s=3600)
    assert node.states() == {S.WAITING}
    assert "does not find it by QIDO-RS" in node.deliveries()[0].reason
    node.send()
    node.ask()
    assert node.states() == {S.ACCEPTED}
    assert len(orthanc.instances()) == 2


@pytest.mark.dcmtk
def test_dcmqrscp_is_sent_and_has_it(dcmqrscp: DcmQrScp, tmp_path: Path) -> None:
    node = sent(tmp_path, replace(dcmqrscp.dimse_destination(), name="pacs"))
    node.ask()
    assert node.states() == {S.SENT}
    assert node.deliveries()[0].proof.endswith("does no Storage Commitment")
    assert len(dcmqrscp.files()) == 2


# ------------------------------------------------------------------------------------------------ C-STORE fails


@contextmanager
def mid_transfer(folder: Path, last: bytes) -> Iterator[Destination]:
    with DifficultPacs(folder) as pacs, tcp_server(ends_in_the_middle(pacs.port, last)) as port:
        yield dimse(port)


def aborted_by_user(folder: Path) -> AbstractContextManager[Destination]:
    return mid_transfer(folder, abort_pdu(0, 0))


def aborted_by_provider(folder: Path) -> AbstractContextManager[Destination]:
    """A-P-ABORT, unexpected PDU (PS3.8 Table 9-26)."""
    return mid_transfer(folder, abort_pdu(2, 2))


def reset(folder: Path) -> AbstractContextManager[Destination]:
    return mid_transfer(folder, b"")


@pytest.mark.parametrize(
    ("broken", "state", "failure", "words"),
    [
        (nobody, S.WAITING, "no-connection", "connection refused: nothing listens there"),
        (rejecting, S.WAITING, "association-rejected", "it does not have that AE title; correct the destination"),
        (full, S.WAITING, "association-rejected", "it has too many associations open"),
        (mute, S.WAITING, "no-answer", "did not answer the association request in 1 s; is that port a DICOM port?"),
        (slow, S.WAITING, "no-response", "gave no answer in 1 s; see the peer's log"),
        (aborting, S.WAITING, "association-aborted", "aborted the association; see the peer's log"),
        (aborted_by_user, S.WAITING, "association-aborted", "aborted the association; see the peer's log"),
        (aborted_by_provider, S.WAITING, "association-aborted", "aborted the association: unexpected PDU; see the"),
        (reset, S.WAITING, "association-aborted", "closed the connection before it answered; see the peer's log"),
        (other_kinds, S.FAILED, "context-not-accepted", "does not accept Comprehensive 3D SR Storage"),
    ],
)
def test_a_c_store_that_does_not_come_about(
    broken: Broken, state: DeliveryState, failure: str, words: str, tmp_path: Path
) -> None:
    # only who is waited for in vain is waited for briefly: a busy machine must not look like a broken one
    timeouts = {mute: replace(TIMEOUTS, association_s=1.0), slow: replace(TIMEOUTS, response_s=1.0)}
    large = {aborted_by_user, aborted_by_provider, reset}
    with broken(tmp_path / "pacs") as destination:
        destination = replace(destination, name="pacs", options=replace(UNPROVEN, transfer_syntaxes=("explicit",)))
        node = Node(
            tmp_path,
            destination,
            kinds=("SR",),
            timeouts=timeouts.get(broken, TIMEOUTS),
            payload_bytes=30_000_000 if broken in large else 0,
        )
        node.finish_a_job()
        node.send()
    view = outcome(node)
    assert (view.state, view.failure) == (state, failure), view.reason
    assert words in view.reason
    assert (view.next_attempt_at is not None) is (state is S.WAITING)


@pytest.mark.parametrize(
    ("status", "state", "words"),
    [
        (0x0000, S.SENT, "stored"),
        (0xB000, S.SENT, "stored, with 0xB000 coercion of data elements: the peer changed attributes of the object"),
        (0xB006, S.SENT, "stored, with 0xB006 elements discarded: the peer left attributes of the object out"),
        (0xB007, S.SENT, "stored, with 0xB007 data set does not match SOP class: the peer kept it all the same"),
        (0x0111, S.SENT, "stored, with 0x0111 duplicate SOP instance: it was there already"),
        (0xA700, S.WAITING, "0xA700 out of resources: free space at the peer"),
        (0xA900, S.FAILED, "0xA900 data set does not match SOP class: the peer finds the object not conformant"),
        (0xC000, S.WAITING, "0xC000 cannot understand: see the peer's log, it answers this to any trouble"),
        (0x0110, S.WAITING, "0x0110 processing failure: see the peer's log"),
        (0x0117, S.FAILED, "0x0117 invalid SOP instance: see the peer's log"),
        (0x0122, S.FAILED, "0x0122 SOP class not supported: the peer does not store this kind of object"),
        (0x0124, S.WAITING, "0x0124 not authorised: allow this node to store at the peer"),
    ],
)
def test_what_a_c_store_is_answered(status: int, state: DeliveryState, words: str, tmp_path: Path) -> None:
    with DifficultPacs(tmp_path / "pacs", status=status) as pacs:
        node = Node(tmp_path, replace(pacs.destination(), name="pacs", options=UNPROVEN), kinds=("SR",))
        node.finish_a_job()
        node.send()
    view = outcome(node)
    assert view.state is state
    assert view.failure == ("" if state is S.SENT else "status")
    assert view.reason.endswith(words)


# ------------------------------------------------------------------------------------------------ STOW-RS fails


def told(uid: str, *, failed: int | None = None, warned: int | None = None, others: bool = False) -> bytes:
    """A Store Instances Response about an object, and perhaps about another that is stored."""
    item: dict[str, object] = {"00081155": {"vr": "UI", "Value": [uid]}}
    for tag, reason in (("00081197", failed), ("00081196", warned)):
        if reason is not None:
            item[tag] = {"vr": "US", "Value": [reason]}
    stored = [{"00081155": {"vr": "UI", "Value": ["1.2.3"]}}] * others
    document = {"00081199": {"vr": "SQ", "Value": [*stored, *([item] if failed is None else [])]}}
    if failed is not None:
        document["00081198"] = {"vr": "SQ", "Value": [item]}
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("http", "answer", "state", "failure", "words"),
    [
        (200, {}, S.SENT, "", "stored"),
        (202, {"warned": 0xB000}, S.SENT, "", "stored, with 0xB000 coercion of data elements"),
        (202, {"warned": 0xB006}, S.SENT, "", "stored, with 0xB006 elements discarded"),
        (202, {"warned": 0xB007}, S.SENT, "", "stored, with 0xB007 data set does not match SOP class"),
        (202, {"failed": 0xA700, "others": True}, S.WAITING, "partial", "stored a part and not the object: 0xA700"),
        (202, {"failed": 0xA900}, S.FAILED, "status", "did not store it: 0xA900 data set does not match SOP class"),
        (409, {"failed": 0xA700}, S.WAITING, "status", "did not store it: 0xA700 out of resources"),
        (409, {"failed": 0x0122}, S.FAILED, "status", "did not store it: 0x0122 SOP class not supported"),
        (409, {"failed": 0xC122}, S.WAITING, "status", "did not store it: 0xC122 transfer syntax not supported"),
        (409, {"failed": 0xC000}, S.WAITING, "status", "did not store it: 0xC000 cannot understand"),
    ],
)
def test_what_stow_rs_is_answered(
    http: int, answer: dict[str, int], state: DeliveryState, failure: str, words: str, tmp_path: Path
) -> None:
    with WebPeer(http) as peer:
        destination = replace(peer.destination(), name="pacs", options=DeliveryOptions(verify=Wish.NO))
        node = Node(tmp_path, destination, kinds=("SR",))
        node.finish_a_job()
        peer.body = told(outcome(node).sop_instance_uid, **answer)  # type: ignore[arg-type]
        node.send()
    view = outcome(node)
    assert (view.state, view.failure) == (state, failure), view.reason
    assert words in view.reason


# ------------------------------------------------------------------------------------------ commitment that fails


def failing_all(reason: int) -> commitment_peer.Reporter:
    def report(peer: CommittingPacs, association: object, request: object) -> None:
        failed = peer.references(request)  # type: ignore[arg-type]
        data_set = commitment_peer.report(request, failed, reason)  # type: ignore[arg-type]
        commitment_peer.say(peer, association, data_set)  # type: ignore[arg-type]

    return report


@pytest.mark.parametrize(
    ("reason", "state", "words", "asked_again"),
    [
        (0x0112, S.WAITING, "0x0112 no such object instance", False),
        (0x0110, S.SENT, "0x0110 processing failure", True),
        (0x0213, S.SENT, "0x0213 resource limitation", True),
        (0x0131, S.SENT, "0x0131 duplicate transaction UID", True),
        (0x0122, S.SENT, "0x0122 referenced SOP class not supported", False),
        (0x0119, S.SENT, "0x0119 class/instance conflict", False),
        (0x0999, S.SENT, "0x0999 a reason that the standard does not know", False),
    ],
)
def test_what_is_not_committed_to(
    reason: int, state: DeliveryState, words: str, asked_again: bool, tmp_path: Path
) -> None:
    with CommittingPacs(tmp_path / "pacs", failing_all(reason)) as pacs:
        node = sent(tmp_path, pacs.destination())
        node.ask()
    view = node.deliveries()[0]
    assert view.state is state
    assert words in (view.reason if state is S.WAITING else view.proof)
    assert view.failure == ("not-committed" if state is S.WAITING else "")
    assert (view.ask_at is not None) is asked_again
    assert pacs.answers == [0x0000], "the report itself was understood"
