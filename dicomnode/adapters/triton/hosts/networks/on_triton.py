"""Networks that are another model of the same Triton, called by BLS: its native backends, and whatever it serves.

https://github.com/triton-inference-server/python_backend#business-logic-scripting. Windows go as DLPack tensors,
several at once where that model takes a batch. BLS works in `execute` only: nothing is asked of it while loading.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils.dlpack import from_dlpack

from dicomnode.adapters.triton.hosts.networks.loaded import CPU, CUDA, Answers, LoadedNetwork

_TYPES = {"TYPE_FP32": torch.float32, "TYPE_FP16": torch.float16}


@dataclass(frozen=True, slots=True)
class Inner:
    """How the network's own model in Triton is called; `inputs`: the windows, then the parameters if it has some."""

    model: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    data_types: tuple[str, ...]  # of its inputs, as config.pbtxt names them
    batch: int  # windows that it takes at once
    batches_all: bool  # max_batch_size is above 0: every tensor has a batch axis
    rank: int  # axes of its first input, the batch axis included where there is one
    backend: str  # in words, for provenance
    on_gpu: bool  # whether it may use one

    def as_text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def of_text(cls, text: str) -> Inner:
        values: dict[str, Any] = json.loads(text)
        for key in ("inputs", "outputs", "data_types"):
            values[key] = tuple(values[key])
        return cls(**values)


def load(backend: Any, inner: Inner) -> LoadedNetwork:
    """`backend`: triton_python_backend_utils."""
    device = CUDA if inner.on_gpu and torch.cuda.is_available() else CPU
    info = {
        "engine": f"Triton {inner.backend}",
        "precision": {"TYPE_FP16": "f16"}.get(inner.data_types[0], "f32"),
        "device": torch.cuda.get_device_name() if device is CUDA else "CPU",
    }
    return LoadedNetwork(Call(backend, inner, device), device, inner.batch, info)


class Call:
    """One thread calls it at a time; an answer is valid until the next call."""

    def __init__(self, backend: Any, inner: Inner, device: torch.device) -> None:
        self._backend, self._inner, self._device = backend, inner, device
        self._held: Any = None

    def __call__(self, windows: torch.Tensor, *parameters: torch.Tensor) -> Answers:
        """(n, channels, window) float32 → the model's outputs as float32, as (n, classes, window)."""
        inner, backend = self._inner, self._backend
        tensors = [self._shaped(windows), *(self._beside(numbers, len(windows)) for numbers in parameters)]
        request = backend.InferenceRequest(
            model_name=inner.model,
            requested_output_names=list(inner.outputs),
            inputs=[
                backend.Tensor.from_dlpack(name, tensor.to(_TYPES[data_type]).contiguous())
                for name, data_type, tensor in zip(inner.inputs, inner.data_types, tensors, strict=True)
            ],
        )
        response = request.exec()
        if response.has_error():
            raise RuntimeError(f"{inner.model}: {response.error().message()}")
        self._held = response  # the tensors lie in its memory
        found = [backend.get_output_tensor_by_name(response, name) for name in inner.outputs]
        answers = [self._with_batch(from_dlpack(tensor.to_dlpack()), windows) for tensor in found]
        return tuple(answer.to(self._device, torch.float32) for answer in answers)

    def _shaped(self, windows: torch.Tensor) -> torch.Tensor:
        """Without the batch axis for a model that has none; `batch` is 1 then."""
        return windows[0] if self._inner.rank < windows.ndim else windows

    def _beside(self, numbers: torch.Tensor, count: int) -> torch.Tensor:
        return numbers.expand(count, -1) if self._inner.batches_all else numbers

    def _with_batch(self, answer: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
        return answer[None] if self._inner.rank < windows.ndim else answer
