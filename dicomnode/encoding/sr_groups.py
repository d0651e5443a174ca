"""A TID 1500 report (PS3.16, PS3.3 A.35.13) around measurement groups, on images, be they a volume or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from highdicom import sr
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as SrCode

from dicomnode.domain.coded import Code
from dicomnode.domain.identifiers import deterministic_uid
from dicomnode.domain.model_card import ModelCard
from dicomnode.encoding.provenance import Provenance, result_uids, texts_of
from dicomnode.encoding.references import Further, UsedImages, evidence_of, instances_of, item_of
from dicomnode.encoding.seg import coded, set_creation
from dicomnode.encoding.source import identity_header
from dicomnode.encoding.sr import algorithm_identification, observer, procedure_of, report_of
from dicomnode.imaging.box import Box
from dicomnode.imaging.headers import items, odd_values_accepted, text, whole
from dicomnode.imaging.regions import faces_of_voxels
from dicomnode.imaging.volume import VolumePlan

ONE = SrCode("1", "UCUM", "no units")
PROBABILITY: SrCode = codes.DCM.Probability
_LO_MOST = 64  # characters of a long string (PS3.5 6.2)

Group = (
    sr.MeasurementsAndQualitativeEvaluations
    | sr.PlanarROIMeasurementsAndQualitativeEvaluations
    | sr.VolumetricROIMeasurementsAndQualitativeEvaluations
)


def report_around(
    groups: Sequence[Group],
    digest: str,
    plan: UsedImages,
    card: ModelCard,
    made: Provenance,
    further: Further,
    results: Sequence[Dataset] = (),
) -> Dataset:
    """The report of these groups; `digest`: of what they say, which its UIDs depend on.

    `results`: objects of the node's own that the groups refer to, which is evidence, too (PS3.3 C.17.2).
    """
    with odd_values_accepted():
        header = identity_header(plan.first, texts_of(card, made))
        uids = result_uids("SR", plan, further, card, made, digest)
        report = report_of(
            [*_evidence(header, plan, further), *results], _content(groups, plan, card, made), uids, plan, card, made
        )
        if (character_set := header.get("SpecificCharacterSet")) is not None:
            report.SpecificCharacterSet = character_set
        set_creation(report, card, made)
    return report


def _evidence(header: Dataset, plan: UsedImages, further: Further) -> list[Dataset]:
    """The series' images, each once; the first says whose they are."""
    listed = [item_of(plan, uid, sop_class) for uid, sop_class in instances_of(plan).items()]
    header.SOPInstanceUID, header.SOPClassUID = listed[0].SOPInstanceUID, listed[0].SOPClassUID
    return [header, *listed[1:], *evidence_of(further)]


def _content(groups: Sequence[Group], plan: UsedImages, card: ModelCard, made: Provenance) -> sr.MeasurementReport:
    return sr.MeasurementReport(
        observation_context=observer(card, made),
        procedure_reported=procedure_of(text(plan.first, "Modality")),
        imaging_measurements=list(groups),
        title=codes.DCM.ImagingMeasurementReport,
        language_of_content_item_and_descendants=sr.LanguageOfContentItemAndDescendants(
            sr.CodedConcept("en-US", "RFC5646", "English (United States)")
        ),
    )


def tracked(plan: UsedImages, card: ModelCard, words: str, *what: str) -> sr.TrackingIdentifier:
    """The same for the same thing on the same series; `what` tells it apart where its words do not."""
    uid = deterministic_uid("tracking", text(plan.first, "SeriesInstanceUID"), card.name, words, *what)
    return sr.TrackingIdentifier(uid=uid, identifier=f"{card.name} {words}"[:_LO_MOST])


def absent(code: Code, words: str, plan: UsedImages, card: ModelCard, made: Provenance) -> Group:
    """That nothing of a kind was found."""
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracked(plan, card, words, "absent"),
        finding_type=coded(code),
        algorithm_id=algorithm_identification(card, made),
        qualitative_evaluations=[sr.QualitativeEvaluation(name=codes.DCM.PresenceOfProperty, value=codes.DCM.Absent)],
    )


class SeriesParts(TypedDict):
    """What a group on a whole series says, but for what it is about."""

    tracking_identifier: sr.TrackingIdentifier
    algorithm_id: sr.AlgorithmIdentification
    finding_sites: Sequence[sr.FindingSite] | None
    measurements: Sequence[sr.Measurement] | None
    qualitative_evaluations: Sequence[sr.QualitativeEvaluation] | None


def series_group(plan: UsedImages, region: Box | None, parts: SeriesParts) -> Group:
    """About all images of a series (TID 1501); or about the region of it that a model was shown (TID 1411).

    `region`: voxels of the plan's grid. In the report they are the six faces around them, in the patient.
    """
    if region is None or not isinstance(plan, VolumePlan):
        return sr.MeasurementsAndQualitativeEvaluations(**parts, source_images=source_images(plan))
    surface = sr.VolumeSurface(
        graphic_type=sr.GraphicTypeValues3D.POLYGON,
        graphic_data=faces_of_voxels(region, plan.geometry),
        frame_of_reference_uid=text(plan.first, "FrameOfReferenceUID"),
        source_series=sr.SourceSeriesForSegmentation(text(plan.first, "SeriesInstanceUID")),
    )
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(**parts, referenced_volume_surface=surface)


def source_image(header: Dataset, numbers: Sequence[int]) -> sr.SourceImageForMeasurementGroup:
    """An image; of a file with several frames, which of them."""
    return sr.SourceImageForMeasurementGroup(*source_reference(header, numbers))


def source_images(
    plan: UsedImages, first: int = 0, last: int | None = None
) -> list[sr.SourceImageForMeasurementGroup]:
    """The images from `first` to `last` of a plan, counted from 0; of a file with several frames, which of them."""
    frames: dict[int, list[int]] = {}
    for frame in plan.frames[first : None if last is None else last + 1]:
        frames.setdefault(frame.instance, []).append(frame.number)
    return [source_image(plan.headers[index], sorted(numbers)) for index, numbers in frames.items()]


def region_source(header: Dataset, number: int) -> sr.SourceImageForRegion:
    """The image that a region is drawn on."""
    return sr.SourceImageForRegion(*source_reference(header, [number]))


def source_reference(header: Dataset, numbers: Sequence[int]) -> tuple[str, str, list[int] | None]:
    """Frames are named where they are not all there are (PS3.3 table 10-3, Referenced Frame Number)."""
    frames = whole(header, "NumberOfFrames") or len(items(header, "PerFrameFunctionalGroupsSequence")) or 1
    return (
        text(header, "SOPClassUID"),
        text(header, "SOPInstanceUID"),
        list(numbers) if len(numbers) < frames else None,
    )
