"""What the gate asks of every result whatever its kind: the standard's own tables, and references that resolve."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import chain

from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage, EncapsulatedPDFStorage, KeyObjectSelectionDocumentStorage

from dicomnode.encoding.check_dimensions import check_dimensions
from dicomnode.encoding.check_frames import FRAMES
from dicomnode.encoding.examine_document import wrong_content, wrong_key_objects
from dicomnode.encoding.examine_modules import absent_attributes
from dicomnode.encoding.examine_others import wrong_document
from dicomnode.encoding.examine_terms import wrong_bits, wrong_spacing, wrong_terms, wrong_words
from dicomnode.encoding.examine_values import wrong_codes
from dicomnode.encoding.refusal import refuse
from dicomnode.imaging.headers import items, text, value

_BY_KIND: Mapping[str, tuple[Callable[[Dataset], Iterator[str]], ...]] = {
    Comprehensive3DSRStorage: (wrong_content,),
    KeyObjectSelectionDocumentStorage: (wrong_content, wrong_key_objects),
    EncapsulatedPDFStorage: (wrong_document,),
}
# What a result names beside its sources: what it takes the place of; and what is looked at frame by frame
_NOT_SOURCES = frozenset({FRAMES, "PredecessorDocumentsSequence", "PredecessorStructureSetSequence"})


def check_whole(dataset: Dataset) -> None:
    """Raises NonConformant with the first thing wrong. Frames are check_frames': of thousands most say the same."""
    sop_class = text(dataset, "SOPClassUID")
    found = chain(
        absent_attributes(dataset, sop_class, FRAMES),
        wrong_codes(dataset, FRAMES),
        wrong_terms(dataset, FRAMES),
        wrong_words(dataset, FRAMES),
        wrong_bits(dataset),
        wrong_spacing(dataset),
        *(look(dataset) for look in _BY_KIND.get(sop_class, ())),
    )
    for words in found:
        refuse(words)
    check_dimensions(dataset)


def check_resolves(dataset: Dataset, known: Mapping[str, str], others: Collection[str] = ()) -> None:
    """Every instance that is named, at any depth, is one of `known` under its SOP class, or one of `others`.

    Raises NonConformant. `known`: SOP Instance UID → SOP Class UID of what was received and made.
    """
    for uid, sop_class in _named(dataset):
        if uid not in others and known.get(uid) != sop_class:
            refuse(f"instance {uid} is referenced, which the source does not have under that SOP class")


def _named(dataset: Dataset) -> Iterator[tuple[str, str]]:
    for element in dataset:
        if element.VR != "SQ" or element.keyword in _NOT_SOURCES:
            continue
        for item in items(dataset, element.keyword) if element.keyword else []:
            if "ReferencedSOPClassUID" in item or "ReferencedSOPInstanceUID" in item:
                yield text(item, "ReferencedSOPInstanceUID"), text(item, "ReferencedSOPClassUID")
            yield from _named(item)


def check_fixed(dataset: Dataset, wanted: Mapping[str, object], where: str) -> None:
    """Raises NonConformant where an attribute has another value than its kind has; None: it is absent or empty."""
    for keyword, one in wanted.items():
        found = value(dataset, keyword)
        if text(dataset, keyword) != ("" if one is None else str(one)):
            refuse(f"{keyword} of {where} is {found!r}, not {one!r}")
