"""What a peer's refusals mean, and what to do about them, in words (PS3.8 9.3)."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from pynetdicom.presentation import PresentationContext

# A-ASSOCIATE-RJ by (source, reason): words, and whether waiting can help (PS3.8 Table 9-21). The result field
# says permanent of a wrong AE title; an administrator mends that at the peer while the results wait.
_REJECTIONS: dict[tuple[int, int], tuple[str, bool]] = {
    (1, 1): ("no reason given; see the peer's log", True),
    (1, 2): ("application context name not supported; is that a DICOM server?", False),
    (1, 3): ("it does not know our AE title {calling!r}; register this node at the peer", True),
    (1, 7): ("it does not have that AE title; correct the destination or the peer", True),
    (2, 1): ("no reason given by its association service; see the peer's log", True),
    (2, 2): ("protocol version not supported", False),
    (3, 1): ("temporary congestion", True),
    (3, 2): ("it has too many associations open", True),
}

# A-ABORT by reason, when the service provider aborted (PS3.8 Table 9-26)
_ABORT_REASONS = {
    1: "unrecognised PDU",
    2: "unexpected PDU",
    4: "unrecognised PDU parameter",
    5: "unexpected PDU parameter",
    6: "invalid PDU parameter value",
}

# Presentation context results (PS3.8 Table 9-18)
_CONTEXT_RESULTS = {
    1: "by choice",
    2: "without a reason",
    3: "as it does not store this kind of object",
    4: "as it does not know their transfer syntaxes",
}


def rejection_words(source: int | None, reason: int | None, calling_ae_title: str) -> tuple[str, bool]:
    """Words for an A-ASSOCIATE-RJ, and whether trying again can help."""
    words, retryable = _REJECTIONS.get(
        (source or 0, reason or 0), (f"source {source}, reason {reason}; see the peer's log", True)
    )
    return f"rejected the association: {words.format(calling=calling_ae_title)}", retryable


def abort_words(source: int | None, reason: int | None) -> str:
    """Words for an A-ABORT; the service user gives no reason (PS3.8 9.3.8)."""
    if source == 2 and reason in _ABORT_REASONS:
        return f"aborted the association: {_ABORT_REASONS[reason]}; see the peer's log"
    return "aborted the association; see the peer's log"


def context_words(rejected: Sequence[PresentationContext]) -> str:
    """Words for presentation contexts of one SOP class, none of which the peer took."""
    if not rejected:
        return "accepted no presentation context"
    name = rejected[0].abstract_syntax.name if rejected[0].abstract_syntax else "the object"
    reasons = sorted({_CONTEXT_RESULTS.get(context.result or 0, "in a way of its own") for context in rejected})
    syntaxes = ", ".join(context.transfer_syntax[0].name for context in rejected)
    return f"does not accept {name} ({syntaxes}), {' and '.join(reasons)}; enable it at the peer"


def no_connection_words(error: OSError) -> str:
    """Words for a TCP connection that did not come about."""
    match error:
        case ConnectionRefusedError():
            return "connection refused: nothing listens there; start the peer or correct the port"
        case TimeoutError():
            return "no connection in time: is the host up, and does a firewall let us through?"
        case socket.gaierror():
            return "the host name is not known; correct it or the name service"
    return f"no connection: {error.strerror or type(error).__name__}; is the host up and the network fine?"
