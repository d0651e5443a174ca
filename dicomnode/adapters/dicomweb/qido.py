"""Asks a DICOMweb service whether it is there, and how many instances a series has: QIDO-RS (PS3.18 10.6)."""

from __future__ import annotations

import json
import time
from typing import Any

from dicomnode.adapters.dicomweb.service import Service
from dicomnode.domain.destination import Address, StowAddress
from dicomnode.errors import DestinationUnavailable

SOP_INSTANCE_UID, SERIES_INSTANCE_UID = "00080018", "0020000E"
NUMBER_OF_SERIES_RELATED_INSTANCES = "00201209"


def echo(service: Service) -> str:
    """`GET /studies?limit=1`; the answer in words. Raises DestinationUnavailable, DestinationRefused."""
    started = time.monotonic()
    answer = service.get("/studies", {"limit": "1"}, "application/dicom+json")
    took_ms = (time.monotonic() - started) * 1000
    service.raise_for_problem(answer)
    if not is_search_answer(answer.status_code, answer.content):
        raise DestinationUnavailable(f"{service.url} is a web server, but no DICOMweb service; correct the URL")
    return f"{service.url} answered QIDO-RS in {took_ms:.0f} ms"


def is_search_answer(http_status: int, body: bytes) -> bool:
    """200 with a JSON array, or 204 when there is nothing (PS3.18 10.6.3)."""
    text = body.strip()
    return (http_status == 204 and not text) or (http_status == 200 and text[:1] == b"[" and text[-1:] == b"]")


class QidoRs:
    """Counts the instances of a series by a search (PS3.18 10.6.1)."""

    def __init__(self, *, connect_timeout_s: float = 3.0, read_timeout_s: float = 4.0) -> None:
        self._timeouts_s = (connect_timeout_s, read_timeout_s)

    def count(self, address: Address, study_instance_uid: str, series_instance_uid: str) -> int | None:
        """By NumberOfSeriesRelatedInstances, or instance by instance where the server does not give that attribute.

        None when it does not know the series. Raises DestinationUnavailable, DestinationRefused.
        """
        assert isinstance(address, StowAddress)
        service = Service(address, *self._timeouts_s)
        query = {"SeriesInstanceUID": series_instance_uid, "includefield": NUMBER_OF_SERIES_RELATED_INSTANCES}
        series = _search(service, f"/studies/{study_instance_uid}/series", query)
        same = [one for one in series if _value(one, SERIES_INSTANCE_UID) == series_instance_uid]
        if not same:
            return None
        number = _value(same[0], NUMBER_OF_SERIES_RELATED_INSTANCES)
        if isinstance(number, int | str) and str(number).isdecimal():
            return int(number)
        path = f"/studies/{study_instance_uid}/series/{series_instance_uid}/instances"
        return len({str(_value(one, SOP_INSTANCE_UID)) for one in _search(service, path, {})})


def _search(service: Service, path: str, query: dict[str, str]) -> list[dict[str, Any]]:
    answer = service.get(path, query, "application/dicom+json")
    service.raise_for_problem(answer)
    if not is_search_answer(answer.status_code, answer.content):
        raise DestinationUnavailable(f"{service.url} is a web server, but no DICOMweb service; correct the URL")
    try:
        found = json.loads(answer.content) if answer.content.strip() else []
    except ValueError as error:
        raise DestinationUnavailable(f"{service.url} answered QIDO-RS with broken JSON; see its log") from error
    return [one for one in found if isinstance(one, dict)]


def _value(found: dict[str, Any], tag: str) -> Any:
    """The attribute's first value in DICOM JSON (PS3.18 F.2.2); None when it has none."""
    element = found.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None
