"""One HTTP exchange with a DICOMweb origin server, and words for every way in which it can fail (PS3.18 8.5).

requests does HTTP. dicomweb-client, measured beside it against Orthanc, took three times as long for an object
(it decodes and encodes the data set again: 450 ms against 130 ms for a report of 300 kB), tries again by itself
behind the backoff of the deliveries, drops the body of a 409 with the failure reasons in it, and overlooks a
body whose content type has a parameter, which then counts as success.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import unquote, urlsplit

import requests
from requests import exceptions as failures
from requests.auth import HTTPBasicAuth

from dicomnode.adapters.dicomweb.credentials import ca_file_of, certificate_of, credentials_of
from dicomnode.domain.delivery_failure import FailureKind
from dicomnode.domain.delivery_options import DeliveryOptions
from dicomnode.domain.destination import StowAddress
from dicomnode.errors import DestinationRefused, DestinationUnavailable

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0
NO_OPTIONS = DeliveryOptions()
_BLOCK_BYTES = 1 << 14
Pace = Callable[[int], None]  # returns when so many bytes more may leave


class Body(ABC):
    """What requests sends block by block, each with a timeout of its own: as bytes it would go as one, which would
    give the connection's ten seconds to all of it. No io.RawIOBase: of one that cannot tell its position requests
    takes the length for 0."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, size: int = -1) -> bytes:
        """Empty at the end."""

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.read(_BLOCK_BYTES), b"")


# Statuses that say nothing of the object: (words, whether waiting can help). What an administrator can mend at
# either end (credentials, path) is tried again while the results wait.
_CREDENTIALS = frozenset({401, 403, 407})
_NO_SERVICE = frozenset({404, 405, 408, 429, 502, 503, 504})
_HTTP_PROBLEMS: dict[int, tuple[str, bool]] = {
    401: ("credentials are wanted or wrong; give them by --user and --password, or --token", True),
    403: ("these credentials may not do this; allow it at the server", True),
    404: ("there is no DICOMweb service at this path; correct the URL of the destination", True),
    405: ("this path takes no such request; correct the URL of the destination", True),
    406: ("the server cannot answer in DICOM JSON or XML, or does not take this encoding", False),
    407: ("a proxy on the way wants credentials", True),
    408: ("the server waited too long for the request", True),
    409: ("the server stored nothing and gave no reason; see its log", True),
    413: ("the object is larger than the server allows; raise its limit, then retry", False),
    415: ("the server does not take application/dicom in multipart/related, or not in this encoding", False),
    429: ("the server has too many requests", True),
}


class _Paced(Body):
    """A body that is read, block by block, as fast as it may leave."""

    def __init__(self, body: Body, pace: Pace) -> None:
        self._body, self._pace = body, pace

    def __len__(self) -> int:
        return len(self._body)

    def read(self, size: int = -1) -> bytes:
        block = self._body.read(size)
        if block:
            self._pace(len(block))
        return block


class Service:
    """A DICOMweb service root. Credentials in the URL go into a header, never into messages or logs."""

    def __init__(
        self,
        address: StowAddress,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
        options: DeliveryOptions = NO_OPTIONS,
    ) -> None:
        """Raises DestinationUnavailable when the credentials are not where `options` says."""
        parts = urlsplit(address.url)
        host = parts.netloc.rpartition("@")[2]
        self.url = parts._replace(netloc=host).geturl()
        self._timeouts = (connect_timeout_s, read_timeout_s)
        self._credentials = credentials_of(options)
        if "@" in parts.netloc:
            user, password = unquote(parts.username or ""), unquote(parts.password or "")
            self._credentials = HTTPBasicAuth(user.encode(), password.encode())
        self._certificate, self._ca_file = certificate_of(options), ca_file_of(options)

    def get(self, path: str, parameters: Mapping[str, str], accept: str) -> requests.Response:
        return self._exchange("GET", path, {"Accept": accept}, parameters=parameters)

    def post(
        self, path: str, body: Body, content_type: str, accept: str, pace: Pace | None = None
    ) -> requests.Response:
        headers = {"Accept": accept, "Content-Type": content_type}
        return self._exchange("POST", path, headers, body=_Paced(body, pace) if pace else body)

    def _exchange(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        *,
        parameters: Mapping[str, str] | None = None,
        body: Body | None = None,
    ) -> requests.Response:
        """Raises DestinationUnavailable when no answer came; the answer may be any."""
        try:
            with requests.Session() as session:
                return session.request(
                    method,
                    self.url + path,
                    params=parameters,
                    data=body,
                    headers=dict(headers),
                    auth=self._credentials,
                    timeout=self._timeouts,
                    cert=self._certificate,
                    verify=self._ca_file or True,
                    # a redirected POST becomes a GET, whose 200 would look like success
                    allow_redirects=False,
                )
        except failures.RequestException as error:
            raise DestinationUnavailable(f"{self.url}: {_words(error)}", _failure(error)) from None

    def raise_for_problem(self, answer: requests.Response) -> None:
        """Raises for a status that is neither success nor about the object."""
        status = answer.status_code
        if status < 300:
            return
        if status < 400:
            target = urlsplit(answer.headers.get("Location", ""))
            shown = target._replace(netloc=target.netloc.rpartition("@")[2], query="", fragment="").geturl()
            words = f"{self.url} sends us on to {shown or 'nowhere'}; register that URL instead"
            raise DestinationUnavailable(words, FailureKind.NO_SERVICE)
        words, retryable = _HTTP_PROBLEMS.get(status, ("see the server's log", status >= 500))
        message = f"{self.url} answered HTTP {status} {answer.reason or ''}".rstrip()
        failure = FailureKind.NO_SERVICE if status in _NO_SERVICE else FailureKind.HTTP
        if status in _CREDENTIALS:
            failure = FailureKind.CREDENTIALS
        raise (DestinationUnavailable if retryable else DestinationRefused)(f"{message}: {words}", failure)


def _words(error: failures.RequestException) -> str:
    """In words, without the request's repr that requests puts into its messages."""
    match error:
        case failures.SSLError():
            return f"no TLS connection ({_last_cause(error)}); is the server's certificate trusted here?"
        case failures.ProxyError():
            return f"no connection through the proxy ({_last_cause(error)}); see HTTP_PROXY and NO_PROXY"
        case failures.ConnectTimeout():
            return "no connection in time: is the host up, and does a firewall let us through?"
        case failures.Timeout():
            return "no answer in time; see the server's log"
        case failures.ConnectionError() if "refused" in str(error):
            return "connection refused: nothing listens there; start the server or correct the port"
        case failures.ConnectionError() if "resolve" in str(error) or "Name or service" in str(error):
            return "the host name is not known; correct it or the name service"
        case failures.ConnectionError() | failures.ChunkedEncodingError():
            return f"the connection broke ({_last_cause(error)}); see the server's log"
    return f"not an HTTP exchange ({type(error).__name__}); is that a web server?"


def _failure(error: failures.RequestException) -> FailureKind:
    match error:
        case failures.SSLError():
            return FailureKind.TLS
        case failures.ConnectTimeout():
            return FailureKind.NO_CONNECTION
        case failures.Timeout():
            return FailureKind.NO_RESPONSE
        case failures.ConnectionError() if _is_broken(error):
            return FailureKind.ASSOCIATION_ABORTED
        case failures.ConnectionError():
            return FailureKind.NO_CONNECTION
        case failures.ChunkedEncodingError():
            return FailureKind.ASSOCIATION_ABORTED
    return FailureKind.NO_DICOMWEB


def _is_broken(error: failures.ConnectionError) -> bool:
    """One that was there and broke, which may be about the object; not one that did not come about."""
    return any(word in str(error) for word in ("reset", "aborted", "Broken pipe", "RemoteDisconnected"))


def _last_cause(error: BaseException) -> str:
    """The innermost reason, as in "Connection reset by peer"."""
    found = re.findall(r"(?:\[Errno \d+\] |, ')([A-Za-z][^'\"()\[\]]+)", str(error))
    return found[-1].strip() if found else type(error).__name__
