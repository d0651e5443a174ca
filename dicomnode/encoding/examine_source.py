"""What can be wrong in a result beside its source images: whose it is, what it references, where it lies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset

from dicomnode.encoding.check_frames import FRAMES
from dicomnode.encoding.source import IDENTITY, checked_identity
from dicomnode.errors import NotAVolume
from dicomnode.imaging.frames import Frame, frames_of, number_of_frames
from dicomnode.imaging.headers import UNREADABLE, items, numbers, text, value, whole

# Other makers round positions to fewer digits than check_frames asks of the node's own results
_TOLERANCE_MM = 0.01
_COSINE_TOLERANCE = 1e-3
_SHOWN = 3


@dataclass(frozen=True, eq=False)
class Sources:
    """Headers of images, by SOP Instance UID, without pixel data."""

    headers: Mapping[str, Dataset]

    def series(self) -> dict[str, list[Dataset]]:
        """By Series Instance UID."""
        found: dict[str, list[Dataset]] = {}
        for header in self.headers.values():
            found.setdefault(text(header, "SeriesInstanceUID"), []).append(header)
        return found


@dataclass(frozen=True, slots=True)
class Reference:
    """To an instance; `series` and `study` where the object says them, `frame` where it means one."""

    instance: str
    sop_class: str
    series: str = ""
    study: str = ""
    frame: int | None = None


def references_of(dataset: Dataset) -> list[Reference]:
    """Every one, at any depth, with the study and series it stands under."""
    study = text(dataset, "StudyInstanceUID")
    return [one for one in _references(dataset, "", study) if one.instance]


def _references(dataset: Dataset, series: str, study: str) -> Iterator[Reference]:
    for element in dataset:
        if element.VR != "SQ" or not element.keyword:
            continue
        for item in items(dataset, element.keyword):
            inner_study = text(item, "StudyInstanceUID") or study
            inner_series = text(item, "SeriesInstanceUID") or series
            if "ReferencedSOPInstanceUID" in item:
                yield Reference(
                    text(item, "ReferencedSOPInstanceUID"),
                    text(item, "ReferencedSOPClassUID"),
                    inner_series,
                    inner_study,
                    _highest_frame(item),
                )
            yield from _references(item, inner_series, inner_study)


def _highest_frame(item: Dataset) -> int | None:
    found = value(item, "ReferencedFrameNumber")
    if found is None:
        return None
    try:
        return max(int(number) for number in (found if hasattr(found, "__iter__") else [found]))
    except UNREADABLE:
        return None


# -------------------------------------------------------------------------------------------- references, identity


def wrong_references(references: Sequence[Reference], sources: Sources) -> Iterator[str]:
    """To what is not in a series that is there, to another SOP class than the image has, to no frame of it."""
    there = sources.series()
    absent = {r.instance for r in references if r.series in there and r.instance not in sources.headers}
    if absent:
        shown = ", ".join(sorted(absent)[:_SHOWN])
        yield f"{len(absent)} referenced instances are not in the source series: {shown}"
    other: dict[str, str] = {}
    beyond: dict[str, int] = {}
    for reference in references:
        header = sources.headers.get(reference.instance)
        if header is None:
            continue
        if reference.sop_class != text(header, "SOPClassUID"):
            other[reference.instance] = reference.sop_class
        if reference.frame is not None and not 1 <= reference.frame <= number_of_frames(header):
            beyond[reference.instance] = reference.frame
    for uid, sop_class in list(other.items())[:_SHOWN]:
        yield f"instance {uid} is referenced with SOP class {sop_class or 'none'}, which it does not have"
    for uid, frame in list(beyond.items())[:_SHOWN]:
        yield f"frame {frame} of instance {uid} is referenced, which it does not have"


def wrong_identity(dataset: Dataset, used: Sequence[Dataset]) -> Iterator[str]:
    """The patient and the study are the source's (PS3.3 C.7.1, C.7.2); values are not named, they are a patient's."""
    study = text(dataset, "StudyInstanceUID")
    same = [header for header in used if text(header, "StudyInstanceUID") == study]
    if not same:
        yield "it is in another study than its source images"
    source = (same or list(used))[0]
    # of another study only what says who the patient is can be compared
    for keyword in IDENTITY if same else ("PatientName", "PatientID"):
        wanted, found = str(checked_identity(source, keyword)).strip(), str(value(dataset, keyword, "")).strip()
        if wanted != found:
            yield f"{keyword} differs from the source's"
    if any(text(header, "SOPInstanceUID") == text(dataset, "SOPInstanceUID") for header in used):
        yield "it has the SOP Instance UID of a source image"
    if any(text(header, "SeriesInstanceUID") == text(dataset, "SeriesInstanceUID") for header in used):
        yield "it is in its source's own series"


# -------------------------------------------------------------------------------------------------------- geometry


def wrong_place(dataset: Dataset, used: Sequence[Dataset]) -> Iterator[str]:
    """Frames in the source's frame of reference and, on its grid, where the images lie that they come from."""
    known = {text(header, "FrameOfReferenceUID") for header in used} - {""}
    own = text(dataset, "FrameOfReferenceUID")
    if own and known and own not in known:
        yield "FrameOfReferenceUID differs from the source's"
        return
    if not own:
        yield from _wrong_pixels(dataset, used)
        return
    away: list[tuple[int, float]] = []
    for number, position, sources in _placed_frames(dataset, used):
        gaps = [float(np.abs(np.subtract(position, source.position_mm)).max()) for source in sources]
        if gaps and min(gaps) > _TOLERANCE_MM:
            away.append((number, min(gaps)))
    if away:
        number, gap_mm = max(away, key=lambda one: one[1])
        yield (
            f"{len(away)} frames lie elsewhere than the images that they come from; "
            f"frame {number} by {gap_mm:.3f} mm on an axis"
        )


def _wrong_pixels(dataset: Dataset, used: Sequence[Dataset]) -> Iterator[str]:
    """Without a frame of reference each pixel is one of the image that the frame comes from (PS3.3 A.51.5.1)."""
    sizes = {text(h, "SOPInstanceUID"): (whole(h, "Rows"), whole(h, "Columns")) for h in used}
    size = whole(dataset, "Rows"), whole(dataset, "Columns")
    alone: list[int] = []
    for number, group in enumerate(_groups(dataset), 1):
        images = [i for d in group["DerivationImageSequence"] for i in items(d, "SourceImageSequence")]
        named = [uid for i in images if (uid := text(i, "ReferencedSOPInstanceUID"))]
        alone += [] if named else [number]
        for uid in named:
            if (wanted := sizes.get(uid, size)) != size:
                yield (
                    f"frame {number} has {size[0]} × {size[1]} pixels and no frame of reference; the image that it "
                    f"comes from has {wanted[0]} × {wanted[1]} (PS3.3 A.51.5.1)"
                )
                return
    if alone:
        yield f"{len(alone)} frames have neither a frame of reference nor an image that they come from"


def is_on_another_grid(dataset: Dataset, used: Sequence[Dataset]) -> bool:
    """Other rows, columns, orientation or spacing than the images: allowed (PS3.3 A.51.3), and seldom shown right."""
    if not items(dataset, FRAMES):
        return False
    frames = _frames_by_uid(used).values()
    return bool(frames) and not any(
        _same_grid(dataset, group, frame) for group in _groups(dataset)[:1] for frame in frames
    )


def _placed_frames(dataset: Dataset, used: Sequence[Dataset]) -> Iterator[tuple[int, tuple[float, ...], list[Frame]]]:
    """(number, position in mm, the source's frames on the same grid that it says it comes from)."""
    frames = _frames_by_uid(used)
    for number, group in enumerate(_groups(dataset), 1):
        position = numbers((group["PlanePositionSequence"] or [Dataset()])[0], "ImagePositionPatient", 3)
        keys = [
            (text(image, "ReferencedSOPInstanceUID"), whole(image, "ReferencedFrameNumber") or 1)
            for derivation in group["DerivationImageSequence"]
            for image in items(derivation, "SourceImageSequence")
        ]
        found = [frames[key] for key in keys if key in frames]
        if position is not None:
            yield number, position, [frame for frame in found if _same_grid(dataset, group, frame)]


_Groups = Mapping[str, list[Dataset]]
_MACROS = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence", "DerivationImageSequence")


def _groups(dataset: Dataset) -> list[_Groups]:
    """Of each frame the macros that say where it is and what it comes from, its own or the shared ones."""
    shared = (items(dataset, "SharedFunctionalGroupsSequence") or [Dataset()])[0]
    return [{macro: items(own, macro) or items(shared, macro) for macro in _MACROS} for own in items(dataset, FRAMES)]


def _same_grid(dataset: Dataset, group: _Groups, frame: Frame) -> bool:
    orientation = numbers((group["PlaneOrientationSequence"] or [Dataset()])[0], "ImageOrientationPatient", 6)
    spacing = numbers((group["PixelMeasuresSequence"] or [Dataset()])[0], "PixelSpacing", 2)
    if orientation is None or spacing is None:
        return False
    return np.allclose(orientation, frame.orientation, rtol=0, atol=_COSINE_TOLERANCE) and np.allclose(
        spacing, frame.spacing_mm, rtol=0, atol=_TOLERANCE_MM
    )


def _frames_by_uid(used: Sequence[Dataset]) -> dict[tuple[str, int], Frame]:
    """By SOP Instance UID and frame number; without the frames that have no place."""
    found: dict[tuple[str, int], Frame] = {}
    for index in range(len(used)):
        try:
            found.update({(f.sop_instance_uid, f.number): f for f in frames_of(used, [index])})
        except NotAVolume:
            continue
    return found
