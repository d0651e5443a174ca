"""Values that the standard does not know: terms, dates, numbers of bits, letters of another character set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pydicom import DataElement, Dataset
from pydicom.charset import python_encoding
from pydicom.config import RAISE
from pydicom.valuerep import validate_value

from dicomnode.encoding.examine_values import elements
from dicomnode.imaging.headers import UNREADABLE, items, text, whole

_YES_NO = frozenset({"YES", "NO"})
# Enumerated Values (PS3.5 6.3): no others are allowed, in whatever object the attribute is
_ENUMERATED: Mapping[str, frozenset[str]] = {
    "ApprovalStatus": frozenset({"APPROVED", "UNAPPROVED", "REJECTED"}),  # PS3.3 C.8.8.16
    "BurnedInAnnotation": _YES_NO,  # C.7.6.1
    "CompletionFlag": frozenset({"PARTIAL", "COMPLETE"}),  # C.17.2
    "ContentQualification": frozenset({"PRODUCT", "RESEARCH", "SERVICE"}),  # C.8.13.2
    "ContinuityOfContent": frozenset({"SEPARATE", "CONTINUOUS"}),  # C.18.8
    "FrameLaterality": frozenset("RLUB"),  # C.7.6.16.2.8
    "LossyImageCompression": frozenset({"00", "01"}),  # C.7.6.1.1.5
    "PixelPresentation": frozenset({"COLOR", "MONOCHROME", "MIXED", "TRUE_COLOR"}),  # C.8.16.2
    "PixelRepresentation": frozenset("01"),  # C.7.6.3.1
    "PlanarConfiguration": frozenset("01"),  # C.7.6.3.1.3
    "PreliminaryFlag": frozenset({"PRELIMINARY", "FINAL"}),  # C.17.2
    "PresentationLUTShape": frozenset({"IDENTITY", "INVERSE"}),  # C.11.6, C.7.6.23
    "RecognizableVisualFeatures": _YES_NO,  # C.7.6.1
    "ROIGenerationAlgorithm": frozenset({"AUTOMATIC", "SEMIAUTOMATIC", "MANUAL", ""}),  # C.8.8.5
    "SegmentAlgorithmType": frozenset({"AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"}),  # C.8.20.4
    "SegmentsOverlap": frozenset({"YES", "NO", "UNDEFINED"}),  # C.8.20.2
    "SpatialLocationsPreserved": frozenset({"YES", "NO", "REORIENTED_ONLY"}),  # C.7.6.16.2.6
    "VerificationFlag": frozenset({"UNVERIFIED", "VERIFIED"}),  # C.17.2
}
_WITH_A_FORM = frozenset({"DA", "TM", "DT", "CS"})  # PS3.5 6.2; of these pydicom knows what they look like
# What is copied from the source as it is: an odd value there is no fault of the result
_COPIED = frozenset({"PatientIdentityRemoved", "LossyImageCompressionMethod"})
_WORDS = frozenset({"PN", "LO", "SH", "LT", "ST", "UT", "UC"})
_COLOURED = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420"})
# Of each of these an item says one thing (PS3.3 C.7.6.16, C.17.3.2): readers take the first
_ONE_ITEM = frozenset(
    {
        "SharedFunctionalGroupsSequence",
        "PlanePositionSequence",
        "PlaneOrientationSequence",
        "PixelMeasuresSequence",
        "FrameContentSequence",
        "SegmentIdentificationSequence",
        "PixelValueTransformationSequence",
        "ConceptNameCodeSequence",
        "ConceptCodeSequence",
        "MeasuredValueSequence",
        "MeasurementUnitsCodeSequence",
        "SegmentedPropertyCategoryCodeSequence",
        "SegmentedPropertyTypeCodeSequence",
        "PurposeOfReferenceCodeSequence",
        "AlgorithmFamilyCodeSequence",
        "ContentTemplateSequence",
        "FrameAnatomySequence",
        "AnatomicRegionSequence",
        "FrameVOILUTSequence",
        "ParametricMapFrameTypeSequence",
    }
)
# Of these there is an item at least where they are there at all (PS3.3 C.12.4, 10.16, C.18.8)
_SOME_ITEMS = frozenset(
    {"SourceImageSequence", "SegmentationAlgorithmIdentificationSequence", "ContentTemplateSequence"}
)


def wrong_terms(dataset: Dataset, but: str = "") -> Iterator[str]:
    """Terms, dates and times that are none; `but`: the sequence of that keyword is not gone through."""
    found: dict[str, None] = {}
    for element in elements(dataset, but):
        if element.keyword in _ONE_ITEM and len(element.value) > 1:
            found[f"{element.keyword} has {len(element.value)} items, one is allowed"] = None
        elif element.keyword in _SOME_ITEMS and not element.value:
            found[f"{element.keyword} has no item"] = None
        elif (known := _ENUMERATED.get(element.keyword)) is not None and not element.is_empty:
            if str(element.value).strip() not in known:
                found[f"{element.keyword} is {element.value!r}, none of {', '.join(sorted(filter(None, known)))}"] = (
                    None
                )
        elif element.VR in _WITH_A_FORM and element.keyword not in _COPIED and not _has_its_form(element):
            found[f"{element.keyword or element.tag} is no {element.VR} (PS3.5 6.2)"] = None
    yield from found


def _has_its_form(element: DataElement) -> bool:
    """Of text; what is not yet written is a date or time already."""
    several = isinstance(element.value, Sequence) and not isinstance(element.value, str)
    try:
        for one in element.value if several else [element.value]:
            if isinstance(one, str):
                validate_value(element.VR, one, RAISE)
    except UNREADABLE:
        return False
    return True


def wrong_words(dataset: Dataset, but: str = "") -> Iterator[str]:
    """Letters beyond ASCII without a character set, or with one that there is not (PS3.3 C.12.1.1.2)."""
    declared = dataset.get("SpecificCharacterSet")
    terms = [declared] if isinstance(declared, str) else list(declared or [])
    if unknown := [term for term in terms if term and term not in python_encoding]:
        yield f"SpecificCharacterSet {unknown[0]!r} is not known"
    elif not any(terms):
        named = {e.keyword for e in elements(dataset, but) if e.VR in _WORDS and not str(e.value).isascii()}
        if named:
            yield f"{', '.join(sorted(named))} has letters beyond ASCII, and SpecificCharacterSet is absent"


def wrong_bits(dataset: Dataset) -> Iterator[str]:
    """Bits, samples and their meaning go together (PS3.3 C.7.6.3.1)."""
    allocated, stored, high = (whole(dataset, k) for k in ("BitsAllocated", "BitsStored", "HighBit"))
    if allocated is not None and stored is not None and stored > allocated:
        yield f"{stored} bits are stored in {allocated}"
    if stored is not None and high is not None and high != stored - 1:
        yield f"HighBit is {high}, of {stored} bits it is {stored - 1} (PS3.5 8.1.1)"
    samples, meaning = whole(dataset, "SamplesPerPixel"), text(dataset, "PhotometricInterpretation")
    if samples is not None and meaning and samples != (3 if meaning in _COLOURED else 1):
        yield f"{samples} samples a pixel do not go with the PhotometricInterpretation {meaning!r}"
    if (samples or 1) > 1 and whole(dataset, "PlanarConfiguration") is None:
        yield "PlanarConfiguration is absent, and a pixel has several samples (type 1C)"


def wrong_spacing(dataset: Dataset) -> Iterator[str]:
    """Thickness and distance of slices are distances (PS3.3 C.7.6.16.2.1)."""
    for shared in items(dataset, "SharedFunctionalGroupsSequence"):
        for measures in items(shared, "PixelMeasuresSequence"):
            for keyword in ("SliceThickness", "SpacingBetweenSlices"):
                if keyword in measures and not _is_distance(measures, keyword):
                    yield f"{keyword} is no distance"


def _is_distance(measures: Dataset, keyword: str) -> bool:
    try:
        return float(measures[keyword].value) > 0
    except UNREADABLE:
        return False
