"""C-STORE and C-ECHO to peers that are down, say no, hang, or are real archives."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    SegmentationStorage,
)
from pynetdicom.events import Event

from dicomnode.adapters.dimse.storage_scu import StorageScu, Timeouts
from dicomnode.domain.delivery_options import DeliveryOptions
from dicomnode.domain.destination import Destination, DimseAddress
from dicomnode.domain.result import StoredResult
from dicomnode.encoding.forms import encode_form
from dicomnode.errors import DeliveryError, DestinationRefused, DestinationUnavailable
from tests.adapters.difficult_peers import DifficultPacs, stalls_after_accepting, tcp_server
from tests.adapters.sample_results import sample_result
from tests.server_fixtures import require_orthanc
from tests.servers import DcmQrScp, Orthanc, StoreScp
from tests.unit.test_forms import findings

IMPATIENT = Timeouts(connect_s=2, association_s=10, response_s=0.5, stall_s=0.5, slowest_bytes_per_s=1e8)


def scu(timeouts: Timeouts | None = None) -> StorageScu:
    return StorageScu("DICOMNODE", timeouts)


@pytest.fixture(scope="module")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DifficultPacs]:
    """A peer whose `status` a test sets."""
    with DifficultPacs(tmp_path_factory.mktemp("pacs")) as pacs:
        yield pacs


def at(port: int, ae_title: str = "ANY", host: str = "127.0.0.1") -> Destination:
    return Destination("pacs", DimseAddress(ae_title, host, port))


# ------------------------------------------------------------------------------------------------- statuses


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0x0111, "stored, with 0x0111 duplicate SOP instance"),
        (0xB000, "stored, with 0xB000 coercion of data elements"),
        (0xB006, "stored, with 0xB006 elements discarded"),
        (0xB007, "stored, with 0xB007 data set does not match SOP class"),
    ],
)
def test_a_warning_is_delivered_and_told(answering: DifficultPacs, tmp_path: Path, status: int, words: str) -> None:
    path, result = sample_result(tmp_path)
    answering.status = status
    assert scu().send(answering.destination(), path, result).startswith(words)


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (0xA700, DestinationUnavailable, "out of resources: free space"),
        (0xA7FF, DestinationUnavailable, "0xA7FF out of resources"),
        (0x0110, DestinationUnavailable, "processing failure"),
        (0x0124, DestinationUnavailable, "not authorised: allow this node"),
        (0xC000, DestinationUnavailable, "cannot understand: see the peer's log"),
        (0xC211, DestinationUnavailable, "0xC211"),
        (0xA900, DestinationRefused, "data set does not match SOP class"),
        (0x0122, DestinationRefused, "SOP class not supported"),
        (0x0117, DestinationRefused, "invalid SOP instance"),
    ],
)
def test_a_failure_status_in_words(
    answering: DifficultPacs, tmp_path: Path, status: int, error: type[DeliveryError], words: str
) -> None:
    path, result = sample_result(tmp_path)
    answering.status = status
    with pytest.raises(error, match=words) as failed:
        scu().send(answering.destination(), path, result)
    assert "DEMO-PACS@127.0.0.1" in str(failed.value)


# ----------------------------------------------------------------------------------- presentation contexts


def test_the_file_goes_out_byte_for_byte_in_its_own_transfer_syntax(tmp_path: Path) -> None:
    path, result = sample_result(tmp_path, "SEG", transfer_syntax_uid=DeflatedExplicitVRLittleEndian)
    with DifficultPacs(tmp_path / "pacs") as pacs:
        scu().send(pacs.destination(), path, result)
    (arrived,) = (tmp_path / "pacs").glob("*.dcm")
    assert _data_set(arrived) == _data_set(path)


@pytest.mark.parametrize("own", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_a_copy_is_converted_for_a_peer_that_takes_only_implicit_vr(tmp_path: Path, own: str) -> None:
    path, result = sample_result(tmp_path, transfer_syntax_uid=own)
    before = path.read_bytes()
    with DifficultPacs(tmp_path / "pacs", only=[ImplicitVRLittleEndian]) as pacs:
        said = scu().send(pacs.destination(), path, result)
    assert said == "stored, as Implicit VR Little Endian"
    (arrived,) = (tmp_path / "pacs").glob("*.dcm")
    received = dcmread(arrived)
    assert received.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    assert received == dcmread(path)
    assert received.SOPInstanceUID == result.sop_instance_uid
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("size", "options", "takes", "syntax"),
    [
        (1 << 21, DeliveryOptions(), None, DeflatedExplicitVRLittleEndian),
        (1 << 10, DeliveryOptions(), None, ExplicitVRLittleEndian),
        (1 << 21, DeliveryOptions(), [ExplicitVRLittleEndian], ExplicitVRLittleEndian),
        (1 << 21, DeliveryOptions(profile="ohif"), None, ExplicitVRLittleEndian),
        (1 << 21, DeliveryOptions(transfer_syntaxes=("implicit",)), None, ImplicitVRLittleEndian),
    ],
)
def test_large_objects_are_deflated_for_who_takes_that_and_what_is_asked_for_comes_first(
    tmp_path: Path, size: int, options: DeliveryOptions, takes: list[str] | None, syntax: str
) -> None:
    path, result = sample_result(tmp_path, "SEG", payload_bytes=size)
    before = path.read_bytes()
    with DifficultPacs(tmp_path / "pacs", only=takes) as pacs:
        said = scu().send(replace(pacs.destination(), options=options), path, result)
    assert said == ("stored" if syntax == ExplicitVRLittleEndian else f"stored, as {UID(syntax).name}")
    (arrived,) = (tmp_path / "pacs").glob("*.dcm")
    received = dcmread(arrived)
    assert received.file_meta.TransferSyntaxUID == syntax
    assert received == dcmread(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("name", "syntax"), [("rle", RLELossless), ("jpeg-ls", JPEGLSLossless)])
def test_pictures_are_compressed_for_who_wants_that_without_loss(tmp_path: Path, name: str, syntax: str) -> None:
    [picture, *_] = encode_form(findings(), "SC")
    path = tmp_path / "picture.dcm"
    path.write_bytes(picture.content)
    result = StoredResult(
        "SC", picture.sop_class_uid, picture.sop_instance_uid, picture.series_instance_uid, path.name, 1, ""
    )
    with DifficultPacs(tmp_path / "pacs") as pacs:
        wishes = DeliveryOptions(transfer_syntaxes=(name,))
        assert (
            scu().send(replace(pacs.destination(), options=wishes), path, result) == f"stored, as {UID(syntax).name}"
        )
    (arrived,) = (tmp_path / "pacs").glob("*.dcm")
    received = dcmread(arrived)
    assert received.file_meta.TransferSyntaxUID == syntax
    assert received.SOPInstanceUID == picture.sop_instance_uid
    np.testing.assert_array_equal(received.pixel_array, dcmread(path).pixel_array)


def test_orthanc_takes_a_large_segmentation_deflated(orthanc: Orthanc, tmp_path: Path) -> None:
    path, result = sample_result(tmp_path, "SEG", payload_bytes=1 << 21)
    assert scu().send(orthanc.dimse_destination(), path, result) == "stored, as Deflated Explicit VR Little Endian"
    assert dcmread(BytesIO(orthanc.file(result.sop_instance_uid))) == dcmread(path)


def test_a_compressed_object_is_not_converted_in_silence(tmp_path: Path) -> None:
    path, result = sample_result(tmp_path)
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.save_as(path)
    with (
        DifficultPacs(tmp_path / "pacs", only=[ExplicitVRLittleEndian]) as pacs,
        pytest.raises(DestinationRefused, match=r"JPEG 2000.*transfer syntaxes; enable it at the peer"),
    ):
        scu().send(pacs.destination(), path, result)


def test_a_peer_that_stores_no_such_objects_is_named_with_the_sop_class(tmp_path: Path) -> None:
    path, result = sample_result(tmp_path, "SR")
    with (
        DifficultPacs(tmp_path / "pacs", sop_classes=[SegmentationStorage]) as pacs,
        pytest.raises(DestinationRefused, match=r"does not accept Comprehensive 3D SR Storage.*does not store this"),
    ):
        scu().send(pacs.destination(), path, result)


# --------------------------------------------------------------------------------------- broken connections


def test_an_abort_in_the_middle(tmp_path: Path) -> None:
    path, result = sample_result(tmp_path)

    def abort(event: Event) -> None:
        event.assoc.abort()

    with (
        DifficultPacs(tmp_path / "pacs", behaviour=abort) as pacs,
        pytest.raises(DestinationUnavailable, match="aborted the association"),
    ):
        scu().send(pacs.destination(), path, result)


def test_a_peer_that_never_answers_the_store(tmp_path: Path) -> None:
    path, result = sample_result(tmp_path)
    over = threading.Event()

    def wait(_: Event) -> None:
        over.wait(20)

    with DifficultPacs(tmp_path / "pacs", behaviour=wait) as pacs:
        with pytest.raises(DestinationUnavailable, match="gave no answer in"):
            scu(IMPATIENT).send(pacs.destination(), path, result)
        over.set()


def test_a_peer_that_stops_reading_does_not_hold_us_for_ever(tmp_path: Path) -> None:
    path, result = sample_result(tmp_path, payload_bytes=40_000_000)
    with (
        DifficultPacs(tmp_path / "pacs") as pacs,
        tcp_server(stalls_after_accepting(pacs.port)) as port,
        pytest.raises(DestinationUnavailable, match=r"closed the connection before|gave no answer"),
    ):
        scu(IMPATIENT).send(at(port), path, result)


def test_a_port_that_says_nothing() -> None:
    def wait_for_end(connection: socket.socket) -> None:
        while connection.recv(4096):
            pass

    with tcp_server(wait_for_end) as port, pytest.raises(DestinationUnavailable, match="is that port a DICOM port"):
        scu(replace(IMPATIENT, association_s=0.5)).echo(at(port))


def test_a_port_that_hangs_up() -> None:
    def hang_up(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.close()

    with tcp_server(hang_up) as port, pytest.raises(DestinationUnavailable, match="closed the connection"):
        scu(IMPATIENT).echo(at(port))


def test_a_port_that_speaks_http() -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        connection.close()

    with tcp_server(answer) as port, pytest.raises(DestinationUnavailable, match="is that port a DICOM port"):
        scu(IMPATIENT).echo(at(port))


def test_a_host_that_has_no_address() -> None:
    with pytest.raises(DestinationUnavailable, match="host name is not known"):
        scu().echo(at(104, host="no-such-host.invalid"))


# --------------------------------------------------------------------------------------------- real archives


@pytest.mark.orthanc
def test_a_wrong_ae_title_is_named_and_stays_retryable(tmp_path: Path) -> None:
    require_orthanc()
    path, result = sample_result(tmp_path)
    with Orthanc(tmp_path / "orthanc", ae_title="ARCHIVE", check_called_ae_title=True) as orthanc:
        with pytest.raises(DestinationUnavailable, match="does not have that AE title; correct the destination"):
            scu().send(at(orthanc.dicom_port, "WRONG"), path, result)
        with pytest.raises(DestinationUnavailable, match="AE title"):
            scu().echo(at(orthanc.dicom_port, "WRONG"))
        assert "answered C-ECHO" in scu().echo(at(orthanc.dicom_port, "ARCHIVE"))
        assert orthanc.instances() == []


@pytest.mark.orthanc
def test_a_calling_ae_title_that_the_peer_does_not_know(tmp_path: Path) -> None:
    require_orthanc()
    path, result = sample_result(tmp_path)
    with (
        Orthanc(tmp_path / "orthanc", options={"DicomAlwaysAllowStore": False}) as orthanc,
        pytest.raises(DeliveryError, match="aborted the association; see the peer's log"),
    ):
        scu().send(orthanc.dimse_destination(), path, result)


@pytest.mark.dcmtk
def test_dcmtk_receives_the_data_set_byte_for_byte(store_scp: StoreScp, tmp_path: Path) -> None:
    path, result = sample_result(tmp_path, "SEG", payload_bytes=1_000_000)
    assert scu().send(store_scp.dimse_destination(), path, result) == "stored"
    (arrived,) = store_scp.files()
    assert dcmread(arrived) == dcmread(path)


@pytest.mark.dcmtk
def test_dcmqrscp_keeps_one_of_two_equal_objects(dcmqrscp: DcmQrScp, tmp_path: Path) -> None:
    path, result = sample_result(tmp_path)
    for _ in range(2):
        assert scu().send(dcmqrscp.dimse_destination(), path, result) == "stored"
    assert "answered C-ECHO" in scu().echo(dcmqrscp.dimse_destination())


def _data_set(path: Path) -> bytes:
    """What follows the file meta information (PS3.10 7.1)."""
    content = path.read_bytes()
    return content[144 + int.from_bytes(content[140:144], "little") :]
