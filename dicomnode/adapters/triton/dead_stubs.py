"""Gives back the shared memory of models' processes that died.

Triton 2.51 never unloads a model whose process was killed: the pool that it shared with it, as large as the largest
tensors were, stays mapped in the server until that ends. Nobody reads it any more; its pages are given back, and its
name goes. The first MiB stays: the server's own queues lie there, and a thread of it waits at them.
"""

from __future__ import annotations

import ctypes
import logging
import os
from pathlib import Path

import psutil

from dicomnode.adapters.triton.shared_memory import FOLDER

log = logging.getLogger(__name__)

_QUEUES_BYTES = 1 << 20  # --backend-config=python,shm-default-byte-size
_PUNCH_HOLE_KEEP_SIZE = 0x02 | 0x01  # fallocate(2)


class DeadStubs:
    """`prefix`: of the regions between the server and its stubs."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._owners: dict[Path, int] = {}  # region → the stub that was seen to have it
        self._orphans: set[Path] = set()

    def look(self, server: int) -> None:
        """To be called every few seconds: what was an orphan the last time, too, is given back."""
        living = {child.pid for child in _children(server) if child.status() != psutil.STATUS_ZOMBIE}
        for pid in living:
            for region in _mapped(pid, str(FOLDER / self._prefix)):
                self._owners[region] = pid
        orphans = {region for region, pid in self._owners.items() if pid not in living}
        for region in orphans & self._orphans:
            _give_back(region)
            del self._owners[region]
        self._orphans = orphans - (orphans & self._orphans)


def _children(server: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(server).children(recursive=True))
    except psutil.Error:
        return []


def _mapped(pid: int, beginning: str) -> set[Path]:
    """Files that a process has mapped (proc_pid_maps(5)); none of one that is gone."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines()
    except OSError:
        return set()
    names = (line.partition(beginning) for line in lines)
    return {Path(head + rest) for _, head, rest in names if head and not rest.endswith(" (deleted)")}


def _give_back(region: Path) -> None:
    try:
        descriptor = os.open(region, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _punch(descriptor, _QUEUES_BYTES, os.fstat(descriptor).st_size - _QUEUES_BYTES)
    finally:
        os.close(descriptor)
    region.unlink(missing_ok=True)
    log.info("the shared memory of a model's process that died was given back: %s", region.name)


def _punch(descriptor: int, offset: int, length: int) -> None:
    """Frees the pages of a part of a file that others have mapped; they read zeros from then on."""
    if length <= 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (ctypes.c_int(descriptor), ctypes.c_int(_PUNCH_HOLE_KEEP_SIZE), ctypes.c_int64(offset))
    if libc.fallocate64(*arguments, ctypes.c_int64(length)) != 0:
        log.warning("shared memory was not given back: %s", os.strerror(ctypes.get_errno()))
