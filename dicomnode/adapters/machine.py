"""Memory of this host: of the computer or of the container, in /dev/shm, and of its NVIDIA GPU where there is one."""

from __future__ import annotations

import ctypes
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil

from dicomnode.domain.admission import Room

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
_SHARED = Path("/dev/shm")
_NVML = "libnvidia-ml.so.1"


class LocalMachine:
    """ports.Machine of the host that this process runs on. `uses_shared`: whether models get volumes by /dev/shm."""

    def __init__(self, *, uses_shared: bool = True) -> None:
        self._uses_shared = uses_shared
        self._gpu = Gpu.found()

    @property
    def has_gpu(self) -> bool:
        return self._gpu is not None

    def total(self) -> Room:
        host = min([psutil.virtual_memory().total, *(limit for limit, _ in _limits())])
        return Room(host, self._shared()[0], self._gpu.memory()[0] if self._gpu else math.inf)

    def free(self) -> Room:
        host = min([psutil.virtual_memory().available, *(limit - used for limit, used in _limits())])
        return Room(host, self._shared()[1], self._gpu.memory()[1] if self._gpu else math.inf)

    def _shared(self) -> tuple[float, float]:
        """All of /dev/shm and what of it is free; a machine without it has no need of it."""
        if not self._uses_shared or not _SHARED.is_dir():
            return math.inf, math.inf
        usage = shutil.disk_usage(_SHARED)
        return usage.total, usage.free


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _limits(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUP) -> Iterator[tuple[int, int]]:
    """(limit, used) of each cgroup that this process is in and that has a limit; the cache that files leave is free.

    Linux's documentation, admin-guide/cgroup-v2 (memory.max, memory.current, memory.stat) and cgroup-v1/memory.
    """
    for folder in _folders(cgroups, own):
        for limit_name, used_name, cache_key in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit, used = _number(folder / limit_name), _number(folder / used_name)
            if limit is not None and used is not None:
                yield limit, max(used - _stat(folder / "memory.stat", cache_key), 0)


def _folders(cgroups: Path, own: Path) -> Iterator[Path]:
    """This process' cgroup and those it lies in, as far as they can be seen from here."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = cgroups / "memory" if controllers else cgroups
        folder = root / path.lstrip("/")
        yield from (place for place in (folder, *folder.parents) if place == root or root in place.parents)


def _number(file: Path) -> int | None:
    """None where there is no file, and of "max"."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _stat(file: Path, key: str) -> int:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{key} ")), 0)


class _Memory(ctypes.Structure):
    """nvmlMemory_t: bytes (NVIDIA, NVML API reference, device queries)."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class Gpu:
    """The first GPU that CUDA shows, by the driver's own library: torch would take some hundred MB of it to look."""

    def __init__(self, library: ctypes.CDLL, device: ctypes.c_void_p) -> None:
        self._library, self._device = library, device

    @classmethod
    def found(cls) -> Gpu | None:
        try:
            library = ctypes.CDLL(_NVML)
        except OSError:
            return None
        device = ctypes.c_void_p()
        if library.nvmlInit_v2() or not _handle(library, os.environ.get("CUDA_VISIBLE_DEVICES"), device):
            return None
        gpu = cls(library, device)
        return gpu if gpu.memory() != (math.inf, math.inf) else None

    def memory(self) -> tuple[float, float]:
        """All of it and what is free."""
        memory = _Memory()
        if self._library.nvmlDeviceGetMemoryInfo(self._device, ctypes.byref(memory)):
            return math.inf, math.inf
        return memory.total, memory.free


def _handle(library: ctypes.CDLL, visible: str | None, into: ctypes.c_void_p) -> bool:
    """Whether a GPU is found that CUDA would show: the first of `visible`, a number or a UUID, which the driver's
    library does not heed; without it the first there is (CUDA C++ Programming Guide, "CUDA Environment Variables").
    CUDA takes the beginning of a UUID, too, which the library does not: then it is the first there is.
    """
    first = "0" if visible is None else visible.partition(",")[0].strip()
    if first.startswith(("GPU-", "MIG-")):
        if not library.nvmlDeviceGetHandleByUUID(first.encode(), ctypes.byref(into)):
            return True
        first = "0"
    return first.isdigit() and not library.nvmlDeviceGetHandleByIndex_v2(int(first), ctypes.byref(into))
