"""What is copied between the host's memory and a device, counted."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

SMALL = 1024  # bytes of an affine, of numbers along an axis


class Crossings(TorchDispatchMode):
    """While it is on, in its own thread: bytes of every tensor that goes to a device (`sent`) and comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[int] = []
        self.brought: list[int] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = self._run(func, args, kwargs or {})
        if func is torch.ops.aten._to_copy.default and found.device.type != args[0].device.type:
            (self.brought if found.device.type == "cpu" else self.sent).append(found.nbytes)
        return found

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return func(*args, **kwargs)

    def forget(self) -> None:
        """What was counted until now."""
        self.sent.clear()
        self.brought.clear()

    @property
    def large(self) -> tuple[list[int], list[int]]:
        """Volumes that were sent and brought; numbers, of affines and boxes, are left out."""
        return [n for n in self.sent if n > SMALL], [n for n in self.brought if n > SMALL]
