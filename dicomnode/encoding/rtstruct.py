"""A label map as an RT Structure Set (PS3.3 A.19): a region for each segment, a contour for each of its outlines."""

from __future__ import annotations

from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.uid import RTStructureSetStorage
from pydicom.valuerep import DSfloat

from dicomnode.domain.model_card import Segment
from dicomnode.encoding.findings import Findings
from dicomnode.encoding.provenance import Predecessor, parameters_in_words
from dicomnode.encoding.references import instances_of, study_and_series
from dicomnode.imaging.contours import outlines, with_keyholes
from dicomnode.imaging.diameter import in_patient
from dicomnode.imaging.frames import Frame
from dicomnode.imaging.headers import odd_values_accepted, text

_DETACHED_STUDY = "1.2.840.10008.3.1.2.3.1"  # retired, and still what this reference names (PS3.3 C.8.8.5.1)
_KIND = "RTSTRUCT"
_SH_MOST, _ST_MOST = 16, 1024
_MICROMETRES = 3  # digits behind the point: of a millimetre, a decimal string has no room for more than it needs


def encode_structure_set(findings: Findings) -> Dataset:
    """Contours lie half way between the pixels inside and those outside; a hole is reached by a keyhole."""
    with odd_values_accepted():
        dataset = findings.document(_KIND, RTStructureSetStorage, "RTSTRUCT")
        dataset.OperatorsName = None
        dataset.StructureSetLabel = findings.card.name[:_SH_MOST]
        dataset.StructureSetName = f"{findings.card.name} {findings.card.version}"
        dataset.StructureSetDescription = "; ".join(parameters_in_words(findings.card, findings.made))[:_ST_MOST]
        dataset.StructureSetDate, dataset.StructureSetTime = dataset.ContentDate, dataset.ContentTime
        del dataset.ContentDate, dataset.ContentTime  # of images and documents
        dataset.ApprovalStatus = "UNAPPROVED"
        if replaced := findings.made.replaced(_KIND, dataset.SeriesInstanceUID):
            dataset.PredecessorStructureSetSequence = [_predecessor(p) for p in replaced]
        frame_of_reference = text(findings.plan.first, "FrameOfReferenceUID")
        dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = frame_of_reference, None
        dataset.ReferencedFrameOfReferenceSequence = [_referenced(findings, frame_of_reference)]
        dataset.StructureSetROISequence = [_roi(s, frame_of_reference) for s in findings.found]
        dataset.ROIContourSequence = [_contours(s, findings) for s in findings.found]
        dataset.RTROIObservationsSequence = [_observation(s) for s in findings.found]
    return dataset


def _item(**values: object) -> Dataset:
    item = Dataset()
    for keyword, found in values.items():
        setattr(item, keyword, found)
    return item


def _predecessor(earlier: Predecessor) -> Dataset:
    return _item(ReferencedSOPClassUID=earlier.sop_class_uid, ReferencedSOPInstanceUID=earlier.sop_instance_uid)


def _referenced(findings: Findings, frame_of_reference: str) -> Dataset:
    study, series = study_and_series(findings.plan)
    images = [
        _item(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=uid)
        for uid, sop_class in instances_of(findings.plan).items()
    ]
    of_series = _item(SeriesInstanceUID=series, ContourImageSequence=images)
    of_study = _item(
        ReferencedSOPClassUID=_DETACHED_STUDY,
        ReferencedSOPInstanceUID=study,
        RTReferencedSeriesSequence=[of_series],
    )
    return _item(FrameOfReferenceUID=frame_of_reference, RTReferencedStudySequence=[of_study])


def _roi(segment: Segment, frame_of_reference: str) -> Dataset:
    return _item(
        ROINumber=segment.number,
        ReferencedFrameOfReferenceUID=frame_of_reference,
        ROIName=segment.name,
        ROIGenerationAlgorithm="AUTOMATIC",
    )


def _contours(segment: Segment, findings: Findings) -> Dataset:
    plan = findings.plan
    contours: list[Dataset] = []
    for k in findings.slices:
        frame = plan.frames[k]
        image = _image(frame, plan.headers[frame.instance])
        for outline in outlines(findings.labels[k] == segment.number):
            points = in_patient(with_keyholes(outline), frame)
            contours.append(
                _item(
                    ContourImageSequence=[image],
                    ContourGeometricType="CLOSED_PLANAR",
                    NumberOfContourPoints=len(points),
                    ContourNumber=len(contours) + 1,
                    ContourData=[DSfloat(f"{v:.{_MICROMETRES}f}") for v in points.ravel()],
                )
            )
    return _item(ReferencedROINumber=segment.number, ROIDisplayColor=list(segment.colour), ContourSequence=contours)


def _image(frame: Frame, header: Dataset) -> Dataset:
    item = _item(ReferencedSOPClassUID=text(header, "SOPClassUID"), ReferencedSOPInstanceUID=frame.sop_instance_uid)
    if "PerFrameFunctionalGroupsSequence" in header:
        item.ReferencedFrameNumber = frame.number
    return item


def _observation(segment: Segment) -> Dataset:
    found = segment.type
    return _item(
        ObservationNumber=segment.number,
        ReferencedROINumber=segment.number,
        ROIObservationLabel=segment.name[:_SH_MOST],
        RTROIIdentificationCodeSequence=[CodedConcept(found.value, found.scheme, found.meaning)],
        RTROIInterpretedType="",
        ROIInterpreter=None,
    )
