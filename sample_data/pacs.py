"""A PACS that only receives, for the demo: what is sent to it lies in a folder, byte for byte as sent.

    python -m sample_data.pacs FOLDER --port 4242 --ae-title DEMO-PACS

It needs nothing installed besides the node's own dependencies. It answers C-ECHO and C-STORE, keeps
`FOLDER/<SOP Instance UID>.dcm`, and ends on SIGTERM or Ctrl-C.
"""

from __future__ import annotations

import argparse
import signal
import socket
import threading
from pathlib import Path

from pydicom.uid import AllTransferSyntaxes
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import ThreadedAssociationServer

from dicomnode.domain.identifiers import is_uid

SUCCESS, CANNOT_STORE, INVALID_INSTANCE = 0x0000, 0xA700, 0x0117


class DemoPacs:
    """`with` starts it and stops it. `port` is the one it listens on, also when 0 was asked for."""

    def __init__(self, folder: Path, *, port: int = 0, ae_title: str = "DEMO-PACS", host: str = "127.0.0.1") -> None:
        self.folder = folder
        self.ae = AE(ae_title)
        self.ae.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            self.ae.add_supported_context(context.abstract_syntax, AllTransferSyntaxes)  # type: ignore[arg-type]
        self._address = (host, port)
        self._server: ThreadedAssociationServer | None = None

    @property
    def port(self) -> int:
        assert self._server is not None, "not started"
        return int(self._server.server_address[1])

    def __enter__(self) -> DemoPacs:
        self.folder.mkdir(parents=True, exist_ok=True)
        handlers = [(evt.EVT_CONN_OPEN, without_delay), (evt.EVT_C_STORE, self.store)]
        server = self.ae.start_server(self._address, block=False, evt_handlers=handlers)  # type: ignore[arg-type]
        assert isinstance(server, ThreadedAssociationServer)
        self._server = server
        return self

    def __exit__(self, *_: object) -> None:
        self.ae.shutdown()

    def store(self, event: Event) -> int:
        """Writes beside and renames, so that whoever looks into the folder sees whole files only."""
        uid = str(event.request.AffectedSOPInstanceUID)  # type: ignore[union-attr]
        if not is_uid(uid):
            return INVALID_INSTANCE
        part = self.folder / f"{uid}.{threading.get_ident()}.part"
        try:
            part.write_bytes(event.encoded_dataset())
            part.replace(self.folder / f"{uid}.dcm")
        except OSError:
            return CANNOT_STORE
        return SUCCESS


def without_delay(event: Event) -> None:
    """Small answers are not held back until the peer acknowledges the one before."""
    connection = event.assoc.dul.socket
    if connection is not None and connection.socket is not None:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where received objects go")
    parser.add_argument("--port", type=int, default=4242, help="0: any free one")
    parser.add_argument("--ae-title", default="DEMO-PACS")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    options = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with DemoPacs(options.folder, port=options.port, ae_title=options.ae_title, host=options.host) as pacs:
        print(f"{options.ae_title} listens on {options.host}:{pacs.port}, keeps {options.folder}", flush=True)
        stop.wait()


if __name__ == "__main__":
    main()
