"""Memory on a GPU as tritonclient's own module makes it, over a fake cuda-python."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from dicomnode.adapters.triton.cuda_memory import CudaRegion, NoCudaMemory, new_region, numbers_here
from tests.adapters.fake_cuda import FakeGpus, installed

MIB = 1 << 20


@pytest.fixture
def gpus() -> Iterator[FakeGpus]:
    fake = FakeGpus(2)
    with installed(fake):
        yield fake


@contextmanager
def cuda_region(prefix: str, nbytes: int, number: int) -> Iterator[CudaRegion]:
    made = new_region(prefix, nbytes, number)
    try:
        yield made
    finally:
        made.free()


def test_bytes_lie_on_the_device_and_go_with_the_block(gpus: FakeGpus) -> None:
    content = np.random.default_rng(0).integers(0, 255, 3 * MIB, dtype=np.uint8)
    with cuda_region("prefix", content.nbytes, 1) as region:
        region.fill(content)
        (there,) = gpus.allocations.values()
        assert there.content(content.nbytes) == content.tobytes()
        assert there.device == 1
        assert base64.b64decode(region.raw_handle) == there.name.encode().ljust(64, b"\0")
    assert gpus.taken == 0


def test_a_handle_never_opens_a_block_with_other_memory_in_it(gpus: FakeGpus) -> None:
    for nbytes, whole in ((1, 2 * MIB), (2 * MIB, 2 * MIB), (2 * MIB + 1, 4 * MIB)):
        with cuda_region("prefix", nbytes, 0) as region:
            assert (region.nbytes, gpus.taken) == (whole, whole)


def test_names_tell_whose_they_are(gpus: FakeGpus) -> None:
    from dicomnode.adapters.triton.shared_memory import owner_is_gone

    with cuda_region("prefix", 1, 0) as first, cuda_region("prefix", 1, 0) as second:
        assert first.name != second.name
        assert not owner_is_gone(first.name, "prefix")
    assert owner_is_gone("prefix-999999999-gpu0", "prefix")


def test_a_gpu_is_known_by_its_uuid_however_it_is_counted(gpus: FakeGpus) -> None:
    assert numbers_here() == {str(gpus.uuids[0]): 0, str(gpus.uuids[1]): 1}


def test_what_cuda_refuses_is_said_in_its_words(gpus: FakeGpus) -> None:
    gpus.nbytes = MIB
    with pytest.raises(NoCudaMemory, match="unable to create cuda shared memory handle: out of memory"):
        new_region("prefix", 1, 0)
    with pytest.raises(NoCudaMemory, match="invalid device ordinal"):
        new_region("prefix", 1, 7)
    gpus.driver_is_old = True
    with pytest.raises(NoCudaMemory, match="CUDA: CUDA driver version is insufficient"):
        numbers_here()
    gpus.driver_is_gone = True
    with pytest.raises(NoCudaMemory, match=r"CUDA: Failed to dlopen libcuda\.so\.1"):
        numbers_here()


def test_a_node_without_cuda_python_is_told_how_to_get_it() -> None:
    with installed(None):
        for ask in (numbers_here, lambda: new_region("prefix", 1, 0)):
            with pytest.raises(NoCudaMemory, match=r"cuda-python is not installed: pip install 'dicomnode\[gpu\]'"):
                ask()
