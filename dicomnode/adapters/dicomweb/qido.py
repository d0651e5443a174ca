"""Asks a DICOMweb service if it is there, and how many instances a series or a study has: QIDO-RS (PS3.18 10.6)."""

from __future__ import annotations

import json
import time
from typing import Any

from requests import Response

from dicomnode.adapters.dicomweb.service import Service
from dicomnode.domain.completeness import SourceCount, believable
from dicomnode.domain.delivery_failure import FailureKind
from dicomnode.domain.destination import Address, StowAddress
from dicomnode.errors import DestinationUnavailable

SOP_INSTANCE_UID, SERIES_INSTANCE_UID, STUDY_INSTANCE_UID = "00080018", "0020000E", "0020000D"
NUMBER_OF_STUDY_RELATED_SERIES, NUMBER_OF_STUDY_RELATED_INSTANCES = "00201206", "00201208"
NUMBER_OF_SERIES_RELATED_INSTANCES = "00201209"
# Series of one study that are asked for instance by instance, a request each
INSTANCE_BY_INSTANCE_MOST = 20
_DIGITS_MOST = 12  # of an IS (PS3.5 Table 6.2-1)


def echo(service: Service) -> str:
    """`GET /studies?limit=1`; the answer in words. Raises DestinationUnavailable, DestinationRefused."""
    started = time.monotonic()
    answer = service.get("/studies", {"limit": "1"}, "application/dicom+json")
    took_ms = (time.monotonic() - started) * 1000
    service.raise_for_problem(answer)
    if not is_search_answer(answer.status_code, answer.content):
        raise DestinationUnavailable(
            f"{service.url} is a web server, but no DICOMweb service; correct the URL", FailureKind.NO_DICOMWEB
        )
    return f"{service.url} answered QIDO-RS in {took_ms:.0f} ms"


def is_search_answer(http_status: int, body: bytes) -> bool:
    """200 with a JSON array, or 204 when there is nothing (PS3.18 10.6.3)."""
    text = body.strip()
    return (http_status == 204 and not text) or (http_status == 200 and text[:1] == b"[" and text[-1:] == b"]")


class QidoRs:
    """Counts the instances of a series or a study by a search (PS3.18 10.6.1)."""

    def __init__(self, *, connect_timeout_s: float = 3.0, read_timeout_s: float = 4.0) -> None:
        self._timeouts_s = (connect_timeout_s, read_timeout_s)

    def count(self, address: Address, study_instance_uid: str, series_instance_uid: str) -> int | None:
        """By NumberOfSeriesRelatedInstances, or instance by instance where the server does not give that attribute.

        None when it does not know the series. Raises DestinationUnavailable, DestinationRefused.
        """
        service = self._service(address)
        query = {"SeriesInstanceUID": series_instance_uid, "includefield": NUMBER_OF_SERIES_RELATED_INSTANCES}
        series = _search(service, f"/studies/{study_instance_uid}/series", query)
        same = [one for one in series if value(one, SERIES_INSTANCE_UID) == series_instance_uid]
        if not same:
            return None
        number = _number(same[0], NUMBER_OF_SERIES_RELATED_INSTANCES)
        return _instances(service, study_instance_uid, series_instance_uid) if number is None else number

    def count_whole(self, address: Address, study_instance_uid: str) -> SourceCount | None:
        """As the server counts of the study; None when it does not know the study. Raises as count."""
        service = self._service(address)
        query = {"StudyInstanceUID": study_instance_uid, "includefield": NUMBER_OF_STUDY_RELATED_INSTANCES}
        studies = _search(service, "/studies", query)
        same = [one for one in studies if value(one, STUDY_INSTANCE_UID) == study_instance_uid]
        if not same:
            return None
        instances = _number(same[0], NUMBER_OF_STUDY_RELATED_INSTANCES)
        return SourceCount(instances, _number(same[0], NUMBER_OF_STUDY_RELATED_SERIES))

    def count_by_series(self, address: Address, study_instance_uid: str) -> dict[str, int]:
        """By Series Instance UID; empty also when too many would have to be asked for instance by instance.

        Raises as count.
        """
        service = self._service(address)
        query = {"includefield": NUMBER_OF_SERIES_RELATED_INSTANCES}
        found = _search(service, f"/studies/{study_instance_uid}/series", query)
        series = {str(value(one, SERIES_INSTANCE_UID)): one for one in found}
        numbers = {uid: _number(one, NUMBER_OF_SERIES_RELATED_INSTANCES) for uid, one in series.items()}
        if sum(number is None for number in numbers.values()) > INSTANCE_BY_INSTANCE_MOST:
            return {}
        return {
            uid: _instances(service, study_instance_uid, uid) if number is None else number
            for uid, number in numbers.items()
        }

    def _service(self, address: Address) -> Service:
        assert isinstance(address, StowAddress)
        return Service(address, *self._timeouts_s)


def _instances(service: Service, study_instance_uid: str, series_instance_uid: str) -> int:
    path = f"/studies/{study_instance_uid}/series/{series_instance_uid}/instances"
    return len({str(value(one, SOP_INSTANCE_UID)) for one in _search(service, path, {})})


def _search(service: Service, path: str, query: dict[str, str]) -> list[dict[str, Any]]:
    return matches(service, service.get(path, query, "application/dicom+json"))


def matches(service: Service, answer: Response) -> list[dict[str, Any]]:
    """What a search found. Raises DestinationUnavailable, DestinationRefused."""
    service.raise_for_problem(answer)
    if not is_search_answer(answer.status_code, answer.content):
        raise DestinationUnavailable(
            f"{service.url} is a web server, but no DICOMweb service; correct the URL", FailureKind.NO_DICOMWEB
        )
    try:
        found = json.loads(answer.content) if answer.content.strip() else []
    except ValueError as error:
        raise DestinationUnavailable(
            f"{service.url} answered QIDO-RS with broken JSON; see its log", FailureKind.NO_DICOMWEB
        ) from error
    return [one for one in found if isinstance(one, dict)]


def _number(found: dict[str, Any], tag: str) -> int | None:
    number = value(found, tag)
    if isinstance(number, str):  # IS is a number in DICOM JSON, and a string in that of many a server
        number = int(number) if number.isdecimal() and len(number) <= _DIGITS_MOST else None
    return believable(number) if isinstance(number, int) and not isinstance(number, bool) else None


def value(found: dict[str, Any], tag: str) -> Any:
    """The attribute's first value in DICOM JSON (PS3.18 F.2.2); None when it has none."""
    element = found.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None
