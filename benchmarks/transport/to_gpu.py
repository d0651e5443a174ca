"""How long until a model on the GPU has read a volume: from system shared memory, or from CUDA shared memory?

A model in Triton sums up an int16 volume on the GPU, and every sum is compared. From system shared memory Triton
copies the volume to the model's process, which copies it to the GPU, for each model anew. On the GPU it is copied
once, by whoever decoded it ("first", the copy counted), and then read where it lies ("further").

A host of the node that sees the worker's memory maps it and saves the first of the two copies (hosts.regions): beside
that way CUDA shared memory saves the copy to the GPU of each model after the first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from dicomnode.adapters.triton.client import Client, Registered, plain_output, shared_input
from dicomnode.adapters.triton.cuda_memory import NoCudaMemory, numbers_here
from dicomnode.adapters.triton.hosts.gpu import gpu_of
from dicomnode.adapters.triton.server import TritonServer

Volume = npt.NDArray[np.int16]
TIMEOUT_S = 120.0
MODEL = "sum-on-gpu"

_CONFIG = f"""name: "{MODEL}"
backend: "python"
input [{{ name: "INPUT", data_type: TYPE_INT16, dims: [-1] }}]
output [{{ name: "SUM", data_type: TYPE_INT64, dims: [1] }}]
instance_group [{{ count: 1, kind: KIND_CPU }}]
parameters {{ key: "FORCE_CPU_ONLY_INPUT_TENSORS", value: {{ string_value: "no" }} }}
"""

_CODE = """\
import os
import sys

sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))

import torch
import triton_python_backend_utils as backend
from torch.utils.dlpack import from_dlpack

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        given = from_dlpack(backend.get_input_tensor_by_name(request, "INPUT").to_dlpack())
        found = given.to(DEVICE).sum(dtype=torch.int64).cpu().reshape(1)
        return backend.InferenceResponse([backend.Tensor.from_dlpack("SUM", found)])
"""


def why_not() -> str:
    """Why there is nothing to measure here; empty when there is."""
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no GPU"
    try:
        numbers_here()
    except NoCudaMemory as error:
        return str(error)
    return ""


def number_here() -> int:
    """How this process counts the GPU that torch, and with it the model, takes."""
    said = gpu_of(torch.device("cuda"))
    assert said is not None
    return numbers_here()[said["uuid"]]


def measure_to_gpu(sizes_mb: list[int], rounds: int, folder: Path, number: int) -> dict[int, dict[str, list[float]]]:
    """Seconds by size and way; the first round, in which memory is taken, is left out. `number`: as number_here."""
    with TritonServer(folder) as server:
        write_model(server.place.repository)
        client, prefix = Client(server.place.url), server.place.client_prefix
        client.load(MODEL, TIMEOUT_S)
        try:
            return {size: _of_size(client, prefix, number, size, rounds) for size in sizes_mb}
        finally:
            client.close()


def write_model(repository: Path) -> None:
    (repository / MODEL / "1").mkdir(parents=True, exist_ok=True)
    (repository / MODEL / "config.pbtxt").write_text(_CONFIG)
    (repository / MODEL / "1" / "model.py").write_text(_CODE)


def _of_size(client: Client, prefix: str, number: int, size: int, rounds: int) -> dict[str, list[float]]:
    volume = np.random.default_rng(size).integers(-1024, 3071, size * 500_000).astype(np.int16)
    seconds: dict[str, list[float]] = {"shared memory": [], "CUDA, first": [], "CUDA, further": []}
    with client.shared(prefix, volume.nbytes) as system:
        system.array(volume.shape, np.int16)[...] = volume
        content = system.array((volume.nbytes,), np.uint8)
        for _ in range(rounds + 1):
            seconds["shared memory"].append(_timed(lambda: _sum(client, system, volume), volume))
            with _on_gpu(client, prefix, content, number, volume, seconds["CUDA, first"]) as there:
                seconds["CUDA, further"].append(_timed(lambda there=there: _sum(client, there, volume), volume))
    return {name: taken[1:] for name, taken in seconds.items()}


@contextmanager
def _on_gpu(
    client: Client, prefix: str, content: npt.NDArray[np.uint8], number: int, volume: Volume, taken: list[float]
) -> Iterator[Registered]:
    """The volume on the GPU, read once; `taken` gains the seconds of both."""
    started = time.perf_counter()
    with client.shared_on_gpu(prefix, content, number, 0) as there:
        found = _sum(client, there, volume)
        taken.append(time.perf_counter() - started)
        _check(found, volume)
        yield there


def _sum(client: Client, region: Registered, volume: Volume) -> int:
    tensor = shared_input("INPUT", volume.shape, np.int16, region)
    return int(client.infer(MODEL, [tensor], [plain_output("SUM")], TIMEOUT_S).as_numpy("SUM")[0])


def _timed(ask: Callable[[], int], volume: Volume) -> float:
    started = time.perf_counter()
    found = ask()
    took = time.perf_counter() - started
    _check(found, volume)
    return took


def _check(found: int, volume: Volume) -> None:
    if found != int(volume.sum(dtype=np.int64)):
        raise SystemExit("a model read other values than were sent")
