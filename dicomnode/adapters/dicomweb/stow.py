"""Sends result objects by STOW-RS (PS3.18 10.5) and says what became of them.

There is no negotiation: what a service takes is learnt from its answer. What it did not take in the transfer syntax
that its destination prefers is posted once more in explicit VR, the encoding that every service has to know
(PS3.18 Table 8.7.3-2); what it took then instead is remembered, and not tried at each object.
"""

from __future__ import annotations

import io
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from pydicom.uid import UID, ExplicitVRLittleEndian
from requests import Response

from dicomnode.adapters.dicomweb import qido
from dicomnode.adapters.dicomweb.peer_words import problem
from dicomnode.adapters.dicomweb.service import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, Body, Pace, Service
from dicomnode.adapters.dicomweb.stow_answer import may_be_of_the_encoding, outcome, read_store_answer
from dicomnode.domain.delivery_failure import FailureKind
from dicomnode.domain.destination import Destination, StowAddress
from dicomnode.domain.result import StoredResult
from dicomnode.encoding.transfer import FileHeader, encoded_as, posted, read_header
from dicomnode.errors import DeliveryError

_ACCEPT = "application/dicom+json, application/dicom+xml;q=0.5"
NOT_TAKEN_S = 24 * 3600.0  # so long a transfer syntax that a service did not take is not tried again


class StowRs:
    """A `ResultSink` for destinations of kind "stow"."""

    def __init__(
        self,
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
        paces: Callable[[Destination], Pace] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`paces` gives what a destination's limit on bytes makes of what is sent to it."""
        self._paces, self._monotonic = paces, monotonic
        self._timeouts_s = (connect_timeout_s, read_timeout_s)
        self._not_taken: dict[tuple[str, UID, UID], float] = {}  # until when; by URL, SOP class, transfer syntax

    def send(self, destination: Destination, file: Path, result: StoredResult) -> str:
        """Repeats are harmless, the SOP Instance UID being the same."""
        service = self._service(destination)
        header = read_header(file, destination.options.syntaxes)
        first, *plain = self._tries(service.url, header, destination.options.syntaxes)
        pace = self._pace(destination)
        answer = _post(service, file, header, first, pace)
        if not plain or not _may_be_of_the_encoding(answer, result):
            return _outcome(service, answer, result) + _as_words(first, header)
        not_taken = f"it did not take {first.name} (HTTP {answer.status_code})"
        try:
            stored = _outcome(service, _post(service, file, header, plain[0], pace), result)
        except DeliveryError as error:
            raise type(error)(f"{error}; sent in {plain[0].name}, as {not_taken}", error.failure) from error
        self._not_taken[service.url, header.sop_class_uid, first] = self._monotonic() + NOT_TAKEN_S
        return f"{stored}, as {plain[0].name}: {not_taken}"

    def echo(self, destination: Destination) -> str:
        return qido.echo(self._service(destination))

    def _tries(self, url: str, header: FileHeader, preferred: tuple[str, ...]) -> list[UID]:
        """The best that is not known not to be taken; explicit VR after it, where that can be made."""
        choices = posted(header, preferred)
        now = self._monotonic()
        open_ones = [uid for uid in choices if self._not_taken.get((url, header.sop_class_uid, uid), 0.0) <= now]
        best = next(iter(open_ones), choices[-1])
        return [best, *(uid for uid in choices if uid == ExplicitVRLittleEndian != best)]

    def _service(self, destination: Destination) -> Service:
        assert isinstance(destination.address, StowAddress), destination.kind
        return Service(destination.address, *self._timeouts_s, options=destination.options)

    def _pace(self, destination: Destination) -> Pace | None:
        return self._paces(destination) if self._paces and destination.options.bytes_per_s else None


def _post(service: Service, file: Path, header: FileHeader, syntax: UID, pace: Pace | None) -> Response:
    with encoded_as(syntax, file, header) as encoded, _opened(encoded) as content:
        body = Message(content, encoded.stat().st_size)
        return service.post("/studies", body, body.content_type, _ACCEPT, pace)


def _opened(file: Path) -> BinaryIO:
    try:
        return file.open("rb")
    except OSError as error:
        raise DeliveryError(f"the result's file cannot be read: {error}", FailureKind.FILE) from error


def _may_be_of_the_encoding(answer: Response, result: StoredResult) -> bool:
    told = read_store_answer(answer.content)
    if told is None and problem(answer.status_code, answer.content)[2] is not FailureKind.HTTP:
        return False
    return may_be_of_the_encoding(answer.status_code, told, result.sop_instance_uid)


def _outcome(service: Service, answer: Response, result: StoredResult) -> str:
    told = read_store_answer(answer.content)
    if told is None or (answer.status_code >= 300 and not told.failed):
        service.raise_for_problem(answer)
    return outcome(service.url, answer.status_code, told, result.sop_instance_uid, bool(answer.content))


def _as_words(syntax: UID, header: FileHeader) -> str:
    return "" if syntax == header.transfer_syntax_uid else f", as {syntax.name}"


class Message(Body):
    """A body of one part (PS3.18 8.6.1.2), read block by block: an object of hundreds of megabytes is never whole in
    memory. The file's own meta information says its transfer syntax; as a parameter of the part's type some servers
    know it not."""

    def __init__(self, content: BinaryIO, size_bytes: int) -> None:
        boundary = uuid.uuid4().hex
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        self.content_type = f'multipart/related; type="application/dicom"; boundary={boundary}'
        self._size_bytes = len(head) + size_bytes + len(tail)
        self._parts: list[BinaryIO] = [io.BytesIO(head), content, io.BytesIO(tail)]

    def __len__(self) -> int:
        return self._size_bytes

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            return b"".join(part.read() for part in self._parts)
        return next((block for part in self._parts if (block := part.read(size))), b"")
