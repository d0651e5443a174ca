"""Peers that answer what real ones answer on bad days: a storage SCP, a DICOMweb server, and bare TCP."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from pydicom.uid import UID
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from dicomnode.domain.destination import Destination, DimseAddress, StowAddress
from sample_data.pacs import DemoPacs


class DifficultPacs(DemoPacs):
    """Answers a fixed status, takes only some transfer syntaxes or SOP classes, aborts, or says nothing."""

    def __init__(
        self,
        folder: Path,
        *,
        status: int = 0x0000,
        only: Sequence[UID] | None = None,
        sop_classes: Sequence[UID] | None = None,
        behaviour: Callable[[Event], None] | None = None,
    ) -> None:
        super().__init__(folder)
        self.status, self.behaviour = status, behaviour
        if only is not None or sop_classes is not None:
            kinds = (
                sop_classes if sop_classes is not None else [c.abstract_syntax for c in self.ae.supported_contexts]
            )
            self.ae.supported_contexts = []
            for kind in kinds:
                self.ae.add_supported_context(kind, list(only) if only is not None else None)
            self.ae.add_supported_context(Verification)

    def store(self, event: Event) -> int:
        if self.behaviour is not None:
            self.behaviour(event)
        return super().store(event) if self.status == 0x0000 else self.status

    def destination(self) -> Destination:
        return Destination("difficult", DimseAddress("DEMO-PACS", "127.0.0.1", self.port))


@contextlib.contextmanager
def tcp_server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port on loopback; `serve` gets the one connection that is taken there. It ends with the `with`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken: list[socket.socket] = []

        def run() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                taken.append(connection)
                serve(connection)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            for connection in taken:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()
            thread.join(10)


def stalls_after_accepting(port: int) -> Callable[[socket.socket], None]:
    """Lets a real SCP at `port` accept the association, then reads nothing any more."""

    def serve(connection: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port)) as behind:
            behind.sendall(_pdu(connection))
            connection.sendall(_pdu(behind))
            hold = threading.Event()
            while not hold.wait(0.05) and connection.fileno() >= 0:
                pass

    return serve


def ends_in_the_middle(port: int, last: bytes = b"", after_bytes: int = 100_000) -> Callable[[socket.socket], None]:
    """Lets a real SCP at `port` accept the association; after so many bytes of the object `last` is all it says.

    With nothing to say it breaks the connection off.
    """

    def serve(connection: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port)) as behind:
            behind.sendall(_pdu(connection))
            connection.sendall(_pdu(behind))
        _exactly(connection, after_bytes)
        if not last:
            # closed with a reset, as by a process that was killed
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
            return
        connection.sendall(last)
        while connection.recv(1 << 16):  # what was on its way: a reset would overtake what was said
            pass

    return serve


def abort_pdu(source: int, reason: int) -> bytes:
    """An A-ABORT (PS3.8 9.3.8)."""
    return struct.pack(">BBLBBBB", 0x07, 0, 4, 0, 0, source, reason)


def _pdu(connection: socket.socket) -> bytes:
    """One PDU: type, reserved, length of the rest (PS3.8 9.3.1)."""
    head = _exactly(connection, 6)
    return head + _exactly(connection, int.from_bytes(head[2:6], "big"))


def _exactly(connection: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        chunk = connection.recv(count - len(received))
        if not chunk:
            raise ConnectionResetError
        received += chunk
    return received


@dataclass
class WebPeer:
    """An HTTP server that answers every request the same way and notes what was asked."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    read_body: bool = True
    pause_s: float = 0.0  # after every megabyte read
    wait_for: threading.Event | None = None
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)

    def __enter__(self) -> WebPeer:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.wait_for is not None:
            self.wait_for.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def look_at(self, received: bytes) -> None:
        """Before it answers."""

    def destination(self, userinfo: str = "", path: str = "/dicom-web") -> Destination:
        port = self._server.server_address[1]
        return Destination("web", StowAddress(f"http://{userinfo}127.0.0.1:{port}{path}"))

    def _handler(peer) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                received = b"".join(self._blocks(length)) if peer.read_body else b""
                peer.requests.append((self.command, self.path, dict(self.headers), received))
                if peer.wait_for is not None:
                    peer.wait_for.wait(20)
                peer.look_at(received)
                with contextlib.suppress(OSError):
                    self.send_response(peer.status)
                    for name, value in peer.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(peer.body)))
                    self.end_headers()
                    self.wfile.write(peer.body)
                self.close_connection = True

            def _blocks(self, length: int) -> Iterator[bytes]:
                for start in range(0, length, 1 << 20):
                    yield self.rfile.read(min(1 << 20, length - start))
                    time.sleep(peer.pause_s)

            do_GET = do_POST = _answer

            def log_message(self, *_: object) -> None:
                pass

        return Handler
