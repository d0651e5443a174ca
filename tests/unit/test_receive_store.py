"""The folder store's promises beyond the contract: the order of a power cut, owners, full disks."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from dicomnode.adapters.instance_store import FolderInstanceStore
from dicomnode.encoding.part10 import file_meta_information
from dicomnode.errors import CannotUnderstand, OutOfResources
from dicomnode.ports import Spooled
from tests.raw_scu import CT, IMPLICIT


def spool(store: FolderInstanceStore, content: bytes = b"content", calling: str = "SENDER") -> Spooled:
    meta = file_meta_information(
        sop_class_uid=CT,
        sop_instance_uid="1.2.3",
        transfer_syntax_uid=IMPLICIT,
        calling_ae_title=calling,
        called_ae_title="NODE",
    )
    return store.spool([meta, content], calling_ae_title=calling, called_ae_title="NODE")


def _kind(path: Path) -> str:
    return "folder" if path.is_dir() else path.suffix


class Disk:
    """Watches what is done to files, in order; folders by their name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        fsync, link = os.fsync, os.link

        def watched_fsync(handle: int) -> None:
            self.calls.append(f"fsync {_kind(Path(f'/proc/self/fd/{handle}').readlink())}")
            fsync(handle)

        def watched_link(source: Path, target: Path) -> None:
            self.calls.append("link")
            link(source, target)

        def watched(name: str) -> None:
            method = getattr(Path, name)

            def call(path: Path, *args: object, **kwargs: object) -> object:
                self.calls.append(name)
                return method(path, *args, **kwargs)

            monkeypatch.setattr(Path, name, call)

        monkeypatch.setattr(os, "fsync", watched_fsync)
        monkeypatch.setattr(os, "link", watched_link)
        watched("rename")
        watched("unlink")


def test_before_spool_returns_the_file_and_then_its_name_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderInstanceStore(tmp_path)
    spool(store)
    disk = Disk(monkeypatch)
    spool(store)
    assert disk.calls == ["fsync .part", "rename", "fsync folder"]


def test_before_the_spool_is_left_the_place_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FolderInstanceStore(tmp_path)
    one, two = spool(store, b"1"), spool(store, b"2")
    disk = Disk(monkeypatch)
    store.file(one, study="1.2", series="1.3", instance="1.4", sha256="x")
    assert disk.calls == ["fsync folder"] * 3 + ["link"]  # the new folders' names
    store.file(two, study="1.2", series="1.3", instance="1.5", sha256="y")
    store.discard(one)
    store.discard(two)
    assert disk.calls[3:] == ["link", "link", "fsync folder", "unlink", "unlink"]  # one fsync for both


@pytest.mark.parametrize("step", ["writev", "fsync", "open"])
def test_a_disk_that_says_no_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    store = FolderInstanceStore(tmp_path)
    spool(store, b"before")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, full)
        with pytest.raises(OutOfResources, match="No space left"):
            spool(store)
    assert len(list((tmp_path / "spool").rglob("*.*"))) == 2  # the lock and what was there before
    spool(store, b"after")
    assert [s.path.read_bytes()[-5:] for s in store.spooled()] == [b"efore", b"after"]


def test_short_writes_go_on_where_they_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "writev", lambda file, chunks: os.write(file, bytes(chunks[0])[:7]))
    content = bytes(range(250))
    assert spool(FolderInstanceStore(tmp_path), content).path.read_bytes().endswith(content)


def test_nobody_takes_what_a_living_process_has_and_the_next_takes_what_a_dead_one_left(tmp_path: Path) -> None:
    first, second = FolderInstanceStore(tmp_path), FolderInstanceStore(tmp_path)
    left = spool(first, calling="CT1")
    (left.path.parent / "x.part").write_bytes(b"never acknowledged")
    assert list(second.spooled()) == []
    first.close()  # what the kernel does to the lock of a process that dies
    (adopted,) = second.spooled()
    assert (adopted.calling_ae_title, adopted.called_ae_title) == ("CT1", "NODE")
    assert adopted.received_at == left.received_at
    assert adopted.path != left.path
    assert not left.path.parent.exists()
    assert list(FolderInstanceStore(tmp_path).spooled()) == []


def test_an_empty_spool_folder_goes_with_its_process(tmp_path: Path) -> None:
    store = FolderInstanceStore(tmp_path)
    store.discard(spool(store))
    store.close()
    assert list((tmp_path / "spool").iterdir()) == []


@pytest.mark.parametrize("uid", ["", "..", "../1.2", "1.2/3", "/1", "1" * 65, "1.2.\0"])
def test_nothing_but_a_uid_becomes_a_path(tmp_path: Path, uid: str) -> None:
    store = FolderInstanceStore(tmp_path)
    spooled = spool(store)
    with pytest.raises(CannotUnderstand):
        store.file(spooled, study=uid, series="1.2", instance="1.3", sha256="x")
    with pytest.raises(CannotUnderstand):
        store.put_result(b"", study="1.2", series="1.2", instance=uid)


def test_the_store_says_what_lies_where(tmp_path: Path) -> None:
    FolderInstanceStore(tmp_path)
    readme = (tmp_path / "README.txt").read_text()
    for word in ("instances/", "results/", "spool/"):
        assert word in readme
