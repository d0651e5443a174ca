"""The source series as highdicom needs it: one plain header a slice, complete and in slice order.

Enhanced multi-frame instances are laid open into one header a frame; `SourceFrames.mend` puts the true references
(class, instance, frame number) into what was made from them. What the source lacks of type 2 is there, empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from highdicom.enum import SpecificCharacterSetValues
from pydicom import Dataset
from pydicom.config import RAISE
from pydicom.uid import CTImageStorage, MRImageStorage, PositronEmissionTomographyImageStorage
from pydicom.valuerep import DSdecimal, format_number_as_ds, validate_value

from dicomnode.encoding.references import UsedImages
from dicomnode.encoding.seg_items import FramePlace
from dicomnode.imaging.frames import Frame
from dicomnode.imaging.headers import UNREADABLE, items, text, value, whole
from dicomnode.imaging.volume import VolumePlan

# PS3.3 C.7.1.1 and C.7.2.1, type 2: copied as they are, empty when the source has none
IDENTITY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
# Type 3 of the Patient, General Study and Patient Study modules, and what says that a patient is de-identified
_ABOUT = (
    "IssuerOfPatientID",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "StudyDescription",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
)
_EQUIPMENT = (
    "Manufacturer",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
    "StationName",
    "InstitutionName",
)
# Left empty, or out, when the source's own value is invalid; what names the patient and the request is never
_CHECKED_VR = {
    "PatientBirthDate": "DA",
    "StudyDate": "DA",
    "StudyTime": "TM",
    "StudyID": "SH",
    "PatientAge": "AS",
    "StudyDescription": "LO",
    "IssuerOfPatientID": "LO",
    "ManufacturerModelName": "LO",
    "DeviceSerialNumber": "LO",
    "StationName": "SH",
    "InstitutionName": "LO",
}
_PLAIN = frozenset({CTImageStorage, MRImageStorage, PositronEmissionTomographyImageStorage})
UTF8 = "ISO_IR 192"


@dataclass(frozen=True, slots=True)
class SourceFrames:
    """`headers`, one a slice in slice order; `uids`, what to put for the SOP Instance UID that each stands under."""

    headers: tuple[Dataset, ...]
    references: dict[str, tuple[str, str, int | None]]  # stand-in UID → class, instance, frame number
    character_set: Any

    def of(self, slices: Sequence[int]) -> SourceFrames:
        """Of these slices alone."""
        return replace(self, headers=tuple(self.headers[k] for k in slices))

    def place(self, k: int) -> FramePlace:
        """Of a slice, with its true reference."""
        header = self.headers[k]
        own = (str(header.SOPClassUID), str(header.SOPInstanceUID), None)
        return FramePlace(k, *self.references.get(own[1], own), header.ImagePositionPatient)

    def mend(self, dataset: Dataset) -> None:
        """Puts the true references in place of the stand-ins, everywhere, and each instance once in lists of them."""
        if not self.references:
            return
        for items_ in _sequences(dataset):
            for item in items_:
                self._mend_item(item)
        _without_repeats(dataset)

    def set_character_set(self, dataset: Dataset) -> None:
        """highdicom takes no empty first term, which says that the default repertoire comes first (PS3.5 6.1.2.4)."""
        if self.character_set is not None:
            dataset.SpecificCharacterSet = self.character_set

    def _mend_item(self, item: Dataset) -> None:
        found = self.references.get(str(item.get("ReferencedSOPInstanceUID", "")))
        if found is None:
            return
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID, frame = found
        if frame is not None and "PurposeOfReferenceCodeSequence" in item:
            item.ReferencedFrameNumber = frame


def source_frames(plan: VolumePlan, texts: Iterable[str] = ()) -> SourceFrames:
    """Of a plan; `texts` is what will be written beside the source's own words."""
    shared = _shared_header(plan, texts)
    references: dict[str, tuple[str, str, int | None]] = {}
    headers = []
    for k, frame in enumerate(plan.frames):
        header = Dataset()
        header.update(shared)
        header.ImagePositionPatient = [_ds(v) for v in frame.position_mm]
        _name(header, plan.headers[frame.instance], frame, k, references)
        headers.append(header)
    return SourceFrames(tuple(headers), references, shared.get("SpecificCharacterSet"))


def identity_header(source: Dataset, texts: Iterable[str]) -> Dataset:
    """Whose images these are and what made them, as results carry it; `texts` as of source_frames."""
    shared = Dataset()
    character_set = _character_set(source, texts)
    if character_set is not None:
        shared.SpecificCharacterSet = character_set
    for keyword in IDENTITY:
        setattr(shared, keyword, checked_identity(source, keyword))
    for keyword in (*_ABOUT, *_EQUIPMENT):
        if (found := _checked(source, keyword, None)) is not None:
            setattr(shared, keyword, found)
    if text(shared, "PatientIdentityRemoved").upper() == "YES" and "DeidentificationMethod" not in shared:
        shared.DeidentificationMethod = "as of the source images"  # type 1C (PS3.3 C.7.1.1); theirs does not say
    shared.StudyInstanceUID = text(source, "StudyInstanceUID")
    shared.SeriesInstanceUID = text(source, "SeriesInstanceUID")
    return shared


def _shared_header(plan: VolumePlan, texts: Iterable[str]) -> Dataset:
    source = plan.first
    shared = identity_header(source, texts)
    shared.Modality = plan.modality
    shared.FrameOfReferenceUID = text(source, "FrameOfReferenceUID")
    shared.PositionReferenceIndicator = value(source, "PositionReferenceIndicator")
    _, shared.Rows, shared.Columns = plan.geometry.shape
    # rounding may differ from slice to slice; the grid is one
    shared.ImageOrientationPatient = [_ds(v) for v in plan.frames[0].orientation]
    shared.PixelSpacing = [_ds(v) for v in plan.frames[0].spacing_mm]
    step = abs(float(plan.geometry.affine[:3, 0] @ plan.geometry.normal))
    shared.SliceThickness = _ds(plan.frames[0].thickness_mm or step)
    shared.SpacingBetweenSlices = _ds(step)
    copy_lossy(next(filter(is_lossy, plan.headers), source), shared)  # one slice with loss is enough
    return shared


def is_lossy(source: Dataset) -> bool:
    """Whether an image was compressed with loss once (PS3.3 C.7.6.1.1.5)."""
    return text(source, "LossyImageCompression") == "01"


def copy_lossy(source: Dataset, shared: Dataset) -> None:
    """What was compressed with loss stays marked in what is made from it (PS3.3 C.7.6.1.1.5)."""
    if is_lossy(source):
        shared.LossyImageCompression = "01"
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if (found := value(source, keyword)) is not None:
                setattr(shared, keyword, found)


def checked_identity(source: Dataset, keyword: str) -> Any:
    """What a result carries for an attribute of IDENTITY: the source's value, empty where that is absent or wrong."""
    return _checked(source, keyword, "")


def _checked(source: Dataset, keyword: str, absent: Any) -> Any:
    """The source's value, or `absent` where writing it would make the result break the standard."""
    found = value(source, keyword)
    if found is None:
        return absent
    if keyword == "PatientSex" and found not in {"M", "F", "O"}:
        return absent
    if vr := _CHECKED_VR.get(keyword):
        try:
            validate_value(vr, str(found), RAISE)
        except UNREADABLE:
            return absent
        return found if str(found).strip() else absent
    return found


def _name(
    header: Dataset, source: Dataset, frame: Frame, k: int, references: dict[str, tuple[str, str, int | None]]
) -> None:
    sop_class, multi_frame = text(source, "SOPClassUID"), bool(items(source, "PerFrameFunctionalGroupsSequence"))
    if sop_class in _PLAIN and not multi_frame:
        header.SOPClassUID, header.SOPInstanceUID = sop_class, frame.sop_instance_uid
        return
    stand_in = f"2.25.{k + 1}"
    header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, stand_in
    references[stand_in] = (sop_class, frame.sop_instance_uid, frame.number if multi_frame else None)


def _ds(number: float) -> DSdecimal:
    """A decimal string of 16 characters at most (PS3.5 6.2) that reads as nearly the same number."""
    return DSdecimal(format_number_as_ds(number))


def _character_set(source: Dataset, texts: Iterable[str]) -> Any:
    """The source's own, so that names stay the bytes they were; UTF-8 where it cannot be used or hold our words."""
    declared = value(source, "SpecificCharacterSet")
    try:
        _check_terms(declared)
    except UNREADABLE:
        return UTF8
    return declared if all(t.isascii() for t in texts) else UTF8


def _check_terms(declared: Any) -> None:
    """Raises ValueError for terms that PS3.3 C.12.1.1.2 does not define."""
    for term in [declared] if isinstance(declared, str) or declared is None else declared:
        if term not in (None, ""):
            SpecificCharacterSetValues(term)


def _sequences(dataset: Dataset) -> Iterator[Sequence[Dataset]]:
    """Every sequence of a data set, at any depth."""
    for element in dataset:
        if element.VR == "SQ":
            yield element.value
            for item in element.value:
                yield from _sequences(item)


def _without_repeats(dataset: Dataset) -> None:
    """Lists of instances name each once, however many of its frames were used."""
    for holder, keyword in _lists_of_instances(dataset):
        if keyword in holder:
            by_uid = {str(item.ReferencedSOPInstanceUID): item for item in holder[keyword].value}
            setattr(holder, keyword, list(by_uid.values()))


def _lists_of_instances(dataset: Dataset) -> Iterator[tuple[Dataset, str]]:
    """A SEG's source images and common instance references, an SR's evidence."""
    yield dataset, "SourceImageSequence"
    for series in dataset.get("ReferencedSeriesSequence", []):
        yield series, "ReferencedInstanceSequence"
    for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in dataset.get(keyword, []):
            for series in study.ReferencedSeriesSequence:
                yield series, "ReferencedSOPSequence"


def source_series_number(plan: UsedImages) -> int | None:
    return whole(plan.first, "SeriesNumber")
