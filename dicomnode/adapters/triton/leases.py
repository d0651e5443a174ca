"""Which models of a Triton are in use right now, known to every process on the machine.

Each call holds a shared lock on its model's file while it runs; who wants to unload a model takes the lock alone,
or leaves the model where it is. The kernel lets a lock go with the process that held it, however that ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


class Leases:
    """`folder`: where the lock files lie, the same for all processes that use one Triton."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextlib.contextmanager
    def using(self, name: str) -> Iterator[None]:
        """While a call of the model runs; waits for an unload that has begun, which takes a moment."""
        with self._opened(name) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield

    @contextlib.contextmanager
    def alone_with(self, name: str) -> Iterator[bool]:
        """Whether nobody uses the model; nobody begins to inside the block then."""
        with self._opened(name) as descriptor:
            yield _taken(descriptor)

    @contextlib.contextmanager
    def loading(self, name: str) -> Iterator[bool]:
        """Whether it falls to us to load the model: of several who find it missing, to one."""
        with self._opened(f"{name}.loading") as descriptor:
            yield _taken(descriptor)

    @contextlib.contextmanager
    def reviving(self, name: str) -> Iterator[None]:
        """One after the other: who comes second finds it done."""
        with self._opened(f"{name}.reviving") as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        """A description of its own each time: flock(2) lets locks of one description through."""
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._folder / f"{name}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
