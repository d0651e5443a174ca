"""Versions of one model whose answers tell them apart, and requests that do not stop while they change."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from dicomnode.errors import DicomNodeError
from dicomnode.imaging.geometry import Rescale
from dicomnode.ports import InferenceEngine, InferenceRequest, ModelVersion, State
from tests.asked import labelled
from tests.triton_models import axial, document, package, registered

NAME = "hot"
SHAPE = (8, 32, 30)
GEOMETRY = axial(SHAPE, (2.0, 1.5, 1.5))
HU = Rescale(1.0, 0.0)
_ANSWER_S = 120.0


class At(torch.nn.Module):
    """Class 1 is what lies above a threshold of the scaled intensity."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.threshold - x, x - self.threshold], 1)


def hot_version(folder: Path, number: int, threshold: float, engine: str = "torchscript") -> ModelVersion:
    made = package(folder, At(threshold), NAME, 1, engine=engine)
    card = {**document(NAME, 1, engine=engine), "version": f"{number}.0.0"}
    return dataclasses.replace(registered(folder, card), id=made.id, active=False)


def volume() -> npt.NDArray[np.int16]:
    """(slice, row, column) int16, HU: smooth, so that thresholds cut it in different places."""
    z, y, x = np.indices(SHAPE)
    return (60 + 100 * np.sin(z / 3) * np.cos(y / 9) * np.cos(x / 7)).astype(np.int16)


def labels_of(engine: InferenceEngine, model: ModelVersion) -> npt.NDArray[np.uint8]:
    with engine.open(SHAPE) as session:
        session.volume[...] = volume()
        with labelled(session, InferenceRequest(model, GEOMETRY, HU, timeout_s=_ANSWER_S)) as labels:
            return labels.copy()


@dataclass(frozen=True, slots=True)
class Answer:
    version: str
    sent_s: float
    answered_s: float
    failure: str = ""


@dataclass
class Requests:
    """Asks for the version that is active, one request after the other, until it is stopped."""

    state: State
    engine: InferenceEngine
    expected: Mapping[str, npt.NDArray[np.uint8]]  # by version
    answers: list[Answer] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Requests:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            model = self.state.active_model(NAME)
            assert model is not None
            self.answers.append(self._ask(model))

    def _ask(self, model: ModelVersion) -> Answer:
        sent_s = time.monotonic()
        try:
            right = np.array_equal(labels_of(self.engine, model), self.expected[model.version])
        except DicomNodeError as error:
            return Answer(model.version, sent_s, time.monotonic(), str(error))
        return Answer(model.version, sent_s, time.monotonic(), "" if right else "the answer of another version")

    def count(self, version: str) -> int:
        return sum(answer.version == version for answer in list(self.answers))


def longest_gap_s(answers: list[Answer]) -> float:
    """The longest time in which nothing was answered, of all requests together."""
    times = sorted(answer.answered_s for answer in answers)
    return max(b - a for a, b in itertools.pairwise(times))
