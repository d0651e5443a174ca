"""Pixels into a volume that is already there: by offset where the file holds them as they are, else by pydicom."""

from __future__ import annotations

import hashlib
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicomnode.errors import CannotDecode
from dicomnode.imaging.frames import RGB, Frame, PixelFormat
from dicomnode.imaging.headers import UNREADABLE, Instance, is_of_the_file, odd_values_accepted, text
from dicomnode.imaging.quantise import ToStored
from dicomnode.imaging.volume import SamePixels, VolumePlan, plan_volume

Volume = npt.NDArray[np.int16]
Wide = npt.NDArray[np.int32]

_AS_THEY_ARE = frozenset({str(ImplicitVRLittleEndian), str(ExplicitVRLittleEndian)})
_PIXEL_DATA = b"\xe0\x7f\x10\x00"  # (7FE0,0010), little endian
_UNDEFINED = 0xFFFFFFFF
_THREADS = 2  # more gain nothing: most decoders hold the interpreter


class PlacedFrame(Protocol):
    """A frame of a file."""

    @property
    def instance(self) -> int: ...
    @property
    def number(self) -> int: ...


class FramesPlan(Protocol):
    """Frames of one size, in the order that they are wanted in: of a volume, or of images that make none."""

    @property
    def frames(self) -> Sequence[PlacedFrame]: ...
    @property
    def formats(self) -> Sequence[PixelFormat | None]: ...
    @property
    def to_stored(self) -> Sequence[ToStored]: ...


def read_volume(plan: VolumePlan, instances: Sequence[Instance], out: Volume) -> None:
    """Fills `out`, (slice, row, column) int16 C-contiguous, with the plan's frames in values of plan.rescale.

    `instances` are those whose headers were planned, in the same order. Raises CannotDecode naming the instance,
    and OSError for what may pass.
    """
    if out.shape != plan.geometry.shape or out.dtype != np.int16:
        raise ValueError(f"a volume of {plan.geometry.shape} int16 is needed, {out.shape} {out.dtype} was given")
    read_frames(plan, instances, out)


def read_frames(plan: FramesPlan, instances: Sequence[Instance], out: Volume) -> None:
    """As read_volume, of frames that need not be a volume; `out` has one of each, in the plan's order."""
    slices = sorted(range(len(plan.frames)), key=lambda k: (plan.frames[k].instance, plan.frames[k].number))
    groups = [(index, list(group)) for index, group in groupby(slices, key=lambda k: plan.frames[k].instance)]

    def read(group: tuple[int, list[int]]) -> None:
        index, frames = group
        fmt = plan.formats[index]
        assert fmt is not None
        _read_instance(plan, frames, instances[index], fmt, out)

    # most of it is waiting for memory that nobody has touched yet
    with odd_values_accepted(), ThreadPoolExecutor(_THREADS) as pool:
        try:
            deque(pool.map(read, groups), maxlen=0)  # raises what the first in their order raised
        finally:
            pool.shutdown(cancel_futures=True)


def _read_instance(plan: FramesPlan, slices: list[int], instance: Instance, fmt: PixelFormat, out: Volume) -> None:
    numbers = [plan.frames[k].number for k in slices]
    try:
        if not _read_as_they_are(instance, fmt, numbers, [out[k] for k in slices]):
            below = 0 if UID(fmt.transfer_syntax_uid).is_compressed else _unused_below(fmt)
            for k, pixels in zip(slices, _decoded(instance, fmt, numbers), strict=True):
                out[k] = _stored(pixels, below, fmt, plan.to_stored[k])
            return
    except OSError as error:
        if not is_of_the_file(error, instance.path):
            raise
        raise _cannot_decode(instance, fmt, error) from error
    except (RuntimeError, MemoryError, *UNREADABLE) as error:
        raise _cannot_decode(instance, fmt, error) from error
    for k in slices:
        _convert_in_place(out[k], fmt, plan.to_stored[k])


def _cannot_decode(instance: Instance, fmt: PixelFormat, error: BaseException) -> CannotDecode:
    syntax = UID(fmt.transfer_syntax_uid)
    uid = text(instance.header, "SOPInstanceUID") or instance.path.name
    reason = " ".join(str(error).split())[:300]
    return CannotDecode(f"instance {uid} in {syntax.name} ({syntax}) cannot be decoded: {reason}")


def _read_as_they_are(instance: Instance, fmt: PixelFormat, numbers: list[int], into: Iterable[Volume]) -> bool:
    """Reads native little-endian 16-bit frames straight to their place, as the bits they are; False if not such."""
    if fmt.bits_allocated != 16 or fmt.transfer_syntax_uid not in _AS_THEY_ARE or sys.byteorder != "little":
        return False
    frame_bytes = fmt.rows * fmt.columns * 2
    descriptor = os.open(instance.path, os.O_RDONLY)
    try:
        place = _pixel_bytes(descriptor, instance.pixel_offset)
        if place is None:
            return False
        start, length = place
        if length < frame_bytes * fmt.frames:
            raise ValueError(f"{length} bytes of pixel data where {frame_bytes * fmt.frames} are needed")
        for number, target in zip(numbers, into, strict=True):
            got = os.preadv(descriptor, [target.data.cast("B")], start + (number - 1) * frame_bytes)
            if got != frame_bytes:
                raise ValueError(f"the file ends {frame_bytes - got} bytes before the end of frame {number}")
    finally:
        os.close(descriptor)
    return True


def _pixel_bytes(descriptor: int, offset: int) -> tuple[int, int] | None:
    """Where the value of the pixel data element at `offset` starts, and its length (PS3.5 7.1)."""
    head = os.pread(descriptor, 12, offset)
    if head[:4] != _PIXEL_DATA:
        return None
    explicit = head[4:6] in (b"OW", b"OB", b"UN")
    length = int.from_bytes(head[8:12] if explicit else head[4:8], "little")
    return None if length == _UNDEFINED else (offset + (12 if explicit else 8), length)


def _convert_in_place(pixels: Volume, fmt: PixelFormat, to_stored: ToStored) -> None:
    """(row, column) raw 16-bit values, seen as int16, to values of the volume.

    Without a factor it is exact arithmetic modulo 2**16: the common rescale was chosen so that all values fit.
    """
    if to_stored.factor != 1.0 or to_stored.offset != int(to_stored.offset):
        wide = pixels.view(np.int16 if fmt.signed else np.uint16).astype(np.int32)
        pixels[...] = _stored(wide, _unused_below(fmt), fmt, to_stored)
        return
    bits = pixels if fmt.signed else pixels.view(np.uint16)
    padding = None if fmt.padding is None else _within(bits, fmt.padding)
    if fmt.bits_stored < 16:
        np.left_shift(bits, 15 - fmt.high_bit, out=bits)
        np.right_shift(bits, 16 - fmt.bits_stored, out=bits)
    if to_stored.offset:
        pixels += np.array(int(to_stored.offset) & 0xFFFF, dtype=np.uint16).view(np.int16)
    if padding is not None:
        pixels[padding] = to_stored.padding


def _unused_below(fmt: PixelFormat) -> int:
    """Bits below the lowest one of a native value (PS3.5 8.1.1)."""
    return fmt.high_bit + 1 - fmt.bits_stored


def _stored(pixels: Wide, unused_below: int, fmt: PixelFormat, to_stored: ToStored) -> Wide:
    """(row, column) int32 pixel values to values of the volume, padding given its own."""
    # padding is told before unused bits are cleared: scanners put it outside what BitsStored can hold
    padding = None if fmt.padding is None else _within(pixels, fmt.padding)
    values = to_stored(_significant(pixels >> unused_below, fmt))
    if padding is not None:
        values[padding] = to_stored.padding
    return values


def _within(pixels: npt.NDArray[Any], ends: tuple[int, int]) -> npt.NDArray[np.bool_]:
    inside = pixels == ends[0] if ends[0] == ends[1] else (pixels >= ends[0]) & (pixels <= ends[1])
    return np.asarray(inside, dtype=np.bool_)


def _significant(pixels: Wide, fmt: PixelFormat) -> Wide:
    """Keeps BitsStored bits and extends the sign.

    Old files keep overlays in the unused bits, and signed values without their sign in them.
    """
    unused = 32 - fmt.bits_stored
    bits = np.asarray(pixels << unused).view(np.int32 if fmt.signed else np.uint32)
    return np.asarray(bits >> unused).astype(np.int32)


def _decoded(instance: Instance, fmt: PixelFormat, numbers: list[int]) -> Iterator[Wide]:
    """(row, column) int32 pixel values of the frames with these numbers, whatever the transfer syntax."""
    dataset = pydicom.dcmread(instance.path)
    if "PixelData" not in dataset:
        raise ValueError("there is no pixel data")
    indices = [number - 1 for number in numbers]
    # pydicom would take the high bit to be bits stored - 1, and clear what padding is told by
    for decoded in iter_pixels(dataset, indices=indices, raw=True, correct_unused_bits=False):
        pixels = decoded if decoded.ndim == 2 else _luminance(decoded, text(dataset, "PhotometricInterpretation"))
        if pixels.shape != (fmt.rows, fmt.columns):
            raise ValueError(f"{pixels.shape} pixels where ({fmt.rows}, {fmt.columns}) are needed")
        yield pixels.astype(np.int32)


def _luminance(pixels: npt.NDArray[Any], photometric: str) -> npt.NDArray[Any]:
    """(row, column, 3) uint8 → (row, column), by the weights of PS3.3 C.7.6.3.1.2; of what has it first, that."""
    if photometric.upper() not in RGB:
        return pixels[..., 0]
    weighted: npt.NDArray[Any] = np.rint(pixels @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    return weighted


def plan_instances(instances: Sequence[Instance]) -> VolumePlan:
    """plan_volume for stored instances: repeats are compared, and files too short are found before any memory is.

    Raises NotAVolume, CannotDecode.
    """
    plan = plan_volume([instance.header for instance in instances], same_pixels(instances))
    for index in sorted({frame.instance for frame in plan.frames}):
        fmt = plan.formats[index]
        assert fmt is not None
        _check_length(instances[index], fmt)
    return plan


def _check_length(instance: Instance, fmt: PixelFormat) -> None:
    needed = fmt.rows * fmt.columns * fmt.frames * fmt.bits_allocated // 8
    there = instance.path.stat().st_size - instance.pixel_offset
    if fmt.transfer_syntax_uid in _AS_THEY_ARE and there < needed:
        raise _cannot_decode(instance, fmt, ValueError("the file ends before its pixel data does"))


def same_pixels(instances: Sequence[Instance]) -> SamePixels:
    """A comparison for plan_volume: single-frame instances of equal bytes from the pixel data on."""
    digests: dict[Path, bytes] = {}

    def digest(instance: Instance) -> bytes:
        if instance.path not in digests:
            with instance.path.open("rb") as file:
                file.seek(instance.pixel_offset)
                digests[instance.path] = hashlib.sha256(file.read()).digest()
        return digests[instance.path]

    def same(one: Frame, other: Frame) -> bool:
        if one.instance == other.instance:
            return False
        return digest(instances[one.instance]) == digest(instances[other.instance])

    return same
