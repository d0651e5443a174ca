"""The Storage SCP over loopback sockets: with bare bytes, with pynetdicom and with dcmtk."""

from __future__ import annotations

import errno
import os
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom._uid_dict import UID_dictionary
from pynetdicom import AE, AllStoragePresentationContexts, StoragePresentationContexts
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from dicomnode.adapters.dimse.storage_scp import StorageSCP, is_storable
from dicomnode.adapters.instance_store import FolderInstanceStore
from dicomnode.adapters.system_clock import SystemClock
from dicomnode.domain.source import Source
from dicomnode.encoding.part10 import TRANSFER_SYNTAXES, data_set_offset
from dicomnode.stages.index import AssociationEnd
from dicomnode.stages.receive import ReceivedDataSet, ReceiveStage
from dicomnode.stages.rejections import Rejection
from tests.raw_scu import CT, EXPLICIT, IMPLICIT, RawScu, Rejected, data_set, uid
from tests.recorder import Recorder

PRIVATE = "1.3.46.670589.11.0.0.12.1"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"


class Node:
    """A receiver without a database: store, indexer, listener."""

    def __init__(self, root: Path, **options: object) -> None:
        self.store = FolderInstanceStore(root)
        self.state = Recorder()
        self.stage = ReceiveStage(self.store, self.state, SystemClock())  # type: ignore[arg-type]
        settings = {"host": "127.0.0.1", "port": 0, "ae_title": "NODE", **options}
        self.scp = StorageSCP(self.stage, **settings)  # type: ignore[arg-type]

    def kept(self) -> list[bytes]:
        """The data sets in their places."""
        assert self.stage.indexer.flush(20)
        files = [path.read_bytes() for path in sorted(self.store.path("instances").rglob("*.dcm"))]
        return [file[data_set_offset(file) :] for file in files]


@contextmanager
def running(root: Path, **options: object) -> Iterator[Node]:
    node = Node(root, **options)
    node.stage.indexer.start()
    with node.scp:
        yield node
    node.stage.indexer.stop()
    node.store.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running(tmp_path / "store") as node:
        yield node


def explicit_data_set(order: str, instance: str) -> bytes:
    out = b""
    for tag, value in (((8, 22), CT), ((8, 24), instance), ((32, 13), "1.2.3"), ((32, 14), "1.2.3.4")):
        raw = uid(value)
        out += b"".join(n.to_bytes(2, order) for n in tag) + b"UI" + len(raw).to_bytes(2, order) + raw  # type: ignore[arg-type]
    return out


def encoded(syntax: str, instance: str) -> bytes:
    if syntax == IMPLICIT:
        return data_set(instance)
    content = explicit_data_set("big" if syntax.endswith("1.2.2") else "little", instance)
    if syntax.endswith((".1.99", ".4.95", ".4.205")):
        deflater = zlib.compressobj(wbits=-15)
        return deflater.compress(content) + deflater.flush()
    return content


# ------------------------------------------------------------------------------------------------ associations


def test_c_echo_is_answered(node: Node) -> None:
    ae = AE(ae_title="ECHO")
    ae.add_requested_context(Verification)
    association = ae.associate("127.0.0.1", node.scp.port)
    assert association.is_established
    assert association.send_c_echo().Status == 0x0000
    association.release()


@pytest.mark.parametrize(
    ("calling", "called", "reason"),
    [("CT1", "OTHER", (1, 1, 7)), ("CT9", "NODE", (1, 1, 3)), ("CT1", "NODE", None), ("CT2", "NODE", None)],
)
def test_ae_titles_can_be_restricted(
    tmp_path: Path, calling: str, called: str, reason: tuple[int, int, int] | None
) -> None:
    options = {"check_called_ae_title": True, "allowed_calling_ae_titles": ("CT1", "CT2")}
    with running(tmp_path, **options) as node:
        if reason is None:
            with RawScu(node.scp.port, calling=calling, called=called) as scu:
                assert scu.store(data_set()).status == 0
        else:
            with pytest.raises(Rejected) as caught:
                RawScu(node.scp.port, calling=calling, called=called)
            assert caught.value.reason == reason
        assert node.stage.indexer.flush(20)
    assert node.state.messages("association.aborted") == []
    told = node.state.messages("association.rejected")
    assert len(told) == (reason is not None)
    if reason is not None:
        assert told[0].startswith(f"turned away {calling} at 127.0.0.1: ")
        setting = {3: "allowed_calling_ae_titles", 7: "check_called_ae_title"}[reason[2]]
        assert f"(setting {setting})" in told[0]


def test_an_association_too_many_is_rejected_for_now(tmp_path: Path) -> None:
    with running(tmp_path, max_associations=1) as node, RawScu(node.scp.port) as first:
        with pytest.raises(Rejected) as caught:
            RawScu(node.scp.port)
        assert caught.value.reason == (2, 3, 2)
        assert first.store(data_set()).status == 0
        assert node.stage.indexer.flush(20)
        (told,) = node.state.messages("association.rejected")
        assert "this receiver has 1 association already (setting max_associations)" in told


def test_a_sender_whose_settings_refuse_what_it_proposes_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Settings:
        def of(self, ae_title: str) -> Source:
            return Source(ae_title, refused_sop_classes=(CT,))

    with running(tmp_path, sources=Settings()) as node:
        for _ in range(3):
            with RawScu(node.scp.port, calling="CT1") as scu:
                assert scu.accepted == {}
        assert node.stage.indexer.flush(20)
        (told,) = node.state.messages("context.rejected")
    words = "its settings (dicomnode sources show) keep it from sending CT Image Storage"
    assert told == f"turned away CT1 at 127.0.0.1: {words}"
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [told]


def test_what_cannot_be_stored_is_not_accepted_and_the_requestors_order_of_syntaxes_is_kept(node: Node) -> None:
    contexts = {
        1: (CT, ["1.2.840.10008.1.2.4.90", IMPLICIT]),
        3: (FIND, [IMPLICIT]),
        5: (CT, ["1.2.3.4.5.6"]),
        7: (PRIVATE, ["1.2.3.4.5.6", EXPLICIT]),
        9: ("1.2.840.10008.1.3.10", [EXPLICIT]),
    }
    with RawScu(node.scp.port, contexts) as scu:
        assert scu.accepted == {1: "1.2.840.10008.1.2.4.90", 7: EXPLICIT}


def test_our_longest_pdu_is_announced(tmp_path: Path) -> None:
    with running(tmp_path, max_pdu_bytes=65536) as node, RawScu(node.scp.port) as scu:
        assert scu.max_pdu_bytes == 65536


# ----------------------------------------------------------------------------------------------------- storing


def test_every_transfer_syntax_is_kept_byte_for_byte(node: Node) -> None:
    sent = {}
    for number, syntax in enumerate(sorted(TRANSFER_SYNTAXES)):
        instance = f"1.2.3.4.{number}"
        sent[instance] = encoded(syntax, instance)
        with RawScu(node.scp.port, {1: (CT, [syntax])}) as scu:
            assert scu.accepted == {1: syntax}
            assert scu.store(sent[instance], instance).status == 0, syntax
    assert sorted(node.kept()) == sorted(sent.values())
    assert {row.transfer_syntax_uid for row in node.state.rows.values()} == TRANSFER_SYNTAXES


def test_every_storage_sop_class_and_private_and_unknown_ones_are_kept(node: Node) -> None:
    classes = [*(str(context.abstract_syntax) for context in StoragePresentationContexts), PRIVATE, "1.2.3.4.9"]
    for first in range(0, len(classes), 100):
        some = classes[first : first + 100]
        with RawScu(node.scp.port, {2 * n + 1: (one, [IMPLICIT]) for n, one in enumerate(some)}) as scu:
            for n, sop_class in enumerate(some):
                instance = f"1.9.{first + n}"
                answer = scu.store(data_set(instance, sop_class=sop_class), instance, sop_class, 2 * n + 1)
                assert (answer.status, answer.sop_instance_uid) == (0, instance), sop_class
    assert len(node.kept()) == len(classes)
    assert {row.sop_class_uid for row in node.state.rows.values()} == set(classes)


# PS3.6 Annex A: stored prints, hardcopies, a trial of RT Beams Delivery Instruction
RETIRED_STORAGE = (
    "1.2.840.10008.5.1.1.27",
    "1.2.840.10008.5.1.1.29",
    "1.2.840.10008.5.1.1.30",
    "1.2.840.10008.5.1.4.34.1",
)


def test_nothing_is_accepted_for_storing_that_the_standard_names_as_something_else() -> None:
    every = {str(context.abstract_syntax) for context in AllStoragePresentationContexts}
    assert all(map(is_storable, (*every, PRIVATE, "1.2.3.4.9", "1.2.840.10008.5.1.4.1.1.999.1")))
    accepted = {uid for uid in UID_dictionary if is_storable(uid)}
    assert accepted >= set(RETIRED_STORAGE)
    assert accepted >= {  # retired, with a name of its own and without one
        "1.2.840.10008.5.1.4.1.1.3",
        "1.2.840.10008.5.1.4.1.1.5",
        "1.2.840.10008.5.1.4.1.1.9",
        "1.2.840.10008.5.1.4.1.1.12.77",
    }
    outside = {uid for uid in accepted if not uid.startswith("1.2.840.10008.5.1.4.1.1.")}
    assert all("Storage" in UID_dictionary[uid][0] for uid in outside)
    assert not any("Commitment" in UID_dictionary[uid][0] for uid in outside)


@pytest.mark.parametrize(
    "other",
    [
        "1.2.840.10008.1.20.2",  # Storage Commitment Pull Model (retired)
        "1.2.840.10008.1.9",  # Basic Study Content Notification (retired)
        "1.2.840.10008.3.1.2.3.1",  # Detached Study Management (retired)
        "1.2.840.10008.5.1.1.22",  # VOI LUT Box
        "1.2.840.10008.5.1.1.9.1",  # Referenced Grayscale Print Management Meta SOP Class (retired)
        "1.2.840.10008.5.1.4.32.1",  # General Purpose Worklist – FIND (retired)
        "1.2.840.10008.5.1.4.34.4.1",  # Unified Procedure Step – Push – Trial (retired)
        "1.2.840.10008.10.1",  # Video Endoscopic Image Real-Time Communication (PS3.22)
        "1.2.840.10008.1.2.1",  # a transfer syntax
        "1.2.840.10008.1.3.10",  # Media Storage Directory: of media alone
    ],
)
def test_a_class_of_another_service_is_refused_in_its_context(node: Node, other: str) -> None:
    with RawScu(node.scp.port, {1: (other, [IMPLICIT]), 3: (CT, [IMPLICIT])}) as scu:
        assert scu.accepted == {3: IMPLICIT}
        assert scu.rejected == {1: 3}  # abstract syntax not supported (PS3.8 Table 9-18)


@pytest.mark.parametrize("size", [0, 1, 131_060, 131_072, 131_090, 3_000_001])
def test_data_sets_of_any_size_are_kept(node: Node, size: int) -> None:
    tail = b"\xe0\x7f\x10\x00" + size.to_bytes(4, "little") + bytes(i % 251 for i in range(size))
    with RawScu(node.scp.port) as scu:
        assert scu.store(data_set(tail=tail)).status == 0
    assert node.kept() == [data_set(tail=tail)]


def test_fragments_of_any_size_are_joined(node: Node) -> None:
    content = data_set(tail=b"\xe0\x7f\x10\x00\x0a\0\0\0" + b"0123456789")
    with RawScu(node.scp.port) as scu:
        command = scu.command(CT, "1.2.3.4.5")
        scu.send_fragment(1, 0x01, command[:10])
        scu.send_fragment(1, 0x03, command[10:])
        for i in range(len(content)):
            scu.send_fragment(1, 0x00, content[i : i + 1])
        scu.send_fragment(1, 0x02, b"")
        assert scu.answer().status == 0
    assert node.kept() == [content]


def test_a_duplicate_is_success_and_other_content_is_kept_beside(node: Node) -> None:
    first, other = data_set(), data_set(tail=b"\x00\x40\x01\x00\x04\0\0\0abcd")
    with RawScu(node.scp.port, calling="CT1") as scu:
        assert [scu.store(content).status for content in (first, first, other)] == [0, 0, 0]
    assert sorted(node.kept()) == sorted([first, other])
    assert len(node.state.messages("instance.conflict")) == 1
    assert node.state.messages("association.released") == [
        "association from CT1 released: 3 instances (1 here already, 1 with other content than before)"
    ]


# ---------------------------------------------------------------------------------------------------- refusing


def test_refusals_say_why_and_the_association_goes_on(node: Node) -> None:
    with RawScu(node.scp.port) as scu:
        missing = scu.store(data_set(study=""))
        assert (missing.status, missing.comment, missing.offending) == (
            0xC000,
            "Study Instance UID is missing",
            (0x0020000D,),
        )
        assert scu.store(data_set(study="../../../../tmp/x")).status == 0xC000
        assert scu.store(b"").status == 0xC000
        assert scu.store(os.urandom(50_000)).status == 0xC000
        assert scu.store(data_set("1.2.9")).status == 0xA900
        assert scu.store(data_set(sop_class="1.2.840.10008.5.1.4.1.1.4")).status == 0xA900
        assert scu.store(data_set("../1"), "../1").status == 0xC000
        assert scu.store(data_set("1.2.8"), "").status == 0xA900
        assert scu.store(data_set("1." * 40 + "1"), "1." * 40 + "1").status == 0xC000
        assert scu.store(data_set()).status == 0
    assert node.kept() == [data_set()]
    (event,) = node.state.events
    assert event.message == "association from RAW released: 1 instance; 9 instances of it refused"


def test_a_full_disk_is_out_of_resources_and_it_goes_on_when_there_is_room(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with RawScu(node.scp.port) as scu:
        with monkeypatch.context() as patch:
            patch.setattr(os, "writev", full)
            answer = scu.store(data_set())
        assert (answer.status, answer.comment) == (0xA700, "cannot be stored: No space left on device")
        assert scu.store(data_set()).status == 0
    assert node.kept() == [data_set()]


class Stub:
    """A Receiver of the test's own."""

    def __init__(self, accept: Callable[[ReceivedDataSet], None]) -> None:
        self.accept = accept
        self.ends: list[AssociationEnd] = []

    def association_ended(self, end: AssociationEnd) -> None:
        self.ends.append(end)

    def turned_away(self, rejection: Rejection) -> None:
        raise AssertionError(rejection)


def test_a_bug_is_a_processing_failure_and_no_more() -> None:
    def bug(raw: ReceivedDataSet) -> None:
        raise KeyError("patient name")

    stub = Stub(bug)
    with StorageSCP(stub, host="127.0.0.1", port=0, ae_title="NODE") as scp, RawScu(scp.port) as scu:
        answer = scu.store(data_set())
        assert answer.status == 0x0110
        assert "patient" not in answer.comment
        assert scu.store(data_set()).status == 0x0110


def test_success_is_not_said_before_the_instance_is_safe() -> None:
    safe = threading.Event()
    stub = Stub(lambda raw: None if safe.wait(20) else pytest.fail("never safe"))
    with StorageSCP(stub, host="127.0.0.1", port=0, ae_title="NODE") as scp, RawScu(scp.port) as scu:
        scu.begin(data_set(), "1.2.3.4.5")
        scu.peer.settimeout(0.3)
        with pytest.raises(TimeoutError):
            scu.peer.recv(1)
        scu.peer.settimeout(20)
        safe.set()
        assert scu.answer().status == 0


def test_c_store_succeeds_while_the_database_is_down(node: Node) -> None:
    node.state.down = True
    with RawScu(node.scp.port) as scu:
        assert scu.store(data_set()).status == 0
    assert not node.stage.indexer.flush(0.1)
    node.state.down = False
    assert node.kept() == [data_set()]
