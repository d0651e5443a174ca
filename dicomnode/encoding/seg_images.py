"""Masks of single images as Segmentations (PS3.3 A.51), one for each instance that something was found on.

Radiographs and ultrasound have no frame of reference. A segmentation without one has no place either: each of its
pixels is a pixel of the image that it names, so that rows and columns are the image's (PS3.3 A.51.5.1). Frames of a
multi-frame image are frames of one segmentation, told apart by their Frame Label as a second dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.uid import ComputedRadiographyImageStorage

from dicomnode.domain.model_card import ModelCard
from dicomnode.encoding.provenance import Provenance, result_uids, texts_of
from dicomnode.encoding.references import NONE, UsedImages
from dicomnode.encoding.seg import make_repeatable, small_segmentation
from dicomnode.encoding.seg_file import SegFile, file_of_frames
from dicomnode.encoding.seg_frames import ProbabilityFrames, SegFrames, frames_of_masks
from dicomnode.encoding.source import SourceFrames, copy_lossy, identity_header
from dicomnode.imaging.headers import odd_values_accepted, text, value
from dicomnode.imaging.images import ImageFrame
from dicomnode.imaging.masked_images import MaskedInstance

_SIDES = ("L", "R", "B", "U")


def segmentation_of(
    instance: MaskedInstance, kind: str, plan: UsedImages, card: ModelCard, made: Provenance
) -> SegFile | None:
    """SEG or SEG-PROB, as of seg.encode_masks; None where nothing was found on this instance."""
    masks = frames_of(instance, kind)
    frames = sorted((segment, k) for k in range(masks.shape[0]) for segment in masks.segments_in(k))
    if instance.masks.is_empty or not frames:
        return None
    with odd_values_accepted():
        uids = image_uids(kind, masks.digest(), instance, card, made)
        skeleton = skeleton_of(frames, kind, uids, instance, plan, card, made)
        return file_of_frames(skeleton, masks, frames)


def frame_number(segmentation: SegFile, segment: int, k: int) -> int:
    """Of the frame that a segment has for the source's k-th; the first is 1."""
    return list(segmentation.frames).index((segment, k)) + 1


def frames_of(instance: MaskedInstance, kind: str) -> SegFrames:
    """What the frames of a SEG of this kind hold."""
    if kind == "SEG-PROB":
        assert instance.masks.probabilities is not None  # domain.model_output.Output.arrays
        return ProbabilityFrames(instance.masks.probabilities)
    return frames_of_masks(instance.masks)


@dataclass(frozen=True, eq=False)
class _Alone:
    """An instance as all that a result is made of: late images of its series change nothing of it."""

    first: Dataset
    frames: tuple[ImageFrame, ...]

    @property
    def headers(self) -> tuple[Dataset, ...]:
        return (self.first,)


def image_uids(
    kind: str, digest: str, instance: MaskedInstance, card: ModelCard, made: Provenance
) -> tuple[str, str]:
    """(Series, SOP) Instance UIDs: a series for each, since viewers load the first object of a series alone."""
    return result_uids(kind, _Alone(instance.header, instance.frames), NONE, card, made, digest)


def skeleton_of(
    frames: Sequence[tuple[int, int]],
    kind: str,
    uids: tuple[str, str],
    instance: MaskedInstance,
    plan: UsedImages,
    card: ModelCard,
    made: Provenance,
) -> Dataset:
    """A SEG with an item for each of these frames, (segment, index of the instance's); its pixels are others."""
    source, uid = instance.header, text(instance.header, "SOPInstanceUID")
    header = _stand_in(plan, instance, card, made)
    skeleton = small_segmentation([0], kind, [header], uids, plan, uid, card, made)
    sources = SourceFrames((header,), {uid: (text(source, "SOPClassUID"), uid, None)}, value(header, _CHARACTERS))
    sources.mend(skeleton)
    sources.set_character_set(skeleton)
    _copy_sides(source, skeleton)
    _lay_out(skeleton, frames, instance)
    make_repeatable(skeleton, card, made)
    return skeleton


_CHARACTERS = "SpecificCharacterSet"


def _stand_in(plan: UsedImages, instance: MaskedInstance, card: ModelCard, made: Provenance) -> Dataset:
    """The image as one of a SOP class that has no frame of reference: highdicom demands one of some others."""
    header = identity_header(plan.first, texts_of(card, made))
    header.Modality = text(instance.header, "Modality")
    header.SOPClassUID = ComputedRadiographyImageStorage
    header.SOPInstanceUID = text(instance.header, "SOPInstanceUID")
    copy_lossy(instance.header, header)
    return header


def _copy_sides(source: Dataset, segmentation: Dataset) -> None:
    """How the image lies, of type 2C where there is no plane, and of which side it is (PS3.3 C.7.6.1)."""
    segmentation.PatientOrientation = patient_orientation(source)
    if side := laterality(source):
        segmentation.ImageLaterality = side


def patient_orientation(source: Dataset) -> list[str] | None:
    """Directions of the rows and of the columns (PS3.3 C.7.6.1.1.1), as the image has them; None without."""
    found = [part for part in text(source, "PatientOrientation").split("\\") if part]
    return found if len(found) == 2 else None


def laterality(source: Dataset) -> str:
    """Of the image, or of its series (PS3.3 C.7.6.1, C.7.3.1); "" where it does not say it."""
    return next((side for k in ("ImageLaterality", "Laterality") if (side := text(source, k)) in _SIDES), "")


def _lay_out(skeleton: Dataset, frames: Sequence[tuple[int, int]], instance: MaskedInstance) -> None:
    """The one frame becomes all of these; those of a multi-frame image have a dimension more, their label's."""
    (only,) = skeleton.PerFrameFunctionalGroupsSequence
    labelled = any(d.DimensionIndexPointer == tag_for_keyword("FrameLabel") for d in skeleton.DimensionIndexSequence)
    order = {k: position for position, k in enumerate(sorted({k for _, k in frames}), 1)}
    skeleton.PerFrameFunctionalGroupsSequence = [
        _of_frame(deepcopy(only), segment, instance.frames[k].number, order[k], instance, labelled)
        for segment, k in frames
    ]
    if labelled or not instance.is_multi_frame:
        return
    dimension = deepcopy(skeleton.DimensionIndexSequence[0])
    dimension.DimensionIndexPointer = tag_for_keyword("FrameLabel")
    dimension.FunctionalGroupPointer = tag_for_keyword("FrameContentSequence")
    dimension.DimensionDescriptionLabel = "Frame Label"
    skeleton.DimensionIndexSequence.append(dimension)


def _of_frame(
    group: Dataset, segment: int, number: int, order: int, instance: MaskedInstance, labelled: bool
) -> Dataset:
    """`labelled`: whether the label is the only dimension, as in a label map, where no frame is of one segment."""
    content, source = group.FrameContentSequence[0], group.DerivationImageSequence[0].SourceImageSequence[0]
    if "SegmentIdentificationSequence" in group:
        group.SegmentIdentificationSequence[0].ReferencedSegmentNumber = segment
    if instance.is_multi_frame:
        source.ReferencedFrameNumber = number
        content.FrameLabel = f"frame {number:06d} of the source"
    positions = [order] if labelled else [segment, order][: 1 + instance.is_multi_frame]
    content.DimensionIndexValues = positions if len(positions) > 1 else positions[0]
    return group


def label_map_of(
    instance: MaskedInstance, kind: str, plan: UsedImages, card: ModelCard, made: Provenance
) -> Dataset | None:
    """The label map of an instance as it is (PS3.3 A.51, LABELMAP): a byte a pixel; None where it is empty."""
    labels = instance.masks.labels
    assert labels is not None  # domain.model_output.Output.forms
    used = [k for k in range(len(labels)) if labels[k].any()]
    if not used:
        return None
    with odd_values_accepted():
        uids = image_uids(kind, frames_of_masks(instance.masks).digest(), instance, card, made)
        segmentation = skeleton_of([(0, k) for k in used], kind, uids, instance, plan, card, made)
        segmentation.Rows, segmentation.Columns = labels.shape[1:]
        segmentation.NumberOfFrames = len(used)
        pixels = np.concatenate([labels[k].ravel() for k in used]).tobytes()
        segmentation.PixelData = pixels + b"\0" * (len(pixels) % 2)
    return segmentation
