"""What Triton runs to prove itself: what comes in as INPUT, int16, goes out as OUTPUT.

Handed on by DLPack, as the models' tensors are, and without torch, which would be most of the memory of a process
that lives as long as the server. That torch reads and writes what the backend does, each model proves when it is
loaded (see `model.prove`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class SelfTest:
    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        given = self._backend.get_input_tensor_by_name(request, "INPUT")
        return self._backend.InferenceResponse([self._backend.Tensor.from_dlpack("OUTPUT", given.to_dlpack())])
