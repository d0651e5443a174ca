"""MPPS and Instance Availability Notification over loopback sockets, and settings of senders on the same port."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.association import Association
from sqlalchemy.exc import OperationalError

from dicomnode import bootstrap
from dicomnode.adapters.dimse.announcement_scp import IAN, MPPS
from dicomnode.adapters.dimse.storage_scp import VERIFICATION, StorageSCP
from dicomnode.adapters.instance_store import FolderInstanceStore
from dicomnode.adapters.system_clock import SystemClock
from dicomnode.domain.announcement import AnnouncementState
from dicomnode.domain.source import Source
from dicomnode.encoding.part10 import file_meta_information
from dicomnode.stages.announce import AnnounceStage
from dicomnode.stages.receive import ReceiveStage
from dicomnode.stages.sources import KnownSources
from tests.adapters.fake_state import FakeState
from tests.announcements import CT_IMAGE, IAN_UID, MPPS_UID, SERIES, STUDY, available, begun, ended
from tests.raw_scu import CT, DEFLATED, EXPLICIT, IMPLICIT, RawScu, data_set
from tests.server_fixtures import require_dcmtk

MR = "1.2.840.10008.5.1.4.1.1.4"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
JPEG = "1.2.840.10008.1.2.4.50"


@dataclass
class Node:
    """A receiver on a state in memory."""

    state: FakeState
    stage: ReceiveStage
    sources: KnownSources
    scp: StorageSCP

    def settings(self, source: Source) -> None:
        self.state.put_source(source)
        self.sources.refresh()

    def messages(self, kind: str) -> list[str]:
        assert self.stage.indexer.flush(20)
        return [event.message for _, event in self.state.events_after(0) if event.kind == kind]

    @contextmanager
    def associated(
        self, *abstract: str, syntaxes: tuple[str, ...] = (), calling: str = "CT1"
    ) -> Iterator[Association]:
        ae = AE(ae_title=calling)
        for one in abstract or (MPPS, IAN):
            ae.add_requested_context(one, list(syntaxes) or None)
        association = ae.associate("127.0.0.1", self.scp.port, ae_title="NODE")
        assert association.is_established
        try:
            yield association
        finally:
            association.release()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    state, store = FakeState(), FolderInstanceStore(tmp_path / "store")
    stage, sources = ReceiveStage(store, state, SystemClock()), KnownSources(state)
    announce = AnnounceStage(state, bootstrap.database_errors)
    stage.indexer.start()
    with StorageSCP(
        stage, announcements=announce, sources=sources, name="n/1", host="127.0.0.1", port=0, ae_title="NODE"
    ) as scp:
        yield Node(state, stage, sources, scp)
    stage.indexer.stop()
    store.close()


def create(association: Association, data_set: Dataset | None = None, uid: str | None = MPPS_UID) -> Dataset:
    return association.send_n_create(data_set or begun(), MPPS, uid)[0]


def update(association: Association, data_set: Dataset, uid: str = MPPS_UID) -> Dataset:
    return association.send_n_set(data_set, MPPS, uid)[0]


# --------------------------------------------------------------------------------------------------------- MPPS


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED])
def test_an_examination_is_announced_begun_and_completed(node: Node, syntax: str) -> None:
    with node.associated(MPPS, syntaxes=(syntax,)) as association:
        assert create(association).Status == 0x0000
    begun_now = node.state.announcement(MPPS_UID)
    assert begun_now is not None
    assert (begun_now.state, begun_now.calling_ae_title) == (AnnouncementState.IN_PROGRESS, "CT1")
    assert begun_now.document["00100010"]["Value"] == [{"Alphabetic": "Prüfer^Hänschen"}]
    with node.associated(MPPS, syntaxes=(syntax,)) as association:
        assert update(association, ended({SERIES: ["1.1", "1.2"]})).Status == 0x0000
    completed = node.state.announcement(MPPS_UID)
    assert completed is not None
    assert (completed.state, completed.instances) == (AnnouncementState.COMPLETED, 2)
    assert completed.document["00100010"] == begun_now.document["00100010"]
    assert [event.kind for event in node.state.events(STUDY)] == ["mpps.in-progress", "mpps.completed"]


def test_refusals_say_why_and_the_association_goes_on(node: Node) -> None:
    no_study, finished = begun(), begun()
    del no_study.ScheduledStepAttributesSequence
    finished.PerformedProcedureStepStatus = "COMPLETED"
    with node.associated() as association:
        assert create(association, no_study).Status == 0x0120
        refused = create(association, finished)
        assert refused.Status == 0x0106
        assert refused.ErrorComment.startswith("Performed Procedure Step Status has to be IN PROGRESS")
        assert update(association, ended({SERIES: ["1.1"]})).Status == 0x0112
        assert create(association).Status == 0x0000
        assert create(association).Status == 0x0111
        assert update(association, ended({SERIES: ["1.1"]}, status="DISCONTINUED")).Status == 0x0000
        late = update(association, ended({SERIES: ["1.1", "1.2"]}))
        assert (late.Status, late.ErrorID) == (0x0110, 0xA710)
    kept = node.state.announcement(MPPS_UID)
    assert kept is not None
    assert kept.instances == 1


def test_a_modality_that_gives_no_uid_gets_one(node: Node) -> None:
    with node.associated() as association:
        answers: list[Any] = []
        association.bind(evt.EVT_DIMSE_RECV, lambda event: answers.append(event.message.command_set))
        assert create(association, uid=None).Status == 0x0000
        uid = str(answers[0].AffectedSOPInstanceUID)
        assert update(association, ended({SERIES: ["1.1"]}), uid).Status == 0x0000
    assert node.state.announcement(uid) is not None


def test_other_objects_of_the_service_are_not_served(node: Node) -> None:
    with node.associated() as association:
        assert association.send_n_get([Tag(0x00400252)], MPPS, MPPS_UID)[0].Status == 0x0110
        assert association.send_n_event_report(begun(), 1, MPPS, MPPS_UID)[0].Status == 0x0110
        assert create(association).Status == 0x0000


def test_nothing_is_success_while_the_database_is_away(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    def away(*_: Any) -> None:
        raise OperationalError("INSERT", {"name": "Prüfer"}, Exception("could not connect to server"))

    def broken(*_: Any) -> None:
        raise KeyError(chr(80) + "rüfer")  # not as a literal: the log has the line

    with node.associated() as association:
        for failure, comment in ((away, "try again later"), (broken, "its log says why")):
            node.state.record_announcement = failure  # type: ignore[method-assign,assignment]
            answer = create(association)
            assert answer.Status == 0x0110
            assert comment in answer.ErrorComment
            assert "ErrorID" not in answer
        del node.state.record_announcement
        assert create(association).Status == 0x0000
    assert "Prüfer" not in caplog.text


def test_a_data_set_in_another_transfer_syntax_is_refused(node: Node) -> None:
    with node.associated(MPPS, syntaxes=(DEFLATED,)) as association:
        association._accepted_cx[1].transfer_syntax = [UID(EXPLICIT)]  # so that what is sent is not deflated
        assert create(association).Status == 0x0106
    assert node.state.announcement(MPPS_UID) is None


# ---------------------------------------------------------------------------------------------------------- IAN


def test_what_is_available_is_announced(node: Node) -> None:
    with node.associated(calling="PACS") as association:
        status, _ = association.send_n_create(available({SERIES: ["1.1", "1.2"]}), IAN, IAN_UID)
        assert status.Status == 0x0000
        assert association.send_n_create(available({SERIES: ["1.1"]}), IAN, IAN_UID)[0].Status == 0x0111
        empty = Dataset()
        empty.StudyInstanceUID = STUDY
        assert association.send_n_create(empty, IAN, "1.2.3")[0].Status == 0x0120
    announcement = node.state.announcement(IAN_UID)
    assert announcement is not None
    assert (announcement.state, announcement.instances) == (AnnouncementState.AVAILABLE, 2)
    assert node.messages("ian.received") == ["PACS says what is available (IAN): 2 instances in 1 series"]


def test_images_and_announcements_come_over_one_association(node: Node) -> None:
    contexts = {1: (CT, [IMPLICIT]), 3: (MPPS, [JPEG, EXPLICIT]), 5: (IAN, [JPEG])}
    with RawScu(node.scp.port, contexts) as scu:
        assert scu.accepted == {1: IMPLICIT, 3: EXPLICIT}
        assert scu.store(data_set()).status == 0
    assert node.messages("association.released") == ["association from RAW released: 1 instance"]


def test_announcements_of_several_modalities_at_once(node: Node) -> None:
    def examine(number: int) -> list[int]:
        """By two associations: of two messages, one right after the other, pynetdicom's requestor may lose an answer.

        Its thread wakes up late from the first one and takes the second one's response, if the machine is busy.
        """
        uid, changes = f"{MPPS_UID}.{number}", ended({f"{SERIES}.{number}": ["1.1"]})
        with node.associated(MPPS, calling=f"CT{number}") as association:
            made = create(association, uid=uid)
        with node.associated(MPPS, calling=f"CT{number}") as association:
            return [made.Status, update(association, changes, uid).Status]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(examine, range(8))) == [[0, 0]] * 8


def test_a_listener_without_announcements_does_not_accept_them(tmp_path: Path) -> None:
    store = FolderInstanceStore(tmp_path)
    stage = ReceiveStage(store, FakeState(), SystemClock())
    with (
        StorageSCP(stage, host="127.0.0.1", port=0, ae_title="NODE") as scp,
        RawScu(scp.port, {1: (MPPS, [EXPLICIT]), 3: (CT, [EXPLICIT])}) as scu,
    ):
        assert scu.accepted == {3: EXPLICIT}
    store.close()


# ------------------------------------------------------------------------------------------- what senders may


def results(association: Association) -> dict[str, int]:
    """Abstract syntax → what came of its presentation context (PS3.8 Table 9-18)."""
    contexts = [*association.accepted_contexts, *association.rejected_contexts]
    return {str(context.abstract_syntax): cast(int, context.result) for context in contexts}


def test_sop_classes_and_transfer_syntaxes_are_refused_by_sender(node: Node) -> None:
    node.settings(Source("CT1", refused_sop_classes=(MR,), allowed_transfer_syntaxes=(EXPLICIT,)))
    for calling, expected in (("CT1", {CT_IMAGE: 0, MR: 3}), ("CT2", {CT_IMAGE: 0, MR: 0})):
        with node.associated(CT_IMAGE, MR, syntaxes=(JPEG, EXPLICIT), calling=calling) as association:
            assert results(association) == expected
            (syntax,) = association.accepted_contexts[0].transfer_syntax
            assert syntax == (EXPLICIT if calling == "CT1" else JPEG)
    with node.associated(CT_IMAGE, VERIFICATION, syntaxes=(JPEG,)) as association:
        assert results(association) == {CT_IMAGE: 4, VERIFICATION: 0}
    assert node.messages("association.released") == [
        "association from CT1 released: nothing kept; its settings keep it from sending MR Image Storage",
        "association from CT1 released: nothing kept; its settings keep it from sending CT Image Storage in "
        "JPEG Baseline (Process 1)",
    ]


def test_only_what_is_allowed_is_accepted_and_announcements_always(node: Node) -> None:
    node.settings(Source("CT1", allowed_sop_classes=(CT_IMAGE,)))
    with node.associated(CT_IMAGE, MR, MPPS, IAN, VERIFICATION) as association:
        assert results(association) == {CT_IMAGE: 0, MR: 3, MPPS: 0, IAN: 0, VERIFICATION: 0}
        assert create(association).Status == 0x0000


def test_what_is_refused_is_refused_under_another_name_too(node: Node) -> None:
    node.settings(Source("CT1", refused_sop_classes=(MR,)))
    with RawScu(node.scp.port, calling="CT1") as scu:
        refused = scu.store(data_set(sop_class=MR), sop_class=MR)
        assert (refused.status, refused.comment) == (0x0122, "CT1 may not send MR Image Storage")
        assert scu.store(data_set("1.2.9"), "1.2.9").status == 0
    assert node.messages("association.released") == [
        "association from CT1 released: 1 instance; 1 instance of it refused: CT1 may not send MR Image Storage"
    ]


def test_new_settings_hold_for_an_open_association_too(node: Node) -> None:
    with RawScu(node.scp.port, calling="CT1") as scu:
        assert scu.store(data_set("1.2.1"), "1.2.1").status == 0
        node.settings(Source("CT1", refused_transfer_syntaxes=(IMPLICIT,)))
        refused = scu.store(data_set("1.2.2"), "1.2.2")
        assert (refused.status, refused.comment) == (0x0124, "CT1 may not send in Implicit VR Little Endian")
        node.state.remove_source("CT1")
        node.sources.refresh()
        assert scu.store(data_set("1.2.2"), "1.2.2").status == 0


def test_associations_are_numbered_under_their_receivers_name(node: Node) -> None:
    for calling in ("CT1", "CT2"):
        with RawScu(node.scp.port, calling=calling) as scu:
            assert scu.store(data_set("1.." if calling == "CT2" else "1.2.1"), "1.2.1").status in (0, 0xA900, 0xC000)
    node.messages("")
    events = [event for _, event in node.state.events_after(0) if event.kind == "association.released"]
    assert [event.detail["association"] for event in events] == ["n/1/1", "n/1/2"]


@pytest.mark.dcmtk
def test_dcmtks_storescu_gets_to_know_what_it_may_not_send(node: Node, tmp_path: Path) -> None:
    storescu = require_dcmtk("storescu")
    node.settings(Source("CT1", refused_sop_classes=(MR,)))

    def send(calling: str, sop_class: str) -> subprocess.CompletedProcess[str]:
        content = encoded_file(sop_class)
        (tmp_path / "one.dcm").write_bytes(content)
        command = [str(storescu), "-R", "-aet", calling, "-aec", "NODE", "127.0.0.1", str(node.scp.port)]
        environment = {**os.environ, "TCP_NODELAY": "1"}
        return subprocess.run(
            [*command, str(tmp_path / "one.dcm")], env=environment, capture_output=True, text=True, timeout=60
        )

    assert [send("CT1", CT_IMAGE).returncode, send("CT2", MR).returncode] == [0, 0]
    refused = send("CT1", MR)
    assert refused.returncode != 0
    assert "No Acceptable Presentation Contexts" in refused.stderr
    # storescu is gone before the node sees that it aborted
    until(
        lambda: any("MR Image Storage" in message for message in node.messages("association.aborted")), "it is told"
    )
    assert any("MR Image Storage" in message for message in node.messages("context.rejected"))


def until(wanted: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 20
    while not wanted():
        assert time.monotonic() < end, f"it did not happen in 20 s: {what}"
        time.sleep(0.01)


def encoded_file(sop_class: str) -> bytes:
    meta = file_meta_information(
        sop_class_uid=sop_class,
        sop_instance_uid="1.2.3.4.5",
        transfer_syntax_uid=IMPLICIT,
        calling_ae_title="CT1",
        called_ae_title="NODE",
    )
    return meta + data_set(sop_class=sop_class)
