"""Memory on the GPU that Triton reads beside us, by tritonclient.utils.cuda_shared_memory.

That needs cuda-python, which is asked for when it is first needed and not before: a node without a GPU does not have
it. A region is exported to other processes by its CUDA IPC handle
(https://docs.nvidia.com/cuda/cuda-runtime-api, group CUDART_DEVICE: cudaIpcGetMemHandle).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

INSTALL = "pip install 'dicomnode[gpu]'"

# CUDA C++ Programming Guide, "Interprocess Communication": what is smaller may share its block with other memory, and
# a handle opens the whole block.
_BLOCK_BYTES = 2 << 20
_numbers = itertools.count()


class NoCudaMemory(Exception):
    """There is none to be had, or the copy failed; the words say why. Volumes go another way then."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as a model's process names it. `number`: by which CUDA counts it there, and in its server."""

    uuid: str
    number: int


class CudaRegion:
    """A piece of a GPU's memory. It is there until `free`, or until this process ends."""

    def __init__(self, name: str, nbytes: int, number: int) -> None:
        self.name = name
        self.nbytes = -(-nbytes // _BLOCK_BYTES) * _BLOCK_BYTES
        with _own_errors():
            self._made: Any = _library().create_shared_memory_region(name, self.nbytes, number)

    @property
    def raw_handle(self) -> bytes:
        """The CUDA IPC handle as register_cuda_shared_memory takes it."""
        raw: bytes = _library().get_raw_handle(self._made)
        return raw

    def fill(self, content: npt.NDArray[np.uint8]) -> None:
        """Copies bytes, (n) uint8 and writable, to the region's beginning; they are there when this returns."""
        with _own_errors():
            _library().set_shared_memory_region_from_dlpack(self._made, [content])

    def free(self) -> None:
        """Once, and after the server has unregistered it: what it reads then is undefined (cudaIpcOpenMemHandle)."""
        made, self._made = self._made, None
        _library().destroy_shared_memory_region(made)


def new_region(prefix: str, nbytes: int, number: int) -> CudaRegion:
    """On the GPU that this process counts as `number`; whoever asks frees it. Raises NoCudaMemory."""
    return CudaRegion(f"{prefix}-{os.getpid()}-gpu{next(_numbers)}", nbytes, number)


def numbers_here() -> dict[str, int]:
    """The GPUs that this process sees, by UUID, and how CUDA counts them here; raises NoCudaMemory.

    Two containers, or two values of CUDA_VISIBLE_DEVICES, count the same GPU differently. Takes no GPU memory.
    """
    _library()
    import cuda.bindings.runtime as cudart

    found = {}
    try:
        for number in range(_answer(cudart, cudart.cudaGetDeviceCount())):
            properties = _answer(cudart, cudart.cudaGetDeviceProperties(number))
            found[str(uuid.UUID(bytes=bytes(properties.uuid.bytes)))] = number
    except RuntimeError as error:  # the release for CUDA 12.6, of a driver that is not there
        raise NoCudaMemory(f"CUDA: {error}") from error
    return found


def _library() -> Any:
    try:
        from tritonclient.utils import cuda_shared_memory
    except (ImportError, RuntimeError) as error:  # RuntimeError is its own word for a missing cuda-python
        raise NoCudaMemory(f"cuda-python is not installed: {INSTALL}") from error
    return cuda_shared_memory


def _answer(cudart: Any, given: tuple[Any, ...]) -> Any:
    """What a call of the CUDA runtime gives beside its status."""
    status, *values = given
    if status != cudart.cudaError_t.cudaSuccess:
        raise NoCudaMemory(f"CUDA: {cudart.cudaGetErrorString(status)[1].decode()}")
    return values[0]


@contextlib.contextmanager
def _own_errors() -> Iterator[None]:
    """tritonclient's exception says what it did; what CUDA said to that is its cause."""
    try:
        yield
    except _library().CudaSharedMemoryException as error:
        said = error.__cause__.args[0] if error.__cause__ and error.__cause__.args else ""
        cause = said.decode() if isinstance(said, bytes) else str(said)
        raise NoCudaMemory(f"{error}: {cause}" if cause else str(error)) from error
