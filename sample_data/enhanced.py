"""One Enhanced CT Image for a whole scan (PS3.3 A.38.1): functional groups instead of a file a slice."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import EnhancedCTImageStorage

from sample_data.dicom_files import INTERCEPT, StudyUids, new_instance, set_pixels
from sample_data.protocols import Protocol
from sample_data.scanner import Scan

_DATE_TIME = "20251101101500"


def enhanced_image(scan: Scan, protocol: Protocol, uids: StudyUids) -> Dataset:
    """The scan as one object; frames from feet to head."""
    ds = new_instance(uids, "enhanced", 1, EnhancedCTImageStorage)
    del ds.AcquisitionDate, ds.AcquisitionTime
    ds.SeriesNumber, ds.SeriesDescription, ds.NumberOfFrames = 2, protocol.description, len(scan.hu)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.AcquisitionDateTime, ds.AcquisitionDuration, ds.AcquisitionNumber = _DATE_TIME, 6.0, 1
    ds.PixelPresentation, ds.VolumetricProperties, ds.VolumeBasedCalculationTechnique = "MONOCHROME", "VOLUME", "NONE"
    ds.ContentQualification, ds.BurnedInAnnotation, ds.LossyImageCompression = "PRODUCT", "NO", "00"
    ds.PresentationLUTShape = "IDENTITY"
    ds.IsocenterPosition, ds.AcquisitionContextSequence = [0.0, 0.0, 0.0], Sequence()
    ds.MultienergyCTAcquisition, ds.ProtocolName = "NO", protocol.name.upper()
    _contrast(ds)
    _dimensions(ds, uids)
    ds.SharedFunctionalGroupsSequence = Sequence([_shared(scan, protocol, uids)])
    ds.PerFrameFunctionalGroupsSequence = Sequence([_frame(scan, i) for i in range(len(scan.hu))])
    set_pixels(ds, scan.hu - INTERCEPT)
    return ds


def _item(**attributes: object) -> Sequence:
    """A sequence of one item."""
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return Sequence([item])


def _coded(code: Code) -> Sequence:
    return _item(CodeValue=code.value, CodingSchemeDesignator=code.scheme_designator, CodeMeaning=code.meaning)


def _contrast(ds: Dataset) -> None:
    """Enhanced Contrast/Bolus Module (PS3.3 C.7.6.4b)."""
    agent = _coded(Code("44588005", "SCT", "Iodine"))
    agent[0].ContrastBolusAgentNumber = 1
    agent[0].ContrastBolusAdministrationRouteSequence = _coded(Code("47625008", "SCT", "Intravenous route"))
    agent[0].ContrastBolusIngredientCodeSequence = _coded(Code("44588005", "SCT", "Iodine"))
    agent[0].ContrastBolusVolume, agent[0].ContrastBolusIngredientConcentration = 90.0, 350.0
    ds.ContrastBolusAgentSequence = agent


def _dimensions(ds: Dataset, uids: StudyUids) -> None:
    """Multi-frame Dimension Module (PS3.3 C.7.6.17): by place in the stack."""
    organization = uids.uid("dimension organization")
    ds.DimensionOrganizationSequence = _item(DimensionOrganizationUID=organization)
    ds.DimensionIndexSequence = _item(
        DimensionOrganizationUID=organization, DimensionIndexPointer=0x00209057, FunctionalGroupPointer=0x00209111
    )


def _shared(scan: Scan, protocol: Protocol, uids: StudyUids) -> Dataset:
    """What holds for every frame (PS3.3 A.38.1.4)."""
    group, affine = Dataset(), scan.geometry.affine
    z, row, column = scan.spacing_mm
    directions = [float(v) for v in (*(affine[:3, 2] / column), *(affine[:3, 1] / row))]
    group.PixelMeasuresSequence = _item(
        PixelSpacing=[row, column], SliceThickness=protocol.thickness_mm, SpacingBetweenSlices=z
    )
    group.PlaneOrientationSequence = _item(ImageOrientationPatient=directions)
    group.FrameAnatomySequence = _item(FrameLaterality="U", AnatomicRegionSequence=_coded(codes.SCT.Abdomen))
    group.PixelValueTransformationSequence = _item(RescaleIntercept=INTERCEPT, RescaleSlope=1, RescaleType="HU")
    group.FrameVOILUTSequence = _item(WindowCenter=40, WindowWidth=400)
    group.ContrastBolusUsageSequence = _item(
        ContrastBolusAgentNumber=1, ContrastBolusAgentAdministered="YES", ContrastBolusAgentDetected="YES",
        ContrastBolusAgentPhase="PORTAL_VENOUS",
    )  # fmt: skip
    group.IrradiationEventIdentificationSequence = _item(IrradiationEventUID=uids.uid("irradiation event"))
    group.CTImageFrameTypeSequence = _item(
        FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], PixelPresentation="MONOCHROME",
        VolumetricProperties="VOLUME", VolumeBasedCalculationTechnique="NONE",
    )  # fmt: skip
    _technique(group, protocol)
    return group


def _technique(group: Dataset, protocol: Protocol) -> None:
    """The CT functional groups (PS3.3 C.8.15.3)."""
    diameter = protocol.matrix * protocol.pixel_mm
    group.CTAcquisitionTypeSequence = _item(AcquisitionType="SPIRAL", ConstantVolumeFlag="NO", FluoroscopyFlag="NO")
    group.CTAcquisitionDetailsSequence = _item(
        RotationDirection="CW", RevolutionTime=0.6, SingleCollimationWidth=0.6, TotalCollimationWidth=38.4,
        TableHeight=150.0, GantryDetectorTilt=protocol.tilt_degrees, DataCollectionDiameter=500.0,
    )  # fmt: skip
    group.CTTableDynamicsSequence = _item(TableSpeed=64.0, TableFeedPerRotation=38.4, SpiralPitchFactor=1.0)
    group.CTGeometrySequence = _item(DistanceSourceToDetector=950.0, DistanceSourceToDataCollectionCenter=540.0)
    group.CTReconstructionSequence = _item(
        ReconstructionAlgorithm="FILTER_BACK_PROJ", ConvolutionKernel=protocol.kernel,
        ConvolutionKernelGroup="SOFT_TISSUE",
        ReconstructionDiameter=diameter, ReconstructionPixelSpacing=[protocol.pixel_mm] * 2,
        ReconstructionAngle=360.0, ImageFilter="NONE",
    )  # fmt: skip
    group.CTExposureSequence = _item(
        ExposureTimeInms=600.0, XRayTubeCurrentInmA=250.0, ExposureInmAs=150.0, ExposureModulationType="NONE",
        CTDIvol=9.8, CTDIPhantomTypeCodeSequence=_coded(Code("113691", "DCM", "IEC Body Dosimetry Phantom")),
    )  # fmt: skip
    group.CTXRayDetailsSequence = _item(KVP=120, FocalSpots=1.0, FilterType="FLAT", FilterMaterial="ALUMINUM")


def _frame(scan: Scan, index: int) -> Dataset:
    """What differs from frame to frame."""
    group = Dataset()
    position = [float(v) for v in scan.geometry.affine[:3, 3] + index * scan.geometry.affine[:3, 0]]
    group.FrameContentSequence = _item(
        StackID="1", InStackPositionNumber=index + 1, DimensionIndexValues=[index + 1], FrameAcquisitionNumber=1,
        FrameReferenceDateTime=_DATE_TIME, FrameAcquisitionDateTime=_DATE_TIME, FrameAcquisitionDuration=600.0,
    )  # fmt: skip
    group.PlanePositionSequence = _item(ImagePositionPatient=[round(v, 6) for v in position])
    centre = scan.geometry.affine[:3] @ (index, (scan.hu.shape[1] - 1) / 2, (scan.hu.shape[2] - 1) / 2, 1)
    group.CTPositionSequence = _item(
        TablePosition=round(position[2], 3), DataCollectionCenterPatient=[round(float(v), 3) for v in centre],
        ReconstructionTargetCenterPatient=[round(float(v), 3) for v in centre],
    )  # fmt: skip
    return group
