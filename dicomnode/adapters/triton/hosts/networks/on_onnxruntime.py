"""Networks on ONNX Runtime, float32: on a GPU where there is one and onnxruntime-gpu is installed, else the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

from dicomnode.adapters.triton.hosts.networks.batching import images_at_once
from dicomnode.adapters.triton.hosts.networks.loaded import (
    CPU,
    CUDA,
    Answers,
    LoadedNetwork,
    Source,
    as_arrays,
    check_inputs,
    tensors_of,
)
from dicomnode.errors import InvalidModelPackage

_ON_GPU = "CUDAExecutionProvider"
_WINDOWS_ON_GPU = 4


def load(source: Source) -> LoadedNetwork:
    return _loaded(source, CUDA if has_gpu() else CPU)


def load_on_cpu(source: Source) -> LoadedNetwork:
    """What conversions are compared with: the same whatever this machine has."""
    return _loaded(source, CPU)


def has_gpu() -> bool:
    """Whether onnxruntime-gpu is installed, and there is a GPU for it."""
    import onnxruntime

    return torch.cuda.is_available() and _ON_GPU in onnxruntime.get_available_providers()


def _loaded(source: Source, wanted: torch.device) -> LoadedNetwork:
    import onnxruntime

    if source.spec.precision != "fp32":
        raise InvalidModelPackage("onnxruntime runs fp32 only here", "model.yaml.network.precision")
    opened = session(source.file, source.threads, wanted)
    check_inputs(source, len(opened.get_inputs()))
    # its libraries may be there and not load: then it says so in the log, and is on the CPU
    device = CUDA if opened.get_providers()[0] == _ON_GPU else CPU
    run = Bound(opened, device) if device is CUDA else _OnCpu(opened)
    info = {
        "engine": f"onnxruntime {onnxruntime.__version__}",
        "precision": "f32",
        "device": torch.cuda.get_device_name() if device is CUDA else "CPU",
    }
    return LoadedNetwork(run, device, _windows_at_once(source, opened, run, device), info)


def _windows_at_once(source: Source, opened: Any, run: Any, device: torch.device) -> int:
    if isinstance(opened.get_inputs()[0].shape[0], int):
        return 1
    if source.takes.size:
        return images_at_once(source, run, device, faults())
    return _WINDOWS_ON_GPU if device is CUDA else 1


class _OnCpu:
    def __init__(self, opened: Any) -> None:
        self._session, self._names = opened, [given.name for given in opened.get_inputs()]

    def __call__(self, *inputs: torch.Tensor) -> Answers:
        given = dict(zip(self._names, as_arrays(inputs), strict=True))
        return tensors_of([torch.from_numpy(answer) for answer in self._session.run(None, given)])


class Bound:
    """A session whose inputs and answers stay on `device`; one thread calls it at a time.

    ONNX Runtime computes on a stream of its own: torch's is waited for before a call, and its own after it. By then
    torch has read what it let go of, which is written anew (onnxruntime.ai, "I/O Binding").
    """

    def __init__(self, opened: Any, device: torch.device) -> None:
        self._session, self._device = opened, device
        self._inputs = [given.name for given in opened.get_inputs()]
        self._outputs = [found.name for found in opened.get_outputs()]

    def __call__(self, *inputs: torch.Tensor) -> Answers:
        """(n, channels, window) float32 → all outputs as float32, as (n, classes, window); all on the device."""
        binding, number = self._session.io_binding(), _number(self._device)
        held = [tensor.to(torch.float32).contiguous() for tensor in inputs]
        for name, tensor in zip(self._inputs, held, strict=True):
            shape, kind = tuple(tensor.shape), self._device.type
            binding.bind_input(name, kind, number, np.float32, shape, tensor.data_ptr())
        for name in self._outputs:
            binding.bind_output(name, self._device.type, number)
        if self._device.type == "cuda":
            torch.cuda.current_stream().synchronize()
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return tensors_of([from_dlpack(answer) for answer in binding.get_outputs()])


def session(file: Path, threads: int, device: torch.device = CPU) -> Any:
    """An onnxruntime.InferenceSession."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # threads that wait busily take cores from the models beside this one
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda" and _ON_GPU in onnxruntime.get_available_providers():
        # convolutions are rounded to TF32 unless it is told not to
        providers.insert(0, (_ON_GPU, {"device_id": str(_number(device)), "use_tf32": "0"}))
    return onnxruntime.InferenceSession(str(file), options, providers=providers)


def _number(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    return torch.cuda.current_device() if device.index is None else device.index


def faults() -> tuple[type[Exception], ...]:
    """What a session raises of inputs that it does not take; they have no class in common."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return state.Fail, state.InvalidArgument, state.RuntimeException
