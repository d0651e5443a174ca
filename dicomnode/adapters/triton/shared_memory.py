"""System shared memory that Triton reads and writes beside us.

A region's file has a name only from its creation until Triton has mapped it: after that nothing is left in
/dev/shm to clean up, however either side ends. Space is reserved when the region is made (posix_fallocate):
a full /dev/shm is an error here and not a bus error later.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import mmap
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from dicomnode.adapters.triton.tensors import TensorPlace
from dicomnode.errors import OutOfResources

FOLDER = Path("/dev/shm")
_numbers = itertools.count()


class Region:
    """A mapped piece of shared memory; lives as long as an array over it does.

    After `close`, which may be called again, no other process finds it any more.
    """

    def __init__(self, name: str, nbytes: int) -> None:
        self.name, self.nbytes = name, nbytes
        self._path = FOLDER / name
        descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, nbytes)
            self._memory = mmap.mmap(descriptor, nbytes)
        except OSError as error:
            os.close(descriptor)
            self.unlink()
            raise _refusal(error, nbytes) from error
        self._descriptor = descriptor
        self.close = weakref.finalize(self, os.close, descriptor)

    @property
    def key(self) -> str:
        """As shm_open wants it."""
        return f"/{self.name}"

    def place(self, offset: int, shape: tuple[int, ...]) -> TensorPlace:
        """Where other processes of this user find a tensor in it until it is closed, without a name too."""
        file = os.fstat(self._descriptor)
        return TensorPlace(f"/proc/{os.getpid()}/fd/{self._descriptor}", file.st_dev, file.st_ino, offset, shape)

    def array(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """The region's memory as an array in C order."""
        count = int(np.prod(shape, dtype=np.int64))
        return np.frombuffer(self._memory, dtype=dtype, count=count).reshape(shape)

    def unlink(self) -> None:
        """Takes the name away; what is mapped stays mapped."""
        self._path.unlink(missing_ok=True)


def _refusal(error: OSError, nbytes: int) -> OSError | OutOfResources:
    if error.errno in {errno.ENOSPC, errno.ENOMEM}:
        return OutOfResources(
            f"no {nbytes >> 20} MiB left in {FOLDER}: run fewer jobs at once, or make it larger "
            "(in a container: --shm-size)"
        )
    return error


@contextlib.contextmanager
def region(prefix: str, nbytes: int) -> Iterator[Region]:
    """A new region, without a name at the latest when the block ends."""
    made = Region(f"{prefix}-{os.getpid()}-{next(_numbers)}", max(nbytes, 1))
    try:
        yield made
    finally:
        made.unlink()
        made.close()


def owner_is_gone(name: str, prefix: str) -> bool:
    """Whether this is a client's region whose process does not live any more."""
    head, _, rest = name.partition(f"{prefix}-")
    owner = rest.partition("-")[0]
    return not head and owner.isdigit() and not psutil.pid_exists(int(owner))


def sweep(prefix: str) -> list[str]:
    """Removes names that dead clients left in the moment between making and registering a region."""
    gone = [path.name for path in FOLDER.glob(f"{prefix}-*") if owner_is_gone(path.name, prefix)]
    for name in gone:
        (FOLDER / name).unlink(missing_ok=True)
    return gone


def sweep_all(prefix: str) -> None:
    """Removes everything under a prefix: what a killed server left."""
    for path in FOLDER.glob(f"{prefix}*"):
        path.unlink(missing_ok=True)
