"""Whether the attributes that an IOD has to have are there, by the standard's own tables (PS3.3 Annex A and C).

highdicom brings them, generated from the standard's DocBook: which modules an IOD has, and each attribute's type.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from highdicom._standard_utils import get_iod_module_map, get_module_attribute_map, get_sop_class_iod_map
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword

from dicomnode.encoding.refusal import is_empty
from dicomnode.imaging.headers import items

# Of these the tables mix what holds for some items only: content items by value type (PS3.3 C.17.3), frames by macro
_LOOKED_AT_ELSEWHERE = frozenset({"sr-document-content"})
_GROUPS = (("SharedFunctionalGroupsSequence",), ("PerFrameFunctionalGroupsSequence",))  # each macro is in one of them
_REQUIRED, _MAY_BE_EMPTY = "1", "2"


class Wanted(NamedTuple):
    """An attribute of type 1 or 2, and the sequences that lead to it."""

    path: tuple[str, ...]
    keyword: str
    kind: str


def absent_attributes(dataset: Dataset, sop_class_uid: str, but: str = "") -> Iterator[str]:
    """In words, each attribute that is absent, or of type 1 and empty (PS3.5 7.4); of mandatory modules only.

    `but`: the sequence of that keyword is not gone through.
    """
    for wanted in _wanted(sop_class_uid):
        if but and wanted.path[:1] == (but,):
            continue
        holders = list(_at(dataset, wanted.path))
        absent = [holder for holder in holders if wanted.keyword not in holder]
        empty = [
            h for h in holders if wanted.kind == _REQUIRED and wanted.keyword in h and is_empty(h, wanted.keyword)
        ]
        for found, how in ((absent, "is absent"), (empty, "is empty")):
            if found:
                yield f"{wanted.keyword}{_where(wanted, len(found))} {how} (type {wanted.kind})"


def _where(wanted: Wanted, count: int) -> str:
    if not wanted.path:
        return ""
    return f" in {count} item{'s' if count > 1 else ''} of {'/'.join(wanted.path)}"


def _at(dataset: Dataset, path: Sequence[str]) -> Iterator[Dataset]:
    """The items that a path of sequences leads to; those that are there."""
    if not path:
        yield dataset
        return
    for item in items(dataset, path[0]):
        yield from _at(item, path[1:])


@lru_cache
def _wanted(sop_class_uid: str) -> tuple[Wanted, ...]:
    """By path and keyword, once each; where modules differ the milder type holds. None of an unknown SOP class."""
    found: dict[tuple[tuple[str, ...], str], str] = {}
    modules = get_iod_module_map().get(get_sop_class_iod_map().get(sop_class_uid, ""), [])
    attributes = get_module_attribute_map()
    for module in modules:
        if module["usage"] != "M" or module["key"] in _LOOKED_AT_ELSEWHERE:
            continue
        for one in attributes[module["key"]]:
            key = (tuple(one["path"]), one["keyword"])
            if key[0] not in _GROUPS and tag_for_keyword(one["keyword"]) is not None:
                found[key] = max(found.get(key, ""), one["type"])  # "1" < "1C" < "2" < "2C" < "3"
    wanted = (Wanted(path, keyword, kind) for (path, keyword), kind in found.items())
    return tuple(one for one in wanted if one.kind in (_REQUIRED, _MAY_BE_EMPTY))
