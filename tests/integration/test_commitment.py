"""Storage Commitment as SCU: reports on the same and on a new association, partial, of nobody's, and none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicomnode.adapters.dimse.storage_scp import StorageSCP
from dicomnode.domain.delivery_options import DeliveryOptions, Wish
from dicomnode.domain.destination import Destination, DimseAddress
from dicomnode.domain.job import DeliveryState
from dicomnode.stages.commit import CommitStage
from dicomnode.stages.index import AssociationEnd
from dicomnode.stages.receive import ReceivedDataSet
from dicomnode.stages.rejections import Rejection
from tests.adapters import commitment_peer as peer
from tests.adapters.commitment_peer import CommittingPacs
from tests.integration.delivering_node import Node, sent
from tests.server_fixtures import require_orthanc
from tests.servers import DcmQrScp, Orthanc, free_port


class NoStorage:
    """Takes nothing and forgets who was here."""

    def accept(self, raw: ReceivedDataSet) -> None:
        raise AssertionError("nobody sends here")

    def association_ended(self, end: AssociationEnd) -> None:
        pass

    def turned_away(self, rejection: Rejection) -> None:
        pass


@contextmanager
def listening(node: Node, port: int) -> Iterator[StorageSCP]:
    commitments = CommitStage(node.state, node.store)
    with StorageSCP(NoStorage(), commitments=commitments, host="127.0.0.1", port=port, ae_title="NODE") as scp:
        yield scp


def test_a_report_on_the_same_association_commits_all(tmp_path: Path) -> None:
    with CommittingPacs(tmp_path / "pacs", peer.same_association) as pacs:
        node = sent(tmp_path, pacs.destination())
        assert node.ask() == 1
        assert node.states() == {DeliveryState.COMMITTED}
        assert len(pacs.requests) == 1, "both objects in one request"
        assert {i.ReferencedSOPInstanceUID for i in pacs.references(pacs.requests[0])} == {
            view.sop_instance_uid for view in node.deliveries()
        }
        assert node.ask(after_s=86_400) == 0
    assert pacs.answers == [0x0000]


def test_a_report_on_a_new_association_with_role_selection(tmp_path: Path) -> None:
    port = free_port()
    with CommittingPacs(tmp_path / "pacs", peer.new_association, report_to=port) as pacs:
        node = sent(tmp_path, pacs.destination(), report_wait_s=0.1)
        with listening(node, port):
            node.ask()
            for thread in pacs._threads:
                thread.join(10)
        assert pacs.answers == [0x0000]
        assert node.states() == {DeliveryState.COMMITTED}
        assert node.deliveries()[0].proof == "COMMITS committed to keep it (Storage Commitment)"


def test_a_report_on_a_new_association_without_role_selection(tmp_path: Path) -> None:
    """Some peers do not propose to be the SCP; it is clear what they mean."""
    port = free_port()
    with CommittingPacs(tmp_path / "pacs", peer.silence, report_to=port) as pacs:
        node = sent(tmp_path, pacs.destination(), report_wait_s=0.1)
        node.ask()
        with listening(node, port):
            peer.with_data_set(pacs, peer.report(pacs.requests[0]), role=False)
        assert node.states() == {DeliveryState.COMMITTED}


def test_a_partial_failure_sends_the_lost_one_again_until_it_is_kept(tmp_path: Path) -> None:
    with CommittingPacs(tmp_path / "pacs", peer.first_is_lost) as pacs:
        node = sent(tmp_path, pacs.destination())
        node.ask()
        states = sorted(view.state for view in node.deliveries())
        assert states == [DeliveryState.COMMITTED, DeliveryState.WAITING]
        (lost,) = [view for view in node.deliveries() if view.state is DeliveryState.WAITING]
        assert "0x0112 no such object instance" in lost.reason
        (tmp_path / "pacs" / f"{lost.sop_instance_uid}.dcm").unlink()
        pacs.reporter = peer.same_association
        node.send()
        node.ask()
        assert node.states() == {DeliveryState.COMMITTED}
        assert (tmp_path / "pacs" / f"{lost.sop_instance_uid}.dcm").exists()


def test_silence_leaves_it_sent_and_it_is_asked_again_later(tmp_path: Path) -> None:
    with CommittingPacs(tmp_path / "pacs", peer.silence) as pacs:
        node = sent(tmp_path, pacs.destination(), report_wait_s=0.1)
        node.ask()
        assert node.states() == {DeliveryState.SENT}
        assert "was asked to commit to it and has not answered yet" in node.deliveries()[0].proof
        assert node.ask(after_s=60) == 0, "not before its time"
        assert node.ask(after_s=600) == 1
        assert pacs.requests[0].TransactionUID != pacs.requests[1].TransactionUID
        for _ in range(30):
            node.ask(after_s=6 * 3600)
        assert len(pacs.requests) < 25, "not for ever"
        assert node.states() == {DeliveryState.SENT}
        assert "in 72 hours without an answer" in node.deliveries()[0].proof


def test_a_wrong_transaction_uid_commits_nothing_on_either_association(tmp_path: Path) -> None:
    port = free_port()
    with CommittingPacs(tmp_path / "pacs", peer.another_transaction, report_to=port) as pacs:
        node = sent(tmp_path, pacs.destination(), report_wait_s=3.0)
        node.ask()
        with listening(node, port):
            peer.with_data_set(pacs, peer.report(pacs.requests[0], uid="2.25.4712"), role=True)
        assert node.states() == {DeliveryState.SENT}
    assert pacs.answers == [0x0115, 0x0115]  # PS3.7 C.5.3: invalid argument value


@pytest.mark.parametrize(
    ("answer", "words", "again"),
    [
        (0x0124, "0x0124 not authorised", True),
        (0x0213, "resource limitation", True),
        (0x0123, "no such action", False),
    ],
)
def test_a_request_that_is_refused_in_words(tmp_path: Path, answer: int, words: str, again: bool) -> None:
    with CommittingPacs(tmp_path / "pacs", peer.silence, answer=answer) as pacs:
        node = sent(tmp_path, pacs.destination())
        node.ask()
    view = node.deliveries()[0]
    assert words in view.proof
    assert view.state is DeliveryState.SENT
    assert (view.ask_at is not None) is again


def test_a_peer_that_is_gone_when_it_is_asked(tmp_path: Path) -> None:
    with CommittingPacs(tmp_path / "pacs", peer.same_association) as pacs:
        node = sent(tmp_path, pacs.destination())
    node.ask()
    assert node.states() == {DeliveryState.SENT}
    assert "connection refused" in node.deliveries()[0].proof
    assert node.deliveries()[0].ask_at is not None


# ----------------------------------------------------------------------------------------------- real archives


@pytest.mark.dcmtk
def test_dcmqrscp_does_no_commitment_and_the_words_say_so(dcmqrscp: DcmQrScp, tmp_path: Path) -> None:
    address = dcmqrscp.dimse_destination().address
    node = sent(tmp_path, Destination("pacs", address))
    node.ask()
    assert node.states() == {DeliveryState.SENT}
    assert node.deliveries()[0].proof == f"{address} does no Storage Commitment"
    assert node.ask(after_s=86_400) == 0
    demanded = sent(tmp_path, Destination("pacs", address, DeliveryOptions(commitment=Wish.YES)))
    demanded.ask()
    assert demanded.deliveries()[0].ask_at is not None


@pytest.mark.orthanc
def test_orthanc_commits_by_an_association_of_its_own(tmp_path: Path) -> None:
    """Orthanc 1.10 reports to the address that it has of the asker's AE title, never on the same association."""
    require_orthanc()
    port = free_port()
    modalities = {"node": {"AET": "NODE", "Host": "127.0.0.1", "Port": port, "AllowStorageCommitment": True}}
    with Orthanc(tmp_path / "orthanc", options={"DicomModalities": modalities}) as orthanc:
        node = sent(tmp_path, Destination("pacs", DimseAddress("ORTHANC", "127.0.0.1", orthanc.dicom_port)), 0.1)
        with listening(node, port):
            node.ask()
            wait_for(lambda: node.states() == {DeliveryState.COMMITTED}, node)
        # what it does not have it does not commit to: that one is sent again
        orthanc.clear()
        for view in node.deliveries():
            node.state.retry_delivery(view.delivery_id)
        node.send()
        orthanc.clear()
        with listening(node, port):
            node.ask()
            wait_for(lambda: node.states() == {DeliveryState.WAITING}, node)
        assert "0x0112 no such object instance" in node.deliveries()[0].reason
        node.send()
        with listening(node, port):
            node.ask()
            wait_for(lambda: node.states() == {DeliveryState.COMMITTED}, node)
        assert len(orthanc.instances()) == 2


@pytest.mark.orthanc
def test_orthanc_that_does_not_know_us_aborts_and_the_words_say_what_to_look_at(
    orthanc: Orthanc, tmp_path: Path
) -> None:
    node = sent(tmp_path, Destination("pacs", DimseAddress("ORTHANC", "127.0.0.1", orthanc.dicom_port)))
    node.ask()
    view = node.deliveries()[0]
    assert view.state is DeliveryState.SENT
    assert view.ask_at is not None
    assert view.proof.startswith("asked whether it keeps it: ORTHANC@127.0.0.1")
    assert view.proof.endswith("does it know NODE as one that may ask for commitment?")


def wait_for(happened: Callable[[], bool], node: Node) -> None:
    for _ in range(200):
        if happened():
            return
        time.sleep(0.05)
    raise AssertionError([(view.state, view.proof) for view in node.deliveries()])
