"""What a modality or an archive says about instances to come: MPPS (PS3.4 Annex F) and IAN (PS3.4 Annex R).

Data sets are read here as DICOM JSON (PS3.18 F), as the database keeps them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from dicomnode.domain.identifiers import is_uid
from dicomnode.errors import InvalidAttribute, MissingAttribute, MissingAttributeValue

Document = Mapping[str, Any]

# PS3.4 Table F.7.2-1 and Table R.3.2-1
_STUDY_INSTANCE_UID = "0020000D"
_SERIES_INSTANCE_UID = "0020000E"
_SCHEDULED_STEP_ATTRIBUTES_SEQUENCE = "00400270"
_PERFORMED_PROCEDURE_STEP_STATUS = "00400252"
_PERFORMED_SERIES_SEQUENCE = "00400340"
_REFERENCED_IMAGE_SEQUENCE = "00081140"
_REFERENCED_NON_IMAGE_SEQUENCE = "00400220"  # Referenced Non-Image Composite SOP Instance Sequence
_REFERENCED_SOP_INSTANCE_UID = "00081155"
_REFERENCED_SERIES_SEQUENCE = "00081115"
_REFERENCED_SOP_SEQUENCE = "00081199"
_INSTANCE_AVAILABILITY = "00080056"
_ONLINE = "ONLINE"  # PS3.3 C.4.23.1.1: can be got without further ado


class AnnouncementKind(StrEnum):
    MPPS = "mpps"
    IAN = "ian"


class AnnouncementState(StrEnum):
    IN_PROGRESS = "in progress"
    COMPLETED = "completed"
    DISCONTINUED = "discontinued"
    AVAILABLE = "available"  # of an IAN


# PS3.4 F.7.2.2: an MPPS in one of these "may no longer be updated"
FINAL_STATES = frozenset({AnnouncementState.COMPLETED, AnnouncementState.DISCONTINUED})

_STATES = {
    "IN PROGRESS": AnnouncementState.IN_PROGRESS,
    "COMPLETED": AnnouncementState.COMPLETED,
    "DISCONTINUED": AnnouncementState.DISCONTINUED,
}


@dataclass(frozen=True, slots=True)
class AnnouncedSeries:
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Announcement:
    kind: AnnouncementKind
    sop_instance_uid: str  # of the MPPS or IAN object
    calling_ae_title: str
    state: AnnouncementState
    series: tuple[AnnouncedSeries, ...]  # those of which it names instances
    document: Mapping[str, Any] = field(default_factory=dict)  # the data set as DICOM JSON (PS3.18 F)

    @property
    def instances(self) -> int:
        return sum(len(series.sop_instance_uids) for series in self.series)


def read_mpps(sop_instance_uid: str, calling_ae_title: str, document: Document) -> Announcement:
    """What an MPPS object says as it is now; raises MissingAttribute, InvalidAttribute.

    Of what PS3.4 Table F.7.2-1 demands only that is insisted on which is used here: a technologist cannot mend
    what else the modality leaves out. When the steps are of several studies, its series count as the first one's.
    """
    status = _required(document, _PERFORMED_PROCEDURE_STEP_STATUS, "Performed Procedure Step Status")
    if status not in _STATES:
        words = "Performed Procedure Step Status is none of IN PROGRESS, COMPLETED, DISCONTINUED"
        raise InvalidAttribute(words, (int(_PERFORMED_PROCEDURE_STEP_STATUS, 16),))
    study = study_instance_uids(document)[0]
    instances: dict[str, dict[str, None]] = {}
    for item in _items(document, _PERFORMED_SERIES_SEQUENCE):
        references = [*_items(item, _REFERENCED_IMAGE_SEQUENCE), *_items(item, _REFERENCED_NON_IMAGE_SEQUENCE)]
        _add(instances, item, references)
    return Announcement(
        AnnouncementKind.MPPS,
        sop_instance_uid,
        calling_ae_title,
        _STATES[status],
        _series(study, instances),
        document,
    )


def read_new_mpps(sop_instance_uid: str, calling_ae_title: str, document: Document) -> Announcement:
    """As read_mpps; it has to be created IN PROGRESS (PS3.4 F.7.2.1.2)."""
    announcement = read_mpps(sop_instance_uid, calling_ae_title, document)
    if announcement.state is not AnnouncementState.IN_PROGRESS:
        words = "Performed Procedure Step Status has to be IN PROGRESS when it is created"
        raise InvalidAttribute(words, (int(_PERFORMED_PROCEDURE_STEP_STATUS, 16),))
    return announcement


def updated_mpps(before: Announcement, changes: Document) -> Announcement:
    """An MPPS after an N-SET: attributes that it gives are replaced, sequences as a whole (PS3.4 F.7.2.2.2)."""
    return read_mpps(before.sop_instance_uid, before.calling_ae_title, {**before.document, **changes})


def read_ian(sop_instance_uid: str, calling_ae_title: str, document: Document) -> Announcement:
    """What an Instance Availability Notification says is ONLINE; raises MissingAttribute, InvalidAttribute."""
    study = study_instance_uids(document)[0]
    if _REFERENCED_SERIES_SEQUENCE not in document:
        raise MissingAttribute("Referenced Series Sequence is missing", (int(_REFERENCED_SERIES_SEQUENCE, 16),))
    instances: dict[str, dict[str, None]] = {}
    for item in _items(document, _REFERENCED_SERIES_SEQUENCE):
        references = [reference for reference in _items(item, _REFERENCED_SOP_SEQUENCE) if _is_online(reference)]
        _add(instances, item, references)
    state = AnnouncementState.AVAILABLE
    return Announcement(
        AnnouncementKind.IAN, sop_instance_uid, calling_ae_title, state, _series(study, instances), document
    )


def study_instance_uids(document: Document) -> tuple[str, ...]:
    """Of an MPPS (in its Scheduled Step Attributes Sequence) or an IAN, at least one; raises as reading does."""
    if _SCHEDULED_STEP_ATTRIBUTES_SEQUENCE in document:
        steps = _items(document, _SCHEDULED_STEP_ATTRIBUTES_SEQUENCE)
        if not steps:
            tag = int(_SCHEDULED_STEP_ATTRIBUTES_SEQUENCE, 16)
            raise MissingAttributeValue("Scheduled Step Attributes Sequence is empty", (tag,))
    else:
        steps = [document]
    return tuple(dict.fromkeys(_uid(step, _STUDY_INSTANCE_UID, "Study Instance UID") for step in steps))


def studies_of(announcement: Announcement) -> tuple[str, ...]:
    """All that it is about, by what can be read of it."""
    steps = [announcement.document, *_items(announcement.document, _SCHEDULED_STEP_ATTRIBUTES_SEQUENCE)]
    named = [str(value) for step in steps for value in _values(step, _STUDY_INSTANCE_UID)]
    return tuple(dict.fromkeys([*filter(is_uid, named), *(one.study_instance_uid for one in announcement.series)]))


@dataclass(frozen=True, slots=True)
class Said:
    """An announcement as a line of the story: nothing of the patient in it."""

    kind: str
    message: str
    detail: Mapping[str, Any]


def said(announcement: Announcement) -> Said:
    what = f"{_counted(announcement.instances, 'instance')} in {_counted(len(announcement.series), 'series')}"
    kind, words = _STORY[announcement.state]
    detail = {
        "sop_instance_uid": announcement.sop_instance_uid,
        "calling_ae_title": announcement.calling_ae_title,
        "series": len(announcement.series),
        "instances": announcement.instances,
    }
    return Said(kind, words.format(ae=announcement.calling_ae_title, what=what), detail)


_STORY = {
    AnnouncementState.IN_PROGRESS: ("mpps.in-progress", "{ae} says that the examination has begun (MPPS)"),
    AnnouncementState.COMPLETED: ("mpps.completed", "{ae} says that the examination is completed (MPPS): {what}"),
    AnnouncementState.DISCONTINUED: (
        "mpps.discontinued",
        "{ae} says that the examination was discontinued (MPPS): {what}",
    ),
    AnnouncementState.AVAILABLE: ("ian.received", "{ae} says what is available (IAN): {what}"),
}


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 or noun == 'series' else 's'}"


def _is_online(reference: Document) -> bool:
    return _required(reference, _INSTANCE_AVAILABILITY, "Instance Availability") == _ONLINE


def _add(instances: dict[str, dict[str, None]], item: Document, references: Iterable[Document]) -> None:
    series = _uid(item, _SERIES_INSTANCE_UID, "Series Instance UID")
    named = (_uid(one, _REFERENCED_SOP_INSTANCE_UID, "Referenced SOP Instance UID") for one in references)
    instances.setdefault(series, {}).update(dict.fromkeys(named))


def _series(study: str, instances: Mapping[str, Mapping[str, None]]) -> tuple[AnnouncedSeries, ...]:
    """A series of which no instance is named is left out: that it has none is not what its sender wants to say."""
    return tuple(AnnouncedSeries(study, series, tuple(named)) for series, named in instances.items() if named)


def _uid(document: Document, tag: str, name: str) -> str:
    value = _required(document, tag, name)
    if not is_uid(value):
        raise InvalidAttribute(f"{name} is no valid UID", (int(tag, 16),))
    return value


def _required(document: Document, tag: str, name: str) -> str:
    """Its one value as text; raises MissingAttribute."""
    if tag not in document:
        raise MissingAttribute(f"{name} is missing", (int(tag, 16),))
    values = _values(document, tag)
    text = str(values[0]).strip() if values and values[0] is not None else ""
    if not text:
        raise MissingAttributeValue(f"{name} has no value", (int(tag, 16),))
    return text


def _items(document: Document, tag: str) -> list[Document]:
    return [item for item in _values(document, tag) if isinstance(item, Mapping)]


def _values(document: Document, tag: str) -> list[Any]:
    element = document.get(tag)
    values = element.get("Value") if isinstance(element, Mapping) else None
    return values if isinstance(values, list) else []
