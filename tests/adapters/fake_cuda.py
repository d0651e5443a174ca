"""A stand-in for cuda-python (cuda.bindings.runtime and driver), as far as tritonclient and the node call it.

Device memory is files in /dev/shm, so that another process can be given it as a GPU's memory is given: by a handle of
64 bytes, which holds the file's name here. It is as strict as CUDA: what is not memory of the device cannot be copied
to, and errors are statuses with CUDA's words.
"""

from __future__ import annotations

import ctypes
import enum
import itertools
import mmap
import os
import sys
import types
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FOLDER = Path("/dev/shm")
_numbers = itertools.count()


class Error(enum.IntEnum):
    """cudaError_t, with the values of the CUDA runtime."""

    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorInvalidDevice = 101


_WORDS = {
    Error.cudaErrorInvalidValue: b"invalid argument",
    Error.cudaErrorMemoryAllocation: b"out of memory",
    Error.cudaErrorInsufficientDriver: b"CUDA driver version is insufficient for CUDA runtime version",
    Error.cudaErrorInvalidDevice: b"invalid device ordinal",
}


class Result(enum.IntEnum):
    """CUresult."""

    CUDA_SUCCESS = 0


class MemcpyKind(enum.IntEnum):
    cudaMemcpyDefault = 4


class DeviceAttribute(enum.IntEnum):
    cudaDevAttrUnifiedAddressing = 41


class Uuid:
    def __init__(self, content: bytes) -> None:
        self.bytes = content


class Properties:
    def __init__(self, content: bytes) -> None:
        self.uuid, self.name = Uuid(content), b"a fake GPU"


class Handle:
    """cudaIpcMemHandle_t."""

    def __init__(self, name: str) -> None:
        self._memory = ctypes.create_string_buffer(name.encode().ljust(64, b"\0"), 64)

    def getPtr(self) -> int:  # as cuda-python calls it
        return ctypes.addressof(self._memory)


class Stream:
    def getPtr(self) -> int:
        return 0


class Allocation:
    def __init__(self, nbytes: int, device: int) -> None:
        self.name, self.nbytes, self.device = f"fake-gpu-{os.getpid()}-{next(_numbers)}", nbytes, device
        with (FOLDER / self.name).open("x+b") as file:
            file.truncate(nbytes)
            self._memory = mmap.mmap(file.fileno(), nbytes)
        self._view = (ctypes.c_char * nbytes).from_buffer(self._memory)
        self.address = ctypes.addressof(self._view)

    def content(self, count: int) -> bytes:
        return self._view[:count]

    def unlink(self) -> None:
        (FOLDER / self.name).unlink()


class FakeGpus:
    """`nbytes`: of each GPU's memory. `freed`: called with the name of an allocation before it goes."""

    def __init__(self, count: int = 1, nbytes: int = 1 << 30) -> None:
        self.uuids = [uuid.uuid4() for _ in range(count)]
        self.nbytes, self.driver_is_old, self.driver_is_gone = nbytes, False, False
        self.allocations: dict[int, Allocation] = {}
        self.made: list[Allocation] = []  # in their order, also those that are gone
        self.copies = 0
        self.freed: Callable[[str], None] = lambda name: None
        self._device = 0

    @property
    def taken(self) -> int:
        return sum(one.nbytes for one in self.allocations.values())

    # ------------------------------------------------------------------------------ cuda.bindings.runtime

    def cudaGetErrorString(self, error: Error) -> tuple[Any, ...]:
        return Error.cudaSuccess, _WORDS[error]

    def cudaGetDeviceCount(self) -> tuple[Any, ...]:
        if self.driver_is_gone:
            raise RuntimeError("Failed to dlopen libcuda.so.1")  # cuda-python 12.6; newer ones: a status
        if self.driver_is_old:
            return Error.cudaErrorInsufficientDriver, None
        return Error.cudaSuccess, len(self.uuids)

    def cudaGetDeviceProperties(self, device: int) -> tuple[Any, ...]:
        return Error.cudaSuccess, Properties(self.uuids[device].bytes)

    def cudaGetDevice(self) -> tuple[Any, ...]:
        return Error.cudaSuccess, self._device

    def cudaSetDevice(self, device: int) -> tuple[Any, ...]:
        if not 0 <= device < len(self.uuids):
            return (Error.cudaErrorInvalidDevice,)
        self._device = device
        return (Error.cudaSuccess,)

    def cudaMalloc(self, nbytes: int) -> tuple[Any, ...]:
        if self.taken + nbytes > self.nbytes:
            return Error.cudaErrorMemoryAllocation, None
        made = Allocation(nbytes, self._device)
        self.allocations[made.address] = made
        self.made.append(made)
        return Error.cudaSuccess, made.address

    def cudaFree(self, address: int) -> tuple[Any, ...]:
        gone = self.allocations.pop(address, None)
        if gone is None:
            return (Error.cudaErrorInvalidValue,)
        self.freed(gone.name)
        gone.unlink()
        return (Error.cudaSuccess,)

    def cudaIpcGetMemHandle(self, address: int) -> tuple[Any, ...]:
        found = self.allocations.get(address)
        return (Error.cudaErrorInvalidValue, None) if found is None else (Error.cudaSuccess, Handle(found.name))

    def cudaDeviceGetAttribute(self, attribute: DeviceAttribute, device: int) -> tuple[Any, ...]:
        assert attribute is DeviceAttribute.cudaDevAttrUnifiedAddressing
        return Error.cudaSuccess, 1

    def cudaMemcpyAsync(self, to: Any, source: Any, nbytes: int, kind: MemcpyKind, stream: Stream) -> tuple[Any, ...]:
        """To the device, or from it into a ctypes buffer."""
        assert isinstance(stream, Stream)
        if isinstance(to, int):
            if not any(a <= to and to + nbytes <= a + one.nbytes for a, one in self.allocations.items()):
                return (Error.cudaErrorInvalidValue,)
            self.copies += 1
        ctypes.memmove(to, source, nbytes)
        return (Error.cudaSuccess,)

    def cudaStreamCreate(self) -> tuple[Any, ...]:
        return Error.cudaSuccess, Stream()

    def cudaStreamSynchronize(self, stream: Stream) -> tuple[Any, ...]:
        return (Error.cudaSuccess,)

    def cudaStreamDestroy(self, stream: Stream) -> tuple[Any, ...]:
        return (Error.cudaSuccess,)

    # ------------------------------------------------------------------------------- cuda.bindings.driver

    def cuDeviceGet(self, device: int) -> tuple[Any, ...]:
        return Result.CUDA_SUCCESS, device

    def cuDevicePrimaryCtxGetState(self, device: int) -> tuple[Any, ...]:
        return Result.CUDA_SUCCESS, 0, 1

    # --------------------------------------------------------------------------------------- as modules

    def modules(self) -> dict[str, types.ModuleType]:
        runtime, driver = types.ModuleType("cuda.bindings.runtime"), types.ModuleType("cuda.bindings.driver")
        for name in (name for name in dir(self) if name.startswith("cuda")):
            setattr(runtime, name, getattr(self, name))
        for name in (name for name in dir(self) if name.startswith("cu") and not name.startswith("cuda")):
            setattr(driver, name, getattr(self, name))
        more = {
            "cudaError_t": Error,
            "cudaIpcMemHandle_t": Handle,
            "cudaMemcpyKind": MemcpyKind,
            "cudaDeviceAttr": DeviceAttribute,
            "CUDA_IPC_HANDLE_SIZE": 64,
        }
        for name, value in more.items():
            setattr(runtime, name, value)
        driver.CUresult = Result  # type: ignore[attr-defined]
        cuda, bindings = types.ModuleType("cuda"), types.ModuleType("cuda.bindings")
        cuda.bindings = bindings  # type: ignore[attr-defined]
        bindings.runtime, bindings.driver = runtime, driver  # type: ignore[attr-defined]
        found = (cuda, bindings, runtime, driver)
        return {module.__name__: module for module in found}


_OF_TRITON = "tritonclient.utils.cuda_shared_memory"


@contextmanager
def installed(gpus: FakeGpus | None) -> Iterator[None]:
    """cuda-python is there with these GPUs, or is not; tritonclient's own module is read anew and runs as it is."""
    import tritonclient.utils as utils

    ours = {
        name for name in sys.modules if name in ("cuda", _OF_TRITON) or name.startswith(("cuda.", f"{_OF_TRITON}."))
    }
    before = {name: sys.modules.pop(name) for name in ours}
    attribute = utils.__dict__.pop("cuda_shared_memory", None)
    # None in sys.modules: importing it fails as when it is not installed
    sys.modules.update(gpus.modules() if gpus is not None else {"cuda": None})  # type: ignore[dict-item]
    try:
        yield
    finally:
        for name in [
            n for n in sys.modules if n in ("cuda", _OF_TRITON) or n.startswith(("cuda.", f"{_OF_TRITON}."))
        ]:
            del sys.modules[name]
        sys.modules.update(before)
        utils.__dict__.pop("cuda_shared_memory", None)
        if attribute is not None:
            utils.cuda_shared_memory = attribute
        for left in gpus.allocations.values() if gpus is not None else ():
            left.unlink()
