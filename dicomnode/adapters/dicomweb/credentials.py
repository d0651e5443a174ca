"""Finds the credentials that a destination's options name, when they are needed: so they can be renewed in place."""

from __future__ import annotations

import os
from pathlib import Path

from requests import PreparedRequest
from requests.auth import AuthBase, HTTPBasicAuth

from dicomnode.domain.delivery_failure import FailureKind
from dicomnode.domain.delivery_options import DeliveryOptions
from dicomnode.errors import DestinationUnavailable

_SECRET_MOST_BYTES = 1 << 16


class BearerAuth(AuthBase):
    """RFC 6750 2.1. As an auth object, or requests would put what a .netrc says in its place."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def credentials_of(options: DeliveryOptions) -> AuthBase | None:
    """Raises DestinationUnavailable when a secret is not where it should be."""
    if options.token:
        return BearerAuth(secret(options.token, "token"))
    if options.user:
        return HTTPBasicAuth(options.user.encode(), secret(options.password, "password").encode())
    return None


def secret(reference: str, what: str) -> str:
    """The value of env:NAME or file:/path, without the white space around it; no message holds it."""
    scheme, _, place = reference.partition(":")
    found = os.environ.get(place, "") if scheme == "env" else _content(Path(place), what)
    value = found.strip()
    if not value or not value.isprintable():
        problem = "holds more than one line or no text" if value else "is empty or not there"
        where = f"variable {place} of the worker" if scheme == "env" else f"file {place}"
        raise DestinationUnavailable(f"the {what} cannot be used: the {where} {problem}", FailureKind.CREDENTIALS)
    return value


def _content(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_SECRET_MOST_BYTES).decode("utf-8", "replace")
    except OSError as error:
        words = f"the {what} cannot be read: file {path}: {error.strerror}"
        raise DestinationUnavailable(words, FailureKind.CREDENTIALS) from error


def certificate_of(options: DeliveryOptions) -> tuple[str, str] | str | None:
    if not options.certificate:
        return None
    certificate = _readable(options.certificate, "client certificate")
    return (certificate, _readable(options.key, "client key")) if options.key else certificate


def ca_file_of(options: DeliveryOptions) -> str:
    return _readable(options.ca_file, "file of certificate authorities") if options.ca_file else ""


def _readable(path: str, what: str) -> str:
    """Asked here, for requests raises what is none of its own errors."""
    if not os.access(path, os.R_OK) or not Path(path).is_file():
        words = f"the {what} {path} is not there or cannot be read by the worker"
        raise DestinationUnavailable(words, FailureKind.CREDENTIALS)
    return path
