"""A synthetic past for a database: studies of CT, MR and PET/CT, with headers of about 150 attributes a series.

The values are made up; names and VRs are those that scanners send (PS3.3 A.3 and A.4), with private attributes
of two manufacturers beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from random import Random
from typing import Any

import sqlalchemy as sa

from dicomnode.adapters.db.tables import EvidenceRow, SeriesRow, StudyRow
from dicomnode.domain.study import SeriesState, StudyState

ROOT = "1.2.826.0.1.3680043.8.498.77"
CHUNK = 500  # studies a transaction
NEWEST = datetime(2026, 11, 1, tzinfo=UTC)
MINUTES_A_STUDY = 2

Header = dict[str, list[Any]]

# What every series has: keyword, VR, value
_COMMON = """
SpecificCharacterSet CS ISO_IR 100|MediaStorageSOPClassUID UI 1.2.840.10008.5.1.4.1.1.2
TransferSyntaxUID UI 1.2.840.10008.1.2.1|ImplementationClassUID UI 1.2.826.0.1.3680043.8.498.1
ImplementationVersionName SH BENCH_10|SourceApplicationEntityTitle AE SCANNER1|InstanceCreationDate DA 20261101
InstanceCreationTime TM 101500.120|SOPClassUID UI 1.2.840.10008.5.1.4.1.1.2
StudyDate DA 20261101|SeriesDate DA 20261101
AcquisitionDate DA 20261101|ContentDate DA 20261101|StudyTime TM 101015.3|SeriesTime TM 101340.1
AcquisitionTime TM 101341.9|ContentTime TM 101342.5|AccessionNumber SH BENCH|Manufacturer LO BENCHMARK
InstitutionName LO General Hospital|InstitutionAddress ST Main Street 1, 12345 Town
ReferringPhysicianName PN NAME^REFERRING|StationName SH SCANNER1|StudyDescription LO Thorax and abdomen
InstitutionalDepartmentName LO Radiology|PerformingPhysicianName PN NAME^PERFORMING|OperatorsName PN NAME^OPERATOR
ManufacturerModelName LO Scanner 64|PatientName PN NAME^PATIENT|PatientID LO P-1
PatientBirthDate DA 19600214|PatientSex CS F
PatientAge AS 066Y|PatientSize DS 1.68|PatientWeight DS 71.5|PregnancyStatus US 1|AdditionalPatientHistory LT none
BodyPartExamined CS CHEST|ProtocolName LO Thorax routine|DeviceSerialNumber LO 4711|SoftwareVersions LO VB42A
PatientPosition CS HFS|StudyID SH 1|InstanceNumber IS 1|AcquisitionNumber IS 2|PositionReferenceIndicator LO SN
SliceLocation DS -124.5|ImageComments LT made up|SamplesPerPixel US 1|PhotometricInterpretation CS MONOCHROME2
Rows US 512|Columns US 512|BitsAllocated US 16|BitsStored US 12|HighBit US 11|PixelRepresentation US 0
SmallestImagePixelValue US 0|LargestImagePixelValue US 3071|WindowCenter DS 50|WindowWidth DS 400
RescaleIntercept DS -1024|RescaleSlope DS 1|RescaleType LO HU|RequestingPhysician PN NAME^REQUESTING
RequestingService LO Surgery|RequestedProcedureDescription LO CT thorax|PerformedProcedureStepStartDate DA 20261101
PerformedProcedureStepStartTime TM 101015.3|PerformedProcedureStepID SH PPS-1
PerformedProcedureStepDescription LO Thorax routine|RequestedProcedureID SH RP-1|StudyInstanceUID UI 1.2.3
FrameOfReferenceUID UI 1.2.826.0.1.3680043.8.498.77.9|TriggerSourceOrType LO EXTERNAL|LossyImageCompression CS 00
BurnedInAnnotation CS NO|TimezoneOffsetFromUTC SH +0100|LongitudinalTemporalInformationModified CS UNMODIFIED
"""
_CT = """
ScanOptions CS HELIX|SliceThickness DS 5|KVP DS 120|DataCollectionDiameter DS 500|ReconstructionDiameter DS 360
DistanceSourceToDetector DS 1085.6|DistanceSourceToPatient DS 595|GantryDetectorTilt DS 0|TableHeight DS 144
RotationDirection CS CW|ExposureTime IS 500|XRayTubeCurrent IS 210|Exposure IS 105|FilterType SH FLAT
GeneratorPower IS 25|FocalSpots DS 1.2|ConvolutionKernel SH Br40f|DateOfLastCalibration DA 20261031
TimeOfLastCalibration TM 070000|SingleCollimationWidth FD 0.6|TotalCollimationWidth FD 38.4|TableSpeed FD 46
TableFeedPerRotation FD 23|SpiralPitchFactor FD 0.6|ExposureModulationType CS XYZ_EC
EstimatedDoseSaving FD 31.5|CTDIvol FD 7.8|ContrastBolusAgent LO none|ContrastBolusVolume DS 0
ContrastBolusIngredientConcentration DS 0|ReconstructionMethod CS ITERATIVE|ReconstructionAngle FD 360
"""
_MR = """
ScanningSequence CS SE|SequenceVariant CS SK|MRAcquisitionType CS 2D|SequenceName SH tse2d1_15|AngioFlag CS N
SliceThickness DS 4|RepetitionTime DS 4200|EchoTime DS 101|NumberOfAverages DS 2|ImagingFrequency DS 63.6
ImagedNucleus SH 1H|EchoNumbers IS 1|MagneticFieldStrength DS 1.5|SpacingBetweenSlices DS 4.4
NumberOfPhaseEncodingSteps IS 320|EchoTrainLength IS 15|PercentSampling DS 80|PercentPhaseFieldOfView DS 100
PixelBandwidth DS 191|TransmitCoilName SH Body|InPlanePhaseEncodingDirection CS COL|FlipAngle DS 150
VariableFlipAngleFlag CS N|SAR DS 1.1|dBdt DS 0|ReceiveCoilName SH Spine
"""
_SEVERAL: Header = {
    "PixelSpacing": ["DS", [0.703125, 0.703125]],
    "ImagePositionPatient": ["DS", [-180, -180, -124.5]],
    "ImageOrientationPatient": ["DS", [1, 0, 0, 0, 1, 0]],
    "ProcedureCodeSequence": [
        "SQ",
        [{"CodeValue": ["SH", ["CTTHX"]], "CodingSchemeDesignator": ["SH", ["99B"]], "CodeMeaning": ["LO", ["CT"]]}],
    ],
    "RequestAttributesSequence": [
        "SQ",
        [
            {
                "RequestedProcedureDescription": ["LO", ["CT thorax"]],
                "ScheduledProcedureStepID": ["SH", ["SPS-1"]],
                "RequestedProcedureID": ["SH", ["RP-1"]],
            }
        ],
    ],
    "ReferencedImageSequence": [
        "SQ",
        [
            {
                "ReferencedSOPClassUID": ["UI", ["1.2.840.10008.5.1.4.1.1.2"]],
                "ReferencedSOPInstanceUID": ["UI", [ROOT]],
            }
            for _ in range(3)
        ],
    ],
}
_PRIVATE: Header = {
    **{f"(0019,{n:02x},BENCH CT 1)": ["DS", [n * 1.25]] for n in range(0x10, 0x26)},
    **{f"(0029,{n:02x},BENCH HEADER)": ["LO", [f"value {n} of a private block"]] for n in range(0x08, 0x18)},
}
_TEXT_VRS = frozenset({"CS", "SH", "LO", "UI", "DA", "TM", "AE", "PN", "LT", "ST", "AS"})


def _table(text: str) -> Header:
    header: Header = {}
    for entry in text.replace("\n", "|").split("|"):
        if entry:
            keyword, vr, value = entry.split(" ", 2)
            header[keyword] = [vr, [value if vr in _TEXT_VRS else int(value) if value.isdigit() else float(value)]]
    return header


@dataclass(frozen=True, slots=True)
class Kind:
    """What a series is like, as far as rules look."""

    modality: str
    description: str
    images: int
    thickness_mm: float
    kernel: str = "Br40f"
    orientation: str = "axial"
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "AXIAL")
    localizer: bool = False
    no_image: str = ""


_SCOUT = Kind("CT", "Topogram", 1, 0.6, "T20f", "coronal", ("ORIGINAL", "PRIMARY", "LOCALIZER"), localizer=True)
_SOFT, _THIN = Kind("CT", "Thorax 5.0 Br40", 70, 5.0), Kind("CT", "Thorax 1.0 Br40", 350, 1.0)
_LUNG = Kind("CT", "Thorax 1.0 Bl57", 350, 1.0, "Bl57f")
_CORONAL = Kind("CT", "Thorax cor MPR", 60, 3.0, "Br40f", "coronal", ("DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 MPR"))
_DOSE = Kind("SR", "Dose report", 1, 0, no_image="the series holds no image to work on: it is SR")
_PET = Kind("PT", "PET WB", 300, 3.0)
_T2, _T1 = Kind("MR", "t2_tse_sag", 24, 4.0, orientation="sagittal"), Kind("MR", "t1_tse_tra", 30, 4.0)
STUDIES: tuple[tuple[Kind, ...], ...] = (
    (_SCOUT, _SOFT, _THIN, _LUNG, _CORONAL, _DOSE),
    (_SCOUT, _SOFT),
    (_SCOUT, _THIN, _PET),
    (_T2, _T1, _T1),
)


def fill(engine: sa.Engine, series: int, seed: int = 1) -> None:
    """So many series, two minutes a study up to the last one at NEWEST."""
    random = Random(seed)
    studies = list(_studies(series))
    first = NEWEST - timedelta(minutes=MINUTES_A_STUDY * len(studies))
    numbered = iter(enumerate(studies, start=1))
    series_id = 0
    while chunk := list(islice(numbered, CHUNK)):
        rows: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
        for number, kinds in chunk:
            received_at = first + timedelta(minutes=MINUTES_A_STUDY * number)
            rows[0].append(_study_row(number, received_at))
            for kind in kinds:
                series_id += 1
                rows[1].append(_series_row(series_id, number, kind, received_at))
                if series_id % 97:  # of some, files were broken and nothing was read
                    rows[2].append(_evidence_row(series_id, number, kind, random))
        with engine.begin() as connection:
            for table, made in zip((StudyRow, SeriesRow, EvidenceRow), rows, strict=True):
                connection.execute(sa.insert(table), made)


def _studies(series: int) -> Iterator[tuple[Kind, ...]]:
    number = 0
    while series > 0:
        kinds = STUDIES[number % len(STUDIES)][:series]
        yield kinds
        series -= len(kinds)
        number += 1


def _study_row(number: int, received_at: datetime) -> dict[str, Any]:
    return {
        "id": number,
        "study_instance_uid": f"{ROOT}.{number}",
        "patient_id": f"P-{number % 9000}",
        "accession_number": f"B{number:07}",
        "study_date": f"{received_at:%Y%m%d}",
        "description": "Thorax and abdomen",
        "received_at": received_at,
        "state": StudyState.ROUTED,
        "generation": 1,
    }


def _series_row(series_id: int, study: int, kind: Kind, received_at: datetime) -> dict[str, Any]:
    return {
        "id": series_id,
        "study_id": study,
        "series_instance_uid": f"{ROOT}.{study}.{series_id}",
        "state": SeriesState.NOT_ROUTED,
        "generation": 1,
        "modality": kind.modality,
        "description": kind.description,
        "series_number": series_id % 10,
        "calling_ae_title": f"SCANNER{study % 5}",
        "called_ae_title": "DICOMNODE",
        "first_received_at": received_at,
        "last_received_at": received_at,
    }


def _evidence_row(series_id: int, study: int, kind: Kind, random: Random) -> dict[str, Any]:
    known = bool(series_id % 51)  # of some, the facts of all headers are not worked out yet
    return {
        "series_id": series_id,
        "generation": 1,
        "header": _header(series_id, study, kind, random),
        "facts": _facts(kind, study, random, known),
        "all_facts": known,
        "no_image": kind.no_image,
    }


_HEADERS: dict[str, Header] = {
    "CT": _table(_COMMON) | _table(_CT) | _SEVERAL | _PRIVATE,
    "PT": _table(_COMMON) | _table(_CT) | _SEVERAL | _PRIVATE,
    "MR": _table(_COMMON) | _table(_MR) | _SEVERAL | _PRIVATE,
    "SR": _table(_COMMON),
}


def _header(series_id: int, study: int, kind: Kind, random: Random) -> Header:
    return _HEADERS[kind.modality] | {
        "Modality": ["CS", [kind.modality]],
        "SeriesInstanceUID": ["UI", [f"{ROOT}.{study}.{series_id}"]],
        "StudyInstanceUID": ["UI", [f"{ROOT}.{study}"]],
        "SOPInstanceUID": ["UI", [f"{ROOT}.{study}.{series_id}.1"]],
        "SeriesDescription": ["LO", [f"{kind.description} {random.randrange(60)}"]],
        "SeriesNumber": ["IS", [series_id % 10]],
        "ImageType": ["CS", list(kind.image_type)],
        "SliceThickness": ["DS", [kind.thickness_mm]],
        "ConvolutionKernel": ["SH", [kind.kernel]],
        "BodyPartExamined": ["CS", [random.choice(["CHEST", "ABDOMEN", "HEAD"])]],
        "CTDIvol": ["FD", [round(random.uniform(2, 20), 3)]],
        "PatientAge": ["AS", [f"{random.randrange(1, 95):03}Y"]],
    }


def _facts(kind: Kind, study: int, random: Random, known: bool) -> Header:
    facts: Header = {
        "CallingAETitle": ["AE", [f"SCANNER{study % 5}"]],
        "CalledAETitle": ["AE", ["DICOMNODE"]],
        "NumberOfInstances": ["IS", [kind.images]],
        "AgeInYears": ["DS", [random.randrange(1, 95)]],
    }
    if not known:
        return facts
    spacing: Header = {"MeasuredSliceSpacing": ["DS", [kind.thickness_mm]]} if kind.images > 2 else {}
    volume = ["FLAG", [True]] if kind.images > 2 else ["FLAG", [False], "single-slice: only one slice"]
    return (
        facts
        | spacing
        | {
            "IsAVolume": volume,
            "IsLocalizer": ["FLAG", [kind.localizer]],
            "Orientation": ["CS", [kind.orientation]],
        }
    )
