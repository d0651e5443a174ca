"""A receiver with its index and its completer in one process, and senders of bare sockets."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage, PositronEmissionTomographyImageStorage, SegmentationStorage
from pynetdicom.dsutils import encode

from dicomnode.adapters.db.repositories import SqlState, open_state
from dicomnode.adapters.dicomweb.qido import QidoRs
from dicomnode.adapters.dimse.query_scu import QueryScu
from dicomnode.adapters.dimse.storage_scp import StorageSCP
from dicomnode.adapters.instance_store import FolderInstanceStore
from dicomnode.adapters.system_clock import SystemClock
from dicomnode.domain.completeness import Policy, SourceCount
from dicomnode.domain.source import Source
from dicomnode.domain.study import Series
from dicomnode.ports import Event
from dicomnode.stages.complete import Completer
from dicomnode.stages.counting import SourceCounter
from dicomnode.stages.receive import ReceiveStage
from tests.adapters.state_material import RecordingQueue
from tests.raw_scu import CT, EXPLICIT, RawScu

KINDS = (CT, str(PositronEmissionTomographyImageStorage), str(SegmentationStorage), str(Comprehensive3DSRStorage))


def associated(port: int, calling: str = "CT1", called: str = "ANY") -> RawScu:
    contexts = {2 * n + 1: (kind, [EXPLICIT]) for n, kind in enumerate(KINDS)}
    return RawScu(port, contexts, calling=calling, called=called)


def send(association: RawScu, images: Sequence[Dataset]) -> None:
    for image in images:
        content = encode(image, is_implicit_vr=False, is_little_endian=True)
        assert content is not None
        kind = str(image.SOPClassUID)
        answer = association.store(content, str(image.SOPInstanceUID), kind, 2 * KINDS.index(kind) + 1)
        assert answer.status == 0x0000


def fill(port: int, images: Sequence[Dataset], called: str = "ANY") -> None:
    with associated(port, called=called) as association:
        send(association, images)


class Nowhere:
    """A Router: nothing is made of what is complete."""

    def __init__(self, state: SqlState) -> None:
        self._state = state

    def route(self, series: Series) -> list[str]:
        return self._state.record_routing(series, [], "no rule", {})

    def route_study(self, study_instance_uid: str, generation: int) -> list[str]:
        return self._state.record_study_routing(study_instance_uid, generation, [])


class ListeningCounter(SourceCounter):
    """Keeps what sources answered about whole studies."""

    def __init__(self) -> None:
        super().__init__({"dimse": QueryScu("NODE"), "stow": QidoRs()})
        self.of_studies: list[SourceCount | None] = []

    def count_study(
        self, source: Source, study_instance_uid: str, here: SourceCount, own_series: Collection[str]
    ) -> SourceCount | None:
        count = super().count_study(source, study_instance_uid, here, own_series)
        self.of_studies.append(count)
        return count


class Receiver:
    """A listener, an index and a completer as a node has them, in one process, on SQLite."""

    def __init__(self, folder: Path, database: Path, policy: Policy, study: str) -> None:
        (folder / "state.db").write_bytes(database.read_bytes())
        self.state = open_state(f"sqlite:///{folder / 'state.db'}", RecordingQueue())
        self.counter = ListeningCounter()
        self._study = study
        self._store = FolderInstanceStore(folder / "store")
        self._stage = ReceiveStage(self._store, self.state, SystemClock())
        self._scp = StorageSCP(self._stage, host="127.0.0.1", port=0, ae_title="NODE", name="here.receiver/1-1")
        self._completer = Completer(self.state, Nowhere(self.state), SystemClock(), policy, counter=self.counter)
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
        raise AssertionError([event.message for event in self.state.events(self._study)])

    def completions(self, of: str = "series") -> list[Event]:
        """Of the study's series, or of the study itself."""
        return [event for event in self.state.events(self._study) if event.kind == f"{of}.complete"]

    def completed(self, of: str = "series") -> Event:
        self.wait_for(lambda: self.completions(of))
        return self.completions(of)[0]


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


def found(**attributes: object) -> dict[str, object]:
    """One match of a search as DICOM JSON (PS3.18 F.2), by tag: found(x0020000E="1.2.3")."""
    return {tag[1:]: {"vr": "UN", "Value": [value]} for tag, value in attributes.items()}


def search_answer(*matches: dict[str, object]) -> tuple[int, bytes]:
    return 200, json.dumps(matches).encode()
