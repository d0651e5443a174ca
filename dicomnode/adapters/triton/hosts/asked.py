"""A request that a host has read, and the seconds that go into its answer."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from dicomnode.adapters.triton.hosts.gpu import done_s
from dicomnode.adapters.triton.tensors import TensorPlace
from dicomnode.domain.model_parameter import Value
from dicomnode.imaging.geometry import Placement
from dicomnode.imaging.inference import CPU


class Seconds:
    """Before the network, in it, and after it, which is all that is neither of the first two."""

    def __init__(self) -> None:
        self._begun_s = time.perf_counter()
        self._before_s = self._network_s = 0.0

    @contextmanager
    def before(self, device: torch.device = CPU) -> Iterator[None]:
        """`device`: what is begun there is waited for."""
        begun_s = time.perf_counter()
        yield
        self._before_s += done_s(device) - begun_s

    @contextmanager
    def network(self, device: torch.device = CPU) -> Iterator[None]:
        """`device` as of before."""
        begun_s = time.perf_counter()
        yield
        self._network_s += done_s(device) - begun_s

    def spent(self) -> torch.Tensor:
        """(before, network, after) float32, until now."""
        after_s = time.perf_counter() - self._begun_s - self._before_s - self._network_s
        return torch.tensor([self._before_s, self._network_s, after_s])


@dataclass(frozen=True)
class Given:
    """A volume of a request: (slice, row, column) int16 stored values, where they lie and what they mean."""

    volume: torch.Tensor
    placement: Placement


@dataclass(frozen=True, eq=False)
class Asked:
    """What a host is asked: of the main volume and those of the card's roles, with every parameter's value."""

    request: Any  # as the backend gives it
    main: Given
    further: Sequence[Given]
    parameters: Mapping[str, Value]
    places: Mapping[str, TensorPlace] = field(default_factory=dict)  # of answers that do not go through the backend
    seconds: Seconds = field(default_factory=Seconds)
