"""A machine with as much memory as it is told."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dicomnode.domain.admission import Room


@dataclass
class FakeMachine:
    host_bytes: float = 8e9
    free_bytes: float = 8e9
    has_gpu: bool = False

    def total(self) -> Room:
        return Room(self.host_bytes, math.inf, math.inf)

    def free(self) -> Room:
        return Room(self.free_bytes, math.inf, math.inf)
