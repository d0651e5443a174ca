"""What instances say of themselves: their headers, read once and without their pixels.

Scanners send values that break the standard (a decimal string of 20 characters, a UID with a leading zero).
The node takes them as they come; pydicom's warnings about them stop here.
"""

from __future__ import annotations

import struct
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom import Dataset, config
from pydicom.errors import BytesLengthException, InvalidDicomError

from dicomnode.errors import CannotDecode

# What pydicom raises on elements whose bytes do not fit their VR; all of it means "cannot be read".
UNREADABLE = (
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    AttributeError,
    NotImplementedError,
    EOFError,
    RecursionError,
    struct.error,
    BytesLengthException,
)

_lock = threading.Lock()
_depth = 0
_before: list[Any] = []


@contextmanager
def odd_values_accepted() -> Iterator[None]:
    """Silences pydicom's complaints about values while entered, from any number of threads.

    Both switches are the process's own (warning filters, pydicom's validation modes): the first thread in
    sets them and the last one out puts them back, so that nesting and concurrency leave nothing behind.
    """
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    global _depth
    with _lock:
        if _depth == 0:
            catcher = warnings.catch_warnings()
            catcher.__enter__()
            warnings.simplefilter("ignore")
            settings = config.settings
            _before[:] = [catcher, settings.reading_validation_mode, settings.writing_validation_mode]
            settings.reading_validation_mode = config.IGNORE
            settings.writing_validation_mode = config.IGNORE
        _depth += 1


def _leave() -> None:
    global _depth
    with _lock:
        _depth -= 1
        if _depth == 0:
            catcher, reading, writing = _before
            config.settings.reading_validation_mode = reading
            config.settings.writing_validation_mode = writing
            catcher.__exit__(None, None, None)


@dataclass(frozen=True, slots=True)
class Instance:
    """A stored instance: its header without pixel data, and where in the file its pixel data element starts."""

    path: Path
    header: Dataset
    pixel_offset: int


def read_instances(paths: Sequence[Path | str]) -> list[Instance]:
    """The headers of Part 10 files (PS3.10 7.1); raises CannotDecode naming the file that is none.

    Raises OSError when it is not the file that is at fault; see is_of_the_file.
    """
    with odd_values_accepted():
        return [_read_instance(Path(path)) for path in paths]


def _read_instance(path: Path) -> Instance:
    try:
        with path.open("rb") as file:
            header = pydicom.dcmread(file, stop_before_pixels=True)
            return Instance(path, header, file.tell())
    except OSError as error:
        if not is_of_the_file(error, path):
            raise
        raise CannotDecode(f"{path.name} cannot be read as DICOM: {error.strerror or error}") from error
    except (InvalidDicomError, *UNREADABLE) as error:
        raise CannotDecode(f"{path.name} cannot be read as DICOM: {in_words(error)}") from error


def in_words(error: Exception) -> str:
    """What the error says of the file; of items nested without end the interpreter's words say nothing."""
    return "its sequences are nested too deeply" if isinstance(error, RecursionError) else str(error)


def is_of_the_file(error: OSError, path: Path) -> bool:
    """Whether a file is gone, or wrong in itself, for good; else its disk is away, or the process has no room for it.

    Those pass, and what a passing moment said of a series must not be kept. A folder that is gone too may be a disk
    that is not mounted. Libraries raise OSError without a number for contents.
    """
    if error.errno is None:
        return True
    return isinstance(error, FileNotFoundError | IsADirectoryError) and path.parent.is_dir()


def value(dataset: Dataset, keyword: str, default: Any = None) -> Any:
    """An attribute's value; `default` when it is absent, empty or unreadable."""
    try:
        found = dataset.get(keyword, default)
    except UNREADABLE:
        return default
    return default if found is None or (isinstance(found, str | list) and not found) else found


def text(dataset: Dataset, keyword: str) -> str:
    """An attribute's value as text without padding; several values joined by a backslash, empty when absent."""
    found = value(dataset, keyword)
    if found is None:
        return ""
    if isinstance(found, str):
        return found.strip(" \0")
    return "\\".join(str(v).strip() for v in found) if _is_several(found) else str(found)


def numbers(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """`count` finite numbers, or None when the attribute does not hold that."""
    found = value(dataset, keyword)
    try:
        values = tuple(float(v) for v in (found if _is_several(found) else [found]))
    except UNREADABLE:
        return None
    return values if len(values) == count and all(abs(v) < 1e30 for v in values) else None


def first_number(dataset: Dataset, keyword: str) -> float | None:
    """The first of any number of values, or None."""
    found = value(dataset, keyword)
    first = found[0] if _is_several(found) and len(found) else found
    with suppress(*UNREADABLE):
        return float(first)
    return None


def whole(dataset: Dataset, keyword: str) -> int | None:
    """A whole number, or None."""
    found = numbers(dataset, keyword, 1)
    return None if found is None or found[0] != int(found[0]) else int(found[0])


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """A sequence's items; none when it is absent or no sequence."""
    found = value(dataset, keyword)
    return [item for item in found if isinstance(item, Dataset)] if _is_several(found) else []


def _is_several(found: Any) -> bool:
    return not isinstance(found, str | bytes) and hasattr(found, "__iter__")
