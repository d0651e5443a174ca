"""References to the further series that a model was given: where a SEG and an SR name what they were made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.sr.codedict import codes

from dicomnode.imaging.headers import text
from dicomnode.imaging.volume import VolumePlan

# Role → the plan of the further series in it
Further = Mapping[str, VolumePlan]
NONE: Further = MappingProxyType({})


class UsedFrame(Protocol):
    """A frame that a model was given: of a volume, or an image by itself."""

    @property
    def instance(self) -> int: ...
    @property
    def number(self) -> int: ...
    @property
    def sop_instance_uid(self) -> str: ...


class UsedImages(Protocol):
    """The images of a series that a model was given, as a volume or one by one."""

    @property
    def headers(self) -> Sequence[Dataset]: ...
    @property
    def frames(self) -> Sequence[UsedFrame]: ...
    @property
    def first(self) -> Dataset: ...


def study_and_series(plan: UsedImages) -> tuple[str, str]:
    """(Study, Series) Instance UIDs."""
    return text(plan.first, "StudyInstanceUID"), text(plan.first, "SeriesInstanceUID")


def instances_of(plan: UsedImages) -> dict[str, str]:
    """SOP Instance UID → SOP Class UID of the images, in slice order."""
    return {f.sop_instance_uid: text(plan.headers[f.instance], "SOPClassUID") for f in plan.frames}


def evidence_of(further: Further) -> list[Dataset]:
    """What an SR needs to know of the further series' images to list them as its evidence (PS3.3 C.17.2)."""
    return [
        item_of(plan, sop_instance_uid, sop_class_uid)
        for plan in further.values()
        for sop_instance_uid, sop_class_uid in instances_of(plan).items()
    ]


def item_of(plan: UsedImages, sop_instance_uid: str, sop_class_uid: str) -> Dataset:
    """An image of a series by its UIDs alone."""
    item = Dataset()
    item.StudyInstanceUID, item.SeriesInstanceUID = study_and_series(plan)
    item.SOPClassUID, item.SOPInstanceUID = sop_class_uid, sop_instance_uid
    return item


def list_images(segmentation: Dataset, plan: VolumePlan) -> None:
    """All images of the plan's series in a SEG: as source images (PS3.3 C.12.4) and by their series (C.12.2)."""
    segmentation.SourceImageSequence = [_instance(uid, sop_class) for uid, sop_class in instances_of(plan).items()]
    segmentation.ReferencedSeriesSequence = [_series(plan)]


def add_references(segmentation: Dataset, plan: VolumePlan, further: Further) -> None:
    """Names the further series' images in a SEG of the plan's: as source images, and by study and series.

    Source Image Sequence (PS3.3 C.12.4), Common Instance Reference (C.12.2).
    """
    own_study = study_and_series(plan)[0]
    for used in further.values():
        study, _ = study_and_series(used)
        segmentation.SourceImageSequence.extend(_source_images(used))
        holder = segmentation if study == own_study else _other_study(segmentation, study)
        listed = holder.get("ReferencedSeriesSequence", [])
        holder.ReferencedSeriesSequence = [*listed, _series(used)]


def _source_images(plan: VolumePlan) -> list[Dataset]:
    images = []
    for sop_instance_uid, sop_class_uid in instances_of(plan).items():
        image = _instance(sop_instance_uid, sop_class_uid)
        purpose = codes.DCM.SourceImageForImageProcessingOperation
        image.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(purpose)]
        images.append(image)
    return images


def add_source_frame(image: Dataset, plan: UsedImages, k: int) -> None:
    """The slice that an image was made from (PS3.3 C.7.6.1.1.4), and its series (C.12.2)."""
    frame = plan.frames[k]
    header = plan.headers[frame.instance]
    item = _instance(frame.sop_instance_uid, text(header, "SOPClassUID"))
    if "NumberOfFrames" in header:
        item.ReferencedFrameNumber = frame.number
    item.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)]
    image.SourceImageSequence = [item]
    series = Dataset()
    series.SeriesInstanceUID = study_and_series(plan)[1]
    series.ReferencedInstanceSequence = [_instance(frame.sop_instance_uid, text(header, "SOPClassUID"))]
    image.ReferencedSeriesSequence = [series]


def _instance(sop_instance_uid: str, sop_class_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    return item


def _series(plan: VolumePlan) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = study_and_series(plan)[1]
    item.ReferencedInstanceSequence = [_instance(uid, sop_class) for uid, sop_class in instances_of(plan).items()]
    return item


def _other_study(segmentation: Dataset, study_instance_uid: str) -> Dataset:
    """The item of another study in Studies Containing Other Referenced Instances; made where it is not there."""
    listed = list(segmentation.get("StudiesContainingOtherReferencedInstancesSequence", []))
    for item in listed:
        if item.StudyInstanceUID == study_instance_uid:
            found: Dataset = item
            return found
    item = Dataset()
    item.StudyInstanceUID = study_instance_uid
    segmentation.StudiesContainingOtherReferencedInstancesSequence = [*listed, item]
    return item
