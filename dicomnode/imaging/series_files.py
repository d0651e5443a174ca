"""Files on a disk, sorted into the series that they make: what a node would see if they were sent to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom import Dataset
from pydicom.errors import InvalidDicomError

from dicomnode.domain.study import Series, StoredInstance
from dicomnode.errors import NotFound
from dicomnode.imaging.headers import UNREADABLE, odd_values_accepted, text, whole

_TAGS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "InstanceNumber",
    "SeriesDescription",
)
NO_DICOM = "no DICOM file"
NO_UIDS = "without the UIDs of study, series and instance: a node refuses it"
REPEATED = "with a SOP Instance UID that came before"


@dataclass(frozen=True, slots=True)
class FoundSeries:
    """A series whose instances' paths are those of the files; `never` says why no rule is ever asked about it."""

    series: Series
    description: str
    never: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What files make, and in words what was left out."""

    series: tuple[FoundSeries, ...]
    left_out: tuple[str, ...] = ()


def series_in(paths: Iterable[Path]) -> Found:
    """Files, and folders with all in them; raises NotFound for one that is not there."""
    found: dict[str, list[tuple[Path, Dataset]]] = {}
    left_out: dict[Path, str] = {}
    seen: set[str] = set()
    with odd_values_accepted():
        for path in files_in(paths):
            header = _index(path)
            reason = NO_DICOM if header is None else _refused(header, seen)
            if header is None or reason:
                left_out[path] = reason
                continue
            seen.add(text(header, "SOPInstanceUID"))
            found.setdefault(text(header, "SeriesInstanceUID"), []).append((path, header))
        series = tuple(_series(files) for files in found.values())
    return Found(series, tuple(_in_words(left_out)))


def files_in(paths: Iterable[Path]) -> Iterator[Path]:
    """The files, and those in the folders, sorted; raises NotFound for one that is not there."""
    for path in paths:
        if path.is_dir():
            # the shorter name first: a store keeps other bytes under the same UID beside, with a longer one
            yield from sorted((p for p in path.rglob("*") if p.is_file()), key=lambda p: (p.parent, p.stem))
        elif path.exists():
            yield path
        else:
            raise NotFound(f"there is no file or folder {path}")


def _index(path: Path) -> Dataset | None:
    try:
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
    except (InvalidDicomError, OSError, *UNREADABLE):
        return None


def _refused(header: Dataset, seen: set[str]) -> str:
    uids = [text(header, keyword) for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]
    if not all(uids):
        return NO_UIDS
    return REPEATED if uids[-1] in seen else ""


def _series(files: list[tuple[Path, Dataset]]) -> FoundSeries:
    files = sorted(files, key=lambda f: (whole(f[1], "InstanceNumber") or 0, text(f[1], "SOPInstanceUID")))
    first = files[0][1]
    series = Series(
        study_instance_uid=text(first, "StudyInstanceUID"),
        series_instance_uid=text(first, "SeriesInstanceUID"),
        modality=text(first, "Modality"),
        calling_ae_title=_meta(first, "SendingApplicationEntityTitle")
        or _meta(first, "SourceApplicationEntityTitle"),
        called_ae_title=_meta(first, "ReceivingApplicationEntityTitle"),
        instances=tuple(_instance(path, header) for path, header in files),
    )
    return FoundSeries(series, text(first, "SeriesDescription"))


def _meta(header: Dataset, keyword: str) -> str:
    """Of the file meta information (PS3.10 7.1), where a node that stores files says who sent them."""
    return text(header.file_meta, keyword)


def _instance(path: Path, header: Dataset) -> StoredInstance:
    return StoredInstance(
        sop_instance_uid=text(header, "SOPInstanceUID"),
        sop_class_uid=text(header, "SOPClassUID"),
        transfer_syntax_uid=_meta(header, "TransferSyntaxUID"),
        path=str(path),
        instance_number=whole(header, "InstanceNumber"),
    )


def _in_words(left_out: dict[Path, str]) -> Iterator[str]:
    """3 files left out, no DICOM file: a.txt, b.txt and 1 more."""
    for reason, count in Counter(left_out.values()).items():
        names = [path.name for path, why in left_out.items() if why == reason]
        more = f" and {count - 3} more" if count > 3 else ""
        files = "1 file" if count == 1 else f"{count} files"
        yield f"{files} left out, {reason}: {', '.join(names[:3])}{more}"
