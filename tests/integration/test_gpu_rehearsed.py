"""The tests of a GPU, run where there is none: so that the first machine with one finds no mistake in the tests.

They run before a real Triton, with a fake GPU behind the relay (tests/adapters): its memory is files, and
networks compute on the CPU. What a GPU alone can show, they show there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dicomnode.adapters.triton.engine import TritonEngine
from dicomnode.adapters.triton.hosts.networks import on_tensorrt
from dicomnode.adapters.triton.hosts.networks.loaded import CPU
from dicomnode.adapters.triton.installation import find_server
from dicomnode.adapters.triton.place import Place
from dicomnode.adapters.triton.server import TritonServer
from tests.adapters import fake_tensorrt
from tests.adapters.fake_cuda import FakeGpus, installed
from tests.adapters.gpu_relay import GpuRelay
from tests.integration import test_gpu
from tests.integration.test_gpu import (  # noqa: F401
    engine,
    home,
    models,
    server,
    test_a_gpu_that_this_process_does_not_see_is_left_alone,
    test_a_plan_says_what_the_network_says,
    test_a_server_that_was_killed_reads_the_copy_again,
    test_a_volume_is_resampled_as_on_the_cpu,
    test_a_worker_that_is_killed_takes_its_volume_with_it_and_harms_nobody,
    test_labels_come_back_as_on_the_cpu,
    test_several_models_read_one_copy_and_it_is_freed,
    test_tensorrt_is_the_one_that_plans_were_written_for,
    test_the_label_map_is_the_same_from_memory_on_the_gpu_and_from_system_memory,
    test_what_is_called_f32_is_f32,
)
from tests.triton_models import axial

pytestmark = [
    pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here, and the tests themselves run")
]

SHAPE, LARGE = (20, 64, 60), (32, 256, 256)  # so that it takes seconds on a CPU

# before the client that is killed: the same GPU, and the same relay
_BEFORE = """
import uuid
from dicomnode.adapters.triton.place import Place
from tests.adapters.fake_cuda import FakeGpus, installed
gpus = FakeGpus()
gpus.uuids = [uuid.UUID({uuid!r})]
here = installed(gpus)
here.__enter__()
Place.url = property(lambda place: {url!r})
"""


@contextmanager
def relayed(relay: GpuRelay) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Place, "url", property(lambda place: relay.url))
        yield


@pytest.fixture(autouse=True)
def gpu(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpus | None]:
    """A GPU, as far as the test asks for one."""
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)
    if "server" not in request.fixturenames and "home" not in request.fixturenames:
        yield None
        return
    if find_server() is None:
        pytest.skip("there is no tritonserver here")
    running: TritonServer = request.getfixturevalue("server")
    for name, value in {"SHAPE": SHAPE, "GEOMETRY": axial(SHAPE, (3.0, 1.1, 1.1)), "LARGE": LARGE}.items():
        monkeypatch.setattr(test_gpu, name, value)
    gpus = FakeGpus()
    with installed(gpus), GpuRelay(running.place.url, tmp_path, str(gpus.uuids[0])) as relay:

        def opened(*given: Any, **named: Any) -> TritonEngine:
            with relayed(relay):
                return TritonEngine(*given, **named)

        monkeypatch.setattr(test_gpu, "TritonEngine", opened)
        before = _BEFORE.format(uuid=str(gpus.uuids[0]), url=relay.url)
        monkeypatch.setattr(test_gpu, "_CLIENT", before + test_gpu._CLIENT)
        free: Callable[[], tuple[float, float]] = lambda: (float(gpus.nbytes), float(gpus.nbytes - gpus.taken))  # noqa: E731
        monkeypatch.setattr(test_gpu, "DriversGpu", SimpleNamespace(found=lambda: SimpleNamespace(memory=free)))
        yield gpus


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The stand-in, and as much of CUDA as it asks for."""
    stream = SimpleNamespace(cuda_stream=1, wait_stream=lambda other: None)
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt)
    monkeypatch.setattr(on_tensorrt, "CUDA", CPU)
    monkeypatch.setattr(test_gpu, "CUDA", CPU)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA Test")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    for name in ("empty_cache", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    return fake_tensorrt
