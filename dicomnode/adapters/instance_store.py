"""Instances and results in a folder: what is acknowledged survives a power cut, and a person finds it.

The order that makes it safe (each step is on the disk before the next begins):
write `*.part` → fsync → rename to `*.dcm` → fsync the folder → the sender may be told Success.
Filing adds a second name (hard link) under `instances/`; the spool's name goes only after that one is on the disk.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import os
import re
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from dicomnode.domain.identifiers import is_uid
from dicomnode.encoding.part10 import (
    Chunk,
    Content,
    Unreadable,
    data_set_offset,
    data_set_sha256,
    digest_of,
    first_elements,
    pieces_of,
)
from dicomnode.errors import CannotUnderstand, OutOfResources
from dicomnode.ports import Spooled, StoredFile

README = """\
This folder is a dicomnode instance store. Everything in it is a DICOM Part 10 file or belongs to one.

instances/<Study Instance UID>/<Series Instance UID>/<SOP Instance UID>.dcm
    What was received, the data set byte for byte as it came; the file meta information before it says from
    whom ((0002,0016), (0002,0017)) and by which AE ((0002,0018)).
    <SOP Instance UID>.<digest>.dcm beside it: other bytes that came under the same SOP Instance UID.
results/<Study Instance UID>/<Series Instance UID>/<SOP Instance UID>.dcm
    What the models found: SEG and SR objects.
spool/<receiver process>/<time received>.dcm
    Received, safe on the disk, not yet in the database; it leaves by itself within a second or so. What a
    process that died left behind is taken over by the next one. *.part was never acknowledged to its sender.

Read as you like. Do not write or delete here, for the database knows these paths; a study goes with
`dicomnode studies forget`.
"""

_STAMP = "%Y%m%dT%H%M%S.%fZ"
_ENTRY = re.compile(r"(?P<stamp>[0-9]{8}T[0-9]{6}\.[0-9]{6}Z)-.*\.dcm")
_TOPS = ("instances", "results")
_STUDY_INSTANCE_UID = 0x0020000D
_WRITEV_MOST = 512  # IOV_MAX is 1024 on Linux
_WRITE_BYTES = 1 << 20


class FolderInstanceStore:
    """The InstanceStore port on a local or shared POSIX folder (hard links, flock and fsync must work there).

    Any number of processes and threads may use the same folder. A process owns a spool folder from its first
    `spool` or `spooled` on, by a lock that the kernel drops when the process ends, however it ends.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._owner = _SpoolOwner(root / "spool")
        self._unsynced: set[Path] = set()
        self._unsynced_guard = threading.Lock()
        root.mkdir(parents=True, exist_ok=True)
        if not (readme := root / "README.txt").exists():
            readme.write_text(README, encoding="utf-8")

    def close(self) -> None:
        """Gives the spool back; what is left in it is the next process's."""
        self._owner.release()

    def spool(self, chunks: Iterable[Chunk], *, calling_ae_title: str, called_ae_title: str) -> Spooled:
        received_at = datetime.now(UTC)
        try:
            path = self._owner.new_entry(received_at)
            _write_durably(path, chunks)
        except OSError as error:
            raise OutOfResources(f"cannot be stored: {error.strerror or error}") from error
        return Spooled(path.name, path, calling_ae_title, called_ae_title, received_at)

    def spooled(self) -> Iterator[Spooled]:
        """Own entries and those of owners that died, which become own ones."""
        self._owner.adopt()
        for path in sorted(self._owner.folder().glob("*.dcm")):
            if found := _spooled_at(path):
                yield found

    def file(self, spooled: Spooled, *, study: str, series: str, instance: str, sha256: str) -> StoredFile:
        folder = self._folder("instances", study, series, instance)
        place = _link(spooled.path, folder, instance, sha256)
        with self._unsynced_guard:
            self._unsynced.add(folder)
        return StoredFile(place.relative_to(self._root).as_posix(), place.stat().st_size, sha256)

    def discard(self, spooled: Spooled) -> None:
        self._sync_places()
        spooled.path.unlink(missing_ok=True)

    def put_result(self, content: Content, *, study: str, series: str, instance: str) -> StoredFile:
        folder = self._folder("results", study, series, instance)
        place = folder / f"{instance}.dcm"
        try:
            if place.exists():
                sha256 = digest_of(content)
                if _digest(place) == sha256:
                    return self._stored(place, sha256)
                place = folder / f"{instance}.{sha256[:16]}.dcm"
            return self._stored(place, _write_with_digest(place, content))
        except OSError as error:
            raise OutOfResources(f"cannot be stored: {error.strerror or error}") from error

    def _stored(self, place: Path, sha256: str) -> StoredFile:
        return StoredFile(place.relative_to(self._root).as_posix(), place.stat().st_size, sha256)

    def path(self, relative: str) -> Path:
        return self._root / relative

    def remove(self, paths: Iterable[str]) -> int:
        wanted = list(paths)
        for path in wanted:
            if not _is_stored(path):
                raise CannotUnderstand(f"{path!r} is no file of the store")
        places = [self._root / path for path in wanted]
        found = 0
        for place in places:
            with suppress(FileNotFoundError):
                place.unlink()
                found += 1
        for folder in sorted({place.parent for place in places}):
            _remove_empty(folder, self._root)
        return found

    def files_of(self, study: str, older_than_s: float = 0.0) -> list[str]:
        if not is_uid(study):
            return []
        # of a hard link the inode's change time is when it was made
        until_s = time.time() - older_than_s
        folders = [self._root / top / study for top in _TOPS]
        files = [file for folder in folders for file in sorted(folder.glob("*/*")) if file.is_file()]
        old = [file.relative_to(self._root).as_posix() for file in files if file.stat().st_ctime <= until_s]
        return [path for path in old if _is_stored(path)]

    def discard_study(self, study: str) -> int:
        """A live receiver that has one of them at hand passes over it (see Indexer)."""
        mine = [path for path in sorted((self._root / "spool").glob("*/*.dcm")) if _study_of(path) == study]
        for path in mine:
            path.unlink(missing_ok=True)
        return len(mine)

    def free_bytes(self) -> int:
        return shutil.disk_usage(self._root).free

    def _folder(self, top: str, study: str, series: str, instance: str) -> Path:
        """The folder of a series, made durably. Anything but UIDs would be a way out of the store."""
        if not (is_uid(study) and is_uid(series) and is_uid(instance)):
            raise CannotUnderstand("a UID is missing or no UID, so the instance has no place")
        folder = self._root / top / study / series
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            for parent in (folder.parent, folder.parent.parent, self._root):
                _fsync_folder(parent)
        return folder

    def _sync_places(self) -> None:
        """Brings the names that `file` gave to the disk: once a batch and folder, not once an instance."""
        with self._unsynced_guard:
            for folder in list(self._unsynced):
                _fsync_folder(folder)
                self._unsynced.remove(folder)


class _SpoolOwner:
    """This process's folder in the spool and the lock that says it lives."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._name = ""
        self._pid = 0
        self._lock = -1
        self._guard = threading.Lock()
        self._numbers = itertools.count()

    def folder(self) -> Path:
        """Made at first use, and anew in a forked child, which must not share its parent's."""
        with self._guard:
            if self._pid != os.getpid():
                self._begin()
            return self._spool / self._name

    def _begin(self) -> None:
        """The lock before the folder: nobody ever sees an unlocked folder of a live process."""
        host = re.sub(r"[^A-Za-z0-9]", "", socket.gethostname())[:20]
        self._name = f"{host}-{os.getpid()}-{secrets.token_hex(4)}"
        folder = self._spool / self._name
        self._spool.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(_lock_of(folder), os.O_RDWR | os.O_CREAT, 0o640)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        folder.mkdir()
        _fsync_folder(self._spool)
        _fsync_folder(self._spool.parent)
        self._pid = os.getpid()

    def new_entry(self, received_at: datetime) -> Path:
        folder = self.folder()
        return folder / f"{received_at.strftime(_STAMP)}-{folder.name}-{next(self._numbers)}.dcm"

    def adopt(self) -> None:
        mine = self.folder()
        for other in [p for p in self._spool.iterdir() if p.is_dir() and p != mine]:
            with _dead(other) as dead:
                if dead:
                    _take_over(other, mine)

    def release(self) -> None:
        with self._guard:
            if self._pid == os.getpid():
                folder = self._spool / self._name
                with suppress(OSError):  # not empty: somebody adopts it
                    folder.rmdir()
                    _lock_of(folder).unlink()
                os.close(self._lock)
                self._pid = 0


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


@contextmanager
def _dead(owner: Path) -> Iterator[bool]:
    """Whether the owner's process is gone; if so nobody else takes over inside the `with`."""
    try:
        lock = os.open(_lock_of(owner), os.O_RDWR | os.O_CREAT, 0o640)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield True
    finally:
        os.close(lock)


def _take_over(dead: Path, mine: Path) -> None:
    if dead.is_dir():  # else another process was first
        for path in dead.iterdir():
            if path.suffix == ".dcm":
                path.rename(mine / path.name)
            else:  # never acknowledged
                path.unlink()
        dead.rmdir()
    _lock_of(dead).unlink(missing_ok=True)


def _spooled_at(path: Path) -> Spooled | None:
    """What the name and the file meta information say; None when the file went meanwhile or is not ours."""
    match = _ENTRY.fullmatch(path.name)
    if not match:
        return None
    try:
        meta = read_file_meta_info(path)
    except (OSError, InvalidDicomError):
        return None
    received_at = datetime.strptime(match["stamp"], _STAMP).replace(tzinfo=UTC)
    calling = str(meta.get("SourceApplicationEntityTitle", ""))
    return Spooled(path.name, path, calling, str(meta.get("ReceivingApplicationEntityTitle", "")), received_at)


def _link(source: Path, folder: Path, instance: str, sha256: str) -> Path:
    """Names the file after the instance, or beside it when other bytes have that name; says which."""
    place = folder / f"{instance}.dcm"
    try:
        os.link(source, place)
    except FileExistsError:
        if not place.samefile(source) and data_set_sha256(place) != sha256:
            place = folder / f"{instance}.{sha256[:16]}.dcm"
            with suppress(FileExistsError):
                os.link(source, place)
    return place


def _is_stored(relative: str) -> bool:
    """Whether it is such a path as `file` and `put_result` give; no other leads to a file of the store for sure."""
    parts = relative.split("/")
    return (
        len(parts) == 4
        and parts[0] in _TOPS
        and all(map(is_uid, parts[1:3]))
        and parts[3] not in ("", ".", "..")
        and "\0" not in relative
    )


def _remove_empty(folder: Path, root: Path) -> None:
    """Folders that hold nothing any more, from the leaf up; what went is gone after a power cut too."""
    while folder.parent != root:
        try:
            with suppress(FileNotFoundError):
                folder.rmdir()
        except OSError:  # not empty
            break
        folder = folder.parent
    with suppress(FileNotFoundError):
        _fsync_folder(folder)


def _study_of(path: Path) -> str:
    """The Study Instance UID of a spooled file; empty when it cannot be read."""
    try:
        syntax = str(read_file_meta_info(path).get("TransferSyntaxUID", ""))
        content = path.read_bytes()
        found = first_elements([memoryview(content)[data_set_offset(content) :]], syntax, [_STUDY_INSTANCE_UID])
    except (OSError, InvalidDicomError, Unreadable):
        return ""
    return found.get(_STUDY_INSTANCE_UID, b"").decode("ascii", "replace").rstrip("\0 ")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_with_digest(path: Path, content: Content) -> str:
    """As _write_durably, and the digest of what was written."""
    digest = hashlib.sha256()

    def digested() -> Iterator[Chunk]:
        for piece in pieces_of(content):
            digest.update(piece)
            yield piece

    _write_durably(path, digested())
    return digest.hexdigest()


def _write_durably(path: Path, chunks: Iterable[Chunk]) -> None:
    """All of it under its name and on the disk, or nothing under that name (rename is atomic)."""
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        try:
            _write_all(file, chunks)
            os.fsync(file)
        finally:
            os.close(file)
        part.rename(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    _fsync_folder(path.parent)


def _write_all(file: int, chunks: Iterable[Chunk]) -> None:
    """Writes the chunks without joining them, and of many not all at once."""
    for some in _together(chunks):
        _write_some(file, some)


def _together(chunks: Iterable[Chunk]) -> Iterator[list[memoryview]]:
    """Chunks for one call, none of them empty."""
    some, size_bytes = list[memoryview](), 0
    for chunk in chunks:
        if len(chunk):
            some.append(memoryview(chunk))
            size_bytes += len(chunk)
        if len(some) == _WRITEV_MOST or size_bytes >= _WRITE_BYTES:
            yield some
            some, size_bytes = [], 0
    if some:
        yield some


def _write_some(file: int, left: list[memoryview]) -> None:
    """A short write (a disk that fills up) goes on where it stopped."""
    while left:
        written = os.writev(file, left)
        done = 0
        while done < len(left) and written >= len(left[done]):
            written -= len(left[done])
            done += 1
        left = left[done:]
        if written:
            left[0] = left[0][written:]


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
