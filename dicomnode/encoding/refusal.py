"""How the gate refuses, and what it asks of every data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from pydicom import DataElement, Dataset

from dicomnode.domain.identifiers import is_uid
from dicomnode.errors import NonConformant
from dicomnode.imaging.headers import UNREADABLE, value

# A decimal string keeps ten digits or more: this is rounding, far below a voxel.
POSITION_TOLERANCE_MM = 1e-3


def refuse(what: str) -> NoReturn:
    """Raises NonConformant."""
    raise NonConformant(what)


def is_empty(dataset: Dataset, keyword: str) -> bool:
    """Whether an attribute is absent, empty or blank."""
    found = value(dataset, keyword)
    if found is None or (isinstance(found, str) and not found.strip()):
        return True
    return hasattr(found, "__len__") and len(found) == 0


@contextmanager
def kept_when_refused(kind: str, content: Callable[[], bytes | bytearray]) -> Iterator[None]:
    """What is refused inside goes with its refusal, as a file: somebody will want to look at it."""
    try:
        yield
    except NonConformant as error:
        error.kind = kind
        try:
            error.content = content()
        except UNREADABLE:
            error.content = b""  # so broken that no file can be made of it
        raise


def check_uids(dataset: Dataset, but: str = "") -> None:
    """Every UID is one (PS3.5 9), but for those in the sequence of that keyword, which are looked at elsewhere."""
    for element in _elements(dataset, but):
        if element.VR != "UI":
            continue
        for uid in [element.value] if isinstance(element.value, str) else element.value:
            if not is_uid(str(uid)):
                refuse(f"{element.keyword or element.tag} {str(uid)!r} is no UID")


def _elements(dataset: Dataset, but: str) -> Iterator[DataElement]:
    for element in dataset:
        if element.keyword == but:
            continue
        yield element
        if element.VR == "SQ":
            items: Iterable[Dataset] = element.value
            for item in items:
                yield from item.iterall()
