"""What every engine gives: a network ready to run, and what it is to be told."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dicomnode.domain.golden import GOLDEN_FOLDER
from dicomnode.domain.model_card import NetworkSpec
from dicomnode.errors import InvalidModelPackage
from dicomnode.imaging.windows import Answer, WindowedNetwork, at_once

CPU, CUDA = torch.device("cpu"), torch.device("cuda")

# Share of the labels of a window that a converted network must give like the original.
AGREEMENT_LEAST = 0.999

Tensors = list[npt.NDArray[np.float32]]
Answers = tuple[torch.Tensor, ...]
Calibration = Callable[[], Iterable[Tensors]]
"""What a network is shown to find out its ranges: the inputs of one window each time, from real images."""


class ConversionFailed(RuntimeError):
    """An engine does not take the network, or gives other answers than it."""


@dataclass
class LoadedNetwork:
    """A network ready to run: call it with (n, channels, window) float32 on `device`; n is `batch` at most.

    A network whose card has parameters takes them too: (parameters,) float32. One thread calls it at a time.
    `run` gives a tensor, or several of a network that has several outputs.
    """

    run: Any
    device: torch.device
    batch: int
    info: Mapping[str, str] = field(default_factory=dict)
    submit: Any = None
    """Begins one window on a thread of the engine's own: inputs → what waits for the scores. They lie in memory of
    the engine's, which the `in_flight`-th call after this one writes anew. None: `run` it is."""
    in_flight: int = 1

    @property
    def has_own_threads(self) -> bool:
        """Whether torch's threads would only be in the way of the engine's."""
        return self.submit is not None

    def at_once(self, share: float) -> int:
        """Windows for one call when only this share of the cores is the network's: each stream has its threads."""
        return max(int(self.batch * share), 1) if self.has_own_threads else self.batch

    def windowed(
        self, *parameters: torch.Tensor, before_each: Callable[[], None], share: Callable[[], float] = lambda: 1.0
    ) -> WindowedNetwork:
        """For windows of a volume; `before_each` is called before each call, and may raise. `share` as in at_once."""

        def begin(windows: torch.Tensor) -> Answer:
            before_each()
            if self.submit is not None:
                answer: Answer = self.submit(windows, *parameters)
                return answer
            return at_once(lambda given: self(given, *parameters))(windows)

        def in_flight() -> int:
            part = share()
            return self.in_flight if part >= 1 else min(self.at_once(part), self.in_flight)

        return WindowedNetwork(begin, 1 if self.submit is not None else self.batch, in_flight)

    def __call__(self, windows: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        return self.answers(windows, *parameters)[0]

    def answers(self, windows: torch.Tensor, *parameters: torch.Tensor) -> Answers:
        """All of the network's outputs; of several outputs, for one window at a time."""
        return tensors_of(self.run(windows, *parameters))


@dataclass(frozen=True)
class NetworkInputs:
    """What a network takes: channels of a window, and numbers beside it, if any."""

    channels: int = 1
    parameters: int = 0
    size: tuple[int, ...] = ()  # of a window, where it is not the card's network.window: that of single images
    gives: str = "classes"  # one of AGREEMENTS: what its answers mean, by which conversions are judged

    def shapes(self, spec: NetworkSpec, windows: int = 1) -> list[list[int]]:
        """Of so many windows, and of the parameters where there are any."""
        shape = [windows, self.channels, *(self.size or spec.window)]
        return [shape, [self.parameters]] if self.parameters else [shape]


@dataclass(frozen=True)
class Source:
    """A network's file, as the card has it, and what loading it may use."""

    file: Path
    format: str  # one of model_card.FORMATS, never auto
    spec: NetworkSpec
    takes: NetworkInputs
    cache: Path
    threads: int
    calibration: Calibration | None = None
    package: Path | None = None

    def calibrated_with(self) -> bytes:
        """A digest of what ranges for int8 follow from beside the network: the card and the golden cases."""
        digest = hashlib.sha256()
        if self.package is not None:
            for file in (self.package / "model.yaml", *sorted((self.package / GOLDEN_FOLDER).rglob("*"))):
                if file.is_file():
                    digest.update(f"{file.relative_to(self.package)} {file.stat().st_size} ".encode())
                    digest.update(file.read_bytes())
        return digest.digest()


def check_inputs(source: Source, found: int) -> None:
    """Raises InvalidModelPackage when the file's network takes more or fewer tensors than the card means."""
    if found != (wanted := len(source.takes.shapes(source.spec))):
        raise InvalidModelPackage(
            f"{source.file.name} takes {found} inputs and the card means {wanted}: the channels, "
            "and the parameters where the card has some",
            "model.yaml.parameters",
        )


def random_inputs(source: Source, seed: int = 0) -> list[torch.Tensor]:
    """One window of noise from 0 to 1, and such parameters."""
    random = torch.Generator().manual_seed(seed)
    return [torch.rand(shape, generator=random) for shape in source.takes.shapes(source.spec)]


def tensors_of(answer: object) -> Answers:
    """A network's outputs as float32; raises TypeError for what are no tensors."""
    found = (answer,) if isinstance(answer, torch.Tensor) else answer
    if not isinstance(found, tuple | list) or not all(isinstance(one, torch.Tensor) for one in found):
        raise TypeError(f"the network answers with a {type(answer).__name__}; a tensor or several are needed")
    return tuple(one.float() for one in found)


def agreement(found: Answers, expected: Answers, gives: str) -> float:
    """From 0 to 1: how far a converted network says what the original does; `gives`: one of AGREEMENTS."""
    if [one.shape for one in found] != [one.shape for one in expected]:
        return 0.0
    alike = AGREEMENTS[gives]
    return min(float(alike(one, other)) if one.numel() else 1.0 for one, other in zip(found, expected, strict=True))


def _same_labels(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Share of equal labels of (n, classes, ...) scores."""
    return (found.argmax(1) == expected.argmax(1)).float().mean()


def _same_sides(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Share of voxels on the same side of an even chance: 0 of logits, a half of probabilities."""
    even = 0.5 if float(expected.min()) >= 0 and float(expected.max()) <= 1 else 0.0
    return ((found > even) == (expected > even)).float().mean()


def _near(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """One less the largest difference, as a share of the largest value."""
    return 1 - (found - expected).abs().max() / expected.abs().max().clamp_min(1e-6)


AGREEMENTS = {"classes": _same_labels, "channels": _same_sides, "values": _near}


def as_arrays(tensors: Sequence[torch.Tensor]) -> Tensors:
    return [tensor.contiguous().numpy() for tensor in tensors]
