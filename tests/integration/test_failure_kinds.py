"""Each way in which a delivery can fail, injected, and the kind that it is told apart by."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.uid import SegmentationStorage
from pynetdicom import AE
from pynetdicom.events import Event
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from dicomnode.adapters.dicomweb.stow import StowRs
from dicomnode.adapters.dimse.storage_scu import StorageScu, Timeouts
from dicomnode.adapters.sending_pace import SendingPaces
from dicomnode.domain.delivery_failure import FailureKind, is_of_the_destination
from dicomnode.domain.delivery_options import DeliveryOptions
from dicomnode.domain.destination import Destination, DimseAddress, StowAddress
from dicomnode.errors import DeliveryError
from tests.adapters.difficult_peers import DifficultPacs, WebPeer, tcp_server
from tests.adapters.sample_results import sample_result
from tests.servers import free_port

K = FailureKind
PATIENT = Timeouts(connect_s=10, association_s=20, response_s=20)
Broken = Callable[[Path], AbstractContextManager[Destination]]


def dimse(port: int, ae_title: str = "DEMO-PACS") -> Destination:
    return Destination("pacs", DimseAddress(ae_title, "127.0.0.1", port))


@contextmanager
def nobody(folder: Path) -> Iterator[Destination]:
    yield dimse(free_port())


@contextmanager
def rejecting(folder: Path) -> Iterator[Destination]:
    with DifficultPacs(folder) as pacs:
        pacs.ae.require_called_aet = True
        yield dimse(pacs.port, "WRONG")


@contextmanager
def full(folder: Path) -> Iterator[Destination]:
    """One association is all it has, and somebody has it."""
    with DifficultPacs(folder) as pacs:
        pacs.ae.maximum_associations = 1
        other = AE("OTHER").associate("127.0.0.1", pacs.port, [build_context(Verification)])
        assert other.is_established
        yield dimse(pacs.port)
        other.release()


@contextmanager
def aborting(folder: Path) -> Iterator[Destination]:
    def abort(event: Event) -> None:
        event.assoc.abort()

    with DifficultPacs(folder, behaviour=abort) as pacs:
        yield dimse(pacs.port)


@contextmanager
def mute(folder: Path) -> Iterator[Destination]:
    """Takes the connection and says nothing to the association request."""

    def read(connection: socket.socket) -> None:
        while connection.recv(4096):
            pass

    with tcp_server(read) as port:
        yield dimse(port)


@contextmanager
def slow(folder: Path) -> Iterator[Destination]:
    """Gives no response to the object."""
    over = threading.Event()

    def wait(event: Event) -> None:
        over.wait(20)

    with DifficultPacs(folder, behaviour=wait) as pacs:
        yield dimse(pacs.port)
        over.set()


@contextmanager
def other_kinds(folder: Path) -> Iterator[Destination]:
    with DifficultPacs(folder, sop_classes=[SegmentationStorage]) as pacs:
        yield dimse(pacs.port)


@contextmanager
def refusing(folder: Path) -> Iterator[Destination]:
    with DifficultPacs(folder, status=0xA900) as pacs:
        yield dimse(pacs.port)


@pytest.mark.parametrize(
    ("broken", "kind", "retryable"),
    [
        (nobody, K.NO_CONNECTION, True),
        (rejecting, K.ASSOCIATION_REJECTED, True),
        (full, K.ASSOCIATION_REJECTED, True),
        (aborting, K.ASSOCIATION_ABORTED, True),
        (mute, K.NO_ANSWER, True),
        (slow, K.NO_RESPONSE, True),
        (other_kinds, K.CONTEXT_NOT_ACCEPTED, False),
        (refusing, K.STATUS, False),
    ],
)
def test_c_store(broken: Broken, kind: FailureKind, retryable: bool, tmp_path: Path) -> None:
    path, result = sample_result(tmp_path, "SR")
    # only who is waited for in vain is waited for briefly: a busy machine must not look like a broken one
    timeouts = {mute: replace(PATIENT, association_s=0.7), slow: replace(PATIENT, response_s=0.7)}
    sink = StorageScu("NODE", timeouts.get(broken, PATIENT))
    with broken(tmp_path / "pacs") as destination, pytest.raises(DeliveryError) as failed:
        sink.send(destination, path, result)
    assert (failed.value.failure, failed.value.retryable) == (kind, retryable)


def failed_answer(uid: str, reason: int, also_stored: bool) -> bytes:
    item = {"00081155": {"vr": "UI", "Value": [uid]}, "00081197": {"vr": "US", "Value": [reason]}}
    other = {"00081155": {"vr": "UI", "Value": ["1.2.3"]}}
    document: dict[str, object] = {"00081198": {"vr": "SQ", "Value": [item]}}
    if also_stored:
        document["00081199"] = {"vr": "SQ", "Value": [other]}
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("status", "kind", "of_all"),
    [
        (401, K.CREDENTIALS, True),
        (403, K.CREDENTIALS, True),
        (404, K.NO_SERVICE, True),
        (429, K.NO_SERVICE, True),
        (503, K.NO_SERVICE, True),
        (500, K.HTTP, False),
        (413, K.HTTP, False),
        (302, K.NO_SERVICE, True),
    ],
)
def test_stow_rs_by_http_status(status: int, kind: FailureKind, of_all: bool, tmp_path: Path) -> None:
    with WebPeer(status, b"<html>no</html>") as peer, pytest.raises(DeliveryError) as failed:
        StowRs().send(peer.destination(), *sample_result(tmp_path))
    assert failed.value.failure == kind
    assert is_of_the_destination(failed.value.failure) is of_all


@pytest.mark.parametrize(("also_stored", "kind"), [(True, K.PARTIAL), (False, K.STATUS)])
def test_stow_rs_by_failed_sop_sequence(also_stored: bool, kind: FailureKind, tmp_path: Path) -> None:
    path, result = sample_result(tmp_path)
    body = failed_answer(result.sop_instance_uid, 0xA700, also_stored)
    with WebPeer(202, body) as peer, pytest.raises(DeliveryError, match="0xA700 out of resources") as failed:
        StowRs().send(peer.destination(), path, result)
    assert failed.value.failure == kind
    assert failed.value.retryable


def test_stow_rs_without_a_server_without_tls_without_an_answer_and_to_a_web_page(tmp_path: Path) -> None:
    sample = sample_result(tmp_path)

    def kind_of(destination: Destination, read_timeout_s: float = 20.0) -> str:
        with pytest.raises(DeliveryError) as failed:
            StowRs(read_timeout_s=read_timeout_s).send(destination, *sample)
        return failed.value.failure

    assert kind_of(Destination("x", StowAddress(f"http://127.0.0.1:{free_port()}"))) == K.NO_CONNECTION
    with WebPeer() as peer:
        url = str(peer.destination().address).replace("http:", "https:")
        assert kind_of(Destination("x", StowAddress(url))) == K.TLS
    with WebPeer(wait_for=threading.Event()) as peer:
        assert kind_of(peer.destination(), read_timeout_s=0.3) == K.NO_RESPONSE
    with WebPeer(200, b"<!doctype html>") as peer:
        assert kind_of(peer.destination()) == K.NO_DICOMWEB
    with tcp_server(lambda connection: connection.close()) as port:
        assert kind_of(Destination("x", StowAddress(f"http://127.0.0.1:{port}"))) == K.ASSOCIATION_ABORTED


def test_our_own_file_is_told_apart(tmp_path: Path) -> None:
    path, result = sample_result(tmp_path)
    path.write_bytes(b"nothing")
    web = Destination("x", StowAddress("http://127.0.0.1:1"))
    for sink, destination in ((StorageScu("NODE"), dimse(1)), (StowRs(), web)):
        with pytest.raises(DeliveryError) as failed:
            sink.send(destination, path, result)
        assert failed.value.failure == K.FILE


def test_c_store_sends_no_more_bytes_than_the_limit_allows(tmp_path: Path) -> None:
    """On a clock that jumps; the whole takes no time and arrives."""
    path, result = sample_result(tmp_path, payload_bytes=1_000_000)
    slept: list[float] = []
    now = [0.0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    paces = SendingPaces(monotonic=lambda: now[0], sleep=sleep)
    with DifficultPacs(tmp_path / "pacs") as pacs:
        limited = Destination("pacs", pacs.destination().address, DeliveryOptions(bytes_per_s=100_000))
        assert StorageScu("NODE", paces=paces.of).send(limited, path, result) == "stored"
    assert 9.5 < sum(slept) < 11
