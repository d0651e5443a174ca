"""All that is wrong with a result of anybody's: what `dicomnode check` says.

The gate in front of delivery (check and its neighbours) knows what the node meant to make, and refuses at the first
thing that is wrong. Here an object is looked at by itself, by what PS3.3 asks of its kind, and beside its source
images where they are there; of the node's own segmentations and reports the gate's verdict is added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    EncapsulatedPDFStorage,
    KeyObjectSelectionDocumentStorage,
    ParametricMapStorage,
    RTStructureSetStorage,
    SegmentationStorage,
)

from dicomnode.domain.quantity import quantity
from dicomnode.encoding.check import (
    LABEL_MAP_SEGMENTATION_STORAGE,
    check_label_map,
    check_measurement_report,
    check_segmentation,
)
from dicomnode.encoding.examine_document import wrong_content, wrong_key_objects
from dicomnode.encoding.examine_frames import wrong_groups, wrong_segments
from dicomnode.encoding.examine_modules import absent_attributes
from dicomnode.encoding.examine_others import wrong_document, wrong_graphics, wrong_regions
from dicomnode.encoding.examine_source import (
    Reference,
    Sources,
    is_on_another_grid,
    references_of,
    wrong_identity,
    wrong_place,
    wrong_references,
)
from dicomnode.encoding.examine_terms import wrong_bits, wrong_spacing, wrong_terms, wrong_words
from dicomnode.encoding.examine_values import is_encapsulated, wrong_codes, wrong_pixels, wrong_uids
from dicomnode.encoding.provenance import is_own
from dicomnode.encoding.references import Further
from dicomnode.encoding.uid_names import name_of
from dicomnode.errors import NonConformant, NotAVolume
from dicomnode.imaging.frames import is_image
from dicomnode.imaging.headers import UNREADABLE, odd_values_accepted, text
from dicomnode.imaging.volume import VolumePlan, plan_volume

Look = Callable[[Dataset], Iterator[str]]

_STORAGE = "1.2.840.10008.5.1.4.1.1."
# The beginnings of SOP Class UIDs of reports, presentation states, Secondary Captures, encapsulated documents
_FAMILIES: Mapping[str, tuple[Look, ...]] = {
    f"{_STORAGE}88.": (wrong_content,),
    f"{_STORAGE}11.": (wrong_graphics,),
    f"{_STORAGE}7.": (),
    f"{_STORAGE}104.": (),
    f"{_STORAGE}66.": (),
}
_KINDS: Mapping[str, tuple[Look, ...]] = {
    SegmentationStorage: (wrong_segments, wrong_groups),
    LABEL_MAP_SEGMENTATION_STORAGE: (wrong_segments, wrong_groups),
    ParametricMapStorage: (wrong_groups,),
    RTStructureSetStorage: (wrong_regions,),
    KeyObjectSelectionDocumentStorage: (wrong_content, wrong_key_objects),
    EncapsulatedPDFStorage: (wrong_document,),
    f"{_STORAGE}7": (),
    f"{_STORAGE}67": (),  # Real World Value Mapping
}
_FRAMED = (SegmentationStorage, LABEL_MAP_SEGMENTATION_STORAGE, ParametricMapStorage)


@dataclass(frozen=True, slots=True)
class Examination:
    """Of one object: what it is, everything that is wrong with it, and what could not be looked at or is unusual."""

    kind: str
    wrong: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def is_result(sop_class_uid: str) -> bool:
    return sop_class_uid in _KINDS or sop_class_uid.startswith(tuple(_FAMILIES))


def what_else(header: Dataset) -> str:
    """What an object is that is no result, in words."""
    name = name_of(text(header, "SOPClassUID"))
    if not name:
        return "without a SOP class: not looked at"
    return f"is an image, not a result ({name})" if is_image(header) else f"is a {name}, no result that this looks at"


def examine(dataset: Dataset, sources: Sources | None = None, *, whose: str = "") -> Examination:
    """`dataset` with its pixels, as read; `sources`, the images that are there; `whose`, in words where they are."""
    sop_class = text(dataset, "SOPClassUID")
    with odd_values_accepted():
        wrong = [words for look in _looks(sop_class) for words in _said(look, dataset)]
        notes: list[str] = []
        if sources is not None:
            beside, notes = _beside(dataset, sop_class, sources, whose)
            wrong += beside
    return Examination(name_of(sop_class), tuple(dict.fromkeys(wrong)), tuple(notes))


def _looks(sop_class: str) -> Iterator[Look]:
    yield lambda dataset: absent_attributes(dataset, sop_class)
    yield from (wrong_uids, wrong_codes, wrong_pixels, wrong_terms, wrong_words, wrong_bits, wrong_spacing)
    family = next((looks for start, looks in _FAMILIES.items() if sop_class.startswith(start)), ())
    yield from _KINDS.get(sop_class, family)


def _said(look: Look, dataset: Dataset) -> list[str]:
    """What a look finds; an element whose bytes do not fit its VR ends that look, and is a finding itself."""
    found: list[str] = []
    try:
        found.extend(look(dataset))
    except UNREADABLE as error:
        found.append(f"an element cannot be read ({type(error).__name__})")
    return found


# ------------------------------------------------------------------------------------------------ beside its source


def _not_there(references: Sequence[Reference], sources: Sources, whose: str) -> Iterator[str]:
    """Images of series of which there is none: that some of a series are missing is a fault, and said as such."""
    there = sources.series()
    images = {r.instance: r.series for r in references if _is_of_image(r.sop_class)}
    absent = [uid for uid, series in images.items() if uid not in sources.headers and series not in there]
    if absent:
        of = quantity(len(images), "referenced image")
        yield f"{len(absent)} of its {of} {'is' if len(absent) == 1 else 'are'} not {whose}: not compared with them"


def _is_of_image(sop_class: str) -> bool:
    return sop_class.startswith(_STORAGE) and not is_result(sop_class)


def _beside(dataset: Dataset, sop_class: str, sources: Sources, whose: str) -> tuple[list[str], list[str]]:
    """(wrong, notes)"""
    try:
        references = references_of(dataset)
    except UNREADABLE as error:
        return [f"the references cannot be read ({type(error).__name__})"], []
    named = dict.fromkeys(reference.instance for reference in references)
    used = [sources.headers[uid] for uid in named if uid in sources.headers]
    if not used:
        return [], [
            f"none of its {quantity(len(named), 'referenced instance')} is {whose}: not compared with its source"
        ]
    found = [*wrong_references(references, sources), *wrong_identity(dataset, used)]
    notes = [*_not_there(references, sources, whose)]
    if sop_class in _FRAMED:
        found += wrong_place(dataset, used)
        if is_on_another_grid(dataset, used):
            notes.append(
                "it lies on another grid than its source images: allowed, and not every viewer shows it right"
            )
    if is_own(dataset) and not is_encapsulated(dataset):
        found += _refused(dataset, sop_class, references, sources)
    return found, notes


def _refused(dataset: Dataset, sop_class: str, references: Sequence[Reference], sources: Sources) -> Iterator[str]:
    """What the gate says of the node's own SEG or SR, where its source makes a volume."""
    plans = _plans(references, sources)
    if not plans:
        return
    plan, *others = plans
    further: Further = {str(number): other for number, other in enumerate(others)}
    try:
        if sop_class == SegmentationStorage:
            fractional = text(dataset, "SegmentationType") == "FRACTIONAL"
            check_segmentation(dataset, plan, further, fractional=fractional)
        elif sop_class == LABEL_MAP_SEGMENTATION_STORAGE:
            check_label_map(dataset, plan, further)
        elif sop_class == Comprehensive3DSRStorage:
            beside = {r.instance: r.sop_class for r in references if r.instance not in sources.headers}
            check_measurement_report(dataset, plan, further, beside)
    except NonConformant as error:
        yield str(error)
    except UNREADABLE as error:
        yield f"an element cannot be read ({type(error).__name__})"


def _plans(references: Sequence[Reference], sources: Sources) -> list[VolumePlan]:
    """Of the series that are referenced and make volumes; the one that the object itself comes from first."""
    series, found = sources.series(), []
    for uid in dict.fromkeys(
        text(sources.headers[r.instance], "SeriesInstanceUID") for r in references if r.instance in sources.headers
    ):
        try:
            found.append(plan_volume(series[uid]))
        except NotAVolume:
            continue
    return found
