"""What the node knows of studies, series and instances (PS3.3 A.1.2, PS3.4 C.6.1.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Element:
    """One attribute's value: its VR (PS3.5 6.2) and its values as JSON has them (PS3.18 F.2.2).

    Numbers are int or float, person names all their component groups, sequences tuples of Headers.
    An attribute that is present and empty has no values. `note` says of a fact why it is so, or why it is not known.
    """

    vr: str
    values: tuple[object, ...]
    note: str = ""


# Attributes by keyword (PS3.6); private ones as "(gggg,ee,CREATOR)" with the block's own last two digits.
Header = Mapping[str, Element]


@dataclass(frozen=True, slots=True)
class ReceivedInstance:
    """An instance that lies in the instance store, as the index needs it."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str
    series_instance_uid: str
    path: str  # relative to the store's root
    size_bytes: int
    sha256: str  # of the data set as received, file meta information left out
    received_at: datetime  # UTC, aware
    calling_ae_title: str
    called_ae_title: str
    modality: str = ""
    manufacturer: str = ""
    instance_number: int | None = None
    series_number: int | None = None
    series_description: str = ""
    patient_id: str = ""
    accession_number: str = ""
    study_date: str = ""
    study_description: str = ""
    association: str = ""  # that brought it; "" when it is not known any more
    number_of_frames: int = 1
    # Of a single-frame image with Image Plane attributes (PS3.3 C.7.6.2): which plane it is parallel to, as a stable
    # word, and its place along that plane's normal in mm
    plane: str = ""
    position_mm: float | None = None
    # How many images its header says that the series, or this stack of it, has (NumberOfSlices, ImagesInAcquisition)
    images_announced: int | None = None


class Recorded(StrEnum):
    """What became of an instance that was recorded."""

    NEW = "new"
    DUPLICATE = "duplicate"  # same SOP Instance UID, same bytes
    CONFLICT = "conflict"  # same SOP Instance UID, other bytes: both kept, the first stays the one in use
    OWN_RESULT = "own-result"  # a result of this node that came back; filed, never routed


class StudyState(StrEnum):
    RECEIVING = "receiving"
    COMPLETE = "complete"  # rules that look at the whole study may be decided
    ROUTED = "routed"  # they were


class SeriesState(StrEnum):
    RECEIVING = "receiving"
    COMPLETE = "complete"
    ROUTED = "routed"  # at least one job was made
    NOT_ROUTED = "not-routed"  # no rule matched, and the event says why
    WAITING = "waiting"  # no rule has made a job, but one still may: it waits for the study, or for classes
    OWN_RESULT = "own-result"


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """An instance as the later stages need it."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    path: str  # relative to the store's root
    instance_number: int | None


@dataclass(frozen=True, slots=True)
class Series:
    """A series with its instances, in the order of instance number, then UID."""

    study_instance_uid: str
    series_instance_uid: str
    modality: str
    calling_ae_title: str
    called_ae_title: str
    instances: tuple[StoredInstance, ...]
    generation: int = 1  # how often it was found complete; late images make it grow
    received_at: datetime | None = None  # its last image, UTC, aware; None where nobody noted it, as of files
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What rules are asked about: a series' header and facts, as the database keeps them.

    `facts` lacks those of all headers until somebody has read these headers (`all_facts`).
    """

    series_instance_uid: str
    generation: int
    header: Header
    facts: Header
    all_facts: bool = False
    no_image: str = ""  # why nothing in the series is an image, so that no rule can make a job of it
    awaited: frozenset[str] = frozenset()  # models that are at it, and whose classes are not known yet
