"""The machine that jobs run on."""

from __future__ import annotations

from typing import Protocol

from dicomnode.domain.admission import Room


class Machine(Protocol):
    """Memory of this host as this process may use it: a container's limit counts, not the computer's."""

    def total(self) -> Room:
        """All there is, whoever uses it; without end where a kind does not exist or cannot be looked at."""

    def free(self) -> Room:
        """What is free at this moment."""

    @property
    def has_gpu(self) -> bool: ...
