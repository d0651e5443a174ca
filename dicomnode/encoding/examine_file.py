"""Files, as given or as they lie in folders, read and examined one by one."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pydicom
from pydicom import Dataset
from pydicom.errors import InvalidDicomError

from dicomnode.encoding.examine import Examination, examine, is_result, what_else
from dicomnode.encoding.examine_source import Reference, Sources, references_of
from dicomnode.errors import NotFound
from dicomnode.imaging.frames import is_image
from dicomnode.imaging.headers import UNREADABLE, odd_values_accepted, text
from dicomnode.imaging.series_files import files_in

# A cut deflate stream is a zlib.error, which is none of UNREADABLE
_NOT_READ = (InvalidDicomError, OSError, MemoryError, zlib.error, *UNREADABLE)


class Verdict(StrEnum):
    OK = "ok"
    WRONG = "wrong"
    SKIPPED = "skipped"  # it is no result


@dataclass(frozen=True, slots=True)
class Checked:
    file: str
    verdict: Verdict
    kind: str  # the SOP class's name, or what it is instead of a result
    wrong: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


# The images that an object references, as far as they are there
Lookup = Callable[[Iterable[Reference]], Sources]


def check_files(paths: Iterable[Path], lookup: Lookup | None = None, whose: str = "") -> Iterator[Checked]:
    """Each file of these and of these folders; what is no DICOM is wrong where it was named, and skipped in a folder.

    `lookup` gives the images that an object references; `whose` says in words where they are looked for.
    Raises NotFound for what is not there.
    """
    for path in paths:
        for file in files_in([path]):
            yield _check(file, lookup, whose, named=file == path)


def _check(file: Path, lookup: Lookup | None, whose: str, *, named: bool) -> Checked:
    with odd_values_accepted():
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True)
            sop_class = text(header, "SOPClassUID")
        except _NOT_READ as error:
            return _unread(file, error, named=named)
        if not is_result(sop_class):
            verdict = Verdict.WRONG if named and not sop_class else Verdict.SKIPPED
            return Checked(
                str(file), verdict, what_else(header), ("SOPClassUID is absent",) * (verdict is Verdict.WRONG)
            )
        try:
            found = _examined(pydicom.dcmread(file), lookup, whose)
        except _NOT_READ as error:
            return Checked(str(file), Verdict.WRONG, "", (f"it cannot be read to its end ({type(error).__name__})",))
    verdict = Verdict.WRONG if found.wrong else Verdict.OK
    return Checked(str(file), verdict, found.kind, found.wrong, found.notes)


def _unread(file: Path, error: BaseException, *, named: bool) -> Checked:
    if isinstance(error, InvalidDicomError) and not named:
        return Checked(str(file), Verdict.SKIPPED, "is no DICOM file")
    words = "it is no DICOM file" if isinstance(error, InvalidDicomError) else f"it cannot be read ({_name(error)})"
    return Checked(str(file), Verdict.WRONG, "", (words,))


def _name(error: BaseException) -> str:
    return error.strerror or "" if isinstance(error, OSError) and error.strerror else type(error).__name__


def _examined(dataset: Dataset, lookup: Lookup | None, whose: str) -> Examination:
    if lookup is None:
        return examine(dataset)
    try:
        references = references_of(dataset)
    except UNREADABLE:
        references = []  # examine says so
    return examine(dataset, lookup(references), whose=whose)


def images_in(paths: Iterable[Path]) -> Sources:
    """The images in these folders; raises NotFound."""
    headers: dict[str, Dataset] = {}
    with odd_values_accepted():
        for file in files_in(paths):
            try:
                header = pydicom.dcmread(file, stop_before_pixels=True)
            except _NOT_READ:
                continue
            if is_image(header) and (uid := text(header, "SOPInstanceUID")):
                headers.setdefault(uid, header)
    if not headers:
        raise NotFound(f"there is no DICOM image in {', '.join(map(str, paths))}")
    return Sources(headers)
