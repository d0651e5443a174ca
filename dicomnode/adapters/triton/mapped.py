"""A volume in shared memory, as a model's host is told of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomnode.adapters.triton.client import shared_input
from dicomnode.adapters.triton.cuda_memory import CudaRegion
from dicomnode.adapters.triton.on_gpu import Upload
from dicomnode.adapters.triton.shared_memory import Region
from dicomnode.adapters.triton.tensors import Shape, TensorPlace, numbered
from dicomnode.imaging.box import Box
from dicomnode.ports import ALL_IMAGES


@dataclass(frozen=True, eq=False)
class Mapped:
    """A volume, (slice, row, column) int16, and the region of shared memory that it lies in, and from which byte.

    `upload`: what may lie on a GPU of it, or of a larger volume of which this begins at the byte `uploaded_from`.
    """

    region: Region
    array: npt.NDArray[np.int16]
    upload: Upload
    offset: int = 0
    uploaded_from: int = 0

    @property
    def shape(self) -> Shape:
        slices, rows, columns = self.array.shape
        return slices, rows, columns

    def part(self, box: Box) -> Mapped:
        """Of whole slices."""
        further = box.start[0] * self.array[0].nbytes
        return replace(
            self,
            array=self.array[box.slices],
            offset=self.offset + further,
            uploaded_from=self.uploaded_from + further,
        )

    def moved(self, to: Mapped) -> Mapped:
        """The same volume in another region; on the GPU it stays where it is."""
        return replace(to, upload=self.upload, uploaded_from=self.uploaded_from)

    def place(self, images: slice = ALL_IMAGES) -> TensorPlace:
        """Where the host finds it by itself."""
        first, _, _ = images.indices(len(self.array))
        further = first * self.array[0].nbytes
        return self.region.place(self.offset + further, self.array[images].shape)

    def as_input(self, number: int, images: slice = ALL_IMAGES, there: CudaRegion | None = None) -> Any:
        """`there`: the copy on a GPU that the model is to read, else it reads this."""
        first, _, _ = images.indices(len(self.array))
        name, shape, further = numbered("VOLUME", number), self.array[images].shape, first * self.array[0].nbytes
        if there is not None:
            return shared_input(name, shape, np.int16, there, self.uploaded_from + further)
        return shared_input(name, shape, np.int16, self.region, self.offset + further)
