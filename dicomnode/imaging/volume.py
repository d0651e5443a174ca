"""Whether a series is one volume, decided from headers alone, and which frame goes where.

What cannot be a volume is refused by name: NotAVolume.reason is one of REASONS.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydicom import Dataset

from dicomnode.domain.quantity import quantity
from dicomnode.errors import NotAVolume
from dicomnode.imaging.frames import (
    Frame,
    PixelFormat,
    frames_of,
    is_image,
    is_localizer,
    is_monochrome,
    is_mosaic,
    number_of_frames,
    pixel_format,
)
from dicomnode.imaging.geometry import Rescale, VolumeGeometry
from dicomnode.imaging.grid import (
    check_same_spacing,
    geometry_of,
    in_slice_order,
    orientation_groups,
    plane_name,
    position_groups,
)
from dicomnode.imaging.headers import items, odd_values_accepted, text, whole
from dicomnode.imaging.quantise import ToStored, common_rescale

REASONS = {
    "no-images": "reports, structure sets, presentation states: nothing with pixels",
    "mixed-series": "instances of several series",
    "segmentation": "label images: somebody's result, no grey values",
    "localizer": "localizer (scout) images",
    "mosaic": "many slices tiled into each image",
    "single-slice": "one slice is no volume",
    "too-few": "two slices: one missing between them could not be noticed",
    "not-monochrome": "colour",
    "pixel-format": "pixels that are not grey values of 8 or 16 bits",
    "modality-lut": "values given by a table instead of a rescale",
    "mixed-matrix-size": "rows and columns differ",
    "no-geometry": "position, orientation, pixel spacing or frame of reference absent or invalid",
    "mixed-frame-of-reference": "several frames of reference",
    "mixed-pixel-spacing": "pixel spacings differ",
    "mixed-orientations": "several orientations",
    "4d": "several images at each position: phases, echoes, b-values",
    "duplicate-positions": "several images at some positions",
    "missing-slices": "gaps of whole slices",
    "uneven-spacing": "unequal steps between slices",
    "misaligned-slices": "slices shifted against each other in their plane",
    "too-large": "more voxels than the node takes",
}

# A volume of two slices has one step and nothing to compare it with.
SLICES_LEAST = 3
# 4 GiB of int16: ten times the largest series in use, and a bound on what a broken header can ask for.
VOXELS_MOST = 1 << 31

SamePixels = Callable[[Frame, Frame], bool]


@dataclass(frozen=True, eq=False)
class VolumePlan:
    """Which frame goes where in a volume, and what its values mean.

    `frames` are in slice order: frames[k] fills (k, row, column). `geometry` is LPS mm. Values of the volume are
    int16 with `rescale`; `unit` is their UCUM code after it ("[hnsf'U]" for HU). `headers` are as given, without
    pixel data; `notes` say what was left out and why.
    """

    headers: tuple[Dataset, ...]
    formats: tuple[PixelFormat | None, ...]  # a header each; None where no frame is used
    frames: tuple[Frame, ...]
    geometry: VolumeGeometry
    rescale: Rescale
    to_stored: tuple[ToStored, ...]  # a frame each
    modality: str
    unit: str
    notes: tuple[str, ...]

    @property
    def first(self) -> Dataset:
        """The header of the first slice."""
        return self.headers[self.frames[0].instance]


def plan_volume(headers: Sequence[Dataset], same_pixels: SamePixels | None = None) -> VolumePlan:
    """The plan of the one volume that a series' instances make, or NotAVolume.

    `same_pixels` tells whether two frames at one position hold the same pixels; without it such are refused.
    """
    with odd_values_accepted():
        return _plan(tuple(headers), same_pixels)


def _plan(headers: tuple[Dataset, ...], same_pixels: SamePixels | None) -> VolumePlan:
    which, notes = usable(headers)
    _check_instances([headers[i] for i in which])
    formats = {i: pixel_format(headers[i]) for i in which}
    _check_one_size(list(formats.values()))
    frames = frames_of(headers, which)
    frames = _one_at_each_position(_one_orientation(frames), headers, same_pixels, notes)
    check_same_spacing(frames)
    _check_enough(frames)
    size = formats[frames[0].instance]
    geometry = geometry_of(frames, size.rows, size.columns)
    _check_frame_of_reference([headers[i] for i in which])
    modality = text(headers[which[0]], "Modality")
    by_index = tuple(formats.get(i) for i in range(len(headers)))
    rescale, to_stored = common_rescale(frames, [formats[frame.instance] for frame in frames], modality)
    return VolumePlan(
        headers=headers,
        formats=by_index,
        frames=tuple(frames),
        geometry=geometry,
        rescale=rescale,
        to_stored=tuple(to_stored),
        modality=modality,
        unit=unit_of(headers[which[0]], modality),
        notes=tuple(notes),
    )


def usable(headers: Sequence[Dataset]) -> tuple[list[int], list[str]]:
    """Indices of the images to stack, and notes on what was left out."""
    notes: list[str] = []
    images = [i for i, header in enumerate(headers) if is_image(header)]
    if not images:
        kinds = sorted({text(h, "Modality") or "no modality" for h in headers})
        raise NotAVolume("no-images", f"{quantity(len(headers), 'instance')} ({', '.join(kinds)}), none with pixels")
    if left := len(headers) - len(images):
        notes.append(f"{quantity(left, 'instance')} without pixels left out")
    if len(series := {text(headers[i], "SeriesInstanceUID") for i in images}) > 1:
        raise NotAVolume("mixed-series", f"instances of {len(series)} series")
    images = _without_localizers(headers, _without_repeats(headers, images, notes), notes)
    _check_no_mosaic([headers[i] for i in images])
    return images, notes


def _without_repeats(headers: Sequence[Dataset], images: list[int], notes: list[str]) -> list[int]:
    """One of each SOP Instance UID: equal UIDs are the same instance (PS3.3 C.12.1.1.1)."""
    by_uid = {text(headers[i], "SOPInstanceUID") or str(i): i for i in reversed(images)}
    if left := len(images) - len(by_uid):
        notes.append(f"{quantity(left, 'instance')} left out that came under a SOP Instance UID already there")
    return sorted(by_uid.values())


def _without_localizers(headers: Sequence[Dataset], images: list[int], notes: list[str]) -> list[int]:
    """Localizers beside a stack are left out; what remains must be a volume by itself."""
    stack = [i for i in images if not is_localizer(headers[i])]
    if not stack:
        raise NotAVolume("localizer", f"{quantity(len(images), 'localizer image')} (Image Type LOCALIZER)")
    if left := len(images) - len(stack):
        notes.append(f"{quantity(left, 'localizer image')} left out")
    return stack


def _check_no_mosaic(headers: Sequence[Dataset]) -> None:
    if mosaics := [header for header in headers if is_mosaic(header)]:
        raise NotAVolume(
            "mosaic",
            f"{quantity(len(mosaics), 'image')} with many slices tiled into each (Image Type"
            f" {text(mosaics[0], 'ImageType')}); have the scanner send single slices or enhanced images",
        )


def _check_instances(headers: Sequence[Dataset]) -> None:
    count = sum(number_of_frames(header) for header in headers)
    if any(text(h, "Modality") == "SEG" for h in headers):
        raise NotAVolume("segmentation", "segmentations are somebody's result, no grey values")
    if count == 1:
        raise NotAVolume("single-slice", "one image of one frame is no volume")
    if colour := [h for h in headers if not is_monochrome(h)]:
        raise NotAVolume("not-monochrome", f"{_are(len(colour))} {text(colour[0], 'PhotometricInterpretation')}")
    if any(items(h, "ModalityLUTSequence") for h in headers):
        raise NotAVolume("modality-lut", "a Modality LUT gives the values: a table, not a rescale")
    voxels = sum(number_of_frames(h) * (whole(h, "Rows") or 0) * (whole(h, "Columns") or 0) for h in headers)
    if voxels > VOXELS_MOST:
        raise NotAVolume("too-large", f"{voxels} voxels, {VOXELS_MOST} are the most")


def _check_enough(frames: Sequence[Frame]) -> None:
    if len(frames) < SLICES_LEAST:
        raise NotAVolume(
            "too-few", f"{quantity(len(frames), 'slice')}: one missing between them could not be noticed"
        )


def _are(images: int) -> str:
    return "1 image is" if images == 1 else f"{images} images are"


def _check_frame_of_reference(headers: Sequence[Dataset]) -> None:
    references = {text(header, "FrameOfReferenceUID") for header in headers}
    if len(references) > 1:
        raise NotAVolume("mixed-frame-of-reference", f"{len(references)} frames of reference in one series")
    if references == {""}:
        raise NotAVolume("no-geometry", "no Frame of Reference UID: positions belong to no coordinate system")


def _check_one_size(formats: Sequence[PixelFormat]) -> None:
    sizes = Counter((f.rows, f.columns) for f in formats)
    if len(sizes) > 1:
        most = sizes.most_common(4)
        named = ", ".join(f"{rows} × {columns} ({quantity(n, 'image')})" for (rows, columns), n in most)
        raise NotAVolume("mixed-matrix-size", f"{len(sizes)} matrix sizes: {named}")


def _one_orientation(frames: Sequence[Frame]) -> list[Frame]:
    groups = orientation_groups(frames)
    if len(groups) > 1:
        named = ", ".join(f"{len(g)} {plane_name(g[0])}" for g in groups[:6])
        more = f" and {len(groups) - 6} more" if len(groups) > 6 else ""
        raise NotAVolume("mixed-orientations", f"{len(groups)} orientations: {named}{more}")
    return in_slice_order(frames)


def _one_at_each_position(
    frames: list[Frame], headers: Sequence[Dataset], same_pixels: SamePixels | None, notes: list[str]
) -> list[Frame]:
    groups = position_groups(frames)
    if len(groups) == len(frames):
        return frames
    if same_pixels and all(same_pixels(group[0], other) for group in groups for other in group[1:]):
        repeats = len(frames) - len(groups)
        repeat = "repeats" if repeats == 1 else "repeat"
        notes.append(f"{quantity(repeats, 'image')} left out that {repeat} another's position and pixels")
        if len(groups) < SLICES_LEAST:
            raise NotAVolume("duplicate-positions", f"{len(frames)} images at {quantity(len(groups), 'position')}")
        return [group[0] for group in groups]
    raise _several_at_a_position(groups, headers)


# Attributes that tell apart what was acquired at one place: in time, echo or weighting, or (the rest) otherwise.
_PHASES = (
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "TemporalPositionTimeOffset",
    "TriggerTime",
    "NominalCardiacTriggerDelayTime",
    "FrameReferenceTime",
    "EchoTime",
    "EffectiveEchoTime",
    "EchoNumbers",
    "DiffusionBValue",
    "InversionTime",
    "FlipAngle",
    "AcquisitionTime",
)
_MARKS = (*_PHASES, "StackID", "ImageType", "FrameType", "AcquisitionNumber")


def _several_at_a_position(groups: Sequence[Sequence[Frame]], headers: Sequence[Dataset]) -> NotAVolume:
    counts = Counter(len(group) for group in groups)
    marks = _differing_marks(groups, headers)
    differing = f"; they differ in {', '.join(marks)}" if marks else ""
    total = sum(len(group) for group in groups)
    if len(counts) == 1:
        words = f"{len(groups[0])} images at {_each(len(groups))}{differing}"
        multi_frame = total > len({frame.instance for group in groups for frame in group})
        phases = any(mark.startswith(_PHASES) for mark in marks)
        return NotAVolume("4d" if phases or multi_frame else "duplicate-positions", words)
    several = sum(1 for group in groups if len(group) > 1)
    return NotAVolume(
        "duplicate-positions", f"{total} images at {len(groups)} positions, several at {several} of them{differing}"
    )


def _each(positions: int) -> str:
    return "one position" if positions == 1 else f"each of {positions} positions"


def _differing_marks(groups: Sequence[Sequence[Frame]], headers: Sequence[Dataset]) -> list[str]:
    """The marks in which images at the first crowded position differ, with their number of values."""
    crowded = next(group for group in groups if len(group) > 1)
    read = [_marks(frame, headers[frame.instance]) for frame in crowded]
    numbers = {keyword: len({marks.get(keyword, "") for marks in read}) for keyword in _MARKS}
    return [f"{keyword} ({count} values)" for keyword, count in numbers.items() if count > 1]


def _marks(frame: Frame, header: Dataset) -> dict[str, str]:
    per_frame = items(header, "PerFrameFunctionalGroupsSequence")
    if not per_frame:
        return {keyword: text(header, keyword) for keyword in _MARKS}
    groups = per_frame[frame.number - 1]
    macros = [item for element in groups if element.VR == "SQ" for item in element.value]
    return {k: text(macro, k) for macro in macros for k in _MARKS if k in macro}


def unit_of(header: Dataset, modality: str) -> str:
    """UCUM code of the values after the rescale (PS3.16 CID 82; PS3.3 C.8.9.1.1.3 for PET)."""
    if modality == "CT":
        shared = (items(header, "SharedFunctionalGroupsSequence") or [Dataset()])[0]
        transformation = (items(shared, "PixelValueTransformationSequence") or [header])[0]
        kind = text(transformation, "RescaleType").upper()
        return "[hnsf'U]" if kind in {"", "HU"} else "1"
    if modality == "PT":
        return {"BQML": "Bq/ml", "CNTS": "{counts}", "GML": "g/ml", "PROPCPS": "{propcounts}/s"}.get(
            text(header, "Units").upper(), "1"
        )
    return "1"
