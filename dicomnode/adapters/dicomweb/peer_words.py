"""What a DICOMweb service's refusals mean, and what to do about them, in words (RFC 9110 15, PS3.18 8.5)."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator

from requests import exceptions as failures

from dicomnode.domain.delivery_failure import FailureKind

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
    502: ("the DICOMweb service behind that server is not there; start it", True),
    503: ("the service is shut or too busy for now", True),
    504: ("the DICOMweb service behind that server gave no answer in time; see its log", True),
    507: ("the server's storage is full; free space there", True),
}

# nginx tells of TLS by HTTP 400 and a page, for want of statuses (its own numbers are 495 to 497)
_NO_CERTIFICATE = "the server wants a client certificate; give it by --client-certificate"
_CERTIFICATE_REFUSED = (
    "the server does not accept the client certificate: it has expired, or is of an authority that the server does "
    "not trust; renew it, or register it there"
)
_TLS_PAGES: tuple[tuple[bytes, str, FailureKind], ...] = (
    (b"No required SSL certificate was sent", _NO_CERTIFICATE, FailureKind.CREDENTIALS),
    (b"The SSL certificate error", _CERTIFICATE_REFUSED, FailureKind.CREDENTIALS),
    (b"plain HTTP request was sent to HTTPS port", "that port wants https:// in the URL", FailureKind.TLS),
)
_PAGE_MOST_BYTES = 4096


def problem(status: int, body: bytes) -> tuple[str, bool, FailureKind]:
    """Of an HTTP status of 400 and more: words, whether waiting can help, its kind."""
    if status == 400:
        for sign, words, kind in _TLS_PAGES:
            if sign in body[:_PAGE_MOST_BYTES]:
                return words, True, kind
    words, retryable = _HTTP_PROBLEMS.get(status, ("see the server's log", status >= 500))
    if status in _CREDENTIALS:
        return words, retryable, FailureKind.CREDENTIALS
    return words, retryable, FailureKind.NO_SERVICE if status in _NO_SERVICE else FailureKind.HTTP


# ---------------------------------------------------------------------------------------------------- no answer


def no_answer(error: failures.RequestException, host: str) -> tuple[str, FailureKind]:
    """In words, without the request's repr that requests puts into its messages; and of what kind it is."""
    match error:
        case failures.SSLError():
            return _no_tls(error, host)
        case failures.ProxyError():
            words = f"no connection through the proxy ({_last_cause(error)}); see HTTP_PROXY and NO_PROXY"
            return words, FailureKind.NO_CONNECTION
        case failures.ConnectTimeout():
            words = "no connection in time: is the host up, and does a firewall let us through?"
            return words, FailureKind.NO_CONNECTION
        case failures.Timeout():
            return "no answer in time; see the server's log", FailureKind.NO_RESPONSE
        case failures.ConnectionError():
            return _no_connection(error)
        case failures.ChunkedEncodingError():
            return _broken(error), FailureKind.ASSOCIATION_ABORTED
    return f"not an HTTP exchange ({type(error).__name__}); is that a web server?", FailureKind.NO_DICOMWEB


def _no_connection(error: failures.ConnectionError) -> tuple[str, FailureKind]:
    said = str(error)
    if "refused" in said:
        words = "connection refused: nothing listens there; start the server or correct the port"
    elif "resolve" in said or "Name or service" in said:
        words = "the host name is not known; correct it or the name service"
    else:
        words = _broken(error)
    # one that was there and broke may be about the object; not one that did not come about
    broke = any(word in said for word in ("reset", "aborted", "Broken pipe", "RemoteDisconnected"))
    return words, FailureKind.ASSOCIATION_ABORTED if broke else FailureKind.NO_CONNECTION


def _broken(error: BaseException) -> str:
    return f"the connection broke ({_last_cause(error)}); see the server's log"


def _last_cause(error: BaseException) -> str:
    """The innermost reason, as in "Connection reset by peer"."""
    found = re.findall(r"(?:\[Errno \d+\] |, ')([A-Za-z][^'\"()\[\]]+)", str(error))
    return found[-1].strip() if found else type(error).__name__


# ---------------------------------------------------------------------------------------------------------- TLS

# By OpenSSL's number (X509_STORE_CTX_get_error(3))
_UNTRUSTED = "is of an authority that is not trusted here; give the authority's certificate by --ca-file"
_OTHER_HOST = "is not for the host {host}; give the URL with the name that it is for, or have it renewed"
_VERIFICATION: dict[int, str] = {
    9: "is not valid yet; are both clocks right?",
    10: "has expired; renew it at the server",
    18: _UNTRUSTED,
    19: _UNTRUSTED,
    20: _UNTRUSTED,
    21: _UNTRUSTED,
    23: "is revoked; renew it at the server",
    62: _OTHER_HOST,
    64: _OTHER_HOST,
}
# Alerts about what we showed, or did not (RFC 8446 6.2), and what our own files lack, by OpenSSL's reason
_NO_PEM = "a file of certificates or keys is no PEM file of them; correct --client-certificate or --ca-file"
_OF_OUR_CERTIFICATE: tuple[tuple[str, str], ...] = (
    ("CERTIFICATE_REQUIRED", _NO_CERTIFICATE),
    ("HANDSHAKE_FAILURE", "the server ended the TLS handshake: does it want a client certificate?"),
    ("ALERT_UNKNOWN_CA", _CERTIFICATE_REFUSED),
    ("ALERT_BAD_CERTIFICATE", _CERTIFICATE_REFUSED),
    ("ALERT_CERTIFICATE", _CERTIFICATE_REFUSED),
    ("ALERT_UNSUPPORTED_CERTIFICATE", _CERTIFICATE_REFUSED),
    ("ALERT_ACCESS_DENIED", _CERTIFICATE_REFUSED),
    ("ALERT_DECRYPT_ERROR", _CERTIFICATE_REFUSED),
    ("NO_CERTIFICATE_OR_CRL_FOUND", _NO_PEM),
    ("PEM lib", _NO_PEM),
    ("KEY_VALUES_MISMATCH", "the client key is not that of the client certificate; correct --client-key"),
)
_NO_TLS_THERE = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})
_NO_COMMON_TLS = ("PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE")


def _no_tls(error: failures.SSLError, host: str) -> tuple[str, FailureKind]:
    found = next(_ssl_errors(error), None)
    reason = (found.reason or str(found)) if found is not None else ""
    if isinstance(found, ssl.SSLCertVerificationError):
        words = _VERIFICATION.get(found.verify_code, f"cannot be checked: {found.verify_message}")
        return f"no TLS connection: the server's certificate {words.format(host=host)}", FailureKind.TLS
    for part, words in _OF_OUR_CERTIFICATE:
        if part in reason:
            return f"no TLS connection: {words}", FailureKind.CREDENTIALS
    if reason in _NO_TLS_THERE:
        return "no TLS connection: that port speaks no TLS; correct the port, or http:// in the URL", FailureKind.TLS
    if any(part in reason for part in _NO_COMMON_TLS):
        return "no TLS connection: we have no version of TLS in common", FailureKind.TLS
    if "password is required" in str(error):
        return "the client key is encrypted; give one that is not", FailureKind.CREDENTIALS
    if isinstance(found, ssl.SSLEOFError):  # in the middle, so it may be about the object
        words = "the server ended the TLS connection: does it want another client certificate? see its log"
        return words, FailureKind.ASSOCIATION_ABORTED
    told = reason.replace("_", " ").lower() or _last_cause(error)
    return f"no TLS connection ({told}); see the server's log", FailureKind.TLS


def _ssl_errors(error: BaseException) -> Iterator[ssl.SSLError]:
    """Those of the standard library within: urllib3 and requests wrap them as arguments and reasons."""
    for inner in (*error.args, getattr(error, "reason", None)):
        if isinstance(inner, ssl.SSLError):
            yield inner
        elif isinstance(inner, Exception):
            yield from _ssl_errors(inner)
