"""Sends result objects by STOW-RS (PS3.18 10.5) and says what became of them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from dicomnode.adapters.dicomweb import qido
from dicomnode.adapters.dicomweb.service import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, Service
from dicomnode.domain.delivery_failure import FailureKind
from dicomnode.domain.destination import Destination, StowAddress
from dicomnode.domain.result import StoredResult
from dicomnode.domain.store_status import Verdict, store_status
from dicomnode.errors import DeliveryError, DestinationRefused, DestinationUnavailable

# PS3.18 Table 10.5.3-1 ff. and PS3.3 C.12.1.1.9
FAILED_SOP_SEQUENCE, REFERENCED_SOP_SEQUENCE = "00081198", "00081199"
SOP_INSTANCE_UID, FAILURE_REASON, WARNING_REASON = "00081155", "00081197", "00081196"
_ACCEPT = "application/dicom+json, application/dicom+xml;q=0.5"


class StowRs:
    """A `ResultSink` for destinations of kind "stow"."""

    def __init__(
        self,
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
        paces: Callable[[Destination], Callable[[int], None]] | None = None,
    ) -> None:
        """`paces` gives what a destination's limit on bytes makes of what is sent to it."""
        self._paces = paces
        self._timeouts_s = (connect_timeout_s, read_timeout_s)

    def send(self, destination: Destination, file: Path, result: StoredResult) -> str:
        """Posts the file as it is; repeats are harmless, the SOP Instance UID being the same."""
        service = self._service(destination)
        body, content_type = multipart(_content(file))
        answer = service.post("/studies", body, content_type, _ACCEPT, self._pace(destination))
        told = read_store_answer(answer.content)
        if told is None or (answer.status_code >= 300 and not told.failed):
            service.raise_for_problem(answer)
        return outcome(service.url, answer.status_code, told, result.sop_instance_uid, bool(answer.content))

    def echo(self, destination: Destination) -> str:
        return qido.echo(self._service(destination))

    def _service(self, destination: Destination) -> Service:
        assert isinstance(destination.address, StowAddress), destination.kind
        return Service(destination.address, *self._timeouts_s, options=destination.options)

    def _pace(self, destination: Destination) -> Callable[[int], None] | None:
        return self._paces(destination) if self._paces and destination.options.bytes_per_s else None


def _content(file: Path) -> bytes:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DeliveryError(f"the result's file cannot be read: {error}", FailureKind.FILE) from error
    if content[128:132] != b"DICM":  # PS3.10 7.1
        raise DeliveryError("the result's file is no DICOM file", FailureKind.FILE)
    return content


def multipart(content: bytes) -> tuple[bytes, str]:
    """A message of one part (PS3.18 8.6.1.2), and its content type."""
    boundary = uuid.uuid4().hex
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    tail = f"\r\n--{boundary}--\r\n".encode()
    return b"".join((head, content, tail)), f'multipart/related; type="application/dicom"; boundary={boundary}'


# ------------------------------------------------------------------------------------------------- the answer


@dataclass(frozen=True, slots=True)
class StoreAnswer:
    """The Store Instances Response (PS3.18 10.5.3): reasons by SOP Instance UID, None where none was given."""

    stored: Mapping[str, int | None] = field(default_factory=dict)
    failed: Mapping[str, int | None] = field(default_factory=dict)


def read_store_answer(body: bytes) -> StoreAnswer | None:
    """From DICOM JSON (PS3.18 F) or Native DICOM XML (PS3.19 A.1); None when the body is neither.

    The body is looked at, not its content type: servers send it with parameters, as text, or not at all.
    A sequence without items is one that is not there: Orthanc sends an empty FailedSOPSequence with a success.
    """
    text = body.strip()
    if text[:1] in (b"{", b"["):
        return _answer_from_json(text)
    return _answer_from_xml(text) if text[:1] == b"<" else None


def _answer_from_json(text: bytes) -> StoreAnswer | None:
    try:
        document = json.loads(text)
    except ValueError:
        return None
    if isinstance(document, list):
        document = document[0] if document else {}
    if not isinstance(document, dict) or not all(_is_tag(key) for key in document):
        return None  # JSON of another kind, as web servers send with an error
    return StoreAnswer(
        dict(_json_items(document, REFERENCED_SOP_SEQUENCE, WARNING_REASON)),
        dict(_json_items(document, FAILED_SOP_SEQUENCE, FAILURE_REASON)),
    )


def _is_tag(key: str) -> bool:
    return len(key) == 8 and all(c in "0123456789abcdefABCDEF" for c in key)


def _json_items(document: Mapping[str, object], sequence: str, reason: str) -> Iterator[tuple[str, int | None]]:
    for item in _json_values(document, sequence):
        if isinstance(item, dict):
            uid = next(iter(_json_values(item, SOP_INSTANCE_UID)), "")
            yield str(uid), _number(next(iter(_json_values(item, reason)), None))


def _json_values(document: Mapping[str, object], tag: str) -> list[object]:
    element = document.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


def _answer_from_xml(text: bytes) -> StoreAnswer | None:
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return None
    if root.tag.rpartition("}")[2] != "NativeDicomModel":
        return None
    return StoreAnswer(
        dict(_xml_items(root, REFERENCED_SOP_SEQUENCE, WARNING_REASON)),
        dict(_xml_items(root, FAILED_SOP_SEQUENCE, FAILURE_REASON)),
    )


def _xml_items(root: ElementTree.Element, sequence: str, reason: str) -> Iterator[tuple[str, int | None]]:
    for item in root.iterfind(f"{{*}}DicomAttribute[@tag='{sequence}']/{{*}}Item"):
        yield _xml_value(item, SOP_INSTANCE_UID) or "", _number(_xml_value(item, reason))


def _xml_value(item: ElementTree.Element, tag: str) -> str | None:
    found = item.find(f"{{*}}DicomAttribute[@tag='{tag}']/{{*}}Value")
    return found.text.strip() if found is not None and found.text else None


def _number(value: object) -> int | None:
    try:
        return int(str(value))
    except ValueError:
        return None


def outcome(url: str, http_status: int, answer: StoreAnswer | None, sop_instance_uid: str, has_body: bool) -> str:
    """The words of an answer that means stored; raises for one that does not.

    Failures go before everything: HTTP 200 and 202 have been seen with them. HTTP 200 without a body counts
    (PS3.18 10.5.3 wants one, small servers send none); with a body that is no answer it does not: that is some
    other web server's page. HTTP 202 says that something is the matter, so it has to say that ours is not.
    """
    if answer is not None and answer.failed:
        partial = bool(answer.stored)
        return _failed(url, answer.failed.get(sop_instance_uid, next(iter(answer.failed.values()))), partial)
    if answer is None and has_body:
        raise DestinationUnavailable(
            f"{url} did not answer as a DICOMweb service does; correct the destination's URL", FailureKind.NO_DICOMWEB
        )
    told = answer.stored if answer is not None else {}
    if sop_instance_uid in told:
        warning = told[sop_instance_uid]
        return f"stored, with {store_status(warning).words}" if warning else "stored"
    if http_status == 202:
        words = f"{url} answered HTTP 202 and did not say that the object is stored"
        raise DestinationUnavailable(words, FailureKind.PARTIAL)
    return f"HTTP {http_status}, without a word about the object"


def _failed(url: str, reason: int | None, partial: bool) -> str:
    """`partial`: some of what was posted is stored."""
    failure = FailureKind.PARTIAL if partial else FailureKind.STATUS
    if reason is None:
        raise DestinationUnavailable(
            f"{url} did not store the object and gave no reason; see the server's log", failure
        )
    status = store_status(reason)
    if status.verdict is Verdict.STORED and reason != 0x0000:  # it was there already
        return f"stored, with {status.words}"
    refused = status.verdict is Verdict.REFUSED
    some = "stored a part and not the object" if partial else "did not store it"
    raise (DestinationRefused if refused else DestinationUnavailable)(f"{url} {some}: {status.words}", failure)
