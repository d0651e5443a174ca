"""A host and its GPU: what it says of it, so that who asks can put the volume there at once, and how exact it is."""

from __future__ import annotations

import gc
import time
from typing import Any

import torch

_NO_ROOM = ("CUDA error: out of memory", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED")


def gpu_of(device: torch.device) -> dict[str, Any] | None:
    """The UUID by which every process knows it, and the number by which CUDA counts it in this one; None of a CPU."""
    if device.type != "cuda":
        return None
    number = torch.cuda.current_device() if device.index is None else device.index
    return {"uuid": str(torch.cuda.get_device_properties(number).uuid), "number": number}


def device_here() -> torch.device:
    """The GPU where torch sees one, else the CPU: for networks that torch runs as they are."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether the GPU had no room, whoever has raised another error since.

    torch.OutOfMemoryError is of torch's allocator; what the driver, cuDNN and cuBLAS lack comes as another error.
    """
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _NO_ROOM):
            return True
        error = error.__cause__ or error.__context__
    return False


def let_go(device: torch.device) -> None:
    """What nobody holds any more is given back to the driver, in one piece."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


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
