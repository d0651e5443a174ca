"""Storage Commitment as SCU: reports on the same and on a new association, partial, of nobody's, and none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicomnode.adapters.dicomweb.qido_proof import QidoProver
from dicomnode.adapters.dicomweb.stow import StowRs
from dicomnode.adapters.dimse.commitment_scu import CommitmentScu
from dicomnode.adapters.dimse.storage_scp import StorageSCP
from dicomnode.adapters.dimse.storage_scu import StorageScu, Timeouts
from dicomnode.domain.delivery_options import DeliveryOptions, Wish
from dicomnode.domain.destination import Destination, DimseAddress
from dicomnode.domain.job import DeliveryState
from dicomnode.ports import DeliveryView, JobFinished
from dicomnode.stages.commit import CommitStage
from dicomnode.stages.deliver import DeliverStage, DestinationSink
from dicomnode.stages.index import AssociationEnd
from dicomnode.stages.prove import ProofStage
from dicomnode.stages.receive import ReceivedDataSet
from dicomnode.stages.rejections import Rejection
from tests.adapters import commitment_peer as peer
from tests.adapters.commitment_peer import CommittingPacs
from tests.adapters.fake_instance_store import FakeInstanceStore
from tests.adapters.fake_state import FakeState
from tests.adapters.sample_results import sample_result
from tests.adapters.state_material import STUDY, routed
from tests.server_fixtures import require_orthanc
from tests.servers import DcmQrScp, Orthanc, free_port

TIMEOUTS = Timeouts(connect_s=5, association_s=10, response_s=10, stall_s=10)


class Node:
    """Delivers to a destination and asks for proof, on a state in memory; its receiver listens."""

    def __init__(self, folder: Path, destination: Destination, report_wait_s: float = 5.0) -> None:
        self.state = FakeState()
        self.state.add_destination(destination)
        self.store = FakeInstanceStore(folder)
        self._results = tuple(sample_result(folder, kind, study_instance_uid=STUDY)[1] for kind in ("SEG", "SR"))
        sinks = {"dimse": StorageScu("NODE", TIMEOUTS), "stow": StowRs()}
        provers = {"dimse": CommitmentScu("NODE", TIMEOUTS, report_wait_s), "stow": QidoProver()}
        self._deliver = DeliverStage(DestinationSink(sinks), self.store, self.state)
        self._prove = ProofStage(self.state, provers)  # type: ignore[arg-type]

    def finish_a_job(self) -> None:
        job = routed(self.state, destinations=("pacs",))
        assert self.state.start_job(job) is not None
        self.state.finish_job(job, JobFinished(self._results))

    def send(self) -> None:
        for view in self.deliveries():
            if (work := self.state.start_delivery(view.delivery_id)) is not None:
                self.state.finish_delivery(view.delivery_id, self._deliver.deliver(work), work.attempt)

    def ask(self, after_s: float = 2.0) -> int:
        self.state.clock.advance(after_s)
        return self._prove.once()

    def deliveries(self) -> list[DeliveryView]:
        return sorted(self.state.deliveries(), key=lambda view: view.kind)

    def states(self) -> set[DeliveryState]:
        return {view.state for view in self.deliveries()}


def sent(folder: Path, destination: Destination, report_wait_s: float = 5.0) -> Node:
    node = Node(folder, destination, report_wait_s)
    node.finish_a_job()
    node.send()
    assert node.states() == {DeliveryState.SENT}, [view.reason for view in node.deliveries()]
    return node


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


def wait_for(happened: Callable[[], bool], node: Node) -> None:
    for _ in range(200):
        if happened():
            return
        time.sleep(0.05)
    raise AssertionError([(view.state, view.proof) for view in node.deliveries()])
