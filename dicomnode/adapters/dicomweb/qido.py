"""Asks a DICOMweb service whether it is there: a QIDO-RS search (PS3.18 10.6) for one study."""

from __future__ import annotations

import time

from dicomnode.adapters.dicomweb.service import Service
from dicomnode.errors import DestinationUnavailable


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
