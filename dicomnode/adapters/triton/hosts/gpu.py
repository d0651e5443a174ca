"""A host and its GPU: what it says of it, so that who asks can put the volume there at once, and how exact it is."""

from __future__ import annotations

import time
from typing import Any

import torch


def gpu_of(device: torch.device) -> dict[str, Any] | None:
    """The UUID by which every process knows it, and the number by which CUDA counts it in this one; None of a CPU."""
    if device.type != "cuda":
        return None
    number = torch.cuda.current_device() if device.index is None else device.index
    return {"uuid": str(torch.cuda.get_device_properties(number).uuid), "number": number}


def done_s(device: torch.device) -> float:
    """time.perf_counter() when a GPU has done what it was given: it is given work without waiting for it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def full_float32() -> None:
    """What is called f32 is f32: cuDNN's convolutions round to TF32, with ten bits, unless they are told not to.

    https://docs.pytorch.org/docs/stable/notes/cuda.html, "TensorFloat-32". Who wants the speed asks for bf16 or fp16.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
