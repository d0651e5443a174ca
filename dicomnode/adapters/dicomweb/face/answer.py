"""What is asked of the service and what it answers, apart from sockets."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

_PARAMETER = re.compile(r';\s*(?P<name>[\w-]+)\s*=\s*(?:"(?P<quoted>[^"]*)"|(?P<plain>[^;,\s]*))')


@dataclass(frozen=True, slots=True)
class Request:
    """`path` without the service's base; `base` is the service's own URL as the asker knows it."""

    path: tuple[str, ...]
    query: Mapping[str, Sequence[str]] = field(default_factory=dict)
    accept: str = ""
    base: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """`body` in pieces where its length is not known before."""

    status: HTTPStatus
    content_type: str = "text/plain; charset=utf-8"
    body: bytes | Iterator[bytes] = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """Of a multipart message (PS3.18 8.6.1.2)."""

    content_type: str
    content: bytes
    location: str = ""


def refused(status: HTTPStatus, words: str) -> Answer:
    return Answer(status, body=f"{words}\n".encode())


def json_answer(document: object) -> Answer:
    """PS3.18 8.7.3.2. A search that found nothing gives an empty array, which every client reads."""
    return Answer(HTTPStatus.OK, "application/dicom+json", json.dumps(document, ensure_ascii=False).encode())


def multipart(parts: Iterable[Part], kind: str) -> Answer:
    """multipart/related of parts of a media type, made one by one as they are sent."""
    boundary = secrets.token_hex(16)
    return Answer(
        HTTPStatus.OK,
        f'multipart/related; type="{kind}"; boundary={boundary}',
        _multipart(parts, boundary),
    )


def _multipart(parts: Iterable[Part], boundary: str) -> Iterator[bytes]:
    for part in parts:
        location = f"Content-Location: {part.location}\r\n" if part.location else ""
        head = f"--{boundary}\r\nContent-Type: {part.content_type}\r\n{location}\r\n"
        yield head.encode()
        yield part.content
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def accepted_types(accept: str) -> list[tuple[str, Mapping[str, str]]]:
    """Media types of an Accept header and their parameters, "type" of multipart/related too (RFC 9110 12.5.1).

    Nothing said is everything accepted.
    """
    found: list[tuple[str, Mapping[str, str]]] = []
    for entry in re.split(r',(?=(?:[^"]*"[^"]*")*[^"]*$)', accept or "*/*"):
        kind, _, _ = entry.partition(";")
        parameters = {m["name"].lower(): m["quoted"] or m["plain"] or "" for m in _PARAMETER.finditer(entry)}
        found.append((kind.strip().lower(), parameters))
    return found


def accepts(accept: str, *kinds: str) -> bool:
    """Whether one of these media types, or a range with it, is among those accepted."""
    for wanted, _ in accepted_types(accept):
        if any(wanted in ("*/*", kind, f"{kind.split('/')[0]}/*") for kind in kinds):
            return True
    return False


def wants_multipart(accept: str) -> bool:
    return any(kind == "multipart/related" for kind, _ in accepted_types(accept))
