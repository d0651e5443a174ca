"""Sources that are asked, and senders as they are: with Orthanc, dcmtk's dcmqrscp and real associations."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom.dsutils import encode

from dicomnode.adapters.db.repositories import SqlState, open_state
from dicomnode.adapters.dicomweb.qido import QidoRs
from dicomnode.adapters.dimse.query_scu import QueryScu, series_query
from dicomnode.adapters.dimse.storage_scp import StorageSCP
from dicomnode.adapters.dimse.storage_scu import Timeouts
from dicomnode.adapters.instance_store import FolderInstanceStore
from dicomnode.adapters.system_clock import SystemClock
from dicomnode.domain.completeness import Policy
from dicomnode.domain.destination import Address, DimseAddress, StowAddress
from dicomnode.domain.source import Source
from dicomnode.domain.study import Series
from dicomnode.errors import DestinationRefused, DestinationUnavailable
from dicomnode.ports import Event
from dicomnode.stages.complete import Completer
from dicomnode.stages.counting import SourceCounter
from dicomnode.stages.receive import ReceiveStage
from tests.adapters.difficult_peers import stalls_after_accepting, tcp_server
from tests.adapters.state_material import RecordingQueue
from tests.made_series import classic
from tests.raw_scu import CT, EXPLICIT, RawScu
from tests.server_fixtures import require_orthanc
from tests.servers import DcmQrScp, Orthanc, free_port

IMAGES = classic(24)
STUDY, SERIES = str(IMAGES[0].StudyInstanceUID), str(IMAGES[0].SeriesInstanceUID)


def associated(port: int, calling: str = "CT1", called: str = "ANY") -> RawScu:
    return RawScu(port, {1: (CT, [EXPLICIT])}, calling=calling, called=called)


def send(association: RawScu, images: Sequence[Dataset]) -> None:
    for image in images:
        content = encode(image, is_implicit_vr=False, is_little_endian=True)
        assert content is not None
        assert association.store(content, str(image.SOPInstanceUID)).status == 0x0000


def fill(port: int, images: Sequence[Dataset], called: str = "ANY") -> None:
    with associated(port, called=called) as association:
        send(association, images)


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


@contextmanager
def web_server(answers: dict[str, tuple[int, bytes]]) -> Iterator[str]:
    """Answers by path, the query left out."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path.partition("?")[0], (404, b""))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *about: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


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


class Nowhere:
    def __init__(self, state: SqlState) -> None:
        self._state = state

    def route(self, series: Series) -> list[str]:
        return self._state.record_routing(series, [], "no rule", {})

    def route_study(self, study_instance_uid: str, generation: int) -> list[str]:
        return self._state.record_study_routing(study_instance_uid, generation, [])


class Receiver:
    """A listener, an index and a completer as a node has them, in one process, on SQLite."""

    def __init__(self, folder: Path, database: Path, policy: Policy) -> None:
        (folder / "state.db").write_bytes(database.read_bytes())
        self.state = open_state(f"sqlite:///{folder / 'state.db'}", RecordingQueue())
        self._store = FolderInstanceStore(folder / "store")
        self._stage = ReceiveStage(self._store, self.state, SystemClock())
        self._scp = StorageSCP(self._stage, host="127.0.0.1", port=0, ae_title="NODE", name="here.receiver/1-1")
        counter = SourceCounter({"dimse": QueryScu("NODE"), "stow": QidoRs()})
        self._completer = Completer(self.state, Nowhere(self.state), SystemClock(), policy, counter=counter)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._completer.run, args=(self._stop, 0.05))

    @property
    def port(self) -> int:
        return self._scp.port

    def __enter__(self) -> Receiver:
        self._stage.indexer.start()
        self._scp.start()
        self._thread.start()
        return self

    def __exit__(self, *about: object) -> None:
        self._scp.stop(5)
        self._stop.set()
        self._thread.join()
        self._completer.close()
        self._stage.indexer.stop()
        self._store.close()
        self.state.close()

    def indexed(self) -> None:
        assert self._stage.indexer.flush(20)

    def wait_for(self, happened: Callable[[], object]) -> None:
        for _ in range(400):
            if happened():
                return
            self._stop.wait(0.05)
        raise AssertionError([event.message for event in self.state.events(STUDY)])

    def completions(self) -> list[Event]:
        return [event for event in self.state.events(STUDY) if event.kind == "series.complete"]

    def completed(self) -> Event:
        self.wait_for(self.completions)
        return self.completions()[0]


@pytest.fixture
def receiver(tmp_path: Path, migrated_sqlite: Path) -> Iterator[Callable[..., Receiver]]:
    """Makes a receiver with a policy and runs it until the test ends."""
    running: list[Receiver] = []

    def make(query: Address | None = None, **policy: Any) -> Receiver:
        sources = {"CT1": Source("CT1", query=query)}
        made = Receiver(tmp_path, migrated_sqlite, Policy(**{"quiet_period_s": 60.0, "sources": sources} | policy))
        running.append(made.__enter__())
        return made

    yield make
    for one in running:
        one.__exit__()


def test_a_release_completes_the_series_long_before_it_is_quiet(receiver: Callable[..., Receiver]) -> None:
    node = receiver()
    fill(node.port, IMAGES)
    told = node.completed()
    assert told.message == (
        "The CT series 4 is complete: 24 instances; the association from CT1 was released after 24 contiguous images"
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
    assert told.message.endswith("2 associations from CT1 and CT2 were released after 24 contiguous images")
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
