"""The machine that jobs run on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from dicomnode.domain.admission import Room
from dicomnode.domain.turns import Turn
from dicomnode.ports.work import ModelVersion


class Machine(Protocol):
    """Memory of this host as this process may use it: a container's limit counts, not the computer's."""

    def total(self) -> Room:
        """All there is, whoever uses it; without end where a kind does not exist or cannot be looked at."""

    def free(self) -> Room:
        """What is free at this moment."""

    @property
    def has_gpu(self) -> bool: ...


class Ledger(Protocol):
    """What all that run jobs on this machine have been promised of its memory, and who waits, other processes too."""

    def alone(self) -> AbstractContextManager[None]:
        """Inside it nobody else looks at promises or makes one."""

    def promised(self) -> list[Room]:
        """Of each job that runs; inside alone()."""

    def free_before(self) -> Room:
        """What was free when the first of those that run began; inside alone()."""

    def add(self, room: Room, free: Room) -> Callable[[], None]:
        """A promise, kept until what is returned is called; `free`: at this moment. Inside alone()."""

    def stand(self, turn: Turn) -> Callable[[], None]:
        """A place in the line of those that wait for memory, until what is returned is called. Inside alone()."""

    def first(self) -> Turn | None:
        """Whose turn it is; inside alone()."""

    def glance(self) -> object:
        """Another value whenever a promise or a place in line came or went; cheap, and needs no alone()."""


class Peaks(Protocol):
    """What models took of memory on this machine, and on the engine that runs them, when they ran last."""

    def of(self, model: ModelVersion) -> tuple[Mapping[str, float], int] | None:
        """As ports.InferenceEngine.taken has it, and the voxels of the main series; None: it never ran here."""

    def learn(self, model: ModelVersion, memory: Mapping[str, float], voxels: int) -> None: ...
