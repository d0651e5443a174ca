"""What hosts say of their GPU, and that they leave a volume as it is: others read the same memory. No GPU here."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dicomnode.adapters.triton import in_process
from dicomnode.adapters.triton.hosts.asked import Given
from dicomnode.adapters.triton.hosts.choice import open_host
from dicomnode.adapters.triton.hosts.gpu import gpu_of, is_out_of_memory
from dicomnode.adapters.triton.hosts.model import Host, HostSettings, _count
from dicomnode.adapters.triton.in_process import _Request, _Tensor
from dicomnode.adapters.triton.tensors import small_inputs
from dicomnode.domain.halt import Halt
from dicomnode.imaging.geometry import Placement, Rescale, VolumeGeometry
from dicomnode.ports import ModelVersion
from tests.class_models import AboveHalf, classifier
from tests.triton_models import Thresholds, axial, package

SHAPE = (6, 20, 20)
GPU = torch.device("cuda", 0)


@pytest.fixture
def models(tmp_path: Path) -> dict[str, ModelVersion]:
    return {
        "segments": package(tmp_path / "segments", Thresholds(), "segments", 1, engine="torchscript"),
        "classes": classifier(tmp_path / "classes", AboveHalf(), "classes", of="series", low=-57, high=164),
    }


def host_of(model: ModelVersion, tmp_path: Path) -> Host:
    return open_host(
        in_process._BACKEND, HostSettings(Path(model.path), tmp_path / "cache", 1, "torchscript", "fp32")
    )


def asked(volume: torch.Tensor) -> Any:
    small = small_inputs([Placement(axial(SHAPE, (2.0, 1.5, 1.5)), Rescale(1.0, 0.0))], {})
    tensors = {"VOLUME": volume, **{name: torch.from_numpy(array) for name, array in small.items()}}
    given = {name: _Tensor(name, tensor) for name, tensor in tensors.items()}
    return _Request(given, time.monotonic() + 60, Halt())


@pytest.mark.parametrize("kind", ["segments", "classes"])
def test_a_host_leaves_its_volume_as_it_is(kind: str, models: dict[str, ModelVersion], tmp_path: Path) -> None:
    host, values = host_of(models[kind], tmp_path), np.random.default_rng(0).integers(-100, 200, SHAPE, np.int16)
    volume = torch.from_numpy(values.copy())
    (response,) = host.execute([asked(volume)])
    assert response.error is None
    np.testing.assert_array_equal(volume.numpy(), values)


def test_on_the_cpu_no_gpu_is_named(models: dict[str, ModelVersion], tmp_path: Path) -> None:
    host = host_of(models["segments"], tmp_path)
    (response,) = host.execute([asked(torch.zeros(SHAPE, dtype=torch.int16))])
    said = next(tensor.value for tensor in response.outputs if tensor.name == "INFO")
    assert json.loads(said.numpy().tobytes())["gpu"] is None


def test_a_host_whose_chain_begins_on_its_gpu_says_which_it_is(
    models: dict[str, ModelVersion], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: SimpleNamespace(uuid=f"uuid-{number}"))
    found = {}
    for kind, model in models.items():
        host = host_of(model, tmp_path)
        monkeypatch.setattr(host, "_network", dataclasses.replace(host._network, device=GPU))
        found[kind] = gpu_of(host._begins_on)
    assert found == {"segments": {"uuid": "uuid-0", "number": 0}, "classes": None}


def test_a_volume_that_was_put_on_the_gpu_counts_as_taken_there() -> None:
    there = SimpleNamespace(is_cuda=True, nbytes=500)
    nowhere = Placement(VolumeGeometry(SHAPE, np.eye(4)), Rescale(1.0, 0.0))
    taken = {"gpu_bytes": 1000.0}
    _count(taken, Given(there, nowhere))  # type: ignore[arg-type]
    _count(taken, Given(torch.zeros(SHAPE), nowhere))
    assert taken == {"gpu_bytes": 1500.0}


def test_what_is_called_f32_is_not_rounded_to_tf32(models: dict[str, ModelVersion], tmp_path: Path) -> None:
    torch.backends.cudnn.allow_tf32 = True
    host_of(models["segments"], tmp_path)
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize(
    ("inner", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (7)"), False),
        (MemoryError(), False),
    ],
)
def test_a_gpu_without_room_is_known_through_errors_of_others(inner: Exception, is_memory: bool) -> None:
    """As MONAI raises them again, transform by transform."""
    outer = RuntimeError("applying transform Spacingd")
    outer.__cause__ = inner
    assert is_out_of_memory(outer) == is_memory
    assert is_out_of_memory(inner) == is_memory
