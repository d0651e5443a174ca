"""Which part of the body a source shows, for results whose frames have to say it (PS3.3 C.7.6.16.2.8)."""

from __future__ import annotations

from functools import cache

from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.sr.codedict import codes

from dicomnode.imaging.headers import items, text

# Defined terms of Body Part Examined (PS3.16 Annex L) that are no names of CID 4031's
_ABBREVIATED = {
    "CSPINE": "CervicalSpine",
    "TSPINE": "ThoracicSpine",
    "LSPINE": "LumbarSpine",
    "SSPINE": "Sacrum",
    "HEADNECK": "HeadAndNeck",
    "CHESTABDOMEN": "ChestAndAbdomen",
    "CHESTABDPELVIS": "ChestAbdomenAndPelvis",
    "ABDOMENPELVIS": "AbdomenAndPelvis",
    "WHOLEBODY": "EntireBody",
}
# What dcmqi writes where nobody said more (dcmqi, libsrc/ParaMapConverter.cpp)
_UNKNOWN = ("85756007", "SCT", "Tissue")
_SIDES = frozenset({"R", "L", "B"})


def frame_anatomy(source: Dataset) -> Dataset:
    """An item of the Frame Anatomy Sequence: as the source's header says, or its Body Part Examined."""
    shared = (items(source, "SharedFunctionalGroupsSequence") or [Dataset()])[0]
    own = (items(shared, "FrameAnatomySequence") or [Dataset()])[0]
    anatomy = Dataset()
    anatomy.AnatomicRegionSequence = [_region(own) or _region(source) or _body_part(source)]
    sides = (text(own, "FrameLaterality"), text(source, "ImageLaterality"), text(source, "Laterality"))
    anatomy.FrameLaterality = next((side for side in sides if side in _SIDES), "U")
    return anatomy


def _region(header: Dataset) -> CodedConcept | None:
    """Its own code, where it is a whole one."""
    for item in items(header, "AnatomicRegionSequence"):
        code = tuple(text(item, keyword) for keyword in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning"))
        if all(code):
            return CodedConcept(*code)
    return None


def _body_part(source: Dataset) -> CodedConcept:
    term = "".join(c for c in text(source, "BodyPartExamined").upper() if c.isalpha())
    name = _ABBREVIATED.get(term) or _regions().get(term)
    return CodedConcept.from_code(getattr(codes.cid4031, name)) if name else CodedConcept(*_UNKNOWN)


@cache
def _regions() -> dict[str, str]:
    """Names in CID 4031, Common Anatomic Regions, by their letters in capitals."""
    return {name.upper(): name for name in codes.cid4031.dir()}
