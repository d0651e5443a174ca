"""The web server of a preview: the DICOMweb service, and a viewer's files where there is one."""

from __future__ import annotations

import hmac
import logging
import re
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from dicomnode.adapters.dicomweb.face.answer import Answer, Request, refused
from dicomnode.adapters.dicomweb.face.service import ReadOnlyService
from dicomnode.errors import InvalidSetting, trace_of

DICOMWEB = "dicom-web"
_COOKIE = "dicomnode-preview"
_HOST = re.compile(r"(?P<name>[A-Za-z0-9.\-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?P<port>:[0-9]{1,5})?")
_METHODS = "GET, HEAD"
_IDLE_S = 60.0
# Nothing is asked of other hosts, whatever a viewer would like: patients' images stay here.
_POLICY = (
    "default-src 'self' blob: data:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; worker-src 'self' blob:; frame-ancestors 'self'; form-action 'none'"
)
_ALWAYS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

log = logging.getLogger(__name__)

Files = Callable[[str], Answer | None]


class PreviewServer(ThreadingHTTPServer):
    """Read only. Images are given to who has the key: as a bearer token, or as the cookie that /open?key= sets."""

    daemon_threads = True

    def __init__(
        self, address: tuple[str, int], service: ReadOnlyService, key: str, files: Files, opens: str = "/"
    ) -> None:
        """`files` gives what a path of the viewer names; `opens` is where /open leads. Raises InvalidSetting."""
        self.service, self.key, self.files, self.opens = service, key, files, opens
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        try:
            super().__init__(address, _Handler)
        except OSError as error:
            where = f"{address[0]}:{address[1]}"
            raise InvalidSetting(
                f"nothing can listen on {where}: {error.strerror or error}; give another host or port (0: any free)"
            ) from error

    def server_bind(self) -> None:
        """HTTPServer's looks its own name up besides, which takes long where no name service answers."""
        TCPServer.server_bind(self)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Browsers hang up as they like. Of anything else the log gets no message, which may quote a data set."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ConnectionError | TimeoutError):
            log.error("a request failed: %s", trace_of(error))


@contextmanager
def serving(server: PreviewServer) -> Iterator[PreviewServer]:
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="preview", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = _IDLE_S
    server: PreviewServer

    def version_string(self) -> str:
        return "dicomnode"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a query may name a patient."""

    def do_GET(self) -> None:
        self._send(self._answer())

    do_HEAD = do_GET

    def _refuse(self) -> None:
        answer = refused(HTTPStatus.METHOD_NOT_ALLOWED, "this service is read only")
        self.close_connection = True  # what else it sends is not read
        self._send(Answer(answer.status, answer.content_type, answer.body, {"Allow": _METHODS}))

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _refuse

    def _answer(self) -> Answer:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query, keep_blank_values=True)
        names = tuple(unquote(name) for name in parts.path.strip("/").split("/"))
        if names == ("open",):
            return self._opened(query.get("key", [""])[-1])
        if names[0] != DICOMWEB:
            return self.server.files(unquote(parts.path)) or refused(HTTPStatus.NOT_FOUND, "there is no such page")
        if not self._has_key():
            return refused(HTTPStatus.UNAUTHORIZED, "open the address that `dicomnode preview` printed, with its key")
        if not all(names):  # an empty name would stand for any
            return refused(HTTPStatus.NOT_FOUND, "there is no such resource")
        if not (host := _HOST.fullmatch(self.headers.get("Host", ""))):
            return refused(HTTPStatus.BAD_REQUEST, "the Host header is no host")
        # clients are seen that leave the port out
        base = f"http://{host['name']}{host['port'] or f':{self.server.port}'}/{DICOMWEB}"
        # a page cannot set the header of what it embeds, so the query may say it instead (PS3.18 8.3.3.1)
        accept = ",".join(query.pop("accept", ())) or self.headers.get("Accept", "")
        return self.server.service.answer(Request(names[1:], query, accept, base))

    def _opened(self, key: str) -> Answer:
        if not self._is_key(key):
            return refused(HTTPStatus.FORBIDDEN, "the key is another; copy the whole address")
        cookie = f"{_COOKIE}={self.server.key}; Path=/{DICOMWEB}; HttpOnly; SameSite=Strict"
        return Answer(HTTPStatus.SEE_OTHER, headers={"Location": self.server.opens, "Set-Cookie": cookie})

    def _has_key(self) -> bool:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._is_key(token.strip())
        try:
            found = SimpleCookie(self.headers.get("Cookie", "")).get(_COOKIE)
        except CookieError:
            return False
        return found is not None and self._is_key(found.value)

    def _is_key(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), self.server.key.encode())

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        caching = {} if "Cache-Control" in answer.headers else {"Cache-Control": "no-store"}
        body = answer.body
        size = {"Content-Length": str(len(body))} if isinstance(body, bytes) else {"Transfer-Encoding": "chunked"}
        for name, text in {**_ALWAYS, **caching, **size, **answer.headers}.items():
            self.send_header(name, text)
        self.send_header("Content-Type", answer.content_type)
        self.end_headers()
        if self.command == "HEAD":
            return
        if isinstance(body, bytes):
            self.wfile.write(body)
        else:
            self._send_chunks(body)

    def _send_chunks(self, pieces: Iterator[bytes]) -> None:
        """RFC 9112 7.1. A piece that cannot be made ends the connection, so that nobody takes it for the whole."""
        for piece in pieces:
            if piece:
                self.wfile.write(b"%x\r\n" % len(piece))
                self.wfile.write(piece)
                self.wfile.write(b"\r\n")
        self.wfile.write(b"0\r\n\r\n")
