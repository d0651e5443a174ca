"""What the processes of one host that run jobs have been promised of its memory, in a folder that they share.

A promise is a file that its process holds a lock on (flock(2)): the kernel lets go for one that dies, however that
happens, and whoever looks next takes the file away. So is a place in the line of those that wait for memory.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from dicomnode.adapters.one_at_a_time import alone
from dicomnode.domain.admission import WITHOUT_END, Room
from dicomnode.domain.turns import Turn

_FREE = "free-before"
_PROMISE, _PLACE = ".promise", ".place"


class FolderLedger:
    """ports.Ledger. `folder` is this host's own; it is made when it is first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def alone(self) -> AbstractContextManager[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        return alone(self._folder / "lock")

    def promised(self) -> list[Room]:
        return [Room(*parts) for parts in self._held(_PROMISE)]

    def free_before(self) -> Room:
        with suppress(OSError, ValueError):
            return Room(*json.loads((self._folder / _FREE).read_text()))
        return WITHOUT_END

    def add(self, room: Room, free: Room) -> Callable[[], None]:
        if not self.promised():
            (self._folder / _FREE).write_text(json.dumps(free.parts))
        return self._hold(_PROMISE, room.parts)

    def stand(self, turn: Turn) -> Callable[[], None]:
        return self._hold(_PLACE, turn)

    def first(self) -> Turn | None:
        return min(((rank, at, job_id) for rank, at, job_id in self._held(_PLACE)), default=None)

    def glance(self) -> object:
        found = []
        for file in (*self._folder.glob(f"*{_PROMISE}"), *self._folder.glob(f"*{_PLACE}")):
            with suppress(FileNotFoundError), file.open() as opened:
                found.append((file.name, _is_held(opened.fileno())))
        return sorted(found)

    def _hold(self, ending: str, said: Sequence[float | str]) -> Callable[[], None]:
        """A file with a lock on it, until what is returned is called or this process dies."""
        file = self._folder / f"{uuid.uuid4().hex}{ending}"
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(descriptor, json.dumps(said).encode())

        def release() -> None:
            file.unlink(missing_ok=True)
            os.close(descriptor)

        return release

    def _held(self, ending: str) -> Iterator[Any]:
        """What files say whose process lives; those of others are taken away."""
        for file in sorted(self._folder.glob(f"*{ending}")):
            with suppress(FileNotFoundError, ValueError), file.open() as opened:
                if _is_held(opened.fileno()):
                    yield json.loads(opened.read())
                else:
                    file.unlink(missing_ok=True)


def _is_held(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
