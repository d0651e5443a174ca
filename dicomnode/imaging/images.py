"""The single images of a series, decided from headers alone: what a model of images takes, be they a volume or not.

They need no place in the patient: projection radiographs and ultrasound have none. Images of several sizes, of their
matrix or of their pixels, are several stacks. MONOCHROME1 shows low values bright (PS3.3 C.7.6.3.1.2): its values are
inverted within what BitsStored can hold, by a rescale with the other sign, so that bright is bright to the network
too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from pydicom import Dataset

from dicomnode.errors import NotAVolume
from dicomnode.imaging.frames import (
    PixelFormat,
    has_luminance,
    is_monochrome,
    number_of_frames,
    pixel_format,
    rescales_of,
)
from dicomnode.imaging.geometry import Rescale, VolumeGeometry
from dicomnode.imaging.headers import items, numbers, odd_values_accepted, text, whole
from dicomnode.imaging.pixel_size import PixelSize, pixel_size
from dicomnode.imaging.quantise import ToStored, common_rescale
from dicomnode.imaging.voi import Ends, window_ends
from dicomnode.imaging.volume import VOXELS_MOST, unit_of, usable

STACKS_MOST = 16


@dataclass(frozen=True, slots=True)
class ImageFrame:
    """One image: a file's only frame, or one of its frames."""

    instance: int  # index of its header
    number: int  # frame number, 1 for a single-frame image
    sop_instance_uid: str
    rescale: Rescale  # of the values as they are stored in the file; inverted for MONOCHROME1
    own: Rescale = Rescale(1.0, 0.0)  # as the file has it: of the values that people know the image by
    window: Ends = (0.0, 1.0)  # black and white of its own window, in the values of `rescale`


@dataclass(frozen=True, eq=False)
class ImageStack:
    """Images of one size: frames[k] fills (k, row, column) of int16 values with `rescale`.

    `pixel_size`: that of all of them, None where they do not say it.
    """

    indices: tuple[int, ...]  # of its images in the plan's `frames`
    frames: tuple[ImageFrame, ...]
    formats: tuple[PixelFormat | None, ...]  # a header each
    to_stored: tuple[ToStored, ...]  # a frame each
    rescale: Rescale
    shape: tuple[int, int, int]  # (image, row, column)
    pixel_size: PixelSize | None = None

    def part(self, images: slice) -> ImageStack:
        """Some of its images, by themselves."""
        frames = self.frames[images]
        return replace(
            self,
            indices=self.indices[images],
            frames=frames,
            to_stored=self.to_stored[images],
            shape=(len(frames), *self.shape[1:]),
        )

    @property
    def geometry(self) -> VolumeGeometry | None:
        """How large the pixels are, in mm, and no more: the images have no place. None where nobody knows."""
        if self.pixel_size is None:
            return None
        return VolumeGeometry(self.shape, np.diag([1.0, *self.pixel_size.mm, 1.0]))

    def shown_as(self, images: slice) -> Iterator[tuple[slice, Rescale]]:
        """Of some of its images those of one window together, and what makes its black 0 and its white 1."""
        count = range(len(self.frames))[images]
        for (low, high), group in groupby(count, key=lambda k: self.frames[k].window):
            which = list(group)
            slope, intercept = self.rescale.slope / (high - low), (self.rescale.intercept - low) / (high - low)
            yield slice(which[0], which[-1] + 1), Rescale(slope, intercept)

    def own_rescale(self, k: int) -> Rescale:
        """From the k-th image's values here to those that its file gives after its own rescale."""
        to_stored, own = self.to_stored[k], self.frames[k].own
        slope = own.slope / to_stored.factor
        return Rescale(slope, own.intercept - slope * to_stored.offset)


@dataclass(frozen=True, eq=False)
class ImagesPlan:
    """The images of a series in their order: along the patient where they have a place, else by Instance Number."""

    headers: tuple[Dataset, ...]
    frames: tuple[ImageFrame, ...]
    stacks: tuple[ImageStack, ...]
    modality: str
    unit: str  # UCUM code of the values after the rescale
    notes: tuple[str, ...]
    colour: str = ""  # the photometric interpretation of images that are not grey; their luminance is decoded

    @property
    def first(self) -> Dataset:
        """The header of the first image."""
        return self.headers[self.frames[0].instance]


def plan_images(headers: Sequence[Dataset]) -> ImagesPlan:
    """The images of a series' instances; raises NotAVolume for what is no grey image."""
    with odd_values_accepted():
        return _plan(tuple(headers))


def _plan(headers: tuple[Dataset, ...]) -> ImagesPlan:
    which, notes = usable(headers)
    _check([headers[i] for i in which])
    formats = tuple(pixel_format(header) if i in set(which) else None for i, header in enumerate(headers))
    frames = tuple(
        frame for i in _in_order(headers, which) for frame in _frames(i, headers[i], _of(formats, i).limits)
    )
    first = headers[which[0]]
    modality = text(first, "Modality")
    stacks = _stacks(frames, formats, [pixel_size(header) for header in headers], modality)
    colour = next((text(headers[i], "PhotometricInterpretation") for i in which if not is_monochrome(headers[i])), "")
    return ImagesPlan(headers, frames, stacks, modality, unit_of(first, modality), tuple(notes), colour)


def _of(formats: Sequence[PixelFormat | None], index: int) -> PixelFormat:
    found = formats[index]
    assert found is not None
    return found


def _check(headers: Sequence[Dataset]) -> None:
    if any(text(h, "Modality") == "SEG" for h in headers):
        raise NotAVolume("segmentation", "segmentations are somebody's result, no grey values")
    if palettes := [h for h in headers if not is_monochrome(h) and not has_luminance(h)]:
        raise not_monochrome(len(palettes), text(palettes[0], "PhotometricInterpretation"))
    if any(items(h, "ModalityLUTSequence") for h in headers):
        raise NotAVolume("modality-lut", "a Modality LUT gives the values: a table, not a rescale")
    pixels = sum(number_of_frames(h) * (whole(h, "Rows") or 0) * (whole(h, "Columns") or 0) for h in headers)
    if pixels > VOXELS_MOST:
        raise NotAVolume("too-large", f"{pixels} pixels, {VOXELS_MOST} are the most")


def not_monochrome(images: int, photometric: str) -> NotAVolume:
    return NotAVolume("not-monochrome", f"{'1 image is' if images == 1 else f'{images} images are'} {photometric}")


def _frames(index: int, header: Dataset, limits: tuple[int, int]) -> list[ImageFrame]:
    uid, inverted = text(header, "SOPInstanceUID"), is_inverted(header)
    return [
        _frame(index, number, uid, rescale, window_ends(header, rescale, limits), limits if inverted else None)
        for number, rescale in enumerate(rescales_of(header), 1)
    ]


def _frame(
    index: int, number: int, uid: str, own: Rescale, window: Ends, inverted: tuple[int, int] | None
) -> ImageFrame:
    """`inverted`: what BitsStored can hold, where low values are shown bright; the window turns with them."""
    if inverted is None:
        return ImageFrame(index, number, uid, own, own, window)
    rescale = _inverted(own, inverted)
    turned = own.intercept + rescale.intercept  # a value and the inverted one together
    return ImageFrame(index, number, uid, rescale, own, (turned - window[1], turned - window[0]))


def is_inverted(header: Dataset) -> bool:
    """Whether low values are shown bright (PS3.3 C.7.6.3.1.2)."""
    return text(header, "PhotometricInterpretation").upper() == "MONOCHROME1"


def _inverted(rescale: Rescale, limits: tuple[int, int]) -> Rescale:
    """Of the value that lies as far from the highest as the stored one does from the lowest."""
    low, high = limits
    return Rescale(-rescale.slope, rescale.intercept + rescale.slope * (low + high))


def _in_order(headers: Sequence[Dataset], which: Sequence[int]) -> list[int]:
    """Along the normal where all lie in parallel planes, else by Instance Number (PS3.3 C.7.6.1)."""
    places = [(numbers(headers[i], "ImagePositionPatient", 3), _normal(headers[i])) for i in which]
    first = places[0][1]
    parallel = all(p is not None and n is not None and first is not None and n @ first > 0.999 for p, n in places)
    if parallel and first is not None:
        along = {i: float(np.dot(p, first)) for i, (p, _) in zip(which, places, strict=True) if p is not None}
        return sorted(which, key=lambda i: (along[i], *_number(headers[i])))
    return sorted(which, key=lambda i: _number(headers[i]))


def _normal(header: Dataset) -> np.ndarray[tuple[int], np.dtype[np.float64]] | None:
    """(3,) unit vector row × column in LPS; None without an orientation."""
    cosines = numbers(header, "ImageOrientationPatient", 6)
    return None if cosines is None else np.cross(cosines[:3], cosines[3:])


def _number(header: Dataset) -> tuple[int, str]:
    return whole(header, "InstanceNumber") or 0, text(header, "SOPInstanceUID")


_Size = tuple[int, int, PixelSize | None]  # rows, columns, how large the pixels are


def _stacks(
    frames: Sequence[ImageFrame],
    formats: tuple[PixelFormat | None, ...],
    pixel_sizes: Sequence[PixelSize | None],
    modality: str,
) -> tuple[ImageStack, ...]:
    sizes = [_size(_of(formats, f.instance), pixel_sizes[f.instance]) for f in frames]
    if len(set(sizes)) > STACKS_MOST:
        raise NotAVolume("mixed-matrix-size", f"{len(set(sizes))} sizes of images or pixels, {STACKS_MOST} at most")
    return tuple(_stack(frames, formats, modality, sizes, size) for size in dict.fromkeys(sizes))


def _stack(
    frames: Sequence[ImageFrame],
    formats: tuple[PixelFormat | None, ...],
    modality: str,
    sizes: Sequence[_Size],
    size: _Size,
) -> ImageStack:
    indices = tuple(k for k, one in enumerate(sizes) if one == size)
    chosen = tuple(frames[k] for k in indices)
    rescale, to_stored = common_rescale(chosen, [_of(formats, f.instance) for f in chosen], modality)
    rows, columns, pixels = size
    return ImageStack(indices, chosen, formats, tuple(to_stored), rescale, (len(chosen), rows, columns), pixels)


def _size(fmt: PixelFormat, pixels: PixelSize | None) -> _Size:
    return fmt.rows, fmt.columns, pixels
