"""What a job gave."""

from __future__ import annotations

from dataclasses import dataclass

REPORT = "SR"


@dataclass(frozen=True, slots=True)
class StoredResult:
    """A result object that lies, checked, in the instance store."""

    kind: str  # "SEG" or "SR"
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    path: str  # relative to the store's root
    size_bytes: int
    sha256: str
