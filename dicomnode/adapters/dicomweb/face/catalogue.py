"""Which instances are served, and their metadata as DICOM JSON (PS3.18 10.4.1.1.1, F)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from dicomnode.encoding.dicom_json import dicom_json
from dicomnode.encoding.stored_pixels import PIXEL_TAGS, stored_pixels
from dicomnode.imaging.headers import odd_values_accepted
from dicomnode.stages.preview import Shown

AVAILABLE_TRANSFER_SYNTAX_UID = "00083002"
_HEADERS_KEPT = 4096

Json = dict[str, Any]


class Catalogue:
    """The instances that are served, and nothing beside them; thread-safe."""

    def __init__(self, shown: Iterable[Shown]) -> None:
        self._shown = tuple(shown)
        self._header = lru_cache(maxsize=_HEADERS_KEPT)(_header)

    @property
    def studies(self) -> list[str]:
        return list(dict.fromkeys(one.study_instance_uid for one in self._shown))

    def instances(self, study: str = "", series: str = "", instance: str = "") -> list[Shown]:
        """Those of a study, of a series of it, or the one; empty where there is no such thing."""
        return [
            one
            for one in self._shown
            if study in ("", one.study_instance_uid)
            and series in ("", one.series_instance_uid)
            and instance in ("", one.sop_instance_uid)
        ]

    def header(self, one: Shown) -> Json:
        """Every attribute, with Bulk Data URIs relative to the service's base; not to be changed.

        Empty for a file that cannot be read.
        """
        return self._header(one)


def path_of(one: Shown) -> str:
    """Of the instance's resource, relative to the service's base (PS3.18 Table 10.4.1-1)."""
    return f"studies/{one.study_instance_uid}/series/{one.series_instance_uid}/instances/{one.sop_instance_uid}"


def with_base(value: Any, base: str) -> Any:
    """A header whose Bulk Data URIs are absolute."""
    if isinstance(value, Mapping):
        return {key: f"{base}/{one}" if key == "BulkDataURI" else with_base(one, base) for key, one in value.items()}
    return [with_base(one, base) for one in value] if isinstance(value, list) else value


def read(path: Path) -> Dataset:
    """A file's data set without its pixels. Raises OSError, InvalidDicomError."""
    with odd_values_accepted():
        return dcmread(path, stop_before_pixels=True)


def _header(one: Shown) -> Json:
    bulk = f"{path_of(one)}/bulkdata"
    try:
        data_set = read(one.path)
        pixels = stored_pixels(one.path)
    except (OSError, InvalidDicomError):
        return {}
    found = dicom_json(data_set, lambda path: f"{bulk}/{path}")
    syntax = str(data_set.file_meta.get("TransferSyntaxUID", ""))
    found[AVAILABLE_TRANSFER_SYNTAX_UID] = {"vr": "UI", "Value": [syntax]}
    if pixels is not None:
        tag = f"{pixels.tag:08X}"
        found[tag] = {"vr": PIXEL_TAGS[pixels.tag], "BulkDataURI": f"{bulk}/{tag}"}
    return dict(sorted(found.items()))


def value(header: Mapping[str, Any], tag: str) -> Any:
    """The first value, None where there is none."""
    return next(iter(values(header, tag)), None)


def values(header: Mapping[str, Any], tag: str) -> Sequence[Any]:
    found: Sequence[Any] = header.get(tag, {}).get("Value", ())
    return found


def flat(header: Mapping[str, Any], tag: str) -> Iterator[str]:
    """Values as text; of a person's name its alphabetic representation (PS3.18 F.2.2)."""
    for one in values(header, tag):
        yield str(one.get("Alphabetic", "")) if isinstance(one, Mapping) else str(one)
