"""A slice as a picture: grey values in a window, segments as colour over them, with a line around each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom import Dataset
from scipy import ndimage

from dicomnode.imaging.geometry import Rescale
from dicomnode.imaging.headers import first_number

Volume = npt.NDArray[np.int16]  # (slice, row, column) int16, stored values
Picture = npt.NDArray[np.uint8]  # (row, column, 3) uint8, RGB
Colour = tuple[int, int, int]

_FILL = 0.35  # of a segment's colour over the grey values
_SMALLEST, _LARGEST = 512, 1024  # pixels of a picture's longer side
# Of abdominal CT: what a viewer shows when the series says nothing
_CT_WINDOW = (40.0, 400.0)


@dataclass(frozen=True, slots=True)
class Window:
    """Centre and width in the modality's units (PS3.3 C.11.2.1.2)."""

    centre: float
    width: float

    @property
    def function(self) -> str | None:
        """VOI LUT Function: LINEAR, which need not be said, begins at a width of 1 (PS3.3 C.11.2.1.2.1)."""
        return "LINEAR_EXACT" if self.width < 1 else None

    def grey(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
        """(row, column) uint8 of values in the modality's units."""
        scaled = (values - self.centre) / max(self.width, 1e-6) + 0.5
        grey: npt.NDArray[np.uint8] = (np.clip(scaled, 0, 1) * 255).astype(np.uint8)
        return grey


def window_of(header: Dataset, volume: Volume, rescale: Rescale, modality: str) -> Window:
    """The series' own window; of CT without one a usual one; of others what holds all but the extreme values.

    `volume`: (slice, row, column) int16 stored values.
    """
    centre, width = (first_number(header, f"Window{part}") for part in ("Center", "Width"))
    if centre is not None and width is not None and width > 1:
        return Window(centre, width)
    if modality == "CT":
        return Window(*_CT_WINDOW)
    some = volume[:: max(1, len(volume) // 16), ::4, ::4]
    low, high = (float(v) * rescale.slope + rescale.intercept for v in np.percentile(some, [1, 99.5]))
    return Window((low + high) / 2, max(abs(high - low), 1e-6))


def picture(
    plane: npt.NDArray[np.int16],
    labels: npt.NDArray[np.uint8],
    rescale: Rescale,
    window: Window,
    colours: Mapping[int, Colour],
    spacing_mm: tuple[float, float],
) -> Picture:
    """Square pixels, (row, column, 3) uint8, at least 512 and at most 1024 on the longer side.

    `plane`: (row, column) int16 stored values; `labels`: (row, column) uint8; `spacing_mm`: of rows and columns.
    """
    rows, columns = shown_size(plane.shape, spacing_mm)
    values = plane * rescale.slope + rescale.intercept
    grey = _resized(window.grey(values), rows, columns, Image.Resampling.BILINEAR)
    shown = _resized(labels, rows, columns, Image.Resampling.NEAREST)
    result = np.repeat(grey[..., None], 3, axis=2)
    for number, colour in colours.items():
        inside = shown == number
        if not inside.any():
            continue
        edge = inside & ~ndimage.binary_erosion(inside, iterations=max(1, rows // 512))
        result[inside] = (result[inside] * (1 - _FILL) + np.array(colour) * _FILL).astype(np.uint8)
        result[edge] = colour
    return result


def shown_size(shape: Sequence[int], spacing_mm: tuple[float, float]) -> tuple[int, int]:
    """Rows and columns of the picture of a plane: the patient's proportions."""
    extent = np.array(shape[:2]) * np.array(spacing_mm)
    longest = min(max(max(shape[:2]), _SMALLEST), _LARGEST)
    rows, columns = np.maximum(np.rint(extent / extent.max() * longest), 1).astype(int).tolist()
    return rows, columns


def _resized(plane: npt.NDArray[np.uint8], rows: int, columns: int, how: Image.Resampling) -> npt.NDArray[np.uint8]:
    if plane.shape == (rows, columns):
        return plane
    return np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize((columns, rows), how))


def key_slices(
    labels: npt.NDArray[np.uint8] | Sequence[npt.NDArray[np.uint8]], segment_numbers: Sequence[int]
) -> dict[int, int]:
    """Of each segment that has voxels the slice in which it is largest, the middle one of equals.

    `labels`: (slice, row, column) uint8, or planes of several sizes.
    """
    highest = max(segment_numbers, default=0)
    areas = np.array([np.bincount(plane.ravel(), minlength=highest + 1)[: highest + 1] for plane in labels])
    found = {}
    for number in segment_numbers:
        of_segment = areas[:, number]
        if of_segment.any():
            largest = np.flatnonzero(of_segment == of_segment.max())
            found[number] = int(largest[len(largest) // 2])
    return found


def spread(slices: Sequence[int], most: int, always: Sequence[int] = ()) -> list[int]:
    """At most `most` of the slices, evenly, those that are `always` wanted among them; in order."""
    wanted = sorted(set(always) & set(slices))[:most]
    others = [k for k in slices if k not in set(wanted)]
    room = most - len(wanted)
    if len(others) > room:
        others = [others[int(i)] for i in np.linspace(0, len(others) - 1, room).round()] if room else []
    return sorted({*wanted, *others})
