"""QIDO-RS: searches for studies, series and instances (PS3.18 10.6)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus

from pydicom.datadict import tag_for_keyword

from dicomnode.adapters.dicomweb.face.answer import Answer, Request, accepts, json_answer, refused
from dicomnode.adapters.dicomweb.face.catalogue import (
    Catalogue,
    Json,
    flat,
    path_of,
    value,
)
from dicomnode.stages.preview import Shown


def _tags(keywords: str) -> tuple[str, ...]:
    return tuple(_tag(keyword) for keyword in keywords.split())


def _tag(name: str) -> str:
    """Of a keyword or eight digits; "" for what is neither (PS3.18 8.3.4.1)."""
    if re.fullmatch(r"[0-9A-Fa-f]{8}", name):
        return name.upper()
    tag = tag_for_keyword(name)
    return "" if tag is None else f"{int(tag):08X}"


# PS3.18 Tables 10.6.3-3, 10.6.3-4 and 10.6.3-5, and what lists of studies and series show besides
_STUDY = _tags(
    "StudyDate StudyTime AccessionNumber ReferringPhysicianName StudyDescription PatientName PatientID "
    "PatientBirthDate PatientSex StudyInstanceUID StudyID"
)
_SERIES = _tags(
    "Modality SeriesDescription StudyInstanceUID SeriesInstanceUID SeriesNumber SeriesDate SeriesTime "
    "PerformedProcedureStepStartDate PerformedProcedureStepStartTime RequestAttributesSequence"
)
_INSTANCE = _tags(
    "SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID InstanceNumber Rows Columns BitsAllocated "
    "NumberOfFrames AvailableTransferSyntaxUID"
)
_RETRIEVE_URL, _AVAILABILITY = "00081190", "00080056"
_MODALITY, _MODALITIES, _SOP_CLASSES = "00080060", "00080061", "00080062"
_SERIES_OF_STUDY, _INSTANCES_OF_STUDY, _INSTANCES_OF_SERIES = "00201206", "00201208", "00201209"
_NO_KEYS = {"limit", "offset", "includefield", "fuzzymatching"}
_DATES = {"DA", "TM", "DT"}


def search_studies(catalogue: Catalogue, request: Request) -> Answer:
    def study_of(uid: str) -> Json:
        shown = catalogue.instances(uid)
        return _answered(_study(catalogue, shown, request), f"{request.base}/studies/{uid}")

    return _found(request, (study_of(uid) for uid in catalogue.studies))


def search_series(catalogue: Catalogue, request: Request, study: str = "") -> Answer:
    """Of a study, or of all: then with the attributes of the study."""

    def series_of(shown: Sequence[Shown]) -> Json:
        header = catalogue.header(shown[0])
        found = {} if study else _study(catalogue, catalogue.instances(shown[0].study_instance_uid), request)
        found |= _kept(header, _SERIES, request)
        found[_INSTANCES_OF_SERIES] = {"vr": "IS", "Value": [len(shown)]}
        return _answered(found, f"{request.base}/{path_of(shown[0]).rpartition('/instances/')[0]}")

    by_series: dict[tuple[str, str], list[Shown]] = {}
    for one in catalogue.instances(study):
        by_series.setdefault((one.study_instance_uid, one.series_instance_uid), []).append(one)
    return _found(request, map(series_of, by_series.values()))


def search_instances(catalogue: Catalogue, request: Request, study: str = "", series: str = "") -> Answer:
    def instance_of(one: Shown) -> Json:
        header = catalogue.header(one)
        levels = (*_INSTANCE, *(() if series else _SERIES), *(() if study else _STUDY))
        return _answered(_kept(header, levels, request), f"{request.base}/{path_of(one)}")

    return _found(request, map(instance_of, catalogue.instances(study, series)))


def _study(catalogue: Catalogue, shown: Sequence[Shown], request: Request) -> Json:
    found = _kept(catalogue.header(shown[0]), _STUDY, request)
    firsts = list({one.series_instance_uid: catalogue.header(one) for one in reversed(shown)}.values())
    modalities, classes = _distinct(firsts, _MODALITY), _distinct(firsts, "00080016")
    found[_MODALITIES] = {"vr": "CS", "Value": modalities}
    found[_SOP_CLASSES] = {"vr": "UI", "Value": classes}
    found[_SERIES_OF_STUDY] = {"vr": "IS", "Value": [len(firsts)]}
    found[_INSTANCES_OF_STUDY] = {"vr": "IS", "Value": [len(shown)]}
    return found


def _distinct(headers: Iterable[Json], tag: str) -> list[str]:
    return sorted({str(value(header, tag)) for header in headers if value(header, tag)})


def _kept(header: Json, tags: Iterable[str], request: Request) -> Json:
    """Those attributes, and those that are asked for: an attribute that the data set lacks is not there."""
    asked = [field for fields in request.query.get("includefield", ()) for field in fields.split(",")]
    if "all" in asked:
        return {tag: one for tag, one in header.items() if "BulkDataURI" not in one}
    wanted = {*tags, *(tag for field in asked if (tag := _tag(field)))}
    return {tag: header[tag] for tag in sorted(wanted) if tag in header}


def _answered(found: Json, url: str) -> Json:
    found[_RETRIEVE_URL] = {"vr": "UR", "Value": [url]}
    found[_AVAILABILITY] = {"vr": "CS", "Value": ["ONLINE"]}
    return dict(sorted(found.items()))


# -------------------------------------------------------------------------------------------------- matching


def _found(request: Request, candidates: Iterator[Json]) -> Answer:
    if not accepts(request.accept, "application/dicom+json", "application/json"):
        return refused(HTTPStatus.NOT_ACCEPTABLE, "searches are answered as application/dicom+json")
    tests: list[Callable[[Json], bool]] = []
    for name, wanted in request.query.items():
        if name.lower() in _NO_KEYS:
            continue
        if not (tag := _tag(name)):
            return refused(HTTPStatus.BAD_REQUEST, "a key is no attribute's keyword or tag")
        tests.append(_test(tag, wanted))
    begin, most = _number(request.query, "offset", 0), _number(request.query, "limit", None)
    if begin is None or (most is None and "limit" in request.query):
        return refused(HTTPStatus.BAD_REQUEST, "limit and offset are whole numbers, 0 or more")
    found = [one for one in candidates if all(test(one) for test in tests)]
    return json_answer(found[begin : None if most is None else begin + most])


def _number(query: Mapping[str, Sequence[str]], name: str, default: int | None) -> int | None:
    """None also for what is no such number."""
    if name not in query:
        return default
    text = query[name][-1]
    return int(text) if text.isascii() and text.isdigit() else None


def _test(tag: str, wanted: Sequence[str]) -> Callable[[Json], bool]:
    """PS3.4 C.2.2.2: single values, lists of UIDs, ranges of dates and times, wild cards; empty is universal."""
    choices = [one for text in wanted for one in re.split(r"[,\\]", text)]
    if "" in choices or "*" in choices:
        return lambda _: True

    def holds(found: Json) -> bool:
        vr = str(found.get(tag, {}).get("vr", ""))
        return any(_matches(one, choice, vr) for one in flat(found, tag) for choice in choices)

    return holds


def _matches(found: str, wanted: str, vr: str) -> bool:
    if vr in _DATES and "-" in wanted:
        begin, _, end = wanted.partition("-")
        return (not begin or begin <= found) and (not end or found[: len(end)] <= end)
    if vr == "UI":
        return found == wanted
    pattern = "".join({"*": ".*", "?": "."}.get(character, re.escape(character)) for character in wanted)
    return re.fullmatch(pattern, found, re.IGNORECASE if vr == "PN" else 0) is not None
