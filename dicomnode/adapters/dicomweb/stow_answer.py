"""Reads what a STOW-RS service says of what it was posted (PS3.18 10.5.3)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from xml.etree import ElementTree

from dicomnode.domain.delivery_failure import FailureKind
from dicomnode.domain.store_status import Verdict, store_status
from dicomnode.errors import DestinationRefused, DestinationUnavailable

# PS3.18 Table 10.5.3-1 ff. and PS3.3 C.12.1.1.9
FAILED_SOP_SEQUENCE, REFERENCED_SOP_SEQUENCE = "00081198", "00081199"
SOP_INSTANCE_UID, FAILURE_REASON, WARNING_REASON = "00081155", "00081197", "00081196"
# Statuses with which servers answer to an encoding that they cannot read
_OF_THE_ENCODING = frozenset({400, 406, 409, 415})
_PROCESSING_FAILURE, _INVALID_INSTANCE = 0x0110, 0x0117


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


def may_be_of_the_encoding(http_status: int, answer: StoreAnswer | None, sop_instance_uid: str) -> bool:
    """Whether the object may be stored all the same if it comes in a plainer transfer syntax.

    0xC122 says so (PS3.18 I.2.2); servers that cannot read the encoding say any of the others too.
    """
    if answer is None or not answer.failed:
        return http_status in _OF_THE_ENCODING
    reason = _reason_of(answer, sop_instance_uid)
    return reason in (None, _PROCESSING_FAILURE, _INVALID_INSTANCE) or reason >> 8 == 0xA9 or reason >> 12 == 0xC


def _reason_of(answer: StoreAnswer, sop_instance_uid: str) -> int | None:
    """Of a service that failed and names another object than ours, that one's."""
    return answer.failed.get(sop_instance_uid, next(iter(answer.failed.values())))


def outcome(url: str, http_status: int, answer: StoreAnswer | None, sop_instance_uid: str, has_body: bool) -> str:
    """The words of an answer that means stored; raises for one that does not.

    Failures go before everything, unless they are said of another object alone: HTTP 200 and 202 have been seen
    with them. HTTP 200 without a body counts (PS3.18 10.5.3 wants one, small servers send none); with a body that
    is no answer it does not: that is some other web server's page. HTTP 202 says that something is the matter, so
    it has to say that ours is not.
    """
    if answer is not None and answer.failed and not _only_others_failed(answer, sop_instance_uid):
        partial = bool(answer.stored)
        return _failed(url, _reason_of(answer, sop_instance_uid), partial)
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


def _only_others_failed(answer: StoreAnswer, sop_instance_uid: str) -> bool:
    return sop_instance_uid in answer.stored and sop_instance_uid not in answer.failed


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
