"""A C-STORE SCU of bare sockets: sends whatever bytes it is told to, and nothing of pynetdicom is in it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

CT = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN = (f"1.2.840.10008.1.2{end}" for end in ("", ".1", ".1.99", ".2"))


class Rejected(Exception):
    """A-ASSOCIATE-RJ: result, source, reason (PS3.8 9.3.4)."""

    def __init__(self, result: int, source: int, reason: int) -> None:
        super().__init__(result, source, reason)
        self.reason = (result, source, reason)


class Closed(Exception):
    """The node aborted or closed the connection."""


@dataclass(frozen=True)
class Answer:
    status: int
    comment: str
    offending: tuple[int, ...]
    sop_instance_uid: str


def element(group: int, number: int, value: bytes) -> bytes:
    """Implicit VR little endian."""
    return struct.pack("<HHL", group, number, len(value)) + value


def uid(text: str) -> bytes:
    raw = text.encode("latin1")
    return raw + b"\0" * (len(raw) % 2)


def data_set(
    instance: str = "1.2.3.4.5",
    *,
    sop_class: str = CT,
    study: str = "1.2.3",
    series: str = "1.2.3.4",
    tail: bytes = b"",
) -> bytes:
    """A small CT instance in implicit VR little endian; an empty argument leaves the attribute out."""
    parts = [
        (0x0008, 0x0016, sop_class),
        (0x0008, 0x0018, instance),
        (0x0020, 0x000D, study),
        (0x0020, 0x000E, series),
    ]
    body = [element(group, number, uid(value)) for group, number, value in parts if value]
    body.insert(2, element(0x0008, 0x0060, b"CT"))
    return b"".join(body) + tail


def _item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(content)) + content


class RawScu:
    """`with RawScu(port, {1: (CT, [IMPLICIT])}) as scu: scu.store(...)`."""

    def __init__(
        self,
        port: int,
        contexts: Mapping[int, tuple[str, Sequence[str]]] | None = None,
        *,
        calling: str = "RAW",
        called: str = "NODE",
    ) -> None:
        self.peer = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.accepted: dict[int, str] = {}
        self.rejected: dict[int, int] = {}  # with which result (PS3.8 Table 9-18)
        self.max_pdu_bytes = 0
        self._message_id = 0
        try:
            self._associate(contexts or {1: (CT, [IMPLICIT])}, calling, called)
        except (Rejected, Closed):
            self.peer.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.release()
        finally:
            self.peer.close()

    def _associate(self, contexts: Mapping[int, tuple[str, Sequence[str]]], calling: str, called: str) -> None:
        items = _item(0x10, b"1.2.840.10008.3.1.1.1")
        for number, (abstract, transfer) in contexts.items():
            syntaxes = b"".join(_item(0x40, syntax.encode()) for syntax in transfer)
            items += _item(0x20, bytes([number, 0, 0, 0]) + _item(0x30, abstract.encode()) + syntaxes)
        items += _item(0x50, _item(0x51, struct.pack(">L", 0)) + _item(0x52, b"1.2.3.999"))
        fixed = struct.pack(">HH16s16s32s", 1, 0, called.ljust(16).encode(), calling.ljust(16).encode(), b"")
        self.send_pdu(0x01, fixed + items)
        kind, body = self.read_pdu()
        if kind == 0x03:
            raise Rejected(*body[1:4])
        self._accept(body[68:])

    def _accept(self, items: bytes) -> None:
        while items:
            kind, _, length = struct.unpack(">BBH", items[:4])
            content, items = items[4 : 4 + length], items[4 + length :]
            if kind == 0x21 and content[2] == 0:
                self.accepted[content[0]] = content[8:].decode()
            elif kind == 0x21:
                self.rejected[content[0]] = content[2]
            if kind == 0x50:
                self.max_pdu_bytes = struct.unpack(">L", content[4:8])[0]

    def send_pdu(self, kind: int, body: bytes) -> None:
        self.peer.sendall(struct.pack(">BBL", kind, 0, len(body)) + body)

    def read_pdu(self) -> tuple[int, bytes]:
        kind, _, length = struct.unpack(">BBL", self._read(6))
        body = self._read(length)
        if kind == 0x07:
            raise Closed("A-ABORT")
        return kind, body

    def read_until_closed(self) -> None:
        while True:
            self.read_pdu()

    def _read(self, count: int) -> bytes:
        content = b""
        while len(content) < count:
            try:
                piece = self.peer.recv(count - len(content))
            except ConnectionError as error:
                raise Closed(str(error)) from error
            if not piece:
                raise Closed("closed")
            content += piece
        return content

    def send_fragment(self, context_id: int, control: int, fragment: bytes) -> None:
        self.send_pdu(0x04, struct.pack(">LBB", len(fragment) + 2, context_id, control) + fragment)

    def command(self, sop_class: str, instance: str) -> bytes:
        """C-STORE-RQ (PS3.7 9.3.1.1)."""
        self._message_id += 1
        body = b"".join(
            (
                element(0, 0x0002, uid(sop_class)),
                element(0, 0x0100, b"\1\0"),
                element(0, 0x0110, struct.pack("<H", self._message_id)),
                element(0, 0x0700, b"\0\0"),
                element(0, 0x0800, b"\0\0"),
                element(0, 0x1000, uid(instance)),
            )
        )
        return element(0, 0, struct.pack("<L", len(body))) + body

    def begin(self, content: bytes, instance: str, sop_class: str = CT, context_id: int = 1) -> None:
        """Sends a C-STORE request whole; `answer` waits for what comes back."""
        self.send_fragment(context_id, 0x03, self.command(sop_class, instance))
        most = (self.max_pdu_bytes or 1 << 20) - 6
        pieces = [content[i : i + most] for i in range(0, len(content), most)] or [b""]
        for number, piece in enumerate(pieces):
            self.send_fragment(context_id, 0x02 if number == len(pieces) - 1 else 0x00, piece)

    def answer(self) -> Answer:
        _, body = self.read_pdu()
        rest, values = body[6:], {}
        while rest:
            _, number, length = struct.unpack("<HHL", rest[:8])
            values[number], rest = rest[8 : 8 + length], rest[8 + length :]
        words = struct.unpack(f"<{len(values.get(0x0901, b'')) // 2}H", values.get(0x0901, b""))
        return Answer(
            status=struct.unpack("<H", values[0x0900])[0],
            comment=values.get(0x0902, b"").decode().rstrip(),
            offending=tuple(words[i] << 16 | words[i + 1] for i in range(0, len(words), 2)),
            sop_instance_uid=values.get(0x1000, b"").rstrip(b"\0").decode(),
        )

    def store(self, content: bytes, instance: str = "1.2.3.4.5", sop_class: str = CT, context_id: int = 1) -> Answer:
        self.begin(content, instance, sop_class, context_id)
        return self.answer()

    def release(self) -> None:
        self.send_pdu(0x05, b"\0" * 4)
        assert self.read_pdu()[0] == 0x06

    def abort(self) -> None:
        self.send_pdu(0x07, b"\0" * 4)
        self.peer.close()
