"""A volume in shared memory, as a model's host is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomnode.adapters.triton.client import shared_input
from dicomnode.adapters.triton.shared_memory import Region
from dicomnode.adapters.triton.tensors import Shape, numbered
from dicomnode.imaging.box import Box
from dicomnode.ports import ALL_IMAGES


@dataclass(frozen=True, eq=False)
class Mapped:
    """A volume, (slice, row, column) int16, and the region of shared memory that it lies in, and from which byte."""

    region: Region
    array: npt.NDArray[np.int16]
    offset: int = 0

    @property
    def shape(self) -> Shape:
        slices, rows, columns = self.array.shape
        return slices, rows, columns

    def part(self, box: Box) -> Mapped:
        """Of whole slices."""
        return Mapped(self.region, self.array[box.slices], self.offset + box.start[0] * self.array[0].nbytes)

    def as_input(self, number: int, images: slice = ALL_IMAGES) -> Any:
        first, _, _ = images.indices(len(self.array))
        offset = self.offset + first * self.array[0].nbytes
        return shared_input(numbered("VOLUME", number), self.array[images].shape, np.int16, self.region, offset)
