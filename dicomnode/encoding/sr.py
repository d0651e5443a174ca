"""Measurements as a TID 1500 report (PS3.16 TID 1500, PS3.3 A.35.13): volume and mean of each segment of a SEG.

A segment without voxels is said to be absent, in words a machine reads too; so is a whole empty mask.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from highdicom import sr
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as SrCode
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.domain.identifiers import deterministic_uid
from dicomnode.domain.model_card import ModelCard
from dicomnode.encoding.provenance import (
    MANUFACTURER,
    Predecessor,
    Provenance,
    contributing_equipment,
    local,
    parameters_in_words,
    result_series_number,
    result_uids,
    series_description,
    texts_of,
    tracking,
)
from dicomnode.encoding.references import NONE, Further, UsedImages, evidence_of
from dicomnode.encoding.seg import coded, set_creation
from dicomnode.encoding.source import source_frames, source_series_number
from dicomnode.imaging.diameter import Diameter
from dicomnode.imaging.headers import odd_values_accepted, text
from dicomnode.imaging.images import ImagesPlan
from dicomnode.imaging.measure import SegmentStatistics
from dicomnode.imaging.volume import VolumePlan

MILLILITRE = SrCode("mL", "UCUM", "milliliter")
_MILLIMETRE = SrCode("mm", "UCUM", "millimeter")
# What a mean is a mean of, by modality and UCUM unit (PS3.16 CID 7469)
_QUANTITIES = {
    ("CT", "[hnsf'U]"): (codes.DCM.AttenuationCoefficient, "Hounsfield unit"),
    ("MR", "1"): (codes.DCM.MRSignalIntensity, "no units"),
    ("PT", "g/ml"): (codes.DCM.StandardizedUptakeValue, "gram per milliliter"),
    ("PT", "Bq/ml"): (codes.DCM.NuclearMedicineTomographicActivity, "Becquerels/milliliter"),
}
# Of anything else no more is known than that it is what the rescale gives (PS3.16 8.2: 99 marks a private scheme)
_VOXEL_VALUE = SrCode("voxel-value", "99DICOMNODE", "Voxel value after rescale")
# CID 100 Quantitative Diagnostic Imaging Procedure
_PROCEDURES = {
    "CT": codes.cid100.CTUnspecifiedBodyRegion,
    "MR": codes.cid100.MRIUnspecifiedBodyRegion,
    "PT": codes.cid100.PETUnspecifiedBodyRegion,
    "NM": codes.cid100.NMUnspecifiedBodyRegion,
    "XA": codes.cid100.Angiography,
    **dict.fromkeys(("CR", "DX", "IO", "MG", "PX", "RF", "RG"), codes.cid100.XRUnspecifiedBodyRegion),
}
_OTHER_PROCEDURE = SrCode("363679005", "SCT", "Imaging procedure")


def encode_report(
    statistics: Sequence[SegmentStatistics],
    plan: VolumePlan,
    card: ModelCard,
    made: Provenance,
    segmentation: Dataset | None,
    further: Further = NONE,
    beside: Sequence[Dataset] = (),
) -> Dataset:
    """The report on a segmentation of a planned volume; `segmentation` is None when nothing was found.

    `beside`: further segmentations of the same, which the report lists and does not measure.
    """
    with odd_values_accepted():
        sources = source_frames(plan, texts_of(card, made))
        # the images first: highdicom takes the patient, and what acquired them, from the first
        evidence = [
            *sources.headers,
            *([] if segmentation is None else [segmentation]),
            *beside,
            *evidence_of(further),
        ]
        uids = result_uids("SR", plan, further, card, made, _digest(statistics, segmentation))
        report = report_of(evidence, _content(statistics, plan, card, made, segmentation), uids, plan, card, made)
        sources.mend(report)
        sources.set_character_set(report)
        set_creation(report, card, made)
    return report


def _digest(statistics: Sequence[SegmentStatistics], segmentation: Dataset | None) -> str:
    uid = "" if segmentation is None else str(segmentation.SOPInstanceUID)
    return hashlib.sha256(f"{uid} {list(statistics)}".encode()).hexdigest()


def report_of(
    evidence: list[Dataset],
    content: sr.MeasurementReport,
    uids: tuple[str, str],
    plan: UsedImages,
    card: ModelCard,
    made: Provenance,
) -> Dataset:
    """The document around a report's content (PS3.3 A.35.13)."""
    moment = local(made.created_at)
    report: Dataset = sr.Comprehensive3DSR(
        evidence=evidence,
        content=content,
        series_instance_uid=uids[0],
        series_number=result_series_number(source_series_number(plan), "SR"),
        sop_instance_uid=uids[1],
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        previous_versions=[_previous(p) for p in made.replaced("SR", uids[0])] or None,
        contributing_equipment=contributing_equipment(card, made, plan, "SR", uids[0]),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        specific_character_set=None,
        series_description=series_description(card, "SR"),
        content_date=moment.date(),
        content_time=moment.time(),
        series_date=moment.date(),
        series_time=moment.time(),
    )
    return report


def _previous(predecessor: Predecessor) -> Dataset:
    previous = Dataset()
    previous.StudyInstanceUID = predecessor.study_instance_uid
    previous.SeriesInstanceUID = predecessor.series_instance_uid
    previous.SOPClassUID = predecessor.sop_class_uid
    previous.SOPInstanceUID = predecessor.sop_instance_uid
    return previous


def _content(
    statistics: Sequence[SegmentStatistics],
    plan: VolumePlan,
    card: ModelCard,
    made: Provenance,
    segmentation: Dataset | None,
) -> sr.MeasurementReport:
    return sr.MeasurementReport(
        observation_context=observer(card, made),
        procedure_reported=procedure_of(plan.modality),
        imaging_measurements=[
            *(_group(s, plan, card, made, segmentation) for s in statistics),
            *(_line_group(s, s.diameter, plan, card, made) for s in statistics if s.diameter is not None),
        ],
        title=codes.DCM.ImagingMeasurementReport,
        language_of_content_item_and_descendants=sr.LanguageOfContentItemAndDescendants(
            sr.CodedConcept("en-US", "RFC5646", "English (United States)")
        ),
    )


def procedure_of(modality: str) -> SrCode:
    """What was reported on (PS3.16 CID 100)."""
    found: SrCode = _PROCEDURES.get(modality, _OTHER_PROCEDURE)
    return found


def observer(card: ModelCard, made: Provenance) -> sr.ObservationContext:
    """The node that observed (PS3.16 TID 1001)."""
    return sr.ObservationContext(observer_device_context=observer_context(card, made))


def observer_context(card: ModelCard, made: Provenance) -> sr.ObserverContext:
    """The node as a device (PS3.16 TID 1002, TID 1004)."""
    attributes = sr.DeviceObserverIdentifyingAttributes(
        uid=deterministic_uid("device", MANUFACTURER, made.device_serial_number),
        name=made.device_serial_number,
        manufacturer_name=MANUFACTURER,
        model_name=f"{card.name} {card.version}",
        serial_number=made.device_serial_number,
    )
    return sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=attributes)


def _group(
    found: SegmentStatistics, plan: VolumePlan, card: ModelCard, made: Provenance, segmentation: Dataset | None
) -> sr.VolumetricROIMeasurementsAndQualitativeEvaluations | sr.MeasurementsAndQualitativeEvaluations:
    segment = card.segments[found.segment_number - 1]
    series_uid = text(plan.first, "SeriesInstanceUID")
    identifier, uid = tracking(series_uid, card, found.segment_number)
    tracked = sr.TrackingIdentifier(uid=uid, identifier=identifier)
    if segmentation is None or not found.voxels:
        return sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracked,
            finding_type=coded(segment.type),
            finding_category=coded(segment.category),
            algorithm_id=algorithm_identification(card, made),
            qualitative_evaluations=[
                sr.QualitativeEvaluation(name=codes.DCM.PresenceOfProperty, value=codes.DCM.Absent)
            ],
        )
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracked,
        referenced_segment=sr.ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=found.segment_number,
            source_series=sr.SourceSeriesForSegmentation(series_uid),
        ),
        finding_type=coded(segment.type),
        finding_category=coded(segment.category),
        algorithm_id=algorithm_identification(card, made),
        measurements=_measurements(found, plan),
    )


def algorithm_identification(card: ModelCard, made: Provenance) -> sr.AlgorithmIdentification:
    """The model (PS3.16 TID 4019)."""
    return sr.AlgorithmIdentification(
        name=card.name,
        version=card.version,
        parameters=parameters_in_words(card, made),
        family=codes.cid7162.ArtificialIntelligence,
        manufacturer=card.manufacturer,
    )


def shown(number: float) -> float:
    """Six significant digits: finer than a voxel is to a volume, and no row of digits for a reader."""
    return float(f"{number:.6g}")


def unit_in_words(unit: str) -> str:
    """As people write it."""
    return {"[hnsf'U]": "HU", "1": "no unit"}.get(unit, unit)


def _quantity(plan: VolumePlan | ImagesPlan, other: SrCode) -> tuple[SrCode, str]:
    """(name, unit's meaning) of what the voxels measure, `other` where nobody knows.

    Derived MR images (ADC, T1 maps) are no signal intensity.
    """
    if plan.modality == "MR" and not text(plan.first, "ImageType").startswith("ORIGINAL"):
        return other, "no units"
    return _QUANTITIES.get((plan.modality, plan.unit), (other, "no units" if plan.unit == "1" else plan.unit))


def _measurements(found: SegmentStatistics, plan: VolumePlan) -> list[sr.Measurement]:
    volume = sr.Measurement(
        name=codes.SCT.Volume,
        value=shown(found.volume_ml),
        unit=MILLILITRE,
        method=codes.DCM.SumOfSegmentedVoxelMethodForVolume,
    )
    return [volume, *of_values(found, plan)]


def of_values(
    found: SegmentStatistics, plan: VolumePlan | ImagesPlan, other: SrCode = _VOXEL_VALUE
) -> list[sr.Measurement]:
    """Mean, minimum, maximum and spread (PS3.16 CID 7464) of what the voxels measure; see _quantity."""
    quantity, meaning = _quantity(plan, other)
    unit = SrCode(plan.unit, "UCUM", meaning)
    values = (
        (codes.SCT.Mean, found.mean),
        (codes.SCT.Minimum, found.minimum),
        (codes.SCT.Maximum, found.maximum),
        (codes.SCT.StandardDeviation, found.standard_deviation),
    )
    return [
        sr.Measurement(name=quantity, value=shown(value), unit=unit, derivation=derivation)
        for derivation, value in values
        if value is not None
    ]


def _line_group(
    found: SegmentStatistics, diameter: Diameter, plan: VolumePlan, card: ModelCard, made: Provenance
) -> sr.MeasurementsAndQualitativeEvaluations:
    """Of the same finding: a group that refers to a segment has no room for coordinates (TID 1411, TID 1501)."""
    segment = card.segments[found.segment_number - 1]
    identifier, uid = tracking(text(plan.first, "SeriesInstanceUID"), card, found.segment_number)
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=uid, identifier=identifier),
        finding_type=coded(segment.type),
        finding_category=coded(segment.category),
        algorithm_id=algorithm_identification(card, made),
        measurements=[_long_axis(diameter, plan)],
    )


def _long_axis(found: Diameter, plan: VolumePlan) -> sr.Measurement:
    """CID 7470, and the line that was measured."""
    line = sr.CoordinatesForMeasurement3D(
        graphic_type=sr.GraphicTypeValues3D.POLYLINE,
        graphic_data=np.array(found.ends),
        frame_of_reference_uid=text(plan.first, "FrameOfReferenceUID"),
    )
    return sr.Measurement(
        name=codes.SCT.LongAxis,
        value=shown(found.length_mm),
        unit=_MILLIMETRE,
        referenced_coordinates=[line],
    )
