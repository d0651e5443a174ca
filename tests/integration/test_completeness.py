"""Sources that are asked, and senders as they are: with Orthanc, dcmtk's dcmqrscp and real associations."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomnode.adapters.dicomweb.qido import QidoRs
from dicomnode.adapters.dimse.query_scu import QueryScu, series_query
from dicomnode.adapters.dimse.storage_scu import Timeouts
from dicomnode.domain.destination import DimseAddress, StowAddress
from dicomnode.errors import DestinationRefused, DestinationUnavailable
from tests.adapters.difficult_peers import stalls_after_accepting, tcp_server
from tests.integration.receiving_node import Receiver, associated, fill, send, web_server
from tests.made_series import classic
from tests.server_fixtures import require_orthanc
from tests.servers import DcmQrScp, Orthanc, free_port

IMAGES = classic(24)
STUDY, SERIES = str(IMAGES[0].StudyInstanceUID), str(IMAGES[0].SeriesInstanceUID)


# ------------------------------------------------------------------------------------------ asking by C-FIND


def scu() -> QueryScu:
    return QueryScu("DICOMNODE", Timeouts(connect_s=2, association_s=1, response_s=1, stall_s=1))


@pytest.fixture
def asked_orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    """One that lets everybody query; as it comes it aborts."""
    require_orthanc()
    with Orthanc(tmp_path / "asked", options={"DicomAlwaysAllowFind": True}) as server:
        yield server


@pytest.mark.orthanc
def test_orthanc_counts_by_c_find_and_by_qido(asked_orthanc: Orthanc) -> None:
    server = asked_orthanc
    address, url = DimseAddress(server.ae_title, "127.0.0.1", server.dicom_port), StowAddress(server.dicomweb_url)
    assert scu().count(address, STUDY, SERIES) is None
    assert QidoRs().count(url, STUDY, SERIES) is None
    for number in (10, 24):
        fill(server.dicom_port, IMAGES[:number], server.ae_title)
        assert scu().count(address, STUDY, SERIES) == number
        assert QidoRs().count(url, STUDY, SERIES) == number
    assert scu().count(address, STUDY, f"{SERIES}.1") is None
    assert QidoRs().count(url, f"{STUDY}.1", SERIES) is None


@pytest.mark.orthanc
def test_an_orthanc_that_does_not_know_us(orthanc: Orthanc) -> None:
    address = DimseAddress(orthanc.ae_title, "127.0.0.1", orthanc.dicom_port)
    with pytest.raises(DestinationUnavailable, match=r"aborted the association.*does it let this node query"):
        scu().count(address, STUDY, SERIES)


@pytest.mark.dcmtk
def test_dcmqrscp_counts_by_c_find(dcmqrscp: DcmQrScp) -> None:
    """It gives no NumberOfSeriesRelatedInstances, and is asked for each image instead."""
    address = DimseAddress(dcmqrscp.ae_title, "127.0.0.1", dcmqrscp.dicom_port)
    assert scu().count(address, STUDY, SERIES) is None
    fill(dcmqrscp.dicom_port, IMAGES[:17], dcmqrscp.ae_title)
    assert scu().count(address, STUDY, SERIES) == 17


def test_what_is_asked_for() -> None:
    query = series_query("1.2", "1.2.3")
    assert query.QueryRetrieveLevel == "SERIES"
    assert (query.StudyInstanceUID, query.SeriesInstanceUID) == ("1.2", "1.2.3")
    assert "NumberOfSeriesRelatedInstances" in query


def _takes_and_is_silent(peer: socket.socket) -> None:
    while peer.recv(1 << 16):
        pass


def test_nobody_answers_the_query() -> None:
    with pytest.raises(DestinationUnavailable, match="connection refused: nothing listens there"):
        scu().count(DimseAddress("PACS", "127.0.0.1", free_port()), STUDY, SERIES)
    with (
        tcp_server(_takes_and_is_silent) as port,
        pytest.raises(DestinationUnavailable, match="did not answer the association request"),
    ):
        scu().count(DimseAddress("PACS", "127.0.0.1", port), STUDY, SERIES)


@pytest.mark.dcmtk
def test_a_peer_that_does_not_query(store_scp: Any) -> None:
    address = DimseAddress(store_scp.ae_title, "127.0.0.1", store_scp.dicom_port)
    with pytest.raises(DestinationRefused, match="does not accept Study Root"):
        scu().count(address, STUDY, SERIES)


# ---------------------------------------------------------------------------------------------- asking by QIDO


SERIES_PATH = f"/studies/{STUDY}/series"
FOUND: dict[str, Any] = {"0020000E": {"vr": "UI", "Value": [SERIES]}}


def test_a_server_that_does_not_give_the_attribute_is_asked_for_each_instance() -> None:
    instances = [{"00080018": {"vr": "UI", "Value": [f"1.2.{n}"]}} for n in range(5)]
    answers = {
        SERIES_PATH: (200, json.dumps([FOUND]).encode()),
        f"{SERIES_PATH}/{SERIES}/instances": (200, json.dumps(instances).encode()),
    }
    with web_server(answers) as url:
        assert QidoRs().count(StowAddress(url), STUDY, SERIES) == 5


@pytest.mark.parametrize("value", [7, "7"])
def test_counts_in_numbers_and_in_text(value: object) -> None:
    found = FOUND | {"00201209": {"vr": "IS", "Value": [value]}}
    with web_server({SERIES_PATH: (200, json.dumps([found]).encode())}) as url:
        assert QidoRs().count(StowAddress(url), STUDY, SERIES) == 7


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"<html>", "no DICOMweb service; correct the URL"),
        (200, b"[{]", "broken JSON"),
        (401, b"", "credentials"),
        (500, b"", "see the server's log"),
    ],
)
def test_what_a_web_server_can_say_instead(status: int, body: bytes, words: str) -> None:
    with web_server({SERIES_PATH: (status, body)}) as url, pytest.raises(DestinationUnavailable, match=words):
        QidoRs().count(StowAddress(url), STUDY, SERIES)


def test_a_server_that_does_not_know_the_series() -> None:
    for answer in [(204, b""), (200, b"[]"), (200, json.dumps([{"0020000E": {"Value": ["9"]}}]).encode())]:
        with web_server({SERIES_PATH: answer}) as url:
            assert QidoRs().count(StowAddress(url), STUDY, SERIES) is None


def test_a_web_server_that_is_silent() -> None:
    with tcp_server(stalls_after_accepting) as port, pytest.raises(DestinationUnavailable, match="no answer in time"):
        QidoRs(read_timeout_s=0.3).count(StowAddress(f"http://127.0.0.1:{port}"), STUDY, SERIES)


# ------------------------------------------------------------------------------------------------- the receiver


def test_a_release_completes_the_series_long_before_it_is_quiet(receiver: Callable[..., Receiver]) -> None:
    node = receiver()
    fill(node.port, IMAGES)
    told = node.completed()
    assert told.message == (
        "The CT series 4 is complete: 24 instances; CT1 released its association after 24 instances without a gap"
    )
    assert told.detail["signs"]["associations"][0]["association"] == "here.receiver/1-1/1"


@pytest.mark.dcmtk
def test_the_count_of_dcmqrscp_completes_the_series_while_the_association_is_open(
    receiver: Callable[..., Receiver], dcmqrscp: DcmQrScp
) -> None:
    fill(dcmqrscp.dicom_port, IMAGES, dcmqrscp.ae_title)
    node = receiver(DimseAddress(dcmqrscp.ae_title, "127.0.0.1", dcmqrscp.dicom_port))
    with associated(node.port) as association:
        send(association, IMAGES[:20])
        node.indexed()
        node.wait_for(lambda: [s for s in node.state.receiving_series() if s.counted])
        assert node.completions() == [], "the source says that there are 24"
        send(association, IMAGES[20:])
        told = node.completed()
    assert told.detail["signal"] == "counted"
    assert "says 24 instances, and 24 are here" in told.message


@pytest.mark.orthanc
def test_the_count_of_orthanc_by_qido(receiver: Callable[..., Receiver], orthanc: Orthanc) -> None:
    fill(orthanc.dicom_port, IMAGES, orthanc.ae_title)
    node = receiver(StowAddress(orthanc.dicomweb_url))
    with associated(node.port) as association:
        send(association, IMAGES)
        assert node.completed().detail["signal"] == "counted"


def test_a_slow_sender_that_pauses_in_the_middle_is_not_cut_in_two(receiver: Callable[..., Receiver]) -> None:
    node = receiver(quiet_period_s=0.3)
    with associated(node.port) as association:
        send(association, IMAGES[:12])
        node.indexed()
        node.wait_for(lambda: [s for s in node.state.receiving_series() if s.idle_s > 1.0])
        send(association, IMAGES[12:])
    assert node.completed().detail["instances"] == 24
    assert len(node.completions()) == 1


def test_two_senders_that_interleave_one_series_are_one(receiver: Callable[..., Receiver]) -> None:
    node = receiver()
    with associated(node.port, "CT1") as first:
        with associated(node.port, "CT2") as second:
            for k in range(0, 24, 2):
                send(first, IMAGES[k : k + 1])
                send(second, IMAGES[k + 1 : k + 2])
        node.indexed()
        node.wait_for(lambda: node.state.receiving_series()[0].idle_s > 0.8)
        assert node.completions() == [], "one of them has not gone yet"
    told = node.completed()
    assert told.message.endswith("CT1 and CT2 released their 2 associations after 24 instances without a gap")
    assert len(node.state.study(STUDY).series) == 1


def test_a_sender_that_breaks_off_and_comes_again(receiver: Callable[..., Receiver]) -> None:
    node = receiver()
    association = associated(node.port)
    send(association, IMAGES[:12])
    association.abort()
    node.indexed()
    node.wait_for(lambda: node.state.receiving_series()[0].idle_s > 0.8)
    assert node.state.receiving_series()[0].arrivals[0].ended_how == "aborted"
    assert node.completions() == []
    fill(node.port, IMAGES)
    assert node.completed().detail["instances"] == 24


def test_a_source_that_hangs_costs_the_series_nothing_but_the_timeout(receiver: Callable[..., Receiver]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        node = receiver(DimseAddress("DEAF", "127.0.0.1", deaf.getsockname()[1]))
        fill(node.port, IMAGES)
        assert node.completed().detail["signal"] == "released"
