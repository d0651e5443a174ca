"""Instances and results on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from dicomnode.encoding.part10 import Content


@dataclass(frozen=True, slots=True)
class StoredFile:
    path: str  # relative to the store's root
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Spooled:
    """An instance that survives a power cut but is not yet filed; `name` is unique in the spool."""

    name: str
    path: Path
    calling_ae_title: str
    called_ae_title: str
    received_at: datetime


@dataclass(frozen=True, slots=True)
class RefusedResult:
    """A result that did not pass its check. `content` is its Part 10 file; empty when none could be made."""

    study_instance_uid: str
    job_id: str
    kind: str
    reason: str
    content: bytes | bytearray


class Quarantine(Protocol):
    """Where results lie that their own check refused: never sent, kept for a person to look at, bounded in size."""

    def keep(self, refused: RefusedResult) -> str:
        """Where the object lies now, in words. The same job, kind and study again take the place of the first.

        Raises OutOfResources.
        """

    def forget(self, study: str) -> int:
        """Takes away what lies there of a study; how many objects that were."""


class InstanceStore(Protocol):
    """Instances and results on disk. A spooled instance is safe; filing it only gives it its place."""

    def spool(self, chunks: Iterable[bytes | memoryview], *, calling_ae_title: str, called_ae_title: str) -> Spooled:
        """Writes a Part 10 file so that it survives a power cut; raises OutOfResources."""

    def spooled(self) -> Iterator[Spooled]:
        """What was spooled and not yet filed, oldest first: the work left behind by a process that died."""

    def file(self, spooled: Spooled, *, study: str, series: str, instance: str, sha256: str) -> StoredFile:
        """Gives a spooled instance its place (the spool keeps it until `discard`); repeats are harmless.

        When other bytes already lie in that place the new ones go beside them, under a name with their digest.
        """

    def discard(self, spooled: Spooled) -> None:
        """Takes it out of the spool; call it once the index has it."""

    def put_result(self, content: Content, *, study: str, series: str, instance: str) -> StoredFile:
        """Stores a result object durably, piece by piece; the same content again is harmless."""

    def path(self, relative: str) -> Path:
        """Absolute path of a stored file."""

    def remove(self, paths: Iterable[str]) -> int:
        """Takes stored files out for good, and the folders they leave empty; how many were still there.

        Repeats are harmless. Raises CannotUnderstand, before anything is removed, for a path out of the store.
        """

    def files_of(self, study: str, older_than_s: float = 0.0) -> list[str]:
        """Relative paths of what lies stored of a study and got its place so long ago, known to anybody or not."""

    def discard_study(self, study: str) -> int:
        """Takes what is spooled of a study out of the spool, whoever spooled it; how many instances that were."""

    def free_bytes(self) -> int: ...
