"""What a rule is asked about: the header of a series and the facts that the rule needs, read from its files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from dicomnode.domain.age import age_in_years
from dicomnode.domain.conditions import NOT_LOOKED_AT, settled
from dicomnode.domain.rules import FACTS, FACTS_OF_ALL_HEADERS, Condition, facts_in
from dicomnode.domain.study import Element, Header, Series
from dicomnode.errors import CannotDecode
from dicomnode.imaging.attributes import read_header
from dicomnode.imaging.series_facts import facts_of_all_headers

# PS3.6 annex A: raw data, registrations, fiducials, segmentations and the like begin so. Some of them have
# rows and columns, but none is an image that a model could look at.
_NO_SOURCE_IMAGES = "1.2.840.10008.5.1.4.1.1.66"
_UNREADABLE_MOST = 8

Place = Callable[[str], Path]  # of a StoredInstance's path


@dataclass(frozen=True, slots=True)
class Evidence:
    header: Header
    facts: Header
    no_image: str = ""  # why nothing in the series is an image, so that no rule can make a job of it


def gather(series: Series, place: Place, conditions: Collection[Condition], sparing: bool = False) -> Evidence:
    """The facts that the conditions ask for; raises CannotDecode when no header can be read.

    `sparing`: not those of all headers where the rest settles the matter; the node routes so.
    """
    header = _header(series, place)
    facts = {**known_facts(series), "AgeInYears": age_in_years(header)}
    if reason := no_image_reason(series, header):
        return Evidence(header, facts, reason)
    wanted = _wanted(conditions)
    needed = _wanted(c for c in conditions if not sparing or _is_open(c, header, facts))
    unread = {name: Element(FACTS[name], (), NOT_LOOKED_AT) for name in wanted - needed}
    read = facts_of_all_headers([place(instance.path) for instance in series.instances], needed)
    return Evidence(header, {**facts, **unread, **read})


def _wanted(conditions: Iterable[Condition]) -> frozenset[str]:
    return frozenset().union(*map(facts_in, conditions)) & FACTS_OF_ALL_HEADERS


def _is_open(condition: Condition, header: Header, facts: Header) -> bool:
    return settled(condition, header, facts, FACTS_OF_ALL_HEADERS) is None


def _header(series: Series, place: Place) -> Header:
    """Of the first instance that can be read; raises the first one's error when the first few cannot."""
    first: CannotDecode | None = None
    for instance in series.instances[:_UNREADABLE_MOST]:
        try:
            return read_header(place(instance.path))
        except CannotDecode as error:
            first = first or error
    raise first or CannotDecode("the series has no instance")


def known_facts(series: Series) -> Header:
    """The facts that the database has."""
    return {
        "CallingAETitle": Element("AE", (series.calling_ae_title,) if series.calling_ae_title else ()),
        "CalledAETitle": Element("AE", (series.called_ae_title,) if series.called_ae_title else ()),
        "NumberOfInstances": Element("IS", (len(series.instances),)),
    }


def no_image_reason(series: Series, header: Header) -> str:
    """Why there is nothing in it for a model to look at: a report, a presentation state, a plan; else ""."""
    classes = {instance.sop_class_uid for instance in series.instances}
    pixels = all(keyword in header and header[keyword].values for keyword in ("Rows", "Columns"))
    if pixels and not any(uid.startswith(_NO_SOURCE_IMAGES) for uid in classes):
        return ""
    return f"the series holds no image to work on: it is {series.modality or 'of no modality'}"
