"""The cores of this machine, shared among the models that run at this moment.

Each model's process holds a lock on a file of its own while it computes, and counts the locks of the others: between
two windows it knows with how many it shares, and nobody has to tell it. The kernel lets a lock go with its process,
however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path


class SharedCores:
    """`folder`: the same for all models of one node; `name`: this model's own. `count`: all the cores there are."""

    def __init__(self, folder: Path, name: str, count: int) -> None:
        self.count = count
        self._folder = folder
        self._own = hashlib.sha256(name.encode()).hexdigest()[:16]

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """While this model computes."""
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._folder / self._own, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @property
    def threads(self) -> int:
        """How many this model should use now: one at least."""
        return max(self.count // (1 + self._others()), 1)

    def _others(self) -> int:
        if not self._folder.is_dir():
            return 0
        return sum(_is_locked(file) for file in self._folder.iterdir() if file.name != self._own)


def _is_locked(file: Path) -> bool:
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
