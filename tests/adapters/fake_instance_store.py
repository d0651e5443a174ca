"""An InstanceStore for tests: the port's behaviour without durability, locks or owners."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from dicomnode.domain.identifiers import is_uid
from dicomnode.encoding.part10 import Content, digest_of, pieces_of
from dicomnode.errors import CannotUnderstand, OutOfResources
from dicomnode.ports import Spooled, StoredFile

_STORED = re.compile(r"(instances|results)/[0-9.]*[0-9]/[0-9.]*[0-9]/[^/\0]*[^/\0.][^/\0]*")


class FakeInstanceStore:
    """Files lie in `root` (a tmp_path), because later stages read DICOM from paths.

    `full = True` makes it refuse new content, as a full disk does. `calls` lists what was done, in order.
    """

    def __init__(self, root: Path, free_bytes: int = 1 << 40) -> None:
        self.root = root
        self.free = free_bytes
        self.full = False
        self.calls: list[str] = []
        self._spool: dict[str, Spooled] = {}
        self._digests: dict[str, str] = {}
        self._numbers = itertools.count()

    def spool(self, chunks: Iterable[bytes | memoryview], *, calling_ae_title: str, called_ae_title: str) -> Spooled:
        self._room()
        number = next(self._numbers)
        name = f"{number:06d}"
        path = self.root / "spool" / name
        _write(path, b"".join(chunks))
        received_at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(milliseconds=number)
        self._spool[name] = Spooled(name, path, calling_ae_title, called_ae_title, received_at)
        self.calls.append(f"spool {name}")
        return self._spool[name]

    def spooled(self) -> Iterator[Spooled]:
        return iter(list(self._spool.values()))

    def file(self, spooled: Spooled, *, study: str, series: str, instance: str, sha256: str) -> StoredFile:
        self.calls.append(f"file {spooled.name}")
        return self._place(spooled.path.read_bytes(), ("instances", study, series, instance), sha256)

    def discard(self, spooled: Spooled) -> None:
        self.calls.append(f"discard {spooled.name}")
        if self._spool.pop(spooled.name, None):
            spooled.path.unlink()

    def put_result(self, content: Content, *, study: str, series: str, instance: str) -> StoredFile:
        self._room()
        self.calls.append(f"put_result {instance}")
        return self._place(b"".join(pieces_of(content)), ("results", study, series, instance), digest_of(content))

    def path(self, relative: str) -> Path:
        return self.root / relative

    def remove(self, paths: Iterable[str]) -> int:
        wanted = list(paths)
        if bad := [path for path in wanted if not _STORED.fullmatch(path)]:
            raise CannotUnderstand(f"{bad[0]!r} is no file of the store")
        self.calls.append(f"remove {len(wanted)}")
        there = [path for path in wanted if self.path(path).exists()]
        for path in there:
            self.path(path).unlink()
            self._digests.pop(path, None)
        for folder in {self.path(path).parent for path in wanted}:
            _remove_empty(folder, self.root)
        return len(there)

    def files_of(self, study: str, older_than_s: float = 0.0) -> list[str]:
        """It has no clock: all files are old enough."""
        if not is_uid(study):
            return []
        found = [file for top in ("instances", "results") for file in (self.root / top / study).glob("*/*")]
        return sorted(file.relative_to(self.root).as_posix() for file in found)

    def discard_study(self, study: str) -> int:
        mine = [spooled for spooled in self._spool.values() if _study_of(spooled.path) == study]
        for spooled in mine:
            self.discard(spooled)
        return len(mine)

    def free_bytes(self) -> int:
        return self.free

    def _room(self) -> None:
        if self.full:
            raise OutOfResources("no space left on the device")

    def _place(self, content: bytes, parts: tuple[str, ...], sha256: str) -> StoredFile:
        relative = "/".join(parts) + ".dcm"
        if self._digests.setdefault(relative, sha256) != sha256:
            relative = "/".join(parts) + f".{sha256[:16]}.dcm"
            self._digests[relative] = sha256
        if not self.path(relative).exists():
            _write(self.path(relative), content)
        return StoredFile(relative, self.path(relative).stat().st_size, sha256)


def _remove_empty(folder: Path, root: Path) -> None:
    while folder.parent != root and folder.exists() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _study_of(path: Path) -> str:
    try:
        return str(pydicom.dcmread(path, specific_tags=["StudyInstanceUID"]).get("StudyInstanceUID", ""))
    except (InvalidDicomError, NotImplementedError):
        return ""


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
