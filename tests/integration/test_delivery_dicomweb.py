"""STOW-RS and QIDO-RS to servers that are down, say no, are something else, or are real."""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from dicomweb_client import DICOMwebClient
from pydicom import dcmread
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, JPEGLSLossless, RLELossless

from dicomnode.adapters.dicomweb.stow import NOT_TAKEN_S, StowRs
from dicomnode.domain.delivery_options import DeliveryOptions
from dicomnode.domain.destination import Destination, StowAddress
from dicomnode.domain.result import StoredResult
from dicomnode.encoding.forms import encode_form
from dicomnode.encoding.part10 import data_set_offset
from dicomnode.errors import DeliveryError, DestinationRefused, DestinationUnavailable
from tests.adapters.difficult_peers import WebPeer, tcp_server
from tests.adapters.sample_results import sample_result
from tests.server_fixtures import require_orthanc
from tests.servers import Orthanc
from tests.unit.test_forms import findings


@pytest.fixture
def sample(tmp_path: Path) -> tuple[Path, StoredResult]:
    return sample_result(tmp_path)


Sample = tuple[Path, StoredResult]


def stored(result: StoredResult) -> bytes:
    return json.dumps(
        {
            "00081198": {"vr": "SQ"},
            "00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [result.sop_instance_uid]}}]},
        }
    ).encode()


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (400, DestinationRefused, "HTTP 400"),
        (401, DestinationUnavailable, "credentials are wanted or wrong"),
        (403, DestinationUnavailable, "these credentials may not"),
        (404, DestinationUnavailable, "no DICOMweb service at this path"),
        (409, DestinationUnavailable, "stored nothing and gave no reason"),
        (406, DestinationRefused, "does not take this encoding"),
        (413, DestinationRefused, "larger than the server allows"),
        (415, DestinationRefused, "does not take application/dicom"),
        (429, DestinationUnavailable, "too many requests"),
        (500, DestinationUnavailable, "see the server's log"),
        (503, DestinationUnavailable, "HTTP 503"),
    ],
)
def test_http_statuses_in_words(sample: Sample, status: int, error: type[Exception], words: str) -> None:
    with WebPeer(status, b"<html>no</html>") as peer, pytest.raises(error, match=words):
        StowRs().send(peer.destination(), *sample)
    assert len(peer.requests) == 1  # trying again is the delivery's business


def test_what_is_sent_is_one_multipart_message_with_the_file(sample: Sample) -> None:
    path, result = sample
    with WebPeer(200, stored(result)) as peer:
        assert StowRs().send(peer.destination(), path, result) == "stored"
    ((method, asked, headers, body),) = peer.requests
    assert (method, asked) == ("POST", "/dicom-web/studies")
    assert headers["Content-Type"].startswith('multipart/related; type="application/dicom"; boundary=')
    assert int(headers["Content-Length"]) == len(body)
    assert path.read_bytes() in body


def test_credentials_go_into_the_header_and_nowhere_else(sample: Sample, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with WebPeer(401) as peer:
        destination = peer.destination("node:s3cr%40t@")
        with pytest.raises(DestinationUnavailable) as failed:
            StowRs().send(destination, *sample)
    assert peer.requests[0][2]["Authorization"] == "Basic bm9kZTpzM2NyQHQ="
    assert peer.requests[0][2]["Host"] == destination.shown.partition("@")[2].partition("/")[0]
    for text in (str(failed.value), caplog.text, destination.shown, repr(destination)):
        assert "s3cr" not in text


def test_a_redirect_is_told_and_not_followed(sample: Sample) -> None:
    headers = {"Location": "https://user:secret@elsewhere/dicom-web/studies?token=1"}
    with (
        WebPeer(301, headers=headers) as peer,
        pytest.raises(DestinationUnavailable, match="https://elsewhere/dicom-web/studies; register") as failed,
    ):
        StowRs().send(peer.destination(), *sample)
    assert "secret" not in str(failed.value)
    assert "token" not in str(failed.value)


def test_a_web_page_is_no_success(sample: Sample) -> None:
    with WebPeer(200, b"<!doctype html><title>Login</title>", {"Content-Type": "text/html"}) as peer:
        with pytest.raises(DestinationUnavailable, match="did not answer as a DICOMweb service does"):
            StowRs().send(peer.destination(), *sample)
        with pytest.raises(DestinationUnavailable, match="no DICOMweb service; correct the URL"):
            StowRs().echo(peer.destination())


def test_failures_are_found_under_any_content_type(sample: Sample) -> None:
    uid = {"vr": "UI", "Value": [sample[1].sop_instance_uid]}
    failed = {"00081155": uid, "00081197": {"vr": "US", "Value": [0xA900]}}
    body = json.dumps({"00081198": {"vr": "SQ", "Value": [failed]}}).encode()
    with (
        WebPeer(202, body, {"Content-Type": "application/dicom+json; charset=utf-8"}) as peer,
        pytest.raises(DestinationRefused, match="0xA900 data set does not match SOP class"),
    ):
        StowRs().send(peer.destination(), *sample)


def test_a_server_that_answers_before_it_has_read_everything(tmp_path: Path) -> None:
    sample = sample_result(tmp_path, payload_bytes=20_000_000)
    with WebPeer(413, read_body=False) as peer, pytest.raises((DestinationUnavailable, DestinationRefused)) as failed:
        StowRs().send(wishing(peer, "explicit"), *sample)
    assert "larger than the server allows" in str(failed.value) or "connection broke" in str(failed.value)


def test_a_server_that_never_answers(sample: Sample) -> None:
    with (
        WebPeer(wait_for=threading.Event()) as peer,
        pytest.raises(DestinationUnavailable, match="no answer in time"),
    ):
        StowRs(read_timeout_s=0.3).send(peer.destination(), *sample)


def test_a_slow_server_gets_the_time_that_a_large_object_needs(tmp_path: Path) -> None:
    """The limit on connecting is none on sending."""
    path, result = sample_result(tmp_path, payload_bytes=30_000_000)
    with WebPeer(200, stored(result), pause_s=0.03) as peer:
        assert StowRs(connect_timeout_s=0.3).send(wishing(peer, "explicit"), path, result) == "stored"


def test_a_port_that_speaks_something_else(sample: Sample) -> None:
    with (
        tcp_server(lambda connection: connection.sendall(b"220 mail.example ESMTP\r\n")) as port,
        pytest.raises(DestinationUnavailable, match=r"connection broke|not an HTTP exchange"),
    ):
        StowRs(read_timeout_s=2).send(Destination("x", StowAddress(f"http://127.0.0.1:{port}")), *sample)


def test_tls_to_a_server_without_it(sample: Sample) -> None:
    with WebPeer() as peer:
        url = str(peer.destination().address).replace("http:", "https:")
        with pytest.raises(DestinationUnavailable, match="no TLS connection"):
            StowRs(read_timeout_s=2).send(Destination("x", StowAddress(url)), *sample)


def test_a_host_that_has_no_address(sample: Sample) -> None:
    with pytest.raises(DestinationUnavailable, match="host name is not known"):
        StowRs().send(Destination("x", StowAddress("http://no-such-host.invalid/dicom-web")), *sample)


# ------------------------------------------------------------------------------------------- transfer syntaxes


class ChoosyPeer(WebPeer):
    """Takes explicit VR alone, and answers anything else as it is told."""

    def __init__(self, refusal: int, body: bytes, stored: bytes) -> None:
        super().__init__()
        self._refusal, self._stored = (refusal, body), (200, stored)

    def look_at(self, received: bytes) -> None:
        plain = syntax_of(received) == ExplicitVRLittleEndian
        self.status, self.body = self._stored if plain else self._refusal


def syntax_of(message: bytes) -> str:
    """Of the file in a multipart message."""
    _, _, file = message.partition(b"\r\n\r\n")
    return str(dcmread(BytesIO(file), stop_before_pixels=True).file_meta.TransferSyntaxUID)


def failed(result: StoredResult, reason: int) -> bytes:
    uid = {"vr": "UI", "Value": [result.sop_instance_uid]}
    item = {"00081155": uid, "00081197": {"vr": "US", "Value": [reason]}}
    return json.dumps({"00081198": {"vr": "SQ", "Value": [item]}}).encode()


def syntaxes_asked(peer: WebPeer) -> list[str]:
    return [syntax_of(body) for _, _, _, body in peer.requests]


def wishing(peer: WebPeer, *syntaxes: str) -> Destination:
    return replace(peer.destination(), options=DeliveryOptions(transfer_syntaxes=syntaxes))


@pytest.mark.parametrize(
    ("size", "options", "syntax"),
    [
        (1 << 21, DeliveryOptions(), DeflatedExplicitVRLittleEndian),
        (1 << 10, DeliveryOptions(), ExplicitVRLittleEndian),
        (1 << 21, DeliveryOptions(profile="ohif"), ExplicitVRLittleEndian),
        (1 << 21, DeliveryOptions(transfer_syntaxes=("explicit",)), ExplicitVRLittleEndian),
    ],
)
def test_the_profile_says_in_which_encoding(tmp_path: Path, size: int, options: DeliveryOptions, syntax: str) -> None:
    path, result = sample_result(tmp_path, "SEG", payload_bytes=size)
    with WebPeer(200, stored(result)) as peer:
        said = StowRs().send(replace(peer.destination(), options=options), path, result)
    assert syntaxes_asked(peer) == [syntax]
    own = syntax == ExplicitVRLittleEndian
    assert said == ("stored" if own else "stored, as Deflated Explicit VR Little Endian")
    received = dcmread(BytesIO(peer.requests[0][3].partition(b"\r\n\r\n")[2].rpartition(b"\r\n--")[0]))
    assert received == dcmread(path)


@pytest.mark.parametrize(("name", "syntax"), [("rle", RLELossless), ("jpeg-ls", JPEGLSLossless)])
def test_pictures_are_compressed_without_loss(tmp_path: Path, name: str, syntax: str) -> None:
    [picture, *_] = encode_form(findings(), "SC")
    path = tmp_path / "picture.dcm"
    path.write_bytes(picture.content)
    result = StoredResult("SC", picture.sop_class_uid, picture.sop_instance_uid, "1.2", path.name, 1, "")
    with WebPeer(200, stored(result)) as peer:
        assert StowRs().send(wishing(peer, name), path, result) == f"stored, as {UID(syntax).name}"
    assert syntaxes_asked(peer) == [syntax]


@pytest.mark.parametrize(
    ("status", "reason"), [(400, None), (406, None), (409, None), (415, None), (409, 0xC122), (202, 0xC000)]
)
def test_what_is_not_taken_goes_plain_and_is_remembered(tmp_path: Path, status: int, reason: int | None) -> None:
    path, result = sample_result(tmp_path, "SEG", payload_bytes=1 << 21)
    refusal = failed(result, reason) if reason else b"<html>no</html>"
    now = [0.0]
    sink = StowRs(monotonic=lambda: now[0])
    with ChoosyPeer(status, refusal, stored(result)) as peer:
        said = sink.send(peer.destination(), path, result)
        assert sink.send(peer.destination(), path, result) == "stored"
        now[0] += NOT_TAKEN_S + 1
        sink.send(peer.destination(), path, result)
    deflated, explicit = DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian
    assert syntaxes_asked(peer) == [deflated, explicit, explicit, deflated, explicit]
    name = "Deflated Explicit VR Little Endian"
    assert said == f"stored, as Explicit VR Little Endian: it did not take {name} (HTTP {status})"


def test_what_is_not_taken_plain_either_tells_of_both(tmp_path: Path) -> None:
    path, result = sample_result(tmp_path, "SEG", payload_bytes=1 << 21)
    both = "multipart/related.*; sent in Explicit VR Little Endian, as it did not take Deflated .*415"
    sink = StowRs()
    with WebPeer(415) as peer:
        for _ in range(2):  # nothing is learnt from it
            with pytest.raises(DestinationRefused, match=both):
                sink.send(peer.destination(), path, result)
    assert len(peer.requests) == 4


@pytest.mark.parametrize("status", [401, 413, 503])
def test_what_is_not_about_the_encoding_is_asked_once(tmp_path: Path, status: int) -> None:
    path, result = sample_result(tmp_path, "SEG", payload_bytes=1 << 21)
    with WebPeer(status) as peer, pytest.raises(DeliveryError):
        StowRs().send(peer.destination(), path, result)
    assert len(peer.requests) == 1


# ---------------------------------------------------------------------------------------------- a real Orthanc


@pytest.mark.orthanc
def test_orthanc_takes_a_large_segmentation_deflated(orthanc: Orthanc, tmp_path: Path) -> None:
    path, result = sample_result(tmp_path, "SEG", payload_bytes=1 << 21)
    assert StowRs().send(orthanc.stow_destination(), path, result) == "stored, as Deflated Explicit VR Little Endian"
    kept = orthanc.file(result.sop_instance_uid)
    assert len(kept) < 1 << 16
    assert dcmread(BytesIO(kept)) == dcmread(path)
    assert orthanc.instances(Modality="SEG") == [result.sop_instance_uid]


@pytest.mark.orthanc
def test_what_was_stored_is_retrieved_by_an_independent_client(orthanc: Orthanc, sample: Sample) -> None:
    path, result = sample
    StowRs().send(orthanc.stow_destination(), path, result)
    sent = dcmread(path)
    received = DICOMwebClient(orthanc.dicomweb_url).retrieve_instance(
        sent.StudyInstanceUID, sent.SeriesInstanceUID, sent.SOPInstanceUID
    )
    assert received == sent


@pytest.mark.orthanc
def test_a_wrong_path_at_orthanc(orthanc: Orthanc, sample: Sample) -> None:
    wrong = Destination("x", StowAddress(f"{orthanc.url}/wrong"))
    with pytest.raises(DestinationUnavailable, match=r"404.*no DICOMweb service at this path"):
        StowRs().send(wrong, *sample)
    with pytest.raises(DestinationUnavailable, match="404"):
        StowRs().echo(wrong)


@pytest.mark.orthanc
def test_orthanc_refuses_a_broken_object(orthanc: Orthanc, sample: Sample) -> None:
    path, result = sample
    content = path.read_bytes()
    path.write_bytes(content[: data_set_offset(content) + 6])
    with pytest.raises(DestinationRefused, match="HTTP 400"):
        StowRs().send(orthanc.stow_destination(), path, result)


@pytest.mark.orthanc
def test_orthanc_with_a_password(tmp_path: Path, sample: Sample) -> None:
    require_orthanc()
    path, result = sample
    with Orthanc(tmp_path / "orthanc", users={"node": "pass word"}) as orthanc:
        with pytest.raises(DestinationUnavailable, match=r"401.*credentials"):
            StowRs().send(orthanc.stow_destination(), path, result)
        url = orthanc.dicomweb_url.replace("//", "//node:pass%20word@")
        destination = Destination("x", StowAddress(url))
        assert StowRs().send(destination, path, result) == "stored"
        assert "answered QIDO-RS" in StowRs().echo(destination)
        assert orthanc.instances() == [result.sop_instance_uid]


@pytest.mark.orthanc
def test_orthanc_that_does_not_overwrite_takes_a_repeat_as_success(tmp_path: Path, sample: Sample) -> None:
    require_orthanc()
    path, result = sample
    with Orthanc(tmp_path / "orthanc", overwrite=False) as orthanc:
        for _ in range(2):
            assert StowRs().send(orthanc.stow_destination(), path, result) == "stored"
        assert orthanc.instances() == [result.sop_instance_uid]
