"""Which GPU's memory is looked at, by a stand-in for the driver's library (NVML)."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import pytest

from dicomnode.adapters import machine
from dicomnode.adapters.machine import Gpu, LocalMachine


class Nvml:
    """Two GPUs with so many bytes; functions give 0 or an error, and take what NVML takes."""

    def __init__(self, *nbytes: int) -> None:
        self._nbytes = nbytes
        self._uuids = [b"GPU-aaaa", b"GPU-bbbb"]

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, device: Any) -> int:
        return self._give(index, device)

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, device: Any) -> int:
        return self._give(self._uuids.index(uuid), device) if uuid in self._uuids else 6

    def _give(self, index: int, device: Any) -> int:
        if index >= len(self._nbytes):
            return 2  # NVML_ERROR_INVALID_ARGUMENT
        ctypes.cast(device, ctypes.POINTER(ctypes.c_void_p))[0] = index + 1
        return 0

    def nvmlDeviceGetMemoryInfo(self, device: ctypes.c_void_p, memory: Any) -> int:
        assert device.value is not None
        found = ctypes.cast(memory, ctypes.POINTER(machine._Memory))[0]
        found.total = self._nbytes[device.value - 1]
        found.free = found.total - 1
        return 0


@pytest.mark.parametrize(
    ("visible", "total"),
    [
        (None, 100),
        ("0", 100),
        ("1", 200),
        ("1,0", 200),
        ("GPU-bbbb", 200),
        ("GPU-b", 100),
        (" 1 ", 200),
        ("", None),
        ("-1", None),
    ],
)
def test_it_is_the_first_that_cuda_shows(
    visible: str | None, total: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: Nvml(100, 200))
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = Gpu.found()
    assert (None if found is None else found.memory()) == (None if total is None else (total, total - 1))
    room = LocalMachine(uses_shared=False).free()
    assert room.gpu_bytes == (math.inf if total is None else total - 1)
