"""How volumes come to a model's host, and answers as large as volumes back.

The host maps them where they lie: nothing is copied, and all models read one volume. Where it does not see this
process's memory (Triton in a container of its own), and on the GPU, Triton brings them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomnode.adapters.triton.client import Client, input_of, shared_output
from dicomnode.adapters.triton.cuda_memory import CudaRegion
from dicomnode.adapters.triton.mapped import Mapped
from dicomnode.adapters.triton.shared_memory import region
from dicomnode.adapters.triton.tensors import REGIONS, numbered, regions_input

log = logging.getLogger(__name__)

Wanted = Mapping[str, tuple[tuple[int, ...], npt.DTypeLike]]  # shape and dtype of answers


@dataclass
class Reach:
    """Whether hosts see this process's memory: they are taken to, until one says that it does not."""

    is_seen: bool = True

    def give_up(self, why: str) -> None:
        if self.is_seen:
            log.warning("volumes go to models through Triton, which copies them: %s", why)
        self.is_seen = False


@dataclass(frozen=True)
class Large:
    """Of a call: what it is given, what it is asked for, and where that will be."""

    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    arrays: dict[str, npt.NDArray[Any]] = field(default_factory=dict)


def where_they_lie(
    prefix: str, volumes: Sequence[Mapped], images: slice, wanted: Wanted, regions: ExitStack
) -> Large:
    """`volumes`: the main one first, of which `images` are looked at; `regions` are the answers'."""
    large, (main, *further) = Large(), volumes
    places = {numbered("VOLUME", 0): main.place(images)}
    places |= {numbered("VOLUME", number): volume.place() for number, volume in enumerate(further, 1)}
    for name, (shape, kind) in wanted.items():
        made = regions.enter_context(region(prefix, _nbytes(shape, kind)))
        made.unlink()
        large.arrays[name], places[name] = made.array(shape, kind), made.place(0, shape)
    large.inputs.append(input_of(REGIONS, regions_input(places)))
    return large


def through_triton(
    client: Client,
    prefix: str,
    volumes: Sequence[Mapped],
    images: slice,
    wanted: Wanted,
    regions: ExitStack,
    there: CudaRegion | None = None,
) -> Large:
    """As where_they_lie; `there`: the copy of the main volume on the GPU that the model is to read."""
    large, (main, *further) = Large(), volumes
    large.inputs.append(main.as_input(0, images, there))
    large.inputs.extend(volume.as_input(number) for number, volume in enumerate(further, 1))
    for name, (shape, kind) in wanted.items():
        made = regions.enter_context(client.shared(prefix, _nbytes(shape, kind)))
        large.arrays[name] = made.array(shape, kind)
        large.outputs.append(shared_output(name, made))
    return large


def _nbytes(shape: tuple[int, ...], kind: npt.DTypeLike) -> int:
    return math.prod(shape) * np.dtype(kind).itemsize
