"""When a series, and a study, is complete: signals of different worth, fused into one decision with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from dicomnode.domain.announcement import AnnouncementKind, AnnouncementState


class Signal(StrEnum):
    """What made a series count as complete, the surest first."""

    ANNOUNCED = "announced"  # MPPS completed, or IAN: every instance it names is here
    COUNTED = "counted"  # the source says how many instances there are, and they are here
    RELEASED = "released"  # the association was released after the last instance of a contiguous stack
    QUIET = "quiet"  # nothing came for the quiet period


@dataclass(frozen=True, slots=True)
class Place:
    """One instance in its stack."""

    instance_number: int | None
    plane: str  # "" where it has none
    position_mm: float | None
    number_of_frames: int
    images_announced: int | None


@dataclass(frozen=True, slots=True)
class ArrivalSigns:
    """What one association brought of a series; ages by the database's clock."""

    association: str
    calling_ae_title: str
    instances: int
    idle_s: float  # since its last instance of this series
    ended_how: str = ""  # "" while it is open; released, aborted, lost
    ended_s: float | None = None  # since it ended


@dataclass(frozen=True, slots=True)
class AnnouncedSigns:
    kind: AnnouncementKind
    state: AnnouncementState
    expected: int  # instances of this series that it names
    missing: int  # of them, not here


@dataclass(frozen=True, slots=True)
class CountSigns:
    """The source's answer to how many instances it has of the series."""

    instances: int
    source: str  # in words, as in "C-FIND to PACS@192.0.2.1:104"
    age_s: float


@dataclass(frozen=True, slots=True)
class SeriesSigns:
    """All that is known about whether a series that is being received is complete."""

    study_instance_uid: str
    series_instance_uid: str
    modality: str
    calling_ae_title: str
    instances: int
    idle_s: float  # since its last instance, a repeated one included
    arrivals: tuple[ArrivalSigns, ...] = ()
    announced: tuple[AnnouncedSigns, ...] = ()
    counted: CountSigns | None = None


@dataclass(frozen=True, slots=True)
class StudySigns:
    """All that is known about whether a study is complete whose series are all complete."""

    study_instance_uid: str
    calling_ae_title: str
    idle_s: float  # since the last instance of any of its series
    open_associations: int  # that have brought something of it
    announced: tuple[AnnouncedSigns, ...] = ()  # summed up over all the series that each names


@dataclass(frozen=True, slots=True)
class Verdict:
    """A series or study is complete, by which signal, and all signs that were looked at, JSON-able."""

    signal: Signal
    words: str
    instances: int  # that it was decided for: one more, and the decision is void
    signs: Mapping[str, Any] = field(default_factory=dict)
