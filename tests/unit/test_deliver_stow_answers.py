"""Reading what a STOW-RS server says, without a server."""

from __future__ import annotations

import json
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.adapters.dicomweb.qido import is_search_answer
from dicomnode.adapters.dicomweb.stow import Message
from dicomnode.adapters.dicomweb.stow_answer import StoreAnswer, may_be_of_the_encoding, outcome, read_store_answer
from dicomnode.errors import DestinationRefused, DestinationUnavailable

UID = "1.2.3"
URL = "http://pacs/dicom-web"


def item(uid: str, tag: str = "", reason: int = 0) -> dict[str, object]:
    made: dict[str, object] = {"00081155": {"vr": "UI", "Value": [uid]}}
    return {**made, tag: {"vr": "US", "Value": [reason]}} if tag else made


def json_answer(stored: list[object] | None = None, failed: list[object] | None = None) -> bytes:
    document = {}
    if stored is not None:
        document["00081199"] = {"vr": "SQ", "Value": stored} if stored else {"vr": "SQ"}
    if failed is not None:
        document["00081198"] = {"vr": "SQ", "Value": failed} if failed else {"vr": "SQ"}
    return json.dumps(document).encode()


XML = """<?xml version="1.0" encoding="utf-8"?>
<NativeDicomModel{namespace}>
  <DicomAttribute tag="00081198" vr="SQ" keyword="FailedSOPSequence">{failed}</DicomAttribute>
  <DicomAttribute tag="00081199" vr="SQ" keyword="ReferencedSOPSequence">{stored}</DicomAttribute>
</NativeDicomModel>"""
XML_ITEM = """<Item number="1">
  <DicomAttribute tag="00081155" vr="UI"><Value number="1">1.2.3</Value></DicomAttribute>
  <DicomAttribute tag="{tag}" vr="US"><Value number="1">{reason}</Value></DicomAttribute></Item>"""
NAMESPACE = ' xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM"'


def answer_of(body: bytes, http_status: int = 200) -> str:
    return outcome(URL, http_status, read_store_answer(body), UID, bool(body))


@pytest.mark.parametrize(
    "body",
    [
        json_answer(stored=[item(UID)]),
        json_answer(stored=[item(UID)], failed=[]),
        b"[" + json_answer(stored=[item(UID)], failed=[]) + b"]",
        XML.format(namespace=NAMESPACE, failed="", stored=XML_ITEM.format(tag="00000000", reason="")).encode(),
        XML.format(namespace="", failed="", stored=XML_ITEM.format(tag="00000000", reason="")).encode(),
    ],
    ids=["json", "empty failed sequence", "json array", "xml", "xml without namespace"],
)
def test_success(body: bytes) -> None:
    assert answer_of(body) == "stored"


@pytest.mark.parametrize(
    "body",
    [
        json_answer(stored=[item(UID, "00081196", 0xB000)]),
        XML.format(namespace=NAMESPACE, failed="", stored=XML_ITEM.format(tag="00081196", reason=0xB000)).encode(),
    ],
    ids=["json", "xml"],
)
def test_a_warning_is_told(body: bytes) -> None:
    assert answer_of(body, 202).startswith("stored, with 0xB000 coercion")


@pytest.mark.parametrize("http_status", [200, 202, 409])
@pytest.mark.parametrize(
    "body",
    [
        json_answer(failed=[item(UID, "00081197", 0x0122)]),
        XML.format(namespace=NAMESPACE, failed=XML_ITEM.format(tag="00081197", reason=0x0122), stored="").encode(),
    ],
    ids=["json", "xml"],
)
def test_a_failed_instance_is_a_failure_whatever_http_says(body: bytes, http_status: int) -> None:
    with pytest.raises(DestinationRefused, match="SOP class not supported"):
        answer_of(body, http_status)


def test_a_failure_that_may_heal_is_retryable() -> None:
    with pytest.raises(DestinationUnavailable, match="out of resources"):
        answer_of(json_answer(failed=[item(UID, "00081197", 0xA700)]), 202)


def test_a_failure_without_a_reason_is_retryable() -> None:
    with pytest.raises(DestinationUnavailable, match="gave no reason"):
        answer_of(json_answer(failed=[item(UID)]), 202)


def test_what_else_failed_is_another_objects_business() -> None:
    assert answer_of(json_answer(stored=[item(UID)], failed=[item("9.9", "00081197", 0xA900)]), 202) == "stored"
    both = json_answer(stored=[item(UID)], failed=[item(UID, "00081197", 0xA900)])
    with pytest.raises(DestinationRefused, match="stored a part and not the object"):
        answer_of(both, 202)


def test_a_duplicate_is_delivered() -> None:
    assert "it was there already" in answer_of(json_answer(failed=[item(UID, "00081197", 0x0111)]), 409)


@pytest.mark.parametrize(
    "body",
    [
        b"<html><body>Welcome</body></html>",
        b"<!doctype html><p>hi",
        b"OK",
        b'{"message": "hello"}',
        b"{broken",
        b'"x"',
    ],
)
def test_another_web_servers_page_is_no_success(body: bytes) -> None:
    with pytest.raises(DestinationUnavailable, match="did not answer as a DICOMweb service does"):
        answer_of(body)


def test_silence_counts_with_200_and_not_with_202() -> None:
    assert answer_of(b"", 200) == "HTTP 200, without a word about the object"
    with pytest.raises(DestinationUnavailable, match="202"):
        answer_of(b"", 202)
    with pytest.raises(DestinationUnavailable, match="202"):
        answer_of(json_answer(stored=[item("9.9")]), 202)


@given(st.binary(max_size=400))
def test_no_body_breaks_the_reading(body: bytes) -> None:
    assert read_store_answer(body) is None or isinstance(read_store_answer(body), StoreAnswer)


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)))
def test_no_json_value_breaks_the_reading(value: object) -> None:
    body = json.dumps({"00081198": value, "00081199": {"vr": "SQ", "Value": [value, {"00081155": value}]}}).encode()
    answer = read_store_answer(body)
    assert answer is not None
    assert not answer.failed


@pytest.mark.parametrize(
    ("http_status", "reason", "plainer"),
    [
        (400, None, True),
        (406, None, True),
        (409, None, True),
        (415, None, True),
        (202, 0xC122, True),
        (409, 0xA900, True),
        (200, 0x0110, True),
        (409, 0xA700, False),
        (409, 0x0122, False),
        (409, 0x0124, False),
        (409, 0x0111, False),  # it has the object
        (200, None, False),
        (401, None, False),
        (413, None, False),
        (503, None, False),
    ],
)
def test_which_answers_may_be_about_the_encoding(http_status: int, reason: int | None, plainer: bool) -> None:
    answer = StoreAnswer(failed={UID: reason}) if reason is not None else None
    assert may_be_of_the_encoding(http_status, answer, UID) is plainer


@given(st.binary(max_size=200), st.integers(1, 50))
def test_a_message_has_one_part_with_the_content(content: bytes, block: int) -> None:
    message = Message(BytesIO(content), len(content))
    body = b"".join(iter(lambda: message.read(block), b""))
    assert len(body) == len(message)
    boundary = message.content_type.partition("boundary=")[2].encode()
    head, part, tail = body.split(b"--" + boundary)
    assert (head, tail) == (b"", b"--\r\n")
    assert part == b"\r\nContent-Type: application/dicom\r\n\r\n" + content + b"\r\n"


@pytest.mark.parametrize(
    ("http_status", "body", "fine"),
    [(200, b"[]", True), (200, b" [{}]\n", True), (204, b"", True), (200, b"<html>", False), (200, b"", False)],
)
def test_a_search_answer(http_status: int, body: bytes, fine: bool) -> None:
    assert is_search_answer(http_status, body) is fine
