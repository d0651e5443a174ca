"""How the frames' stored values become one int16 volume under one rescale.

Mostly they already are. Unsigned values of 16 bits are shifted by 32768, exactly. Frames with different rescales
(PET) are requantised: with s the common slope, a value is off by s / 2 at most, and s is no coarser than the
coarsest frame's own slope unless the intercepts differ too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dicomnode.imaging.frames import PixelFormat
from dicomnode.imaging.geometry import Rescale

INT16_LEAST, INT16_MOST = -32768, 32767
# A CT's air, and what lies outside the reconstruction circle, is given this value; no tissue is below it.
CT_PADDING_HU = -1024.0


class Rescaled(Protocol):
    """A frame, of which here only the rescale counts."""

    @property
    def rescale(self) -> Rescale: ...


@dataclass(frozen=True, slots=True)
class ToStored:
    """volume value = round(pixel × factor + offset); `padding` is the volume value of pixels that are padding."""

    factor: float
    offset: float
    padding: int

    @property
    def is_identity(self) -> bool:
        return self.factor == 1.0 and self.offset == 0.0

    def __call__(self, pixels: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """(row, column) int32 pixel values, to values of the volume, held to what int16 has."""
        if self.is_identity:
            stored = pixels
        elif self.factor == 1.0 and self.offset == int(self.offset):
            stored = pixels + np.int32(self.offset)
        else:
            stored = np.rint(pixels * self.factor + self.offset).astype(np.int32)
        clipped: npt.NDArray[np.int32] = np.clip(stored, INT16_LEAST, INT16_MOST)
        return clipped


def common_rescale(
    frames: Sequence[Rescaled], formats: Sequence[PixelFormat], modality: str
) -> tuple[Rescale, list[ToStored]]:
    """One rescale for all frames, and each frame's way there, from headers alone; `formats` has one a frame."""
    limits = [fmt.limits for fmt in formats]
    rescale = _same_rescale(frames, limits) or _spanning_rescale(frames, limits)
    padding = _padding_value(rescale, modality)
    return rescale, [_to_stored(frame.rescale, rescale, padding) for frame in frames]


def _same_rescale(frames: Sequence[Rescaled], limits: Sequence[tuple[int, int]]) -> Rescale | None:
    """The frames' own rescale if it is one and their values fit, shifted by 2**15 if need be."""
    own = frames[0].rescale
    if any(frame.rescale != own for frame in frames):
        return None
    least, most = min(low for low, _ in limits), max(high for _, high in limits)
    if least >= INT16_LEAST and most <= INT16_MOST:
        return own
    if least >= 0 and most <= 0xFFFF:
        return Rescale(own.slope, own.intercept - INT16_LEAST * own.slope)
    return None


def _spanning_rescale(frames: Sequence[Rescaled], limits: Sequence[tuple[int, int]]) -> Rescale:
    """The finest rescale under which int16 holds all that the frames can hold."""
    ends = [
        frame.rescale.slope * v + frame.rescale.intercept
        for frame, pair in zip(frames, limits, strict=True)
        for v in pair
    ]
    slope = (max(ends) - min(ends)) / (INT16_MOST - INT16_LEAST)
    return Rescale(slope, min(ends) - INT16_LEAST * slope)


def _to_stored(own: Rescale, common: Rescale, padding: int) -> ToStored:
    factor, offset = own.slope / common.slope, (own.intercept - common.intercept) / common.slope
    # What differs by rounding alone is the same: an exact frame must stay exact.
    factor = 1.0 if abs(factor - 1.0) < 1e-12 else factor
    offset = round(offset) if abs(offset - round(offset)) < 1e-6 else offset
    return ToStored(factor, float(offset), padding)


def _padding_value(rescale: Rescale, modality: str) -> int:
    real = CT_PADDING_HU if modality == "CT" else 0.0
    return int(np.clip(round((real - rescale.intercept) / rescale.slope), INT16_LEAST, INT16_MOST))
