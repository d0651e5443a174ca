"""What a modality or an archive says about instances to come: MPPS (PS3.4 Annex F) and IAN (PS3.4 Annex R)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class AnnouncementKind(StrEnum):
    MPPS = "mpps"
    IAN = "ian"


class AnnouncementState(StrEnum):
    IN_PROGRESS = "in progress"
    COMPLETED = "completed"
    DISCONTINUED = "discontinued"
    AVAILABLE = "available"  # of an IAN


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
    series: tuple[AnnouncedSeries, ...]
    document: Mapping[str, Any] = field(default_factory=dict)  # the data set as DICOM JSON (PS3.18 F)
