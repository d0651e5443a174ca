"""What a host says of the GPU that its chain begins on, so that who asks can put the volume there at once."""

from __future__ import annotations

from typing import Any

import torch


def gpu_of(device: torch.device) -> dict[str, Any] | None:
    """The UUID by which every process knows it, and the number by which CUDA counts it in this one; None of a CPU."""
    if device.type != "cuda":
        return None
    number = torch.cuda.current_device() if device.index is None else device.index
    return {"uuid": str(torch.cuda.get_device_properties(number).uuid), "number": number}
