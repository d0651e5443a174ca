"""Storage Commitment as SCP: senders are told the truth, on their association or on one of ours."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]

from dicomnode.adapters.db.repositories import SqlState, open_state
from dicomnode.adapters.dimse.commitment_report import CommitmentReporter
from dicomnode.adapters.dimse.storage_scp import StorageSCP
from dicomnode.adapters.instance_store import FolderInstanceStore
from dicomnode.adapters.system_clock import SystemClock
from dicomnode.domain import commitment_wish
from dicomnode.domain.destination import DimseAddress
from dicomnode.domain.source import Source
from dicomnode.stages.commit import CommitmentTeller, CommitStage
from dicomnode.stages.receive import ReceiveStage
from dicomnode.stages.sources import KnownSources
from tests.adapters.commitment_peer import INSTANCE
from tests.adapters.state_material import RecordingQueue


class Node:
    def __init__(self, folder: Path, database: Path) -> None:
        (folder / "state.db").write_bytes(database.read_bytes())
        self.state: SqlState = open_state(f"sqlite:///{folder / 'state.db'}", RecordingQueue())
        self.store = FolderInstanceStore(folder / "store")
        self.stage = ReceiveStage(self.store, self.state, SystemClock())
        commitments = CommitStage(self.state, self.store)
        self.sources = KnownSources(self.state)
        self.scp = StorageSCP(
            self.stage, commitments=commitments, sources=self.sources, host="127.0.0.1", port=0, ae_title="NODE"
        )
        self.teller = CommitmentTeller(self.state, self.store, CommitmentReporter("NODE"))

    def __enter__(self) -> Node:
        self.stage.indexer.start()
        self.scp.start()
        return self

    def __exit__(self, *about: object) -> None:
        self.scp.stop(5)
        self.stage.indexer.stop()
        self.store.close()
        self.state.close()

    def wish(self, transaction_uid: str) -> commitment_wish.CommitmentWish | None:
        return self.state.open_wish("CT1", transaction_uid)

    def put_source(self, source: Source) -> None:
        self.state.put_source(source)
        self.sources.refresh()

    def make_due(self) -> None:
        """As if it had been asked long ago."""
        with self.state.engine.execution_options(writes=True).begin() as connection:
            connection.exec_driver_sql("UPDATE commitment_wish SET next_at = asked_at WHERE next_at IS NOT NULL")


class Modality:
    """Sends images and asks for commitment; listens for reports."""

    def __init__(self) -> None:
        self.ae = AE("CT1")
        self.reports: list[tuple[int, Dataset]] = []
        self.heard = threading.Event()
        self.answer = 0x0000

    def associated(self, port: int) -> Association:
        contexts = [build_context(CTImageStorage, ExplicitVRLittleEndian), build_context(StorageCommitmentPushModel)]
        handlers = [(evt.EVT_N_EVENT_REPORT, self.reported)]
        association = self.ae.associate("127.0.0.1", port, contexts, ae_title="NODE", evt_handlers=handlers)  # type: ignore[arg-type]
        assert association.is_established
        return association

    def reported(self, event: Event) -> tuple[int, None]:
        self.reports.append((event.event_type, event.event_information))
        self.heard.set()
        return self.answer, None

    def listening(self) -> int:
        self.ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        handlers = [(evt.EVT_N_EVENT_REPORT, self.reported)]
        server = self.ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)  # type: ignore[arg-type]
        assert server is not None
        return int(server.server_address[1])


@pytest.fixture
def node(tmp_path: Path, migrated_sqlite: Path) -> Iterator[Node]:
    with Node(tmp_path, migrated_sqlite) as node:
        yield node


@pytest.fixture
def modality() -> Iterator[Modality]:
    made = Modality()
    yield made
    made.ae.shutdown()


def image() -> Dataset:
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.5", "1.2.826.0.1.3680043.8.498.5.1"
    made.Modality, made.PatientID = "CT", "P"
    made.file_meta = Dataset()  # type: ignore[assignment]
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


def store(modality: Modality, port: int, images: list[Dataset]) -> None:
    """An association each: between two requests pynetdicom may drop the second one's response, under load."""
    for one in images:
        association = modality.associated(port)
        assert association.send_c_store(one).Status == 0x0000
        association.release()


def ask(association: Association, images: list[Dataset], uid: str = "", sop_class: str = CTImageStorage) -> int:
    request = Dataset()
    request.TransactionUID = uid or generate_uid()
    request.ReferencedSOPSequence = []
    for one in images:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, one.SOPInstanceUID
        request.ReferencedSOPSequence.append(item)
    status, _ = association.send_n_action(request, 1, StorageCommitmentPushModel, INSTANCE)
    return int(status.Status)


def until(happened: Callable[[], object]) -> None:
    for _ in range(200):
        if happened():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen")


def test_what_was_just_sent_is_committed_on_the_same_association(node: Node, modality: Modality) -> None:
    images = [image() for _ in range(3)]
    store(modality, node.scp.port, images)
    association = modality.associated(node.scp.port)
    assert ask(association, images, "1.2.3.1") == 0x0000
    assert modality.heard.wait(10)
    event_type, information = modality.reports[0]
    assert (event_type, information.TransactionUID) == (1, "1.2.3.1")
    assert {i.ReferencedSOPInstanceUID for i in information.ReferencedSOPSequence} == {
        one.SOPInstanceUID for one in images
    }
    assert "FailedSOPSequence" not in information
    until(lambda: node.wish("1.2.3.1") is None)
    association.release()
    time.sleep(0.1)
    assert len(modality.reports) == 1


def test_the_truth_about_what_is_not_here_is_told_later(
    node: Node, modality: Modality, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, never, other = image(), image(), image()
    store(modality, node.scp.port, [kept, other])
    monkeypatch.setattr(commitment_wish, "SETTLED_AFTER_S", 0.5)
    assert node.stage.indexer.flush(10)
    association = modality.associated(node.scp.port)
    ask(association, [kept, never], "1.2.3.2")
    assert modality.heard.wait(10)
    event_type, information = modality.reports[0]
    assert event_type == 2
    assert [i.ReferencedSOPInstanceUID for i in information.ReferencedSOPSequence] == [kept.SOPInstanceUID]
    (failed,) = information.FailedSOPSequence
    assert (failed.ReferencedSOPInstanceUID, failed.FailureReason) == (never.SOPInstanceUID, 0x0112)
    association.release()
    modality.heard.clear()
    association = modality.associated(node.scp.port)
    ask(association, [other], "1.2.3.3", sop_class="1.2.840.10008.5.1.4.1.1.4")
    assert modality.heard.wait(10)
    assert modality.reports[1][1].FailedSOPSequence[0].FailureReason == 0x0119
    association.release()


def test_a_file_that_is_gone_from_the_disk_is_not_kept(
    node: Node, modality: Modality, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commitment_wish, "SETTLED_AFTER_S", 0.0)
    one = image()
    store(modality, node.scp.port, [one])
    assert node.stage.indexer.flush(10)
    for path in node.store.files_of(str(one.StudyInstanceUID)):
        node.store.path(path).unlink()
    association = modality.associated(node.scp.port)
    ask(association, [one])
    assert modality.heard.wait(10)
    assert modality.reports[0][1].FailedSOPSequence[0].FailureReason == 0x0112
    association.release()


def test_who_released_at_once_is_told_on_an_association_of_ours(node: Node, modality: Modality) -> None:
    node.state.put_source(Source("CT1", report=DimseAddress("CT1", "127.0.0.1", modality.listening())))
    images = [image()]
    store(modality, node.scp.port, images)
    association = modality.associated(node.scp.port)
    assert ask(association, images, "1.2.3.4") == 0x0000
    association.release()
    assert node.stage.indexer.flush(10)
    if node.wish("1.2.3.4") is not None:  # the association was too short to be told there
        node.make_due()
        assert node.teller.once() == 1
    assert node.wish("1.2.3.4") is None
    assert modality.heard.wait(5)
    assert [kind for kind, _ in modality.reports] == [1]


def test_whose_address_nobody_knows_waits_with_the_words_what_to_do(node: Node, modality: Modality) -> None:
    node.state.record_wish("CT1", "NODE", "1.2.3.5", [commitment_wish.Reference("1.2", "1.3")])
    node.make_due()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commitment_wish, "SETTLED_AFTER_S", 0.0)
        assert node.teller.once() == 0
    with node.state.engine.connect() as connection:
        (words,) = connection.exec_driver_sql("SELECT words FROM commitment_wish").one()
    assert words == "where CT1 listens is not known; dicomnode sources add CT1 --report-dimse AET@HOST:PORT"
    node.state.put_source(Source("CT1", report=DimseAddress("CT1", "127.0.0.1", modality.listening())))
    node.make_due()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commitment_wish, "SETTLED_AFTER_S", 0.0)
        assert node.teller.once() == 1
    assert modality.reports[0][0] == 2


def test_a_sender_that_refuses_the_report_is_tried_again(node: Node, modality: Modality) -> None:
    modality.answer = 0x0110
    node.state.put_source(Source("CT1", report=DimseAddress("CT1", "127.0.0.1", modality.listening())))
    node.state.record_wish("CT1", "NODE", "1.2.3.6", [commitment_wish.Reference("1.2", "1.3")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commitment_wish, "SETTLED_AFTER_S", 0.0)
        node.make_due()
        assert node.teller.once() == 0
        wish = node.wish("1.2.3.6")
        assert wish is not None
        assert wish.tries == 1
        modality.answer = 0x0000
        node.make_due()
        assert node.teller.once() == 1


def test_a_sender_whose_requests_are_switched_off_is_told_when_it_associates(node: Node, modality: Modality) -> None:
    node.put_source(Source("CT1", commitment=False))
    association = modality.associated(node.scp.port)
    results = {context.abstract_syntax: context.result for context in association.rejected_contexts}
    assert results == {StorageCommitmentPushModel: 3}  # abstract syntax not supported (PS3.8 Table 9-18)
    assert association.send_c_store(image()).Status == 0x0000
    association.release()
    node.put_source(Source("CT1"))
    association = modality.associated(node.scp.port)
    assert not association.rejected_contexts
    node.put_source(Source("CT1", commitment=False))  # of an association from before
    assert ask(association, [image()], "1.2.3.9") == 0x0124
    association.release()
    assert node.wish("1.2.3.9") is None


def test_what_an_archive_commits_to_is_heard_whatever_it_may_ask(node: Node, modality: Modality) -> None:
    node.put_source(Source("CT1", commitment=False))
    association = modality.ae.associate(
        "127.0.0.1",
        node.scp.port,
        [build_context(StorageCommitmentPushModel)],
        ae_title="NODE",
        ext_neg=[build_role(StorageCommitmentPushModel, scp_role=True)],
    )
    assert association.is_established
    (context,) = association.accepted_contexts
    assert (context.as_scu, context.as_scp) == (False, True)
    report = Dataset()
    report.TransactionUID, report.ReferencedSOPSequence = "1.2.3.10", []
    status, _ = association.send_n_event_report(report, 1, StorageCommitmentPushModel, INSTANCE)
    assert status.Status == 0x0115  # heard, and of no request of ours
    association.release()


def test_requests_that_make_no_sense_are_refused(node: Node, modality: Modality) -> None:
    first, second = image(), image()

    def answer(images: list[Dataset], uid: str = "") -> int:
        association = modality.associated(node.scp.port)
        try:
            return ask(association, images, uid)
        finally:
            association.release()

    assert answer([first], "1.2.3.7") == 0x0000
    assert answer([first], "1.2.3.7") == 0x0000, "the same again is harmless"
    assert answer([second], "1.2.3.7") == 0x0131
    assert answer([]) == 0x0106
    association = modality.associated(node.scp.port)
    status, _ = association.send_n_action(first, 2, StorageCommitmentPushModel, INSTANCE)
    assert status.Status == 0x0123
    association.release()
