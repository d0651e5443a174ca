"""The frames of a series, each with its place in the patient: from classic images and from enhanced multi-frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset
from pydicom.uid import ImplicitVRLittleEndian, MRSpectroscopyStorage

from dicomnode.domain.quantity import quantity
from dicomnode.errors import NotAVolume
from dicomnode.imaging.geometry import Rescale
from dicomnode.imaging.headers import items, numbers, text, whole

# Direction cosines come rounded to 4 decimals at worst (5e-5); this allows ten times that, which moves the far
# corner of a 512 matrix by a quarter of a pixel.
COSINE_TOLERANCE = 5e-4


# Of these decoders give red, green and blue, or the luminance first
RGB = frozenset({"RGB", "YBR_ICT", "YBR_RCT"})
LUMINANT = RGB | {"YBR_FULL", "YBR_FULL_422"}


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How an instance's pixels are stored (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    transfer_syntax_uid: str
    padding: tuple[int, int] | None  # Pixel Padding Value and Range Limit, lowest first (PS3.3 C.7.5.1.1.2)

    @property
    def limits(self) -> tuple[int, int]:
        """The lowest and the highest value that BitsStored can hold."""
        if self.signed:
            return -(1 << (self.bits_stored - 1)), (1 << (self.bits_stored - 1)) - 1
        return 0, (1 << self.bits_stored) - 1


@dataclass(frozen=True, slots=True)
class Frame:
    """One plane of pixels and where it lies: LPS mm in the frame of reference (PS3.3 C.7.6.2)."""

    instance: int  # index of its header
    number: int  # frame number, 1 for a single-frame image
    sop_instance_uid: str
    position_mm: tuple[float, ...]  # centre of the first pixel transmitted
    orientation: tuple[float, ...]  # direction cosines along a row, then down a column
    spacing_mm: tuple[float, ...]  # between rows, between columns
    thickness_mm: float | None
    rescale: Rescale

    @property
    def normal(self) -> tuple[float, ...]:
        """Unit vector row × column."""
        cross = np.cross(self.orientation[:3], self.orientation[3:])
        return tuple(float(v) for v in cross / np.linalg.norm(cross))


def is_image(header: Dataset) -> bool:
    """Whether there are pixels to be had: reports, structure sets and presentation states have no Rows.

    Spectra have them, of voxels that each hold a curve in Spectroscopy Data (PS3.3 C.8.14.4).
    """
    spectra = text(header, "SOPClassUID") == MRSpectroscopyStorage
    return bool(whole(header, "Rows") and whole(header, "Columns")) and not spectra


def number_of_frames(header: Dataset) -> int:
    return max(whole(header, "NumberOfFrames") or 1, 1)


def is_monochrome(header: Dataset) -> bool:
    """One sample a pixel. MONOCHROME1 passes: it says how to show values, not what they are (PS3.3 C.7.6.3.1.2)."""
    photometric = text(header, "PhotometricInterpretation").upper()
    return (whole(header, "SamplesPerPixel") or 1) == 1 and photometric in {"MONOCHROME1", "MONOCHROME2", ""}


def has_luminance(header: Dataset) -> bool:
    """Three samples of 8 bits from which it can be had (PS3.3 C.7.6.3.1.2)."""
    photometric = text(header, "PhotometricInterpretation").upper()
    return (whole(header, "SamplesPerPixel"), whole(header, "BitsAllocated")) == (3, 8) and photometric in LUMINANT


def is_localizer(header: Dataset) -> bool:
    """Value 3 of Image Type (PS3.3 C.8.2.1.1.1); enhanced frames carry their own Frame Type."""
    return "LOCALIZER" in text(header, "ImageType").upper().split("\\")


# Value 3 and later of Image Type, from MR scanners that write all slices of a moment tiled into one classic image:
# Siemens (its conformance statements) and United Imaging.
_TILED = frozenset({"MOSAIC", "VFRAME"})


def is_mosaic(header: Dataset) -> bool:
    """Many slices in one plane of pixels; where each lies is in private attributes, its position is the tiling's."""
    return number_of_frames(header) == 1 and not _TILED.isdisjoint(text(header, "ImageType").upper().split("\\"))


def pixel_format(header: Dataset) -> PixelFormat:
    """Raises NotAVolume for pixels that 16 bits cannot hold or that describe no grey values."""
    allocated = whole(header, "BitsAllocated") or 0
    stored = whole(header, "BitsStored") or allocated
    high = whole(header, "HighBit")
    high = stored - 1 if high is None else high
    if allocated not in (8, 16) or not 0 < stored <= high + 1 <= allocated:
        raise NotAVolume(
            "pixel-format",
            f"pixels of {allocated} bits, {stored} of them stored up to bit {high}: volumes are made of 8 or 16 bits",
        )
    signed = whole(header, "PixelRepresentation") == 1
    return PixelFormat(
        rows=whole(header, "Rows") or 0,
        columns=whole(header, "Columns") or 0,
        frames=number_of_frames(header),
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high,
        signed=signed,
        transfer_syntax_uid=_transfer_syntax(header),
        padding=_padding(header, allocated, signed),
    )


def _transfer_syntax(header: Dataset) -> str:
    meta = getattr(header, "file_meta", None)
    return (text(meta, "TransferSyntaxUID") if meta is not None else "") or str(ImplicitVRLittleEndian)


def _padding(header: Dataset, allocated: int, signed: bool) -> tuple[int, int] | None:
    value = whole(header, "PixelPaddingValue")
    if value is None:
        return None
    limit = whole(header, "PixelPaddingRangeLimit")
    ends = sorted(_as_stored(v, allocated, signed) for v in (value, value if limit is None else limit))
    return ends[0], ends[1]


def _as_stored(value: int, allocated: int, signed: bool) -> int:
    """The padding value with the pixels' own sign: writers often give it the other VR (US for SS)."""
    value %= 1 << allocated
    return value - (1 << allocated) if signed and value >= 1 << (allocated - 1) else value


def frames_of(headers: Sequence[Dataset], which: Sequence[int]) -> list[Frame]:
    """The frames of the headers at these indices; raises NotAVolume where a frame has no place."""
    return [frame for index in which for frame in _frames_of_one(index, headers[index])]


def _frames_of_one(index: int, header: Dataset) -> Iterator[Frame]:
    per_frame = items(header, "PerFrameFunctionalGroupsSequence")
    if not per_frame:
        if number_of_frames(header) > 1:
            raise NotAVolume(
                "no-geometry",
                f"{number_of_frames(header)} frames without functional groups: no frame says where it is",
            )
        yield _frame(index, 1, header, [header] * 4)
        return
    if len(per_frame) != number_of_frames(header):
        raise NotAVolume(
            "no-geometry",
            f"{quantity(number_of_frames(header), 'frame')}, but functional groups for {len(per_frame)} of them",
        )
    shared = (items(header, "SharedFunctionalGroupsSequence") or [Dataset()])[0]
    for number, own in enumerate(per_frame, 1):
        yield _frame(index, number, header, [_group(own, shared, keyword) for keyword in _MACROS])


def rescales_of(header: Dataset) -> list[Rescale]:
    """Of each frame of an image, whether it has a place in the patient or not; raises NotAVolume for a table."""
    where, count = f"instance {text(header, 'SOPInstanceUID')}", number_of_frames(header)
    per_frame = items(header, "PerFrameFunctionalGroupsSequence")
    if len(per_frame) != count:
        return [_rescale(header, where)] * count
    shared = (items(header, "SharedFunctionalGroupsSequence") or [Dataset()])[0]
    return [
        _rescale(_group(own, shared, "PixelValueTransformationSequence"), f"{where} frame {number}")
        for number, own in enumerate(per_frame, 1)
    ]


# Functional group macros (PS3.3 C.7.6.16.2) that hold what a classic image has at its top level.
_MACROS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
)


def _group(own: Dataset, shared: Dataset, keyword: str) -> Dataset:
    return (items(own, keyword) or items(shared, keyword) or [Dataset()])[0]


def _frame(index: int, number: int, header: Dataset, groups: Sequence[Dataset]) -> Frame:
    place, plane, measures, transformation = groups
    uid = text(header, "SOPInstanceUID")
    position = numbers(place, "ImagePositionPatient", 3)
    orientation = numbers(plane, "ImageOrientationPatient", 6)
    spacing = numbers(measures, "PixelSpacing", 2)
    for keyword, found in (
        ("ImagePositionPatient", position),
        ("ImageOrientationPatient", orientation),
        ("PixelSpacing", spacing),
    ):
        if found is None:
            raise NotAVolume("no-geometry", f"instance {uid} frame {number} has no valid {keyword}")
    assert position is not None
    assert orientation is not None
    assert spacing is not None
    _check_plane(orientation, spacing, f"instance {uid} frame {number}")
    thickness = numbers(measures, "SliceThickness", 1)
    return Frame(
        instance=index,
        number=number,
        sop_instance_uid=uid,
        position_mm=position,
        orientation=orientation,
        spacing_mm=spacing,
        thickness_mm=thickness[0] if thickness and thickness[0] > 0 else None,
        rescale=_rescale(transformation, f"instance {uid} frame {number}"),
    )


def _check_plane(orientation: tuple[float, ...], spacing: tuple[float, ...], where: str) -> None:
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    off = max(abs(row @ row - 1), abs(column @ column - 1), abs(row @ column))
    if off > 2 * COSINE_TOLERANCE:
        raise NotAVolume(
            "no-geometry", f"{where}: ImageOrientationPatient {list(orientation)} is no pair of unit vectors"
        )
    if min(spacing) <= 0:
        raise NotAVolume("no-geometry", f"{where}: PixelSpacing {list(spacing)} is not above zero")


def _rescale(group: Dataset, where: str) -> Rescale:
    if items(group, "ModalityLUTSequence"):
        raise NotAVolume("modality-lut", f"{where} has a Modality LUT: its values are a table, not a rescale")
    slope, intercept = numbers(group, "RescaleSlope", 1), numbers(group, "RescaleIntercept", 1)
    if slope is not None and slope[0] == 0:
        raise NotAVolume("pixel-format", f"{where} has a Rescale Slope of 0: every value would be the same")
    return Rescale(slope[0] if slope else 1.0, intercept[0] if intercept else 0.0)
