"""How the gate refuses, and what it asks of every data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from pydicom import DataElement, Dataset
from pydicom.tag import Tag

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
        _keep(error, kind, content)
        raise
    except UNREADABLE as broken:  # what the check counts on is not there, or has another form
        refusal = NonConformant(f"the check could not read it to its end ({type(broken).__name__})")
        _keep(refusal, kind, content)
        raise refusal from broken


def _keep(error: NonConformant, kind: str, content: Callable[[], bytes | bytearray]) -> None:
    error.kind = kind
    try:
        error.content = content()
    except UNREADABLE:
        error.content = b""  # so broken that no file can be made of it


def check_uids(dataset: Dataset, but: str = "") -> None:
    """Every UID is one (PS3.5 9), but for those in the sequence of that keyword, which are looked at elsewhere."""
    for element in _of_uids(dataset, but):
        for uid in [element.value] if isinstance(element.value, str) else element.value:
            check_uid(element.keyword or str(element.tag), str(uid))


def check_uid(name: str, uid: str) -> None:
    if not is_uid(uid):
        refuse(f"{name} {uid!r} is no UID")


def _of_uids(dataset: Dataset, but: str) -> Iterator[DataElement]:
    """Elements of UIDs at any depth; of a data set that was read, what else there is stays unread."""
    skipped = Tag(but) if but else None
    for raw in list(dataset.values()):
        if raw.tag == skipped or raw.VR not in ("UI", "SQ", None):  # implicit VR does not say
            continue
        element = dataset[raw.tag]
        if element.VR == "UI":
            yield element
        elif element.VR == "SQ":
            for item in element.value:
                yield from _of_uids(item, "")
