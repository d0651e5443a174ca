"""What models took of memory when they ran last: kept with the version, for each machine and engine.

A worker that begins knows what those before it have learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dicomnode.errors import InferenceError
from dicomnode.ports import EngineState, InferenceEngine, ModelVersion

_NEWS = 0.05
"""A peak that differs by less is not written again after each job."""

Peak = tuple[Mapping[str, float], int]


@dataclass
class OwnPeaks:
    """ports.Peaks that ends with its process."""

    _learned: dict[str, Peak] = field(default_factory=dict)

    def of(self, model: ModelVersion) -> Peak | None:
        return self._learned.get(model.digest)

    def learn(self, model: ModelVersion, memory: Mapping[str, float], voxels: int) -> None:
        self._learned[model.digest] = (dict(memory), voxels)


@dataclass
class KeptPeaks:
    """ports.Peaks in the database."""

    state: EngineState
    engine: InferenceEngine
    host: str
    _known: dict[tuple[str, str], Peak | None] = field(default_factory=dict)

    def of(self, model: ModelVersion) -> Peak | None:
        on = self._engine_of(model)
        if (model.digest, on) not in self._known:
            self._known[model.digest, on] = self.state.peak(model.digest, self.host, on)
        return self._known[model.digest, on]

    def learn(self, model: ModelVersion, memory: Mapping[str, float], voxels: int) -> None:
        on = self._engine_of(model)
        if not on or not _is_news(self.of(model), memory, voxels):
            return
        self._known[model.digest, on] = (dict(memory), voxels)
        self.state.record_peak(model.digest, self.host, on, memory, voxels)

    def _engine_of(self, model: ModelVersion) -> str:
        """With the precision; "" of what cannot be loaded now, which no peak is known of."""
        try:
            described = self.engine.describe(model)
        except InferenceError:
            return ""
        return f"{described['engine']} {described['precision']}"[:128]


def _is_news(known: Peak | None, memory: Mapping[str, float], voxels: int) -> bool:
    if known is None or known[0].keys() != memory.keys():
        return True
    pairs = [(float(known[1]), float(voxels)), *((known[0][kind], size) for kind, size in memory.items())]
    return any(abs(now - before) > _NEWS * max(before, 1.0) for before, now in pairs)
