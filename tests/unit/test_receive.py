"""What is accepted of a C-STORE, on the fake store: no sockets, no database."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from dicomnode.adapters.system_clock import SystemClock
from dicomnode.encoding.part10 import data_set_offset
from dicomnode.errors import CannotUnderstand, DataSetMismatch, OutOfResources, ReceiveError
from dicomnode.stages.receive import ReceivedDataSet, ReceiveStage
from tests.adapters.fake_instance_store import FakeInstanceStore
from tests.raw_scu import BIG_ENDIAN, CT, DEFLATED, EXPLICIT, IMPLICIT, data_set
from tests.recorder import Recorder


def received(
    content: bytes, *, syntax: str = IMPLICIT, sop_class: str = CT, instance: str = "1.2.3.4.5"
) -> ReceivedDataSet:
    half = len(content) // 2
    return ReceivedDataSet(
        chunks=[memoryview(content)[:half], memoryview(content)[half:]],
        transfer_syntax_uid=syntax,
        affected_sop_class_uid=sop_class,
        affected_sop_instance_uid=instance,
        calling_ae_title="SENDER",
        called_ae_title="NODE",
        association="1",
    )


@pytest.fixture
def store(tmp_path: Path) -> FakeInstanceStore:
    return FakeInstanceStore(tmp_path)


def accept(store: FakeInstanceStore, raw: ReceivedDataSet, min_free_bytes: int = 0) -> bytes:
    """The file that the spool then holds."""
    ReceiveStage(store, Recorder(), SystemClock(), min_free_bytes=min_free_bytes).accept(raw)  # type: ignore[arg-type]
    (spooled,) = store.spooled()
    return spooled.path.read_bytes()


def explicit(order: str = "little") -> bytes:
    """The UIDs of data_set() in explicit VR."""
    out = b""
    for tag, value in (
        ((8, 0x16), CT),
        ((8, 0x18), "1.2.3.4.5"),
        ((0x20, 0xD), "1.2.3"),
        ((0x20, 0xE), "1.2.3.4"),
    ):
        padded = value.encode() + b"\0" * (len(value) % 2)
        out += b"".join(n.to_bytes(2, order) for n in tag) + b"UI" + len(padded).to_bytes(2, order) + padded  # type: ignore[arg-type]
    return out


def deflated(content: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(content) + deflater.flush()


@pytest.mark.parametrize(
    ("syntax", "content"),
    [
        (IMPLICIT, data_set(tail=b"\x00\x40\x01\x00\x04\0\0\0abcd")),
        (EXPLICIT, explicit()),
        (BIG_ENDIAN, explicit("big")),
        (DEFLATED, deflated(explicit())),
        ("1.2.840.10008.1.2.4.90", explicit()),
    ],
)
def test_a_data_set_is_kept_byte_for_byte_behind_its_file_meta_information(
    store: FakeInstanceStore, syntax: str, content: bytes
) -> None:
    file = accept(store, received(content, syntax=syntax))
    assert file[128:132] == b"DICM"
    assert file[data_set_offset(file) :] == content
    for text in (syntax, CT, "1.2.3.4.5", "SENDER", "NODE"):
        assert text.encode() in file[: data_set_offset(file)]


@pytest.mark.parametrize(
    ("raw", "error", "words", "offending"),
    [
        (received(data_set(study="")), CannotUnderstand, "Study Instance UID is missing", 0x0020000D),
        (received(data_set(series="")), CannotUnderstand, "Series Instance UID is missing", 0x0020000E),
        (received(data_set(instance="")), CannotUnderstand, "SOP Instance UID is missing", 0x00080018),
        (
            received(data_set(study="../../../etc/x")),
            CannotUnderstand,
            "Study Instance UID is no valid UID",
            0x0020000D,
        ),
        (received(data_set(study="1.2/3")), CannotUnderstand, "no valid UID", 0x0020000D),
        (received(data_set(study="1." * 32 + "1")), CannotUnderstand, "no valid UID", 0x0020000D),
        (received(data_set(instance="1.2.3")), DataSetMismatch, "SOP Instance UID", 0x00080018),
        (received(data_set(sop_class="1.2.840.10008.5.1.4.1.1.4")), DataSetMismatch, "SOP Class UID", 0x00080016),
    ],
)
def test_what_has_no_place_or_is_not_what_it_says_is_refused_by_name(
    store: FakeInstanceStore, raw: ReceivedDataSet, error: type[ReceiveError], words: str, offending: int
) -> None:
    with pytest.raises(error, match=words) as caught:
        accept(store, raw)
    assert caught.value.offending_elements == (offending,)
    assert len(str(caught.value)) <= 64
    assert list(store.spooled()) == []


@pytest.mark.parametrize(
    ("content", "syntax"),
    [
        (b"", IMPLICIT),
        (b"\0", IMPLICIT),
        (b"GET / HTTP/1.1\r\n\r\n" * 40, EXPLICIT),
        (bytes(range(256)) * 300, IMPLICIT),
        (bytes(range(255, -1, -1)) * 300, EXPLICIT),
        (b"\x08\x00\x40\x11\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 5000, IMPLICIT),  # nested for ever
        (b"\x08\x00\x18\x00\xfe\xff\xff\xff1.2", IMPLICIT),  # 4 GB long
        (explicit(), DEFLATED),  # not deflated
        (deflated(explicit())[:-9], DEFLATED),
        (explicit(), BIG_ENDIAN),
        (deflated(b"\x08\x00\x05\x00CS\x10\x00ISO_IR 100      " * (1 << 20)), DEFLATED),  # a bomb: 24 MB of it
    ],
)
def test_garbage_is_refused_and_nothing_else_happens(store: FakeInstanceStore, content: bytes, syntax: str) -> None:
    with pytest.raises(CannotUnderstand) as caught:
        accept(store, received(content, syntax=syntax))
    assert len(str(caught.value)) <= 64
    assert list(store.spooled()) == []


def test_a_header_that_begins_late_is_still_read(store: FakeInstanceStore) -> None:
    private = b"\x09\x00\x01\x10" + (300_000).to_bytes(4, "little") + b"x" * 300_000
    content = data_set()
    at = content.index(b"\x20\x00\x0d\x00")
    content = content[:at] + private + content[at:]
    assert accept(store, received(content)).endswith(content)


def test_a_disk_with_too_little_left_refuses_for_now(store: FakeInstanceStore) -> None:
    store.free = 999
    with pytest.raises(OutOfResources):
        accept(store, received(data_set()), min_free_bytes=1000)
    store.free = 1000
    assert accept(store, received(data_set()), min_free_bytes=1000)


def test_a_full_disk_refuses_for_now(store: FakeInstanceStore) -> None:
    store.full = True
    with pytest.raises(OutOfResources) as caught:
        accept(store, received(data_set()))
    assert caught.value.dimse_status == 0xA700
