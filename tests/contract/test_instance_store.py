"""What every InstanceStore does, tried on the real folder and on the fake."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicomnode.adapters.instance_store import FolderInstanceStore
from dicomnode.errors import CannotUnderstand
from dicomnode.ports import InstanceStore, Spooled
from tests.adapters.fake_instance_store import FakeInstanceStore

Make = Callable[[Path], InstanceStore]
STUDY, SERIES, INSTANCE = "1.2.3", "1.2.3.4", "1.2.3.4.5"


@pytest.fixture(params=[FolderInstanceStore, FakeInstanceStore], ids=["folder", "fake"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> InstanceStore:
    make: Make = request.param
    return make(tmp_path / "store")


def part10(data_set: bytes) -> list[bytes]:
    """Preamble, a file meta information of one element (PS3.10 7.1), data set: in pieces."""
    meta = b"\x02\x00\x16\x00AE\x06\x00SENDER"
    return [b"\0" * 128 + b"DICM", b"\x02\x00\x00\x00UL\x04\x00" + len(meta).to_bytes(4, "little") + meta, data_set]


def spool(store: InstanceStore, data_set: bytes) -> Spooled:
    return store.spool(part10(data_set), calling_ae_title="SENDER", called_ae_title="NODE")


def file(store: InstanceStore, spooled: Spooled, data_set: bytes, instance: str = INSTANCE) -> str:
    sha256 = hashlib.sha256(data_set).hexdigest()
    stored = store.file(spooled, study=STUDY, series=SERIES, instance=instance, sha256=sha256)
    assert stored.sha256 == sha256
    assert stored.size_bytes == store.path(stored.path).stat().st_size
    return stored.path


def test_what_is_spooled_is_there_byte_for_byte_and_says_who_sent_it(store: InstanceStore) -> None:
    spooled = spool(store, b"data set")
    assert spooled.path.read_bytes() == b"".join(part10(b"data set"))
    assert (spooled.calling_ae_title, spooled.called_ae_title) == ("SENDER", "NODE")
    assert spooled.received_at.tzinfo is not None


def test_chunks_may_be_views_and_many_and_empty(store: InstanceStore) -> None:
    whole = bytes(range(256)) * 20
    chunks = [memoryview(whole)[i : i + 3] for i in range(0, len(whole), 3)]
    spooled = store.spool([b"", *chunks, b""], calling_ae_title="A", called_ae_title="B")
    assert spooled.path.read_bytes() == whole


def test_the_spool_lists_what_is_not_discarded_oldest_first(store: InstanceStore) -> None:
    spooled = [spool(store, bytes([n])) for n in range(3)]
    assert [s.name for s in store.spooled()] == [s.name for s in spooled]
    store.discard(spooled[1])
    assert [s.name for s in store.spooled()] == [spooled[0].name, spooled[2].name]


def test_discarding_twice_is_harmless(store: InstanceStore) -> None:
    spooled = spool(store, b"x")
    store.discard(spooled)
    store.discard(spooled)
    assert list(store.spooled()) == []


def test_filing_gives_a_place_named_by_the_uids_and_discarding_leaves_it(store: InstanceStore) -> None:
    spooled = spool(store, b"x")
    path = file(store, spooled, b"x")
    assert path == f"instances/{STUDY}/{SERIES}/{INSTANCE}.dcm"
    assert [s.name for s in store.spooled()] == [spooled.name]
    store.discard(spooled)
    assert store.path(path).read_bytes() == b"".join(part10(b"x"))


def test_filing_again_is_harmless(store: InstanceStore) -> None:
    spooled = spool(store, b"x")
    assert file(store, spooled, b"x") == file(store, spooled, b"x")


def test_the_same_bytes_again_have_one_place(store: InstanceStore) -> None:
    first, second = spool(store, b"x"), spool(store, b"x")
    assert file(store, first, b"x") == file(store, second, b"x")
    assert len(list(store.path("instances").rglob("*.dcm"))) == 1


def test_other_bytes_under_one_uid_are_both_kept(store: InstanceStore) -> None:
    first, second, third = spool(store, b"x"), spool(store, b"y"), spool(store, b"y")
    paths = [file(store, first, b"x"), file(store, second, b"y"), file(store, third, b"y")]
    assert paths[0] != paths[1] == paths[2]
    assert hashlib.sha256(b"y").hexdigest()[:16] in paths[1]
    assert [store.path(p).read_bytes()[-1:] for p in paths[:2]] == [b"x", b"y"]


def test_a_result_is_put_once_however_often(store: InstanceStore) -> None:
    results = [store.put_result(b"SEG", study=STUDY, series=SERIES, instance=INSTANCE) for _ in range(2)]
    assert results[0] == results[1]
    assert results[0].path == f"results/{STUDY}/{SERIES}/{INSTANCE}.dcm"
    assert results[0].sha256 == hashlib.sha256(b"SEG").hexdigest()
    assert store.path(results[0].path).read_bytes() == b"SEG"


class InPieces:
    """A file that is made while it is written."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces
        self.size_bytes = sum(map(len, pieces))

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)


def test_a_result_in_pieces_is_the_same_as_in_one(store: InstanceStore) -> None:
    pieces = [bytes([n % 251]) * n * 1000 for n in range(60)]  # 1.8 MB, the first of them empty
    whole = b"".join(pieces)
    found = store.put_result(InPieces(*pieces), study=STUDY, series=SERIES, instance=INSTANCE)
    assert (found.size_bytes, found.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())
    assert store.path(found.path).read_bytes() == whole
    assert store.put_result(whole, study=STUDY, series=SERIES, instance=INSTANCE) == found
    assert store.put_result(InPieces(whole[:7], whole[7:]), study=STUDY, series=SERIES, instance=INSTANCE) == found


def test_another_result_under_one_uid_replaces_nothing(store: InstanceStore) -> None:
    first = store.put_result(b"one", study=STUDY, series=SERIES, instance=INSTANCE)
    second = store.put_result(b"two", study=STUDY, series=SERIES, instance=INSTANCE)
    assert store.path(first.path).read_bytes() == b"one"
    assert store.path(second.path).read_bytes() == b"two"


def test_it_says_how_much_room_there_is(store: InstanceStore) -> None:
    assert store.free_bytes() > 0


# -------------------------------------------------------------------------------------------------- removing


def filed(store: InstanceStore, data_set: bytes, instance: str = INSTANCE) -> str:
    spooled = spool(store, data_set)
    path = file(store, spooled, data_set, instance)
    store.discard(spooled)
    return path


def test_removed_files_are_gone_with_the_folders_they_leave_empty(store: InstanceStore) -> None:
    first, second = filed(store, b"x"), filed(store, b"y", f"{SERIES}.6")
    result = store.put_result(b"SEG", study=STUDY, series=f"{STUDY}.9", instance=f"{STUDY}.9.1").path
    assert store.files_of(STUDY) == [first, second, result]
    assert store.remove([first, result]) == 2
    assert store.files_of(STUDY) == [second]
    assert not store.path(f"results/{STUDY}").exists()
    assert store.remove([second]) == 1
    assert not store.path(f"instances/{STUDY}").exists()
    assert store.path("instances").exists()


def test_removing_again_is_harmless(store: InstanceStore) -> None:
    path = filed(store, b"x")
    assert [store.remove([path]), store.remove([path]), store.remove([])] == [1, 0, 0]
    assert filed(store, b"x") == path
    assert store.path(path).read_bytes() == b"".join(part10(b"x"))


def test_a_removal_that_a_crash_cut_short_is_ended_by_the_next(store: InstanceStore) -> None:
    paths = [filed(store, b"x"), filed(store, b"y", f"{SERIES}.6")]
    store.path(paths[0]).unlink()
    assert store.remove(paths) == 1
    assert not store.path(f"instances/{STUDY}").exists()


@pytest.mark.parametrize(
    "path",
    [
        "../outside.dcm",
        "/etc/hostname",
        f"instances/{STUDY}/{SERIES}/../../../../outside.dcm",
        f"instances/{STUDY}/../outside.dcm",
        f"instances/{STUDY}/{SERIES}/..",
        f"instances/{STUDY}/{SERIES}/",
        f"instances/{STUDY}/{SERIES}",
        f"spool/{STUDY}/{SERIES}/x.dcm",
        "README.txt",
        "",
    ],
)
def test_nothing_outside_is_removed_and_nothing_beside_it(store: InstanceStore, path: str) -> None:
    outside = store.path("../outside.dcm")
    outside.parent.mkdir(parents=True, exist_ok=True)
    outside.write_bytes(b"mine")
    inside = filed(store, b"x")
    with pytest.raises(CannotUnderstand):
        store.remove([inside, path])
    assert outside.read_bytes() == b"mine"
    assert store.files_of(STUDY) == [inside]


def test_files_of_no_study_are_none(store: InstanceStore) -> None:
    filed(store, b"x")
    assert [store.files_of(key) for key in ("1.2", "..", "", "*")] == [[], [], [], []]


def of_study(study: str) -> bytes:
    """An implicit VR little endian data set of a Study Instance UID alone (PS3.5 7.1.3)."""
    value = study.encode() + b"\0" * (len(study) % 2)
    return b"\x20\x00\x0d\x00" + len(value).to_bytes(4, "little") + value


def spool_of(store: InstanceStore, study: str) -> Spooled:
    meta = b"\x02\x00\x10\x00UI\x12\x00" + b"1.2.840.10008.1.2\0"
    head = b"\0" * 128 + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00" + len(meta).to_bytes(4, "little") + meta
    return store.spool([head, of_study(study)], calling_ae_title="SENDER", called_ae_title="NODE")


def test_what_is_spooled_of_a_study_is_discarded(store: InstanceStore) -> None:
    ours = [spool_of(store, STUDY), spool_of(store, STUDY)]
    other, broken = spool_of(store, "1.2.4"), spool(store, b"no data set")
    assert store.discard_study(STUDY) == 2
    assert not any(spooled.path.exists() for spooled in ours)
    assert [s.name for s in store.spooled()] == [other.name, broken.name]
    assert store.discard_study(STUDY) == 0
